package restore

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// coverage proves that the spans of each file cover it exactly once, in any
// order and in a few bytes a file. Each span adds a random number that stands
// for its end and takes away that of its beginning. What is left over is the
// number of the file's end less that of its beginning if the spans form one
// chain between the two; otherwise, but for one chance in 2^64, it is not.
//
// It is safe for concurrent use, but for check.
type coverage struct {
	seed  maphash.Seed
	files []covered
}

type covered struct {
	bytes atomic.Int64
	sum   atomic.Uint64
}

func newCoverage(files int) *coverage {
	return &coverage{maphash.MakeSeed(), make([]covered, files)}
}

func (c *coverage) mark(off int64) uint64 { return maphash.Comparable(c.seed, off) }

// add notes a span.
func (c *coverage) add(s repo.Span) {
	f := &c.files[s.File]
	f.sum.Add(c.mark(s.Off+int64(s.Len)) - c.mark(s.Off))
	f.bytes.Add(int64(s.Len))
}

// full says whether as many bytes as the file has were noted.
func (c *coverage) full(file int, size int64) bool { return c.files[file].bytes.Load() >= size }

// check returns *IncompleteError for the first file that is not covered.
func (c *coverage) check(files []target) error {
	for i, t := range files {
		f := &c.files[i]
		if f.bytes.Load() != t.size || f.sum.Load() != c.mark(t.size)-c.mark(0) {
			return &IncompleteError{Path: t.path, Size: t.size, Written: f.bytes.Load()}
		}
	}
	return nil
}
