package postgres

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// The names under which a base backup keeps what pg_backup_stop returned, in
// the data directory. Recovery of a backup without its label starts at the
// wrong place and yields a damaged cluster.
const (
	BackupLabelFile   = "backup_label"
	TablespaceMapFile = "tablespace_map"
)

// BackupLabel is what a backup_label file says, or a backup history file,
// which adds the fields of the stop.
type BackupLabel struct {
	Start         LSN    // redo of the checkpoint; replay begins here
	StartSegment  string // the name of the segment that holds Start
	StartTimeline Timeline
	Checkpoint    LSN    // of the checkpoint record
	Method        string // "streamed"
	From          string // "primary" or "standby"
	StartTime     string // as the server wrote it, in its log_timezone
	Label         string

	// From PostgreSQL 17 on, and only for an incremental backup, which
	// recovery refuses until pg_combinebackup has made it whole.
	IncrementalFrom         LSN
	IncrementalFromTimeline Timeline

	// In a backup history file only.
	Stop         LSN
	StopSegment  string
	StopTimeline Timeline
	StopTime     string
}

// FromStandby says whether the backup was taken from a server in recovery.
func (l BackupLabel) FromStandby() bool { return l.From == "standby" }

// ParseBackupLabel reads the text that pg_backup_stop returns for backup_label,
// or a backup history file of the archive (build_backup_content in
// access/transam/xlogbackup.c; read_backup_label in xlogrecovery.c).
// The two LSNs and the segment must be there; each line that is known must be
// well formed and stand there once. Other lines are passed over. An error names
// the line, never its value.
func ParseBackupLabel(data []byte) (BackupLabel, error) {
	var l BackupLabel
	seen := map[string]bool{}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		key, value, ok := strings.Cut(strings.TrimRight(string(line), "\r\n"), ": ")
		if !ok {
			continue
		}
		known, err := l.set(key, value)
		if err == nil && known && seen[key] {
			// A label with a newline in it can pretend to be other lines.
			err = fmt.Errorf("%w: it is there twice", ErrFormat)
		}
		if err != nil {
			return BackupLabel{}, fmt.Errorf("backup label, line %d, %s: %w", n, key, err)
		}
		if known {
			seen[key] = true
		}
	}
	if l.Start == 0 || l.Checkpoint == 0 {
		return BackupLabel{}, fmt.Errorf("%w: backup label without %q and %q", ErrFormat,
			"START WAL LOCATION", "CHECKPOINT LOCATION")
	}
	if err := l.checkTimeline(); err != nil {
		return BackupLabel{}, err
	}
	return l, nil
}

func (l *BackupLabel) set(key, value string) (known bool, err error) {
	switch key {
	case "START WAL LOCATION":
		l.Start, l.StartSegment, err = parseWALLocation(value)
	case "STOP WAL LOCATION":
		l.Stop, l.StopSegment, err = parseWALLocation(value)
	case "CHECKPOINT LOCATION":
		l.Checkpoint, err = ParseLSN(value)
	case "BACKUP METHOD":
		l.Method = value
	case "BACKUP FROM":
		l.From = value
	case "START TIME":
		l.StartTime = value
	case "STOP TIME":
		l.StopTime = value
	case "LABEL":
		l.Label = value
	case "START TIMELINE":
		l.StartTimeline, err = ParseTimeline(value)
	case "STOP TIMELINE":
		l.StopTimeline, err = ParseTimeline(value)
	case "INCREMENTAL FROM LSN":
		l.IncrementalFrom, err = ParseLSN(value)
	case "INCREMENTAL FROM TLI":
		l.IncrementalFromTimeline, err = ParseTimeline(value)
	default:
		return false, nil
	}
	if err != nil { // the error of a parser quotes what it was given
		err = fmt.Errorf("%w: the value is not of its form", ErrFormat)
	}
	return true, err
}

// parseWALLocation reads "0/2000028 (file 000000010000000000000002)".
func parseWALLocation(s string) (LSN, string, error) {
	pos, file, ok := strings.Cut(s, " (file ")
	name, closed := strings.CutSuffix(file, ")")
	if _, _, _, isSegment := splitSegmentName(name); !ok || !closed || !isSegment {
		return 0, "", ErrFormat
	}
	lsn, err := ParseLSN(pos)
	return lsn, name, err
}

// checkTimeline holds the timeline of the segment's name against the line
// that names it, as recovery does, and fills it in where the line is missing.
func (l *BackupLabel) checkTimeline() error {
	tl, _, _, _ := splitSegmentName(l.StartSegment)
	if l.StartTimeline == 0 {
		l.StartTimeline = tl
	}
	if l.StartTimeline != tl {
		return fmt.Errorf("%w: backup label starts on timeline %d in segment %s, which is of timeline %d",
			ErrFormat, l.StartTimeline, l.StartSegment, tl)
	}
	return nil
}

// TablespaceLink is one line of a tablespace_map file: the link that a restore
// makes under pg_tblspc.
type TablespaceLink struct {
	OID  uint32
	Path string // absolute; or pg_tblspc/OID for a tablespace in place
}

// ParseTablespaceMap reads the text that pg_backup_stop returns for
// tablespace_map: lines of OID, blank, path, in which a backslash makes a
// newline, a carriage return or a backslash part of the path
// (read_tablespace_map in access/transam/xlogrecovery.c).
func ParseTablespaceMap(data []byte) ([]TablespaceLink, error) {
	var links []TablespaceLink
	var line []byte
	flush := func() error {
		// read_tablespace_map takes \r\n for the end of one line.
		if len(line) == 0 {
			return nil
		}
		oid, path, ok := strings.Cut(string(line), " ")
		line = line[:0]
		n, isOID := parseOID(oid)
		if !ok || !isOID || path == "" || strings.IndexByte(path, 0) >= 0 {
			return fmt.Errorf("%w: tablespace map line %d is not an OID and a path", ErrFormat, len(links)+1)
		}
		links = append(links, TablespaceLink{OID: n, Path: path})
		return nil
	}
	for i := 0; i < len(data); i++ {
		switch c := data[i]; c {
		case '\n', '\r':
			if err := flush(); err != nil {
				return nil, err
			}
		case '\\':
			if i+1 == len(data) {
				return nil, fmt.Errorf("%w: tablespace map ends in a backslash", ErrFormat)
			}
			i++
			line = append(line, data[i])
		default:
			line = append(line, c)
		}
	}
	if len(line) > 0 {
		return nil, fmt.Errorf("%w: tablespace map ends within a line", ErrFormat)
	}
	return links, nil
}

// MarshalTablespaceMap is the text of a tablespace_map file, as the server
// writes it. ParseTablespaceMap of it yields the links again.
func MarshalTablespaceMap(links []TablespaceLink) []byte {
	var b bytes.Buffer
	for _, l := range links {
		b.WriteString(strconv.FormatUint(uint64(l.OID), 10))
		b.WriteByte(' ')
		for i := range len(l.Path) {
			switch c := l.Path[i]; c {
			case '\n', '\r', '\\':
				b.WriteByte('\\')
			}
			b.WriteByte(l.Path[i])
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
