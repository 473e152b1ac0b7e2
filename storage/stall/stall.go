// Package stall is a storage.Store that gives up on another one which shows no
// sign of life, whatever that is made of: a network that swallows packets, a
// server that accepts a request and never answers, a network file system that
// hangs in the kernel and heeds no cancellation.
//
// A store that is slow is not given up: bytes of an object that go on count as
// signs of life.
package stall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// grace is how long an operation may take to return after it was told to. What
// does not is left behind.
const grace = time.Second

// Error says that a store was given up. It is storage.ErrUnavailable.
type Error struct {
	Op    string // what was being done, and to which key
	Limit time.Duration
	Last  error // what the last try failed with; nil when none had ended
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: no sign of life from the store for %s", e.Op, e.Limit)
	if e.Last != nil {
		return s + "; it failed last with: " + e.Last.Error()
	}
	return s + ": " + storage.ErrUnavailable.Error()
}

// Unwrap gives what the error is by the words of package storage, never the
// last one itself: that was of a try, not of the operation.
func (e *Error) Unwrap() error { return storage.ErrUnavailable }

// errStalled is the cause of a context that was ended here.
var errStalled = errors.New("no sign of life from the store")

// Store gives each operation of another store a limit without a sign of life.
type Store struct {
	inner storage.Store
	limit time.Duration
}

var (
	_ storage.Store    = (*Store)(nil)
	_ storage.Locker   = (*Store)(nil)
	_ storage.Retainer = (*Store)(nil)
)

// New makes a store of inner that fails with *Error after the limit.
func New(inner storage.Store, limit time.Duration) *Store {
	return &Store{inner: inner, limit: limit}
}

// Open opens a store within the limit, and makes a Store of it.
func Open(ctx context.Context, limit time.Duration, open func(context.Context) (storage.Store, error)) (storage.Store, error) {
	s := &Store{limit: limit}
	var inner storage.Store
	err := s.run(ctx, "open the store", func(ctx context.Context, _ *watch) (err error) {
		opened, err := open(ctx)
		inner = opened
		return err
	})
	if err != nil {
		return nil, err
	}
	return New(inner, limit), nil
}

// watch is one operation under way.
type watch struct {
	limit time.Duration
	timer *time.Timer
}

// alive notes a sign of life.
func (w *watch) alive() { w.timer.Reset(w.limit) }

// run does the work, and returns early when it stalls or when ctx ends and the
// work does not heed it. What the work has written to is not to be read then.
func (s *Store) run(ctx context.Context, op string, work func(context.Context, *watch) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watch{limit: s.limit}
	w.timer = time.AfterFunc(s.limit, func() { cancel(errStalled) })
	defer w.timer.Stop()
	done := make(chan error, 1)
	go func() { done <- work(ctx, w) }()

	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		patience := time.NewTimer(grace)
		defer patience.Stop()
		select {
		case err = <-done:
		case <-patience.C:
			err = ctx.Err()
		}
	}
	if err == nil || context.Cause(ctx) != errStalled {
		return err
	}
	stalled := &Error{Op: op, Limit: s.limit}
	if ended, ok := errors.AsType[*storage.EndedError](err); ok {
		stalled.Last = ended.Last
	}
	return stalled
}

// Create implements storage.Store. When it is left behind nothing of body is
// read any more, so it cannot make an object then that it has not in full.
func (s *Store) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	b := &watchedBody{body: body}
	defer b.end()
	return s.run(ctx, "create "+key, func(ctx context.Context, w *watch) error {
		b.watch = w
		return s.inner.Create(ctx, key, b)
	})
}

// watchedBody tells the watch that an object's bytes go on.
type watchedBody struct {
	watch *watch

	mu    sync.Mutex
	body  io.ReadSeeker
	off   int64 // where the body stands
	far   int64 // the furthest that was read
	total int64 // all that was read
	ended bool
}

func (b *watchedBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
}

// Read implements io.Reader. A body is read once for its checksum and once to
// be sent; what is read more often is a store that fails again and again.
func (b *watchedBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, errStalled
	}
	n, err := b.body.Read(p)
	b.off += int64(n)
	b.total += int64(n)
	b.far = max(b.far, b.off)
	if n > 0 && b.total <= 2*b.far {
		b.watch.alive()
	}
	return n, err
}

// Seek implements io.Seeker.
func (b *watchedBody) Seek(offset int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, errStalled
	}
	off, err := b.body.Seek(offset, whence)
	if err == nil {
		b.off = off
	}
	return off, err
}

// Open implements storage.Store. The limit holds for opening and then for each
// read.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	// Ending this context would break what is read later, so it lives as long.
	reading, cancel := context.WithCancelCause(ctx)
	opened := make(chan io.ReadCloser, 1)
	err := s.run(ctx, "open "+key, func(ctx context.Context, _ *watch) error {
		stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
		defer stop()
		rc, err := s.inner.Open(reading, key, off, n)
		if err == nil {
			opened <- rc
		}
		return err
	})
	if err != nil {
		cancel(err)
		return nil, err
	}
	return &watchedReader{store: s, ctx: reading, cancel: cancel, key: key, inner: <-opened}, nil
}

// watchedReader gives each read a limit.
type watchedReader struct {
	store  *Store
	ctx    context.Context
	cancel context.CancelCauseFunc
	key    string
	inner  io.ReadCloser
	lost   error // a read was left behind, and may still use inner
}

// Read implements io.Reader.
func (r *watchedReader) Read(p []byte) (int, error) {
	if r.lost != nil {
		return 0, r.lost
	}
	type result struct {
		n   int
		err error
	}
	buf := make([]byte, len(p)) // not p: the read may outlive this call
	read := make(chan result, 1)
	err := r.store.run(r.ctx, "read "+r.key, func(ctx context.Context, _ *watch) error {
		stop := context.AfterFunc(ctx, func() { r.cancel(context.Cause(ctx)) })
		defer stop()
		n, err := r.inner.Read(buf)
		read <- result{n, err}
		if err == io.EOF {
			return nil
		}
		return err
	})
	select {
	case got := <-read:
		if err == nil {
			err = got.err
		}
		return copy(p, buf[:got.n]), err
	default:
		r.lost = err
		return 0, err
	}
}

// Close implements io.Closer.
func (r *watchedReader) Close() error {
	r.cancel(nil)
	if r.lost != nil {
		return nil
	}
	return r.inner.Close()
}

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	found := make(chan storage.Info, 1)
	err := s.run(ctx, "stat "+key, func(ctx context.Context, _ *watch) error {
		info, err := s.inner.Stat(ctx, key)
		found <- info
		return err
	})
	if err != nil {
		return storage.Info{}, err
	}
	return <-found, nil
}

// entriesAhead is how many entries of a listing may wait to be asked for. It
// is less than a page of any store, so that who wants only the first few does
// not make it fetch another one.
const entriesAhead = 100

// entry is one step of a listing.
type entry struct {
	info storage.Info
	err  error
}

// List implements storage.Store. The limit holds for each step, while the caller
// waits for it.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		listing, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		quit := make(chan struct{}) // nobody takes entries any more
		defer close(quit)
		entries := make(chan entry, entriesAhead)
		go func() {
			defer close(entries)
			for info, err := range s.inner.List(listing, prefix) {
				select {
				case entries <- entry{info, err}:
				case <-quit:
					return
				}
			}
		}()
		for {
			e, more := s.nextEntry(listing, cancel, prefix, entries, quit)
			if !more || !yield(e.info, e.err) || e.err != nil {
				return
			}
		}
	}
}

// nextEntry waits for the next entry; more is false at the end.
func (s *Store) nextEntry(listing context.Context, cancel context.CancelCauseFunc, prefix string, entries <-chan entry, quit <-chan struct{}) (e entry, more bool) {
	select {
	case e, more = <-entries: // without any cost, mostly
		return e, more
	default:
	}
	came := make(chan entry, 1)
	err := s.run(listing, "list "+prefix, func(ctx context.Context, _ *watch) error {
		stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
		defer stop()
		select {
		case e, ok := <-entries:
			if ok {
				came <- e
			}
			return e.err
		case <-quit:
			return context.Cause(ctx)
		}
	})
	if err != nil {
		return entry{err: err}, true
	}
	select {
	case e := <-came:
		return e, true
	default:
		return entry{}, false
	}
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.run(ctx, "delete "+key, func(ctx context.Context, _ *watch) error { return s.inner.Delete(ctx, key) })
}

// LockedUntil implements storage.Locker. A store that knows no locks has none.
func (s *Store) LockedUntil(ctx context.Context, key string) (time.Time, error) {
	return ask(ctx, s, "ask for the lock of "+key, func(ctx context.Context) (time.Time, error) {
		return storage.LockedUntil(ctx, s.inner, key)
	})
}

// Retention implements storage.Retainer. A store that knows no retention has none.
func (s *Store) Retention(ctx context.Context, key string) (storage.Retention, error) {
	return ask(ctx, s, "ask for the retention of "+key, func(ctx context.Context) (storage.Retention, error) {
		return storage.RetentionOf(ctx, s.inner, key)
	})
}

// RetentionRule implements storage.Retainer.
func (s *Store) RetentionRule(ctx context.Context) (storage.RetentionRule, error) {
	return ask(ctx, s, "ask for the store's retention", func(ctx context.Context) (storage.RetentionRule, error) {
		return storage.RetentionRuleOf(ctx, s.inner)
	})
}

// ask is run for an answer of one value.
func ask[T any](ctx context.Context, s *Store, op string, question func(context.Context) (T, error)) (T, error) {
	found := make(chan T, 1)
	err := s.run(ctx, op, func(ctx context.Context, _ *watch) error {
		answer, err := question(ctx)
		found <- answer
		return err
	})
	if err != nil {
		return *new(T), err
	}
	return <-found, nil
}

// sweeper is a store in which crashes leave files that only it knows of.
type sweeper interface {
	Sweep(ctx context.Context, before time.Time) (removed int, err error)
}

// Sweep removes what crashes left in the store, where that leaves something.
func (s *Store) Sweep(ctx context.Context, before time.Time) (removed int, err error) {
	inner, ok := s.inner.(sweeper)
	if !ok {
		return 0, nil
	}
	found := make(chan int, 1)
	err = s.run(ctx, "sweep", func(ctx context.Context, _ *watch) error {
		n, err := inner.Sweep(ctx, before)
		found <- n
		return err
	})
	select {
	case removed = <-found:
	default:
	}
	return removed, err
}
