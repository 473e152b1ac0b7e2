package repo

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

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

	Files       int64     `json:"files"`
	Packs       int64     `json:"packs"`
	Frames      int64     `json:"frames"`
	RawBytes    int64     `json:"raw_bytes"`           // what a restore writes
	StoredBytes int64     `json:"stored_bytes"`        // of the packs that are referred to
	NewBytes    int64     `json:"new_bytes"`           // of the packs that this backup stored
	BadPages    []BadPage `json:"bad_pages,omitempty"` // at most MaxBadPages
	BadCount    int64     `json:"bad_count,omitempty"` // all of them
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

// FileType tells the three things apart that a data directory holds.
type FileType string

const (
	Regular FileType = "file"
	Dir     FileType = "dir"
	Link    FileType = "link"
)

// FileEntry is a file, folder or symbolic link. Tablespaces lie under
// pg_tblspc/<oid>/, wherever their folder really is.
type FileEntry struct {
	Type    FileType  `json:"type"`
	Path    string    `json:"path"` // relative to the data directory, with slashes
	Mode    uint32    `json:"mode"` // permission bits
	Size    int64     `json:"size,omitempty"`
	ModTime time.Time `json:"mtime,omitzero"`
	Target  string    `json:"target,omitempty"` // of a link
}

// Check refuses an entry that could lead a restore out of its folder.
func (f FileEntry) Check() error {
	switch {
	case f.Type != Regular && f.Type != Dir && f.Type != Link:
		return fmt.Errorf("file %.200q is of unknown type %.20q", f.Path, f.Type)
	case f.Path == "" || path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == ".." || strings.HasPrefix(f.Path, "../") || strings.ContainsRune(f.Path, 0):
		return fmt.Errorf("file path %.200q leads out of the data directory", f.Path)
	case f.Mode&^0o777 != 0 || f.Size < 0:
		return fmt.Errorf("file %.200q has mode %o and size %d", f.Path, f.Mode, f.Size)
	}
	return nil
}

// Span is a run of bytes of a file and where in a frame they are: the numbers
// stand in JSON as [file, offset in the file, offset in the frame, length].
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

// UnmarshalJSON implements json.Unmarshaler.
func (s *Span) UnmarshalJSON(b []byte) error {
	var n [4]int64
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	*s = Span{int(n[0]), n[1], int(n[2]), int(n[3])}
	return nil
}

// FrameEntry is a frame and the spans of files that are restored from it.
type FrameEntry struct {
	FrameRef
	To []Span `json:"to"`
}

// PackEntry is a pack and its frames that are needed, in ascending order.
type PackEntry struct {
	PackRef
	Frames []FrameEntry `json:"frames"`
}

// Check refuses an entry that a restore could not act on safely; files are the
// entries before it.
func (p PackEntry) Check(files []FileEntry) error {
	if err := p.PackRef.Check(); err != nil {
		return err
	}
	var end int64
	for _, f := range p.Frames {
		if err := f.Check(); err != nil {
			return err
		}
		if f.At < end {
			return fmt.Errorf("pack %s: frames overlap or are out of order at %d", p.ID, f.At)
		}
		end = f.At + int64(f.Len)
		for _, s := range f.To {
			if s.File < 0 || s.File >= len(files) || files[s.File].Type != Regular || s.Off < 0 || s.At < 0 || s.Len <= 0 ||
				s.At+s.Len > f.Raw || s.Off+int64(s.Len) > files[s.File].Size {
				return fmt.Errorf("pack %s: frame at %d has the span %v, which fits no file", p.ID, f.At, s)
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
