package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/lifeboat-dr/lifeboat/repo"
)

const (
	// fetchers is how many packs are asked for at a time. A round trip of 20 ms
	// beside 16 MiB is small only when several are under way.
	fetchers = 4

	// writebackFrom is the least that is written to disk at once, while the next is
	// still being fetched.
	writebackFrom = 256 << 10

	// packBudget bounds the bytes of packs in memory, fetched or being fetched.
	packBudget = 112 << 20
)

// fetched is a pack on its way from the store to a worker.
type fetched struct {
	entry repo.PackEntry
	pack  *repo.Pack
}

// writer brings frames into files.
type writer struct {
	dirs    *dirs
	layout  *layout
	handles *handles
	aside   *aside
	written []atomic.Int64 // bytes, by number of the file
	options Options
	total   int64
	done    atomic.Int64

	// What is larger than half of memory would not stay in it, and would push out what
	// the system has there: its large pieces go to disk and are forgotten. In a virtual
	// machine that is a third of the kernel's time (docs/benchmarks.md).
	uncached atomic.Bool
	budget   *semaphore.Weighted

	mu      sync.Mutex
	control []byte // of the control file, which is written last
}

// writeFiles writes every file of the manifest but the control file, whose
// bytes it returns. Packs come in, several at a time, while others are
// opened and written.
func (d *dirs) writeFiles(ctx context.Context, r *repo.Repo, m *repo.ManifestReader, l *layout, o Options) ([]byte, error) {
	w := &writer{dirs: d, layout: l, written: make([]atomic.Int64, l.count()), options: o,
		budget: semaphore.NewWeighted(packBudget), control: make([]byte, l.manifest.Size(l.control))}
	w.handles = newHandles(d, l, w.written)
	defer w.handles.close()
	for i := range l.count() {
		w.total += max(l.manifest.Size(i), 0)
	}
	large := w.total > o.machineMemory()/2
	w.uncached.Store(large)
	var err error
	if w.aside, err = newAside(d.roots[0], d.plan.Disks, large); err != nil {
		return nil, err
	}
	defer w.aside.close()
	o.observe(Progress{Phase: WritePhase, Total: w.total})
	if err := w.makeEmpty(); err != nil {
		return nil, err
	}
	if err := w.run(ctx, r, m); err != nil {
		return nil, err
	}
	if err := w.writeRest(ctx); err != nil {
		return nil, err
	}
	return w.control, w.checkComplete()
}

// checkComplete makes sure that each file got as many bytes as it has. The
// manifest was proven to hold each byte once; a restore that lost one on the
// way and said nothing would be the worst of all errors.
func (w *writer) checkComplete() error {
	for i := range w.layout.count() {
		if n, size := w.written[i].Load(), max(w.layout.manifest.Size(i), 0); n != size {
			return &IncompleteError{Path: w.layout.manifest.At(i).Path, Size: size, Written: n}
		}
	}
	return nil
}

// makeEmpty makes the files without bytes: no frame speaks of them.
func (w *writer) makeEmpty() error {
	for i := range w.layout.count() {
		if w.layout.manifest.Size(i) != 0 {
			continue
		}
		t := w.layout.target(i)
		if t.size > 0 || t.skip || i == w.layout.control {
			continue
		}
		f, err := w.dirs.openFile(&t, false)
		if err != nil {
			return err
		}
		if err := finishFile(f); err != nil {
			return fmt.Errorf("write %s: %w", t.path, err)
		}
	}
	return nil
}

// run is the pipeline: one reader of the manifest, several fetchers, a worker
// a core. The first error stops all of them.
func (w *writer) run(ctx context.Context, r *repo.Repo, m *repo.ManifestReader) error {
	entries := make(chan repo.PackEntry)
	packs := make(chan fetched)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(entries)
		for e, err := range m.Packs() {
			if err != nil {
				return err
			}
			if err := send(ctx, entries, e); err != nil {
				return err
			}
		}
		return nil
	})
	var fetching sync.WaitGroup
	for range fetchers {
		fetching.Add(1)
		g.Go(func() error {
			defer fetching.Done()
			return w.fetch(ctx, r, entries, packs)
		})
	}
	g.Go(func() error {
		fetching.Wait()
		close(packs)
		return nil
	})
	for range w.options.jobs() {
		g.Go(func() error { return w.work(ctx, r, packs) })
	}
	return g.Wait()
}

func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fetch brings packs from the store, as the budget allows.
func (w *writer) fetch(ctx context.Context, r *repo.Repo, entries <-chan repo.PackEntry, packs chan<- fetched) error {
	for e := range entries {
		if err := w.budget.Acquire(ctx, e.Size); err != nil {
			return context.Cause(ctx)
		}
		refs := make([]repo.FrameRef, len(e.Frames))
		for i, f := range e.Frames {
			refs[i] = f.FrameRef
		}
		pack, err := r.FetchPack(ctx, e.PackRef, refs)
		if err != nil {
			return err
		}
		if err := send(ctx, packs, fetched{e, pack}); err != nil {
			return err
		}
	}
	return nil
}

// work opens frames and writes what is in them.
func (w *writer) work(ctx context.Context, r *repo.Repo, packs <-chan fetched) error {
	reader, err := r.NewPackReader()
	if err != nil {
		return err
	}
	defer reader.Close()
	for p := range packs {
		for _, f := range p.entry.Frames {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			raw, err := reader.Frame(p.pack, f.FrameRef)
			if err != nil {
				return err
			}
			if err := w.put(f.To, raw); err != nil {
				return err
			}
		}
		w.budget.Release(p.entry.Size)
	}
	return nil
}

// put brings the content of a frame to where it belongs, or puts it aside until
// what lies around it comes.
func (w *writer) put(to []repo.Span, raw []byte) error {
	if scattered(to, w.layout.manifest) {
		if put, err := w.aside.put(to, raw); put || err != nil {
			return err
		}
	}
	for near := range together(to) {
		if len(near) == len(to) {
			var err error
			if near, err = w.aside.fill(near, raw); err != nil {
				return err
			}
		}
		if err := w.write(near, raw); err != nil {
			return err
		}
	}
	return nil
}

// together yields the spans of a frame in runs of one file that lie within the size
// of a frame. So what an older backup holds around changed pages, in many small
// spans, is one run, and pages from all over a file are none.
func together(to []repo.Span) iter.Seq[[]repo.Span] {
	return func(yield func([]repo.Span) bool) {
		for len(to) > 0 {
			n := 1
			for n < len(to) && to[n].File == to[0].File && to[n].Off >= to[n-1].Off && to[n].Off+int64(to[n].Len) <= to[0].Off+repo.FrameSize {
				n++
			}
			if !yield(to[:n]) {
				return
			}
			to = to[n:]
		}
	}
}

// write puts spans that lie together in their places.
func (w *writer) write(near []repo.Span, raw []byte) error {
	file := near[0].File
	var n int64
	for _, s := range near {
		n += int64(s.Len)
	}
	switch {
	case file == w.layout.control:
		w.mu.Lock()
		for _, s := range near {
			copy(w.control[s.Off:], raw[s.At:s.At+s.Len])
		}
		w.mu.Unlock()
		w.written[file].Add(n)
	case w.skipped(file):
		w.written[file].Add(n)
	default:
		if err := w.writeFile(near, n, raw); err != nil {
			return err
		}
	}
	w.options.observe(Progress{Phase: WritePhase, Done: w.done.Add(n), Total: w.total})
	return nil
}

// skipped says whether a file is not written.
func (w *writer) skipped(file int) bool { return w.layout.target(file).skip }

func (w *writer) writeFile(near []repo.Span, n int64, raw []byte) error {
	file := near[0].File
	h, err := w.handles.get(file)
	if err != nil {
		return err
	}
	for _, s := range near {
		if err := w.writeAt(h.f, raw[s.At:s.At+s.Len], s.Off); err != nil {
			return fmt.Errorf("write %s: %w", w.layout.manifest.At(file).Path, err)
		}
	}
	if n >= writebackFrom {
		last := near[len(near)-1]
		startWriteback(h.f, near[0].Off, last.Off+int64(last.Len)-near[0].Off)
	}
	w.written[file].Add(n)
	return w.handles.put(h)
}

// writeAt writes a piece of a file.
func (w *writer) writeAt(f *os.File, b []byte, off int64) error {
	if w.uncached.Load() && len(b) >= writebackFrom {
		err := writeUncached(f, b, off)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		w.uncached.Store(false)
	}
	_, err := f.WriteAt(b, off)
	return err
}
