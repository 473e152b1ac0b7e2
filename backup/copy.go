package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// storing is how many packs may be on their way to the store beside those
// that the workers fill, so that a far store does not hold up the cores.
const storing = 5

// job is the content of one frame: a slice of a large file, or several small
// files together.
type job struct {
	files []source
	large *largeFile // set for a slice
	off   int64
	n     int
}

// largeFile is a file of more than one frame, whose slices several workers
// read. It gets its entry with the first slice that can be opened.
type largeFile struct {
	source
	once  sync.Once
	index int
	gone  bool
}

// fileTable collects the file records. A file gets its number when it is
// opened, so what vanished before has none.
type fileTable struct {
	mu      sync.Mutex
	entries []repo.FileEntry
}

func (t *fileTable) add(e repo.FileEntry) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = append(t.entries, e)
	return len(t.entries) - 1
}

func (s source) entry(size int64) repo.FileEntry {
	return repo.FileEntry{Type: repo.Regular, Path: s.path, Mode: uint32(s.mode), Size: size, ModTime: s.mtime.UTC()}
}

// copier brings the files of a tree into packs.
type copier struct {
	repo     *repo.Repo
	manifest *repo.ManifestWriter
	tree     *tree
	facts    facts
	startLSN postgres.LSN
	o        Options
	buffers  *repo.PackBuffers
	files    fileTable

	mu       sync.Mutex // guards what follows, and manifest
	raw      int64
	newBytes int64
	bad      []repo.BadPage
	badCount int64
	written  []badPage // bad, but perhaps just being written
}

func newCopier(r *repo.Repo, m *repo.ManifestWriter, t *tree, f facts, start postgres.LSN, o Options) *copier {
	c := &copier{repo: r, manifest: m, tree: t, facts: f, startLSN: start, o: o}
	c.buffers = repo.NewPackBuffers(o.Jobs + storing)
	c.files.entries = append(c.files.entries, t.folders...)
	return c
}

// run copies everything but the control file.
func (c *copier) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	jobs := make(chan job, 2*c.o.Jobs)
	g.Go(func() error {
		defer close(jobs)
		return c.makeJobs(ctx, jobs)
	})
	for range c.o.Jobs {
		w, err := c.newWorker(g)
		if err != nil {
			return err
		}
		g.Go(func() error { return w.run(ctx, jobs) })
	}
	return g.Wait()
}

// makeJobs cuts large files into slices and gathers small ones.
func (c *copier) makeJobs(ctx context.Context, jobs chan<- job) error {
	send := func(j job) error {
		select {
		case jobs <- j:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var small job
	var gathered int64
	for _, f := range c.tree.files {
		if f.size > repo.FrameSize {
			large := &largeFile{source: f}
			for off := int64(0); off < f.size; off += repo.FrameSize {
				n := int(min(repo.FrameSize, f.size-off))
				if err := send(job{large: large, off: off, n: n}); err != nil {
					return err
				}
			}
			continue
		}
		if gathered+f.size > repo.FrameSize || len(small.files) == 4096 {
			if err := send(small); err != nil {
				return err
			}
			small, gathered = job{}, 0
		}
		small.files = append(small.files, f)
		gathered += f.size
	}
	if len(small.files) == 0 {
		return nil
	}
	return send(small)
}

// worker reads, checks, compresses and seals; its packs are stored beside it.
type worker struct {
	*copier
	group *errgroup.Group
	pack  *repo.PackWriter
	entry repo.PackEntry
	buf   []byte
	page  []byte
}

func (c *copier) newWorker(g *errgroup.Group) (*worker, error) {
	p, err := c.repo.NewPackWriter(c.buffers, c.o.Level)
	if err != nil {
		return nil, err
	}
	return &worker{copier: c, group: g, pack: p, buf: make([]byte, repo.FrameSize), page: make([]byte, c.facts.control.BlockSize)}, nil
}

func (w *worker) run(ctx context.Context, jobs <-chan job) error {
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
	c.o.observe(Progress{Phase: "copy", Done: c.raw, Total: c.tree.bytes})
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
	entry.PackRef = p.PackRef
	w.entry = repo.PackEntry{}
	w.group.Go(func() error {
		defer p.Release()
		if err := w.repo.StorePack(ctx, p); err != nil {
			return err
		}
		return w.note(entry)
	})
	return nil
}

func (c *copier) note(e repo.PackEntry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newBytes += e.Size
	return c.manifest.Add(e)
}

// read fills the worker's buffer with the content of the job.
func (w *worker) read(j job) (int, []repo.Span, error) {
	if j.large != nil {
		return w.readSlice(j.large, j.off, j.n)
	}
	var n int
	var spans []repo.Span
	for _, s := range j.files {
		got, err := w.readSmall(s, w.buf[n:n+int(s.size)])
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since: its removal is in the WAL
		}
		if err != nil {
			return 0, nil, err
		}
		i := w.files.add(s.entry(int64(got)))
		if got > 0 {
			spans = append(spans, repo.Span{File: i, Off: 0, At: n, Len: got})
		}
		n += got
	}
	return n, spans, nil
}

// readSmall reads a file as far as it was listed; it may have shrunk since.
func (w *worker) readSmall(s source, b []byte) (int, error) {
	f, err := os.Open(s.from)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", s.path, err)
	}
	defer f.Close()
	n, err := readFull(f, b, 0)
	if err != nil {
		return n, fmt.Errorf("read %s: %w", s.path, err)
	}
	return n, w.checkPages(s, f, b[:n], 0)
}

// readSlice reads a slice of a large file. Where the file has shrunk or gone
// meanwhile the slice is zeros: replay truncates or removes what the server
// did, and a file without holes keeps the rule that a restore must find every
// byte of every file.
func (w *worker) readSlice(l *largeFile, off int64, n int) (int, []repo.Span, error) {
	f, err := os.Open(l.from)
	gone := errors.Is(err, fs.ErrNotExist)
	if err != nil && !gone {
		return 0, nil, fmt.Errorf("read %s: %w", l.path, err)
	}
	l.once.Do(func() {
		if l.gone = gone; !gone {
			l.index = w.files.add(l.source.entry(l.size))
		}
	})
	if l.gone {
		if !gone {
			f.Close() // made anew under this name: all of it is in the WAL
		}
		return 0, nil, nil
	}
	b := w.buf[:n]
	got := 0
	if !gone {
		defer f.Close()
		if got, err = readFull(f, b, off); err != nil {
			return 0, nil, fmt.Errorf("read %s at %d: %w", l.path, off, err)
		}
		if err := w.checkPages(l.source, f, b[:got], off); err != nil {
			return 0, nil, err
		}
	}
	clear(b[got:])
	return n, []repo.Span{{File: l.index, Off: off, At: 0, Len: n}}, nil
}

// readFull reads until b is full or the file ends.
func readFull(f *os.File, b []byte, off int64) (int, error) {
	n, err := f.ReadAt(b, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// copyControlFile puts the control file into a pack of its own.
func (c *copier) copyControlFile(ctx context.Context) error {
	raw, _, err := readControlFrom(ctx, c.tree.control.from)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	w, err := c.newWorker(g)
	if err != nil {
		return err
	}
	i := c.files.add(c.tree.control.entry(int64(len(raw))))
	if err := w.add(ctx, raw, []repo.Span{{File: i, Len: len(raw)}}); err != nil {
		return err
	}
	if err := w.finish(ctx); err != nil {
		return err
	}
	return g.Wait()
}

// fill puts the figures of the copy into the info. A page that was written
// between start and stop is restored from the WAL, whatever was read; one whose
// LSN lies beyond the stop was never written by this server: its header is bad.
func (c *copier) fill(info *repo.Info) {
	for _, b := range c.written {
		if b.lsn > info.StopLSN {
			c.countBad(b)
		}
	}
	info.RawBytes, info.NewBytes = c.raw, c.newBytes
	info.BadPages, info.BadCount = c.bad, c.badCount
}
