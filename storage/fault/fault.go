// Package fault is a storage.Store that fails on purpose.
//
// A sweep fails the n-th operation for n = 1, 2, 3 … over some work and looks
// each time whether the error surfaced and nothing was lost. It ends with the
// first n whose fault did not fire, because the work takes fewer operations:
//
//	for n := int64(1); ; n++ {
//		store := fault.New(inner, fault.Fault{At: n, Mode: fault.After})
//		err := work(store)
//		if !store.Fired() {
//			break // err must be nil here
//		}
//		…
//	}
package fault

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

// ErrInjected is the error of a fault that names no other.
var ErrInjected = errors.New("injected fault")

// Mode is the way in which an operation fails.
type Mode int

const (
	// Before fails without doing anything.
	Before Mode = iota
	// After does the work and then says that it failed, as when the answer
	// gets lost: after Create the object is there.
	After
	// Truncate breaks a read off halfway: half of the bytes that an Open
	// would give, half of the objects of a List, then the error. Only Open
	// and List count as operations, because nothing else can break halfway.
	Truncate
	// Delay waits before it does the work, and does not fail.
	Delay
	// Meanwhile calls Do before it does the work, and does not fail: what
	// somebody else does at that moment.
	Meanwhile
	// Outage fails without doing anything, and so does every later operation.
	Outage
)

func (m Mode) String() string {
	switch m {
	case Before:
		return "before"
	case After:
		return "after"
	case Truncate:
		return "truncate"
	case Delay:
		return "delay"
	case Meanwhile:
		return "meanwhile"
	case Outage:
		return "outage"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// Fault says what is to fail.
type Fault struct {
	At   int64 // the operation that fails, counted from 1; 0 is none
	Mode Mode
	Err  error         // what it fails with; nil is ErrInjected
	Wait time.Duration // how long Delay waits
	Do   func()        // what Meanwhile calls
}

// Store passes operations on to another store, but for the one that fails.
type Store struct {
	inner storage.Store
	fault Fault

	mu    sync.Mutex
	ops   int64
	fired string // the operation that failed, "" as long as none has
}

var (
	_ storage.Store    = (*Store)(nil)
	_ storage.Locker   = (*Store)(nil)
	_ storage.Retainer = (*Store)(nil)
)

// New wraps inner so that f happens to it once.
func New(inner storage.Store, f Fault) *Store {
	if f.Err == nil {
		f.Err = ErrInjected
	}
	return &Store{inner: inner, fault: f}
}

// Ops says how many operations have begun. For List that is when its sequence
// is ranged over.
func (s *Store) Ops() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ops
}

// Fired says whether the fault has happened. A test whose fault never fires
// proves nothing.
func (s *Store) Fired() bool { return s.FiredAt() != "" }

// FiredAt names the operation and the key that the fault hit, such as
// "create packs/01ab"; "" as long as it has hit none.
func (s *Store) FiredAt() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fired
}

// Create implements storage.Store.
func (s *Store) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	hit := s.count("create", key, false)
	if err := s.before(ctx, hit); err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	if err := s.inner.Create(ctx, key, body); err != nil {
		return err
	}
	if err := s.after(hit); err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	return nil
}

// Open implements storage.Store.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	hit := s.count("open", key, true)
	if err := s.before(ctx, hit); err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	if hit && s.fault.Mode == Truncate {
		return s.openHalf(ctx, key, off, n)
	}
	body, err := s.inner.Open(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	if err := s.after(hit); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", key, err), body.Close())
	}
	return body, nil
}

// openHalf opens half of the range that was asked for, rounded down, so that
// at least one byte is missing unless the range is empty.
func (s *Store) openHalf(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	info, err := s.inner.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	there := max(info.Size-off, 0)
	if n >= 0 {
		there = min(there, n)
	}
	body, err := s.inner.Open(ctx, key, off, there/2)
	if err != nil {
		return nil, err
	}
	return &brokenBody{ReadCloser: body, err: fmt.Errorf("read %s: %w", key, s.fault.Err)}, nil
}

// brokenBody ends with an error where its body ends.
type brokenBody struct {
	io.ReadCloser
	err error
}

func (b *brokenBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	hit := s.count("stat", key, false)
	if err := s.before(ctx, hit); err != nil {
		return storage.Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	info, err := s.inner.Stat(ctx, key)
	if err != nil {
		return storage.Info{}, err
	}
	if err := s.after(hit); err != nil {
		return storage.Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return info, nil
}

// LockedUntil implements storage.Locker.
func (s *Store) LockedUntil(ctx context.Context, key string) (time.Time, error) {
	return ask(ctx, s, "lock", key, func() (time.Time, error) { return storage.LockedUntil(ctx, s.inner, key) })
}

// Retention implements storage.Retainer.
func (s *Store) Retention(ctx context.Context, key string) (storage.Retention, error) {
	return ask(ctx, s, "retention", key, func() (storage.Retention, error) { return storage.RetentionOf(ctx, s.inner, key) })
}

// RetentionRule implements storage.Retainer.
func (s *Store) RetentionRule(ctx context.Context) (storage.RetentionRule, error) {
	return ask(ctx, s, "retention", "rule", func() (storage.RetentionRule, error) { return storage.RetentionRuleOf(ctx, s.inner) })
}

// ask is an operation that reads one value.
func ask[T any](ctx context.Context, s *Store, op, key string, question func() (T, error)) (T, error) {
	hit := s.count(op, key, false)
	if err := s.before(ctx, hit); err != nil {
		return *new(T), fmt.Errorf("%s %s: %w", op, key, err)
	}
	answer, err := question()
	if err == nil {
		err = s.after(hit)
	}
	if err != nil {
		return *new(T), fmt.Errorf("%s %s: %w", op, key, err)
	}
	return answer, nil
}

// List implements storage.Store. In mode After the error follows the last object.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		hit := s.count("list", prefix, true)
		if err := s.before(ctx, hit); err != nil {
			yield(storage.Info{}, fmt.Errorf("list %s: %w", prefix, err))
			return
		}
		if hit && s.fault.Mode == Truncate {
			s.listHalf(ctx, prefix, yield)
			return
		}
		for info, err := range s.inner.List(ctx, prefix) {
			if !yield(info, err) || err != nil {
				return
			}
		}
		if err := s.after(hit); err != nil {
			yield(storage.Info{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

func (s *Store) listHalf(ctx context.Context, prefix string, yield func(storage.Info, error) bool) {
	var all []storage.Info
	for info, err := range s.inner.List(ctx, prefix) {
		if err != nil {
			yield(storage.Info{}, err)
			return
		}
		all = append(all, info)
	}
	for _, info := range all[:len(all)/2] {
		if !yield(info, nil) {
			return
		}
	}
	yield(storage.Info{}, fmt.Errorf("list %s: %w", prefix, s.fault.Err))
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	hit := s.count("delete", key, false)
	if err := s.before(ctx, hit); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	if err := s.inner.Delete(ctx, key); err != nil {
		return err
	}
	if err := s.after(hit); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// count numbers an operation and says whether the fault hits it. breakable is
// true for those that Truncate counts.
func (s *Store) count(op, key string, breakable bool) (hit bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault.Mode == Truncate && !breakable {
		return false
	}
	s.ops++
	hit = s.ops == s.fault.At || s.fault.Mode == Outage && s.fault.At > 0 && s.ops > s.fault.At
	if hit && s.fired == "" {
		s.fired = op + " " + key
	}
	return hit
}

func (s *Store) before(ctx context.Context, hit bool) error {
	if !hit {
		return nil
	}
	switch s.fault.Mode {
	case Before, Outage:
		return s.fault.Err
	case Meanwhile:
		s.fault.Do()
	case Delay:
		timer := time.NewTimer(s.fault.Wait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
	return nil
}

func (s *Store) after(hit bool) error {
	if hit && s.fault.Mode == After {
		return s.fault.Err
	}
	return nil
}
