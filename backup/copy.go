package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// storing is how many packs may be on their way to the store beside those
// that the workers fill, so that a far store does not hold up the cores.
const storing = 5

// job is the content of one frame: runs of files, one or many.
type job []piece

// piece is a run of one file, at most as long as a frame.
type piece struct {
	file *copyFile
	run
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

func (t *fileTable) get(i int) repo.FileEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[i]
}

func (s source) entry(size int64) repo.FileEntry {
	return repo.FileEntry{Type: repo.Regular, Path: s.path, Mode: uint32(s.mode), Size: size, ModTime: s.mtime.UTC(), ID: s.id}
}

// copier brings the files of a tree into packs.
type copier struct {
	repo     *repo.Repo
	manifest *repo.ManifestWriter
	tree     *tree
	plan     []*copyFile // all files of the tree but the control file
	facts    facts
	start    position
	label    string
	source   string           // see sourceID
	day      int              // when its packs are stored
	state    postgres.DBState // in the control file that was copied
	o        Options
	buffers  *repo.PackBuffers
	files    fileTable

	readBytes atomic.Int64 // from the data directory

	parting sync.Mutex // held to store a part
	parts   int        // that are stored

	mu       sync.Mutex // guards what follows, and manifest
	wanted   int64      // bytes that are to be read
	raw      int64
	newBytes int64
	ages     map[int]int64    // raw bytes by the day of their packs
	stored   []repo.PackEntry // since the last part
	unnoted  int64            // bytes of these
	unspans  int              // and what they hold, in spans
	bad      []repo.BadPage
	badCount int64
	written  []badPage // bad, but perhaps just being written
	late     []source  // small files that are longer than they were
}

// newCopier reads everything, unless takeOver says otherwise.
func newCopier(r *repo.Repo, m *repo.ManifestWriter, t *tree, f facts, label string, start position, o Options) *copier {
	c := &copier{repo: r, manifest: m, tree: t, facts: f, label: label, start: start, source: sourceID(o.DataDir, o.Host), o: o, day: dayOf(o.Now()), ages: map[int]int64{}}
	c.buffers = repo.NewPackBuffers(o.Jobs + storing)
	c.files.entries = append(c.files.entries, t.directories...)
	c.plan = make([]*copyFile, len(t.files))
	for i, s := range t.files {
		c.plan[i] = &copyFile{source: s, index: -1, want: whole(s.size)}
		if !s.byPages() {
			c.plan[i].sums = make([]string, s.slices())
		}
	}
	return c
}

// run copies what is wanted of everything but the control file.
func (c *copier) run(ctx context.Context) error {
	if err := c.copyFiles(ctx, c.plan); err != nil {
		return err
	}
	late, err := c.listAgain()
	if err != nil || len(late) == 0 {
		return err
	}
	c.plan = append(c.plan, late...)
	return c.copyFiles(ctx, late)
}

// listAgain lists small files that were longer when they were read than when they
// were listed. What came later of a relation is in the WAL; what came of the server's
// settings, or of the state that it keeps beside the WAL, is nowhere else, and such a
// file that is cut off may keep a server from starting. They are read once more, to
// the length that they have now: a log may grow for ever.
func (c *copier) listAgain() ([]*copyFile, error) {
	var late []*copyFile
	for _, s := range c.late {
		fi, err := os.Stat(s.from)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s again: %w", s.path, err)
		}
		s.size, s.mtime, s.id = fi.Size(), fi.ModTime(), fileID(s.from)
		late = append(late, &copyFile{source: s, index: -1, want: whole(s.size), sums: make([]string, s.slices()), listedAgain: true})
	}
	return late, nil
}

// copyFiles copies what is wanted of files.
func (c *copier) copyFiles(ctx context.Context, files []*copyFile) error {
	for _, f := range files {
		c.wanted += f.want.bytes()
	}
	g, ctx := errgroup.WithContext(ctx)
	jobs := make(chan job, 2*c.o.Jobs)
	g.Go(func() error {
		defer close(jobs)
		return makeJobs(ctx, files, jobs)
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

// makeJobs cuts what is wanted of large files into slices, and gathers what is
// small. A job holds at most a frame.
func makeJobs(ctx context.Context, files []*copyFile, jobs chan<- job) error {
	send := func(j job) error {
		if len(j) == 0 {
			return nil
		}
		select {
		case jobs <- j:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var small job
	var gathered int64
	for _, f := range files {
		for p := range f.pieces() {
			n := p.to - p.from
			if n == repo.FrameSize {
				if err := send(job{p}); err != nil {
					return err
				}
				continue
			}
			if gathered+n > repo.FrameSize || len(small) == 4096 {
				if err := send(small); err != nil {
					return err
				}
				small, gathered = nil, 0
			}
			small = append(small, p)
			gathered += n
		}
	}
	return send(small)
}

// pieces yields what is wanted of the file. Slices of a MiB stay together, so
// that each has its sum. An empty file is one empty piece: it is opened too.
func (f *copyFile) pieces() iter.Seq[piece] {
	return func(yield func(piece) bool) {
		if f.size == 0 && f.index < 0 {
			yield(piece{f, run{0, 0}})
			return
		}
		for _, r := range f.want {
			for at := r.from; at < r.to; {
				end := min(r.to, (at/repo.FrameSize+1)*repo.FrameSize)
				if !yield(piece{f, run{at, end}}) {
					return
				}
				at = end
			}
		}
	}
}

// copyControlFile puts the control file into a pack of its own, and notes the
// state in it: whether that fits is asked after the stop, which knows better
// than we why it does not.
func (c *copier) copyControlFile(ctx context.Context) error {
	raw, control, err := readControlFrom(ctx, c.tree.control.from)
	if err != nil {
		return err
	}
	c.state = control.State
	g, ctx := errgroup.WithContext(ctx)
	w, err := c.newWorker(g)
	if err != nil {
		return err
	}
	c.readBytes.Add(int64(len(raw)))
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
	for _, f := range c.plan {
		if f.index >= 0 && !f.byPages() {
			c.files.entries[f.index].Sum = f.sum()
		}
	}
	info.NewBytes, info.ReadBytes, info.ChangedBytes = c.newBytes, c.readBytes.Load(), c.raw
	info.BadPages, info.BadCount = c.bad, c.badCount
	c.ages[c.day] += c.raw
	for _, day := range slices.Sorted(maps.Keys(c.ages)) {
		if c.ages[day] > 0 {
			info.Ages = append(info.Ages, repo.AgeBytes{Day: day, Bytes: c.ages[day]})
		}
	}
}
