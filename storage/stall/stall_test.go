package stall_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/stall"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

const limit = 100 * time.Millisecond

func TestContract(t *testing.T) {
	store := stall.New(mem.New(), time.Minute)
	suite.Run(t, func(*testing.T) storage.Store { return store })
}

// hanging is a store whose operations wait for release, heedless of contexts
// or not.
type hanging struct {
	storage.Store
	heed    bool
	release chan struct{}
	returns chan error // what Create returned in the end
}

func newHanging(t *testing.T, heed bool) *hanging {
	h := &hanging{Store: mem.New(), heed: heed, release: make(chan struct{}), returns: make(chan error, 1)}
	t.Cleanup(func() {
		select {
		case <-h.release:
		default:
			close(h.release)
		}
	})
	return h
}

func (h *hanging) wait(ctx context.Context) error {
	if h.heed {
		<-ctx.Done()
		return &storage.EndedError{Err: ctx.Err(), Last: errors.New("dial: no route to host")}
	}
	<-h.release
	return nil
}

func (h *hanging) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := h.wait(ctx); err != nil {
		return err
	}
	err := h.Store.Create(context.Background(), key, body)
	h.returns <- err
	return err
}

func (h *hanging) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return nil, h.wait(ctx)
}

func (h *hanging) Stat(ctx context.Context, key string) (storage.Info, error) {
	return storage.Info{}, h.wait(ctx)
}

func (h *hanging) Delete(ctx context.Context, key string) error { return h.wait(ctx) }

func (h *hanging) LockedUntil(ctx context.Context, key string) (time.Time, error) {
	return time.Time{}, h.wait(ctx)
}

func (h *hanging) Sweep(ctx context.Context, before time.Time) (int, error) { return 0, h.wait(ctx) }

// List gives one entry before it hangs.
func (h *hanging) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		if !yield(storage.Info{Key: prefix + "1"}, nil) {
			return
		}
		if err := h.wait(ctx); err != nil {
			yield(storage.Info{}, err)
		}
	}
}

// listed lists, and returns the error that ended it.
func listed(ctx context.Context, s storage.Store, prefix string) (keys []string, err error) {
	for info, err := range s.List(ctx, prefix) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, info.Key)
	}
	return keys, nil
}

func TestHangingStore(t *testing.T) {
	for what, heed := range map[string]bool{"heeds its context": true, "hangs": false} {
		h := newHanging(t, heed)
		s := stall.New(h, limit)
		for op, run := range map[string]func(ctx context.Context) error{
			"create":           func(ctx context.Context) error { return s.Create(ctx, "k", bytes.NewReader([]byte("x"))) },
			"open":             func(ctx context.Context) error { _, err := s.Open(ctx, "k", 0, -1); return err },
			"stat":             func(ctx context.Context) error { _, err := s.Stat(ctx, "k"); return err },
			"delete":           func(ctx context.Context) error { return s.Delete(ctx, "k") },
			"ask for the lock": func(ctx context.Context) error { _, err := s.LockedUntil(ctx, "k"); return err },
			"sweep":            func(ctx context.Context) error { _, err := s.Sweep(ctx, time.Now()); return err },
			"list": func(ctx context.Context) error {
				keys, err := listed(ctx, s, "k")
				if len(keys) != 1 && ctx.Err() == nil {
					t.Errorf("%v were listed before it hung", keys)
				}
				return err
			},
			"open the store": func(ctx context.Context) error {
				_, err := stall.Open(ctx, limit, func(ctx context.Context) (storage.Store, error) { return nil, h.wait(ctx) })
				return err
			},
		} {
			t.Run(what+"/"+op, func(t *testing.T) {
				t.Parallel()
				begin := time.Now()
				err := run(t.Context())
				stalled, ok := errors.AsType[*stall.Error](err)
				if !ok || !errors.Is(err, storage.ErrUnavailable) || errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), op) {
					t.Fatalf("%v", err)
				}
				if (stalled.Last != nil) != heed || heed && !strings.Contains(err.Error(), "no route to host") {
					t.Errorf("the reason is not told: %v", err)
				}
				if took := time.Since(begin); took < limit || took > limit+10*time.Second {
					t.Errorf("it took %v", took)
				}

				// An ended context ends it as well, and is not taken for a stall.
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := run(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, storage.ErrUnavailable) {
					t.Errorf("with an ended context: %v", err)
				}
			})
		}
	}
}

// locking is a store with Object Lock, in which a crash has left something.
type locking struct{ storage.Store }

func (locking) LockedUntil(context.Context, string) (time.Time, error) { return storage.Forever, nil }
func (locking) Sweep(context.Context, time.Time) (int, error)          { return 3, nil }

// What a store can beside the interface, it still can: expiry must see its locks.
func TestLocksAndSweep(t *testing.T) {
	for _, c := range []struct {
		inner   storage.Store
		until   time.Time
		removed int
	}{{locking{mem.New()}, storage.Forever, 3}, {mem.New(), time.Time{}, 0}} {
		s := stall.New(c.inner, time.Minute)
		until, err := storage.LockedUntil(t.Context(), s, "k")
		removed, swept := s.Sweep(t.Context(), time.Now())
		if err != nil || swept != nil || !until.Equal(c.until) || removed != c.removed {
			t.Errorf("locked until %s %v, %d removed %v", until, err, removed, swept)
		}
	}
}

// What is left behind reads nothing any more: its caller may have used the
// memory for something else, and half an object must not be made.
func TestLeftBehindCreateMakesNothing(t *testing.T) {
	h := newHanging(t, false)
	s := stall.New(h, limit)
	if err := s.Create(t.Context(), "k", bytes.NewReader([]byte("x"))); !errors.Is(err, storage.ErrUnavailable) {
		t.Fatal(err)
	}
	close(h.release)
	if err := <-h.returns; err == nil {
		t.Error("it read the body after the end")
	}
	if _, err := h.Stat(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if info, err := h.Store.Stat(t.Context(), "k"); err == nil {
		t.Errorf("it made an object: %+v", info)
	}
}

// reading is a store that reads bodies slowly, some times over.
type reading struct {
	storage.Store
	pause  time.Duration
	passes int
	done   int // whole passes
}

func (r *reading) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	for range r.passes {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return err
		}
		for {
			n, err := body.Read(make([]byte, 1))
			if n == 0 && err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			timer := time.NewTimer(r.pause)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
		}
		r.done++
	}
	return r.Store.Create(ctx, key, body)
}

// Slow is not dead; the same bytes again and again are no sign of life.
func TestSlowStore(t *testing.T) {
	const limit = 500 * time.Millisecond // longer than a busy machine delays a read
	body := bytes.Repeat([]byte("x"), 6)
	pause := limit / 3 // a pass takes twice the limit
	slow := stall.New(&reading{Store: mem.New(), pause: pause, passes: 2}, limit)
	if err := slow.Create(t.Context(), "k", bytes.NewReader(body)); err != nil {
		t.Errorf("a slow store: %v", err)
	}
	inner := &reading{Store: mem.New(), pause: pause, passes: 5}
	if err := stall.New(inner, limit).Create(t.Context(), "k", bytes.NewReader(body)); !errors.Is(err, storage.ErrUnavailable) || inner.done > 2 {
		t.Errorf("a store that reads again and again: %v, after %d times", err, inner.done)
	}
}

// pacing is a store whose listings take their time for each entry.
type pacing struct {
	storage.Store
	pause time.Duration
}

func (p pacing) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for range 6 {
			time.Sleep(p.pause)
			if !yield(storage.Info{Key: prefix}, nil) {
				return
			}
		}
	}
}

// Each entry of a listing is a sign of life, and who takes his time with one is
// not taken for the store.
func TestSlowListing(t *testing.T) {
	const limit = 500 * time.Millisecond
	if keys, err := listed(t.Context(), stall.New(pacing{pause: limit / 3}, limit), "k"); len(keys) != 6 || err != nil {
		t.Errorf("%v, %v", keys, err)
	}
	n := 0
	for _, err := range stall.New(pacing{}, limit/10).List(t.Context(), "k") {
		if err != nil {
			t.Error(err)
		}
		time.Sleep(limit / 5)
		n++
	}
	if n != 6 {
		t.Errorf("%d entries", n)
	}
}

// slowBody hangs in its reads.
type slowBody struct{ release chan struct{} }

func (b slowBody) Read([]byte) (int, error) { <-b.release; return 0, io.EOF }
func (b slowBody) Close() error             { return nil }

type slowOpen struct {
	storage.Store
	release chan struct{}
}

func (s slowOpen) Open(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return slowBody{s.release}, nil
}

func TestHangingRead(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	rc, err := stall.New(slowOpen{mem.New(), release}, limit).Open(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := rc.Read(make([]byte, 10)); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
	if err := rc.Close(); err != nil {
		t.Error(err)
	}
}
