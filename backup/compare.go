package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal/blocks"
)

// How a file is held against a layer. Of the files that consist of pages, the
// main forks and the init forks are in the WAL page by page, and each page has
// the LSN of its last change; the maps are not, see blocks.Set. All else is
// compared by its content: by sums of its slices, which stand in the manifest.

const (
	sumSlice = repo.FrameSize // bytes that one sum is of
	sumBytes = 16             // of a SHA-256
	sumText  = 2 * sumBytes
)

// byPages says whether the file's pages tell what has changed.
func (s source) byPages() bool {
	return s.pages && (s.rel.Fork == postgres.ForkMain || s.rel.Fork == postgres.ForkInit)
}

// isMap says whether it is the free space map or the visibility map.
func (s source) isMap() bool { return s.pages && !s.byPages() }

// slices is how many sums a file has.
func (s source) slices() int { return int((s.size + sumSlice - 1) / sumSlice) }

func sliceSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:sumBytes])
}

// compareAll finds out, for each file, what of it the layer still holds.
func (c *copier) compareAll(ctx context.Context, l *layer) error {
	g, ctx := errgroup.WithContext(ctx)
	files := make(chan *copyFile)
	g.Go(func() error {
		defer close(files)
		for _, f := range c.plan {
			select {
			case files <- f:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range c.o.Jobs {
		cmp := &comparer{copier: c, old: l, buf: make([]byte, sumSlice)}
		g.Go(func() error {
			for f := range files {
				if err := cmp.compare(f); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// comparer holds files against a layer, one after another.
type comparer struct {
	*copier
	old *layer
	buf []byte
}

// compare sets what of the file the layer holds, and the sums that are known.
func (c *comparer) compare(f *copyFile) error {
	i, known := c.old.byPath[f.path]
	if !known || len(f.want) == 0 {
		return nil
	}
	e, all := c.old.files[i], f.want
	if c.old.covered != nil {
		all = all.common(c.old.covered[i])
	}
	// The same path is not the same file: it may have been dropped and made
	// again since. Where WAL tells of that, this is a second witness.
	if e.Type != repo.Regular || e.ID == "" || e.ID != f.id {
		return nil
	}
	switch {
	case f.isMap() && c.old.bad.Touched(f.rel.RelFile):
		return nil // its sum says nothing of a bad page: all of it is read and checked again
	case f.byPages():
		return c.comparePages(f, e.Size, all)
	case f.isMap() && c.old.changes.maps && !c.old.changes.set.Touched(f.rel.RelFile) && e.Size == f.size && len(e.Sum) == f.slices()*sumText:
		f.holds, f.sums = all, splitSums(e.Sum)
		return nil
	// Of one layer only: what is compared by content has one sum for all.
	case e.Sum != "" && len(all) == 1 && all[0] == run{0, f.size}:
		return c.compareContent(f, e)
	}
	return nil
}

// comparePages keeps the pages that the layer has and that have not changed.
func (c *comparer) comparePages(f *copyFile, oldSize int64, all runs) error {
	size := int64(c.facts.control.BlockSize)
	common := min(oldSize, f.size) / size * size
	if common == 0 {
		return nil
	}
	all = all.common(runs{{0, common}})
	first := f.rel.FirstBlock(c.facts.control.RelationSegmentSize)
	for _, set := range []*blocks.Set{c.old.changes.set, &c.old.bad} {
		var changed runs
		if set == nil {
			var err error
			if changed, err = c.scanPages(f, all); err != nil {
				return err
			}
		} else {
			for n := range set.Changed(blocks.Fork{RelFile: f.rel.RelFile, Fork: f.rel.Fork}, first, first+uint32(common/size)) {
				changed.add(run{int64(n.First-first) * size, int64(n.End-first) * size})
			}
		}
		all = all.minus(changed)
	}
	f.holds = all
	return nil
}

// fakeLSN says whether a page has no LSN: nothing was logged of it yet (zero),
// or an index was built without WAL (GistBuildLSN in access/gist.h, which is 1).
func fakeLSN(lsn postgres.LSN) bool { return lsn <= 1 }

// scanPages reads pages and looks at their LSNs. Every change of a page since
// the layer began has left an LSN that is not before it, but for one: see
// visibilityMap. A page without one may have been made again after its file was
// cut off.
func (c *comparer) scanPages(f *copyFile, look runs) (changed runs, err error) {
	file, err := os.Open(f.from)
	if errors.Is(err, fs.ErrNotExist) {
		return look, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	defer file.Close()
	size := int(c.facts.control.BlockSize)
	vm := c.visibilityMap(f)
	defer vm.close()
	for _, n := range look {
		for off := n.from; off < n.to; off += int64(len(c.buf)) {
			b := c.buf[:min(int64(len(c.buf)), n.to-off)]
			got, err := readFull(file, b, off)
			if err != nil {
				return nil, fmt.Errorf("read %s at %d: %w", f.path, off, err)
			}
			c.readBytes.Add(int64(got))
			clear(b[got:]) // cut off meanwhile: pages without an LSN
			for at := 0; at < len(b); at += size {
				lsn := postgres.PageLSN(b[at:])
				is := lsn >= c.old.since || fakeLSN(lsn)
				if !is && postgres.PageAllVisible(b[at:]) {
					if is, err = vm.setSince(c.old.since, (off+int64(at))/int64(size)); err != nil {
						return nil, err
					}
				}
				if is {
					changed.add(run{off + int64(at), off + int64(at+size)})
				}
			}
		}
	}
	return changed, nil
}

// compareContent keeps the slices whose sums are those of the layer.
func (c *comparer) compareContent(f *copyFile, e repo.FileEntry) error {
	file, err := os.Open(f.from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	defer file.Close()
	was := splitSums(e.Sum)
	f.sums = make([]string, f.slices())
	for i := range f.sums {
		off := int64(i) * sumSlice
		b := c.buf[:min(sumSlice, f.size-off)]
		// The slice must be as long in the layer; only its last one can differ.
		if i >= len(was) || min(sumSlice, e.Size-off) != int64(len(b)) {
			continue
		}
		n, err := readFull(file, b, off)
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", f.path, off, err)
		}
		c.readBytes.Add(int64(n))
		if n == len(b) && sliceSum(b) == was[i] {
			f.sums[i] = was[i]
			f.holds.add(run{off, off + int64(n)})
		}
	}
	return nil
}

func splitSums(s string) []string {
	out := make([]string, 0, len(s)/sumText)
	for len(s) >= sumText {
		out = append(out, s[:sumText])
		s = s[sumText:]
	}
	return out
}

// maxSums is how many slices a file's sum is of at most: the record of a longer one has
// none, and the next backup reads all of the file.
const maxSums = 1 << 17

// sum is what the manifest says of the file's content: nothing unless each
// slice is known, and they are not too many.
func (f *copyFile) sum() string {
	if len(f.sums) > maxSums {
		return ""
	}
	for _, s := range f.sums {
		if s == "" {
			return ""
		}
	}
	return strings.Join(f.sums, "")
}
