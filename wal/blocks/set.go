package blocks

import (
	"cmp"
	"iter"
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Fork is one fork of a relation's storage.
type Fork struct {
	postgres.RelFile
	postgres.Fork
}

// Directory is the directory of a database in a tablespace.
type Directory struct{ Tablespace, Database uint32 }

// Set is a set of pages that WAL has changed. Beside single pages it holds
// where forks were cut off, and directories of databases that came or went as a
// whole. The zero value is an empty set.
//
// Some changes are not in the WAL, and so in no set: those of free space maps;
// those bits of a visibility map that are cleared together with a change of the
// heap (heap_xlog_insert in access/heap/heapam_xlog.c); hint bits, where the
// cluster has no checksums; and what an SP-GiST index remembers of where there
// was room (SpGistUpdateMetaPage in access/spgist/spgutils.c). Nothing relies on
// the last two, nor on the first. Of a relation that Touched denies the
// visibility map has not changed either: that goes with the main fork. The mark
// of a heap page that the map has a bit for is no hint: its record names both
// pages, though it may leave the heap page's LSN as it was.
type Set struct {
	forks       map[Fork]*pages
	directories map[Directory]struct{}
	rels        map[postgres.RelFile]struct{}
}

// noLimit is the limit of a fork that was never cut off. No relation has a
// page of this number (MaxBlockNumber in storage/block.h).
const noLimit = math.MaxUint32

// pages is what changed of one fork.
type pages struct {
	limit  uint32 // pages from here on were cut off at some time
	chunks map[uint32]*chunk
}

// chunk has a bit for each of 1024 pages: a hundred bytes where one page in
// 8 MiB changes, one bit a page where all do.
type chunk [chunkPages / 64]uint64

const chunkPages = 1024

func (s *Set) fork(f Fork) *pages {
	p := s.forks[f]
	if p == nil {
		if s.forks == nil {
			s.forks = map[Fork]*pages{}
			s.rels = map[postgres.RelFile]struct{}{}
		}
		p = &pages{limit: noLimit}
		s.forks[f] = p
		s.rels[f.RelFile] = struct{}{}
	}
	return p
}

// Add notes that the pages from first to, not including, end have changed.
func (s *Set) Add(f Fork, first, end uint32) {
	p := s.fork(f)
	for b := first; b < end; b++ {
		p.chunk(b / chunkPages).add(b)
	}
}

// chunk is the one of this number, made when it is not there.
func (p *pages) chunk(no uint32) *chunk {
	c := p.chunks[no]
	if c == nil {
		if p.chunks == nil {
			p.chunks = map[uint32]*chunk{}
		}
		c = new(chunk)
		p.chunks[no] = c
	}
	return c
}

func (c *chunk) add(page uint32) { c[page%chunkPages/64] |= 1 << (page % 64) }

// Cut notes that the fork had no pages from this one on, at some time.
func (s *Set) Cut(f Fork, from uint32) {
	p := s.fork(f)
	p.limit = min(p.limit, from)
}

// Replace notes that the fork was made again, or removed.
func (s *Set) Replace(f Fork) { s.Cut(f, 0) }

// ReplaceDir notes that all of a database's files in a tablespace came or
// went.
func (s *Set) ReplaceDir(f Directory) {
	if s.directories == nil {
		s.directories = map[Directory]struct{}{}
	}
	s.directories[f] = struct{}{}
}

// Merge adds all of another set.
func (s *Set) Merge(o *Set) {
	for f := range o.directories {
		s.ReplaceDir(f)
	}
	for f, p := range o.forks {
		s.Cut(f, p.limit)
		for run := range p.runs(0, noLimit) {
			s.Add(f, run.First, run.End)
		}
	}
}

// Touched says whether anything of the relation has changed.
func (s *Set) Touched(r postgres.RelFile) bool {
	if _, all := s.directories[Directory{r.Tablespace, r.Database}]; all {
		return true
	}
	_, some := s.rels[r]
	return some
}

// Run is pages that follow one another.
type Run struct {
	First, End uint32 // End is not included
}

// Changed yields the pages of a fork that may have changed, from first to,
// not including, end: ascending, apart from each other.
func (s *Set) Changed(f Fork, first, end uint32) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		if _, all := s.directories[Directory{f.Tablespace, f.Database}]; all {
			if first < end {
				yield(Run{first, end})
			}
			return
		}
		p := s.forks[f]
		if p == nil {
			return
		}
		for run := range p.runs(first, min(end, max(first, p.limit))) {
			if run.End == p.limit && p.limit < end {
				run.End = end
				yield(run)
				return
			}
			if !yield(run) {
				return
			}
		}
		if from := max(first, p.limit); from < end {
			yield(Run{from, end})
		}
	}
}

// runs yields the single pages of a range as runs.
func (p *pages) runs(first, end uint32) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		open := Run{}
		for _, no := range slices.Sorted(maps.Keys(p.chunks)) {
			for i, word := range p.chunks[no] {
				base := no*chunkPages + uint32(i)*64
				for word != 0 {
					n := bits.TrailingZeros64(word)
					ones := bits.TrailingZeros64(^(word >> n))
					run := Run{max(base+uint32(n), first), min(base+uint32(n+ones), end)}
					if n+ones == 64 {
						word = 0
					} else {
						word &^= (1<<ones - 1) << n
					}
					if run.First >= run.End {
						continue
					}
					if run.First == open.End && open.End != 0 {
						open.End = run.End
						continue
					}
					if open.End != 0 && !yield(open) {
						return
					}
					open = run
				}
			}
		}
		if open.End != 0 {
			yield(open)
		}
	}
}

// Pages is how many single pages the set names, those cut off not counted.
func (s *Set) Pages() int64 {
	var n int64
	for _, p := range s.forks {
		for _, c := range p.chunks {
			for _, word := range c {
				n += int64(bits.OnesCount64(word))
			}
		}
	}
	return n
}

// Forks yields the forks that the set names, in order. Directories are not among
// them.
func (s *Set) Forks() []Fork {
	return slices.SortedFunc(maps.Keys(s.forks), compareForks)
}

func compareForks(a, b Fork) int {
	return cmp.Or(cmp.Compare(a.Tablespace, b.Tablespace), cmp.Compare(a.Database, b.Database),
		cmp.Compare(a.Number, b.Number), cmp.Compare(a.Fork, b.Fork))
}
