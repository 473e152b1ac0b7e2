package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// visibilityMap is that of the heap whose pages are looked at. In a cluster
// without page checksums VACUUM marks a heap page as all visible and leaves its
// LSN as it was; only the page of the map gets the LSN of the record
// (visibilitymap_set in access/heap/visibilitymap.c). The map is copied as it is
// now. If the base's heap page, without the mark, came with it, then a later
// change of that page would not clear the map's bit: index-only scans would show
// rows that are gone. So a page with the mark counts as changed when its page of
// the map has changed.
//
// wal_log_hints gives the heap page its LSN too. It may have been off for a part
// of the time, so it is not asked.
type visibilityMap struct {
	path      string // "" where nothing has to be asked
	blockSize uint32
	first     uint32 // of the heap's file
	perFile   uint32 // pages of one file of a relation

	file *os.File
	last int64 // the page that was looked at last; -1 for none
	lsn  postgres.LSN
}

// visibilityMap is opened when it is first asked. A relation that is no heap has
// none, and no page with the mark.
func (c *comparer) visibilityMap(f *copyFile) *visibilityMap {
	control := c.facts.control
	v := &visibilityMap{blockSize: control.BlockSize, first: f.rel.FirstBlock(control.RelationSegmentSize), perFile: control.RelationSegmentSize, last: -1}
	if !c.facts.checksums() && f.rel.Fork == postgres.ForkMain {
		v.path = filepath.Join(filepath.Dir(f.from), strconv.FormatUint(uint64(f.rel.Number), 10)+"_vm")
	}
	return v
}

// setSince says whether a bit may have been set since a position for a page of
// the heap's file, which has the mark. Where the map, or its page, is gone, no
// bit is set.
func (v *visibilityMap) setSince(since postgres.LSN, page int64) (bool, error) {
	if v.path == "" {
		return false, nil
	}
	no := postgres.VisibilityPage(v.first+uint32(page), v.blockSize)
	if no >= v.perFile {
		return true, nil // in a second file: of the end of a heap of 32 TiB
	}
	if v.file == nil {
		file, err := os.Open(v.path)
		if errors.Is(err, fs.ErrNotExist) {
			v.path = ""
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read a visibility map: %w", err)
		}
		v.file = file
	}
	if at := int64(no); at != v.last {
		var header [8]byte // zeros where it ends
		if _, err := readFull(v.file, header[:], at*int64(v.blockSize)); err != nil {
			return false, fmt.Errorf("read a visibility map: %w", err)
		}
		v.last, v.lsn = at, postgres.PageLSN(header[:])
	}
	return v.lsn >= since, nil
}

func (v *visibilityMap) close() {
	if v.file != nil {
		_ = v.file.Close() // it was read only
	}
}
