package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// A database that was backed up ten times, a hundredth changed each time, has a
// tenth of its pages in packs of pages from all over its files, and in the others a
// dozen holes in each MiB. Written where they belong as they come, those are more
// than twenty small writes for each MiB, which cannot go past the page cache as large
// ones can. So frames of scattered pages are first put aside, in one
// file, one after another; when the frame comes that lies around some of them, they
// are read into its holes and all is written at once.
//
// What is put aside is read back and written by its place, whatever order the packs
// come in, and counts as written only then: what was forgotten would be missing in
// checkComplete.
type aside struct {
	file *os.File // has no name any more, so nothing is left of it; nil for none

	mu    sync.Mutex
	end   int64 // of the file
	room  int64 // bytes that it may have
	count int   // pieces that wait
	parts map[region][]part
}

// region is a MiB of a file.
type region struct {
	file int
	no   int64
}

// part is a piece that waits. It lies within one region.
type part struct {
	off int64 // in its file
	at  int64 // in the file that is aside
	n   int
}

const (
	// asideParts bounds the pieces that wait, which take 24 bytes of memory each. What
	// is beyond, or finds no room, is written where it belongs at once.
	asideParts = 2 << 20

	// scatteredRuns is in how many places of a file the content of one frame must
	// lie at least to be put aside.
	scatteredRuns = 4
)

// asideFile is its name for the moment in which it has one.
const asideFile = "lifeboat-restore.aside"

// newAside makes the file in a directory, for a restore that is larger than memory: in
// the page cache small pieces cost no more than large ones. It takes no more than half
// of what the plan leaves free there. A directory without room gets none.
func newAside(o *openDir, disks []Disk, large bool) (*aside, error) {
	a := &aside{parts: map[region][]part{}}
	if !large {
		return a, nil
	}
	for _, d := range disks {
		if slices.Contains(d.Paths, o.path) {
			a.room = (d.Free - d.Need) / 2
		}
	}
	if a.room < repo.FrameSize {
		return a, nil
	}
	f, err := o.root.OpenFile(asideFile, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return a, nil // a directory of the data directory is called that
	}
	if err != nil {
		return nil, dirError(o.path, err)
	}
	if err := o.root.Remove(asideFile); err != nil {
		f.Close()
		return nil, dirError(o.path, err)
	}
	a.file = f
	return a, nil
}

func (a *aside) close() {
	if a.file != nil {
		a.file.Close()
	}
}

// scattered says whether the content of a frame comes from all over large files.
func scattered(to []repo.Span, files *repo.Files) bool {
	if len(to) < scatteredRuns || slices.ContainsFunc(to, func(s repo.Span) bool { return files.Size(s.File) <= repo.FrameSize }) {
		return false
	}
	runs := 0
	for range together(to) {
		runs++
	}
	return runs >= scatteredRuns
}

// put puts the content of a frame aside, if there is room.
func (a *aside) put(to []repo.Span, raw []byte) (bool, error) {
	at, ok := a.reserve(int64(len(raw)))
	if !ok {
		return false, nil
	}
	if _, err := a.file.WriteAt(raw, at); errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		a.full() // and there may be room for what has to be there
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("put pages aside: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range to {
		for s.Len > 0 {
			no := s.Off / repo.FrameSize
			n := int(min(int64(s.Len), (no+1)*repo.FrameSize-s.Off))
			p := region{s.File, no}
			a.parts[p] = append(a.parts[p], part{s.Off, at + int64(s.At), n})
			a.count++
			s.Off, s.At, s.Len = s.Off+int64(n), s.At+n, s.Len-n
		}
	}
	return true, nil
}

func (a *aside) reserve(n int64) (at int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil || a.end+n > a.room || a.count > asideParts {
		return 0, false
	}
	at = a.end
	a.end += n
	return at, true
}

// full lets nothing more in.
func (a *aside) full() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.room = 0
}

// take gives out what waits for a stretch of a file.
func (a *aside) take(file int, from, to int64) (all []part) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for no := from / repo.FrameSize; no*repo.FrameSize < to; no++ {
		p := region{file, no}
		waiting := a.parts[p]
		if waiting == nil {
			continue
		}
		rest := waiting[:0]
		for _, w := range waiting {
			if w.off >= from && w.off+int64(w.n) <= to {
				all = append(all, w)
			} else {
				rest = append(rest, w)
			}
		}
		if len(rest) == 0 {
			delete(a.parts, p)
		} else {
			a.parts[p] = rest
		}
	}
	a.count -= len(all)
	return all
}

// fill reads into the holes of a frame what waits for them, and returns what is to
// be written then. Near is all that comes from the frame, and lies in it as in its
// file; else the frame stays as it is.
func (a *aside) fill(near []repo.Span, raw []byte) ([]repo.Span, error) {
	first, last := near[0], near[len(near)-1]
	shift := first.Off - int64(first.At)
	for _, s := range near {
		if s.Off-int64(s.At) != shift {
			return near, nil
		}
	}
	all := slices.Clone(near)
	for _, p := range a.take(first.File, first.Off, last.Off+int64(last.Len)) {
		s := repo.Span{File: first.File, Off: p.off, At: int(p.off - shift), Len: p.n}
		if _, err := a.file.ReadAt(raw[s.At:s.At+s.Len], p.at); err != nil {
			return nil, fmt.Errorf("read what was put aside: %w", err)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y repo.Span) int { return cmp.Compare(x.Off, y.Off) })
	return joined(all), nil
}

// joined makes one span of those that follow one another.
func joined(all []repo.Span) []repo.Span {
	out := all[:1]
	for _, s := range all[1:] {
		last := &out[len(out)-1]
		if last.Off+int64(last.Len) == s.Off && last.At+last.Len == s.At {
			last.Len += s.Len
			continue
		}
		out = append(out, s)
	}
	return out
}

// rest gives out what still waits, file by file and in its order.
func (a *aside) rest() map[int][]part {
	a.mu.Lock()
	defer a.mu.Unlock()
	byFile := map[int][]part{}
	for p, parts := range a.parts {
		byFile[p.file] = append(byFile[p.file], parts...)
		delete(a.parts, p)
	}
	for _, parts := range byFile {
		slices.SortFunc(parts, func(x, y part) int { return cmp.Compare(x.off, y.off) })
	}
	return byFile
}

// writeRest writes what no frame lay around.
func (w *writer) writeRest(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(w.options.jobs())
	for file, parts := range w.aside.rest() {
		g.Go(func() error {
			raw := make([]byte, repo.FrameSize)
			for _, p := range parts {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if _, err := w.aside.file.ReadAt(raw[:p.n], p.at); err != nil {
					return fmt.Errorf("read what was put aside: %w", err)
				}
				if err := w.write([]repo.Span{{File: file, Off: p.off, Len: p.n}}, raw); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
