package repo

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// A manifest is a stream of JSON records, one a line, in this order: one Info,
// the files (FileEntry), the packs with their frames (PackEntry), one end
// record. It is laid out by pack and not by file, so that a restore works
// through it as it comes, fetching each pack once, and an incremental backup
// is a filter over the manifest before it; neither holds the extents of the
// whole database in memory.

// Info is the first record of a manifest: what a backup is, without what is
// in it. It stands in an object of its own as well, so that listing backups
// is cheap.
type Info struct {
	Format     int                  `json:"format"`
	Label      string               `json:"label"`
	Cluster    string               `json:"cluster"`
	Repository string               `json:"repository"`
	System     postgres.SystemID    `json:"system"`
	Timeline   postgres.Timeline    `json:"timeline"`
	StartLSN   postgres.LSN         `json:"start_lsn"` // redo point: recovery begins here
	StopLSN    postgres.LSN         `json:"stop_lsn"`  // consistent from here on
	StartTime  time.Time            `json:"start_time"`
	StopTime   time.Time            `json:"stop_time"` // by the clock of the database server
	Host       string               `json:"host"`
	Program    string               `json:"program"`    // which version of Lifeboat wrote it
	PGVersion  int                  `json:"pg_version"` // server_version_num
	Catalog    uint32               `json:"catalog_version"`
	SegSize    postgres.SegmentSize `json:"wal_segment_size"`
	BlockSize  int                  `json:"block_size"`
	Checksums  bool                 `json:"checksums"`

	BackupLabel   string       `json:"backup_label"`             // the file, as the server gave it
	TablespaceMap string       `json:"tablespace_map,omitempty"` // the file, as the server gave it
	Tablespaces   []Tablespace `json:"tablespaces,omitempty"`
	Owner         string       `json:"owner,omitempty"` // of the data directory
	Group         string       `json:"group,omitempty"`

	// Settings are the server's values of those that recovery depends on and
	// of config_file, hba_file, ident_file and shared_preload_libraries.
	Settings map[string]string `json:"settings,omitempty"`

	// What was read again and what was taken over from an older backup. All of
	// it is for people and for the next backup; a restore needs none of it.
	Source       string     `json:"source,omitempty"`        // the very data directory: host, and what tells it from a copy
	Base         string     `json:"base,omitempty"`          // label of the backup whose pages were taken over; "" for a full one
	Changes      string     `json:"changes,omitempty"`       // how changed pages were known; one of the Changes constants
	ChangesWhy   string     `json:"changes_why,omitempty"`   // why not in a cheaper way
	ReadBytes    int64      `json:"read_bytes,omitempty"`    // read from the data directory
	ChangedBytes int64      `json:"changed_bytes,omitempty"` // raw bytes in the packs that this backup stored
	Ages         []AgeBytes `json:"ages,omitempty"`          // raw bytes by the age of their packs, oldest first
	Recipients   []string   `json:"recipients,omitempty"`    // who can open all of its packs; see Repo.RecipientIDs

	Files       int64     `json:"files"`
	Packs       int64     `json:"packs"`
	Frames      int64     `json:"frames"`
	RawBytes    int64     `json:"raw_bytes"`           // what a restore writes
	StoredBytes int64     `json:"stored_bytes"`        // of the packs that are referred to
	NewBytes    int64     `json:"new_bytes"`           // of the packs that this backup stored
	BadPages    []BadPage `json:"bad_pages,omitempty"` // at most MaxBadPages
	BadCount    int64     `json:"bad_count,omitempty"` // all of them
}

// check refuses figures that a reader could not act on.
func (i Info) check() error {
	switch {
	case !i.SegSize.Valid():
		return fmt.Errorf("WAL segments of %d bytes", i.SegSize)
	case i.BlockSize < 1<<10 || i.BlockSize > 1<<15 || i.BlockSize&(i.BlockSize-1) != 0:
		return fmt.Errorf("blocks of %d bytes", i.BlockSize)
	case i.Timeline == 0 || i.StopLSN < i.StartLSN:
		return fmt.Errorf("timeline %d from %s to %s", i.Timeline, i.StartLSN, i.StopLSN)
	case i.Files < 0 || i.Packs < 0 || i.Frames < 0 || i.RawBytes < 0 || i.StoredBytes < 0 || i.NewBytes < 0 || i.BadCount < 0:
		return errors.New("a negative count")
	case i.Files > maxFiles:
		return tooManyFiles(i.Files)
	case len(i.BadPages) > MaxBadPages || int64(len(i.BadPages)) > i.BadCount:
		return fmt.Errorf("%d bad pages of %d", len(i.BadPages), i.BadCount)
	}
	seen := make(map[uint32]bool)
	for _, t := range i.Tablespaces {
		if err := t.Check(); err != nil {
			return err
		}
		if seen[t.OID] {
			return fmt.Errorf("tablespace %d is there twice", t.OID)
		}
		seen[t.OID] = true
	}
	return nil
}

// How a backup knew which pages had changed since its base.
const (
	ChangesFull         = "full"          // it has no base: everything was read
	ChangesWALSummaries = "wal_summaries" // PostgreSQL's own, from 17 on
	ChangesBlocks       = "blocks"        // block summaries of the archived WAL
	ChangesScan         = "scan"          // every page was read for its LSN
)

// AgeBytes is how many raw bytes of a backup lie in packs that were stored on
// one day.
type AgeBytes struct {
	Day   int   `json:"day"` // days since 1970-01-01, UTC
	Bytes int64 `json:"bytes"`
}

// MaxBadPages is how many bad pages a manifest names one by one.
const MaxBadPages = 1000

// Tablespace is one outside the data directory, or in place inside it.
type Tablespace struct {
	OID     uint32 `json:"oid"`
	Path    string `json:"path"` // where its symbolic link points; "" when in place
	InPlace bool   `json:"in_place,omitempty"`
}

// BadPage is a page whose checksum did not hold, also on being read again.
type BadPage struct {
	Path  string `json:"path"`
	Block uint32 `json:"block"` // within the relation
	Want  uint16 `json:"want"`  // computed
	Have  uint16 `json:"have"`  // in the page
}

// MarshalJSON implements json.Marshaler, as FileEntry does.
func (t Tablespace) MarshalJSON() ([]byte, error) {
	r := tablespaceRecord{tablespaceFields: tablespaceFields(t)}
	r.Path, r.PathHex = hexPath(t.Path)
	return json.Marshal(r)
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Tablespace) UnmarshalJSON(b []byte) error {
	var r tablespaceRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	*t = Tablespace(r.tablespaceFields)
	return unhexPath(&t.Path, r.PathHex)
}

type tablespaceFields Tablespace

type tablespaceRecord struct {
	tablespaceFields
	PathHex string `json:"path_hex,omitempty"`
}

// Check refuses a tablespace that no server has.
func (t Tablespace) Check() error {
	switch {
	case t.OID == 0:
		return errors.New("a tablespace without an OID")
	case t.InPlace && t.Path == "":
		return nil
	case t.InPlace, !path.IsAbs(t.Path), path.Clean(t.Path) != t.Path, t.Path == "/", strings.ContainsRune(t.Path, 0):
		return fmt.Errorf("tablespace %d lies at %.200q", t.OID, t.Path)
	}
	return nil
}

// FileType tells the two things apart that a data directory holds. Symbolic
// links are none of them: those of tablespaces stand in Info, pg_wal is the
// restorer's choice, and what others lead to is backed up in their place. So
// no manifest can lead a restore through a link.
type FileType string

const (
	Regular FileType = "file"
	Dir     FileType = "dir"
)

// FileEntry is a file or a directory. Tablespaces lie under pg_tblspc/<oid>/,
// wherever their directory really is.
type FileEntry struct {
	Type    FileType  `json:"type"`
	Path    string    `json:"path"` // relative to the data directory, with slashes
	Mode    uint32    `json:"mode"` // permission bits
	Size    int64     `json:"size,omitempty"`
	ModTime time.Time `json:"mtime,omitzero"`

	// For the next backup, which must know whether this is the same file with
	// the same content. A restore needs neither.
	ID  string `json:"id,omitempty"`  // which file of its file system; see package backup
	Sum string `json:"sum,omitempty"` // of the content; see package backup
}

// MarshalJSON implements json.Marshaler. A name that is not UTF-8, which JSON
// cannot hold, stands in hexadecimal digits in path_hex.
func (f FileEntry) MarshalJSON() ([]byte, error) {
	r := fileRecord{fileFields: fileFields(f)}
	r.Path, r.PathHex = hexPath(f.Path)
	return json.Marshal(r)
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *FileEntry) UnmarshalJSON(b []byte) error {
	var r fileRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	*f = FileEntry(r.fileFields)
	return unhexPath(&f.Path, r.PathHex)
}

type fileFields FileEntry

type fileRecord struct {
	fileFields
	PathHex string `json:"path_hex,omitempty"`
}

func hexPath(p string) (text, digits string) {
	if utf8.ValidString(p) {
		return p, ""
	}
	return "", hex.EncodeToString([]byte(p))
}

func unhexPath(p *string, digits string) error {
	if digits == "" {
		return nil
	}
	b, err := hex.DecodeString(digits)
	if err != nil || *p != "" || utf8.Valid(b) {
		return errors.New("path_hex is not the only name, or not hexadecimal digits, or not needed")
	}
	*p = string(b)
	return nil
}

// Check refuses an entry that could lead a restore out of its directory.
func (f FileEntry) Check() error {
	switch {
	case f.Type != Regular && f.Type != Dir:
		return fmt.Errorf("file %.200q is of unknown type %.20q", f.Path, f.Type)
	case f.Path == "" || f.Path == "." || path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == ".." || strings.HasPrefix(f.Path, "../") || strings.ContainsRune(f.Path, 0):
		return fmt.Errorf("file path %.200q leads out of the data directory", f.Path)
	case strings.HasPrefix(f.Path, "pg_tblspc/") && !postgres.TablespacePath(f.Path):
		return fmt.Errorf("file path %.200q is none that a tablespace has", f.Path)
	case f.Mode&^0o777 != 0 || f.Size < 0 || f.Type == Dir && f.Size != 0:
		return fmt.Errorf("file %.200q has mode %o and size %d", f.Path, f.Mode, f.Size)
	}
	return nil
}

// Span is a run of bytes of a file and where in a frame they are: the numbers
// stand in JSON as [file, offset in the file, offset in the frame, length].
// The spans of a manifest fill each byte of each file exactly once.
type Span struct {
	File int   // index among the file records, from 0
	Off  int64 // in the file
	At   int   // in the raw bytes of the frame
	Len  int
}

// MarshalJSON implements json.Marshaler.
func (s Span) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%d,%d,%d]", s.File, s.Off, s.At, s.Len), nil
}

// UnmarshalJSON implements json.Unmarshaler. It takes four numbers and nothing
// else; the library would fill up a shorter list and cut off a longer one.
func (s *Span) UnmarshalJSON(b []byte) error {
	var n [4]int64
	rest, ok := bytes.CutPrefix(b, []byte("["))
	for i := range n {
		number, after, found := bytes.Cut(rest, []byte(","))
		if i == 3 {
			number, found = bytes.CutSuffix(rest, []byte("]"))
		}
		v, err := strconv.ParseInt(string(number), 10, 64)
		if !ok || !found || err != nil || v < 0 || v > math.MaxInt {
			return fmt.Errorf("%.100q is not a span of four numbers", b)
		}
		n[i], rest = v, after
	}
	*s = Span{int(n[0]), n[1], int(n[2]), int(n[3])}
	return nil
}

// FrameEntry is a frame and the spans of files that are restored from it.
type FrameEntry struct {
	FrameRef
	To []Span `json:"to"`
}

// maxDay is in the year 2328: days are kept one by one.
const maxDay = 1 << 17

// PackEntry is a pack and its frames that are needed, in ascending order.
type PackEntry struct {
	PackRef
	Day    int          `json:"day,omitempty"` // when it was stored: days since 1970-01-01, UTC
	Frames []FrameEntry `json:"frames"`
}

// FileSizes are the sizes of files by their numbers; -1 where there is no regular file.
type FileSizes interface{ Size(i int) int64 }

// Check refuses an entry that a restore could not act on safely; files are the
// entries before it.
func (p PackEntry) Check(files FileSizes) error {
	if err := p.checkFrames(); err != nil {
		return err
	}
	for _, f := range p.Frames {
		for _, s := range f.To {
			if size := files.Size(s.File); size < 0 || s.Off > size-int64(s.Len) {
				return fmt.Errorf("pack %s: the frame at %d has the span %v, which fits no file", p.ID, f.At, s)
			}
		}
	}
	return nil
}

// checkFrames checks what can be without the files. No sum here can overflow:
// it is compared by taking away, from what is known to be small.
func (p PackEntry) checkFrames() error {
	if err := p.PackRef.Check(); err != nil {
		return err
	}
	if p.Day < 0 || p.Day > maxDay {
		return fmt.Errorf("pack %s was stored on day %d", p.ID, p.Day)
	}
	if len(p.Frames) == 0 || len(p.Frames) > packFrames {
		return fmt.Errorf("pack %s has %d frames, 1 to %d are allowed", p.ID, len(p.Frames), packFrames)
	}
	var end int64
	spans := 0
	for _, f := range p.Frames {
		if spans += len(f.To); spans > maxSpans {
			return errTooManySpans
		}
		if err := p.checkOrder(f.FrameRef, end); err != nil {
			return err
		}
		end = f.At + int64(f.Len)
		if len(f.To) == 0 {
			return fmt.Errorf("pack %s: nothing is restored from the frame at %d", p.ID, f.At)
		}
		for _, s := range f.To {
			if s.File < 0 || s.File >= maxFiles || s.Off < 0 || s.At < 0 || s.Len <= 0 || s.Len > f.Raw || s.At > f.Raw-s.Len {
				return fmt.Errorf("pack %s: the frame at %d has the span %v, which fits no frame", p.ID, f.At, s)
			}
		}
	}
	return nil
}

// endRecord is the last one: a manifest without it is cut short.
type endRecord struct {
	End   bool  `json:"end"`
	Files int64 `json:"files"`
	Packs int64 `json:"packs"`
}
