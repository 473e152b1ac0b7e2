package repo

import (
	"fmt"
	"hash/maphash"
)

// coverage tells whether the spans fill each byte of each file exactly once,
// in any order and without remembering them. A file with a hole would be
// restored, and start.
//
// It sums hash(end) - hash(begin) over a file's spans: where spans meet, the two
// hashes cancel, and what is left of a whole file is hash(size) - hash(0). Nothing else
// leaves that: no span is empty, so a step leads forward from each begin to its end,
// and steps that leave nothing but one begin at 0 and one end at size are one way
// from there to there.
type coverage struct {
	seed maphash.Seed
	ends []uint64 // by number of the file
}

func newCoverage(files int) coverage {
	return coverage{maphash.MakeSeed(), make([]uint64, files)}
}

func (c *coverage) add(p PackEntry) {
	for _, f := range p.Frames {
		for _, s := range f.To {
			if grow := s.File + 1 - len(c.ends); grow > 0 {
				c.ends = append(c.ends, make([]uint64, grow)...)
			}
			c.ends[s.File] += c.hash(s.Off+int64(s.Len)) - c.hash(s.Off)
		}
	}
}

func (c *coverage) hash(off int64) uint64 { return maphash.Comparable(c.seed, off) }

func (c *coverage) check(files *Files) error {
	if len(c.ends) > files.Len() {
		return fmt.Errorf("packs fill file %d of %d", len(c.ends)-1, files.Len())
	}
	for i := range files.Len() {
		var have uint64
		if i < len(c.ends) {
			have = c.ends[i]
		}
		size := max(files.Size(i), 0)
		if have != c.hash(size)-c.hash(0) {
			return fmt.Errorf("packs do not fill each of the %d bytes of file %.200q once", size, files.At(i).Path)
		}
	}
	return nil
}
