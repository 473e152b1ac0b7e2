package postgres

import (
	"fmt"
	"strings"
)

// SegmentSize is the size of a WAL segment in bytes, fixed by initdb
// --wal-segsize. DefaultSegmentSize is what initdb takes when not told.
type SegmentSize int64

// The sizes that PostgreSQL accepts (WalSegMinSize and WalSegMaxSize in
// access/xlog_internal.h) and its default.
const (
	MinSegmentSize     SegmentSize = 1 << 20
	MaxSegmentSize     SegmentSize = 1 << 30
	DefaultSegmentSize SegmentSize = 16 << 20
)

// Valid says whether s is a power of two from 1 MiB to 1 GiB.
func (s SegmentSize) Valid() bool {
	return s >= MinSegmentSize && s <= MaxSegmentSize && s&(s-1) == 0
}

// perXLogID is the number of segments in 4 GiB of WAL, the run that shares the
// middle eight digits of a segment name.
func (s SegmentSize) perXLogID() uint64 { return uint64(1) << 32 / uint64(s) }

// Offset is the position of lsn within its segment, in bytes.
func (s SegmentSize) Offset(lsn LSN) int64 { return int64(lsn & LSN(s-1)) }

// Segment is one WAL segment of one timeline. Size must be valid; No counts
// segments of that size from the start of the WAL.
type Segment struct {
	Timeline Timeline
	No       uint64
	Size     SegmentSize
}

// SegmentAt is the segment that holds the byte at lsn (XLByteToSeg).
func SegmentAt(tl Timeline, lsn LSN, size SegmentSize) Segment {
	return Segment{Timeline: tl, No: uint64(lsn) / uint64(size), Size: size}
}

// SegmentEndingAt is the segment that holds the last byte before lsn
// (XLByteToPrevSeg): the one that must be archived so that all WAL up to lsn
// is. lsn must not be zero.
func SegmentEndingAt(tl Timeline, lsn LSN, size SegmentSize) Segment {
	return SegmentAt(tl, lsn-1, size)
}

// Name is the 24-digit file name (XLogFileName): timeline, then the number of
// 4 GiB runs, then the number within the run, eight hexadecimal digits each.
// With 16 MiB segments the last part goes from 00000000 to 000000FF.
func (s Segment) Name() string {
	per := s.Size.perXLogID()
	return fmt.Sprintf("%08X%08X%08X", uint32(s.Timeline), s.No/per, s.No%per)
}

// Start is the LSN of the segment's first byte.
func (s Segment) Start() LSN { return LSN(s.No * uint64(s.Size)) }

// End is the LSN just past the segment's last byte.
func (s Segment) End() LSN { return s.Start() + LSN(s.Size) }

// Next is the segment that follows on the same timeline.
func (s Segment) Next() Segment {
	s.No++
	return s
}

// String is Name.
func (s Segment) String() string { return s.Name() }

// ParseSegment reads a segment's file name. The name alone does not tell the
// size; a name that cannot occur with this size is refused, as it is one of a
// cluster with smaller segments.
func ParseSegment(name string, size SegmentSize) (Segment, error) {
	if !size.Valid() {
		return Segment{}, fmt.Errorf("%w: WAL segment size %d is not a power of two from 1 MiB to 1 GiB", ErrFormat, size)
	}
	tl, hi, lo, ok := splitSegmentName(name)
	if !ok {
		return Segment{}, fmt.Errorf("%w: %q is not the name of a WAL segment", ErrFormat, name)
	}
	per := size.perXLogID()
	if uint64(lo) >= per {
		return Segment{}, fmt.Errorf("%w: %q cannot be a segment of %d bytes: its last eight digits end at %08X",
			ErrFormat, name, size, per-1)
	}
	return Segment{Timeline: tl, No: uint64(hi)*per + uint64(lo), Size: size}, nil
}

// splitSegmentName reads 24 upper-case hexadecimal digits (IsXLogFileName).
func splitSegmentName(name string) (tl Timeline, hi, lo uint32, ok bool) {
	if len(name) != 24 || !isUpperHex(name) {
		return 0, 0, 0, false
	}
	t, _ := parseHex32(name[:8])
	hi, _ = parseHex32(name[8:16])
	lo, _ = parseHex32(name[16:])
	// No segment is smaller than 1 MiB, so no last part exceeds FFF.
	if t == 0 || uint64(lo) >= MinSegmentSize.perXLogID() {
		return 0, 0, 0, false
	}
	return Timeline(t), hi, lo, true
}

func isUpperHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// WALKind is a kind of file that PostgreSQL hands to archive_command.
type WALKind int

// The kinds, and by what their names end.
const (
	WALSegment WALKind = iota + 1 // 24 digits
	WALPartial                    // 24 digits and .partial: the last of an old timeline
	WALHistory                    // 8 digits and .history
	WALBackup                     // 24 digits, a dot, 8 digits and .backup
)

func (k WALKind) String() string {
	switch k {
	case WALSegment:
		return "WAL segment"
	case WALPartial:
		return "partial WAL segment"
	case WALHistory:
		return "timeline history file"
	case WALBackup:
		return "backup history file"
	}
	return fmt.Sprintf("WAL kind %d", int(k))
}

// WALName is the parsed name of a file of the WAL archive.
type WALName struct {
	Kind     WALKind
	Timeline Timeline
	Segment  string // the 24 digits; empty for a timeline history file
	Offset   uint32 // of the backup's start within its segment; WALBackup only
}

// ParseWALName reads the name of a file that can be in the WAL archive, and
// refuses everything else: other words, lower case, any directory before it.
func ParseWALName(name string) (WALName, error) {
	head, rest, _ := strings.Cut(name, ".")
	bad := fmt.Errorf("%w: %q is not the name of a WAL file", ErrFormat, name)
	if len(head) == 8 && rest == "history" && isUpperHex(head) {
		t, _ := parseHex32(head)
		if t == 0 {
			return WALName{}, bad
		}
		return WALName{Kind: WALHistory, Timeline: Timeline(t)}, nil
	}
	tl, _, _, ok := splitSegmentName(head)
	if !ok {
		return WALName{}, bad
	}
	n := WALName{Kind: WALSegment, Timeline: tl, Segment: head}
	switch {
	case name == head:
	case rest == "partial":
		n.Kind = WALPartial
	case len(rest) == len("00000028.backup") && rest[8:] == ".backup" && isUpperHex(rest[:8]):
		n.Kind = WALBackup
		n.Offset, _ = parseHex32(rest[:8])
	default:
		return WALName{}, bad
	}
	return n, nil
}

// String is the file name that was parsed.
func (n WALName) String() string {
	switch n.Kind {
	case WALHistory:
		return n.Timeline.HistoryName()
	case WALPartial:
		return n.Segment + ".partial"
	case WALBackup:
		return fmt.Sprintf("%s.%08X.backup", n.Segment, n.Offset)
	}
	return n.Segment
}

// BackupHistoryName is the name of the backup history file of a backup that
// started at lsn (BackupHistoryFileName).
func BackupHistoryName(tl Timeline, start LSN, size SegmentSize) string {
	return fmt.Sprintf("%s.%08X.backup", SegmentAt(tl, start, size).Name(), size.Offset(start))
}
