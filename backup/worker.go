package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// worker reads, checks, compresses and seals; its packs are stored beside it.
type worker struct {
	*copier
	group *errgroup.Group
	pack  *repo.PackWriter
	entry repo.PackEntry
	buf   []byte
	page  []byte
	open  *os.File // of the last piece: the next one is of the same, mostly
	of    *copyFile
}

func (c *copier) newWorker(g *errgroup.Group) (*worker, error) {
	p, err := c.repo.NewPackWriter(c.buffers, c.o.Level)
	if err != nil {
		return nil, err
	}
	return &worker{copier: c, group: g, pack: p, buf: make([]byte, repo.FrameSize), page: make([]byte, c.facts.control.BlockSize)}, nil
}

func (w *worker) run(ctx context.Context, jobs <-chan job) error {
	defer w.close()
	for j := range jobs {
		n, spans, err := w.read(j)
		if err != nil {
			return err
		}
		if n > 0 {
			if err := w.add(ctx, w.buf[:n], spans); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.finish(ctx)
}

func (w *worker) add(ctx context.Context, raw []byte, spans []repo.Span) error {
	ref, err := w.pack.Add(ctx, raw)
	if err != nil {
		return err
	}
	w.entry.Frames = append(w.entry.Frames, repo.FrameEntry{FrameRef: ref, To: spans})
	w.count(int64(len(raw)))
	if w.pack.Full() {
		return w.finish(ctx)
	}
	return nil
}

func (c *copier) count(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw += n
	c.o.observe(Progress{Phase: "copy", Done: c.raw, Total: c.wanted})
}

// finish seals the pack and stores it while the worker goes on with the next.
func (w *worker) finish(ctx context.Context) error {
	if w.pack.Empty() {
		return nil
	}
	p, err := w.pack.Finish()
	if err != nil {
		return err
	}
	entry := w.entry
	entry.PackRef, entry.Day = p.PackRef, w.day
	w.entry = repo.PackEntry{}
	w.group.Go(func() error {
		defer p.Release()
		if err := w.repo.StorePack(ctx, p); err != nil {
			return err
		}
		return w.note(ctx, entry)
	})
	return nil
}

// note puts a stored pack into the manifest and, from time to time, into a part.
func (c *copier) note(ctx context.Context, e repo.PackEntry) error {
	c.mu.Lock()
	c.newBytes += e.Size
	c.stored, c.unnoted, c.unspans = append(c.stored, e), c.unnoted+e.Size, c.unspans+spansOf(e)
	err := c.manifest.Add(e)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.notePart(ctx, false)
}

// read fills the worker's buffer with the content of the job.
func (w *worker) read(j job) (int, []repo.Span, error) {
	var n int
	var spans []repo.Span
	for _, p := range j {
		got, err := w.readPiece(p, w.buf[n:n+int(p.to-p.from)])
		if err != nil {
			return 0, nil, err
		}
		if got > 0 {
			spans = append(spans, repo.Span{File: p.file.index, Off: p.from, At: n, Len: got})
		}
		n += got
	}
	return n, spans, nil
}

// readPiece reads a run of a file into b and returns how much of it counts.
func (w *worker) readPiece(p piece, b []byte) (int, error) {
	file, err := w.file(p.file)
	if err != nil {
		return 0, err
	}
	if longer, err := w.isLonger(p.file, file); err != nil || longer {
		return 0, err
	}
	got := 0
	if file != nil {
		if got, err = readFull(file, b, p.from); err != nil {
			return 0, fmt.Errorf("read %s at %d: %w", p.file.path, p.from, err)
		}
		w.readBytes.Add(int64(got))
		if err := w.checkPages(p.file.source, file, b[:got], p.from); err != nil {
			return 0, err
		}
	}
	if p.file.small() {
		if file == nil {
			return 0, nil // removed since: its removal is in the WAL
		}
		p.file.noteSum(p.from, b[:got])
		e := p.file.entry(int64(got)) // it may have shrunk
		if !p.file.byPages() {
			e.Sum = p.file.sum()
		}
		p.file.index = w.files.add(e)
		return got, nil
	}
	p.file.once.Do(func() {
		if p.file.gone = file == nil && p.file.index < 0; !p.file.gone && p.file.index < 0 {
			p.file.index = w.files.add(p.file.entry(p.file.size))
		}
	})
	if p.file.gone {
		return 0, nil // also when it was made again: all of that is in the WAL
	}
	// Where it has shrunk or gone meanwhile the rest is zeros: replay truncates
	// or removes what the server did, and a file without holes keeps the rule
	// that a restore must find every byte of every file.
	clear(b[got:])
	p.file.noteSum(p.from, b)
	return len(b), nil
}

// isLonger says whether a small file, which is no relation, has become longer since it
// was listed, and notes it.
func (w *worker) isLonger(f *copyFile, file *os.File) (bool, error) {
	if file == nil || f.listedAgain || f.byPages() || !f.small() {
		return false, nil
	}
	fi, err := file.Stat()
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", f.path, err)
	}
	if fi.Size() <= f.size {
		return false, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = append(w.late, f.source)
	return true, nil
}

// small says whether all of the file is in one piece.
func (f *copyFile) small() bool { return f.size <= repo.FrameSize && !f.recorded }

// noteSum notes the sum of a slice, for the next backup.
func (f *copyFile) noteSum(off int64, b []byte) {
	if f.byPages() || len(b) == 0 {
		return
	}
	f.sums[off/sumSlice] = sliceSum(b)
}

// file opens the file, unless it is the one that is open; nil when there is
// none any more.
func (w *worker) file(f *copyFile) (*os.File, error) {
	if w.of == f {
		return w.open, nil
	}
	w.close()
	file, err := os.Open(f.from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	w.open, w.of = file, f
	return file, nil
}

func (w *worker) close() {
	if w.open != nil {
		_ = w.open.Close() // it was read only
	}
	w.open, w.of = nil, nil
}

// readFull reads until b is full or the file ends.
func readFull(f *os.File, b []byte, off int64) (int, error) {
	n, err := f.ReadAt(b, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}
