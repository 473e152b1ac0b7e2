// Package mem is a storage.Store in memory, for tests: every value of Store
// is a world of its own.
package mem

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// Store keeps objects in memory. The zero value is an empty store, ready to
// use. It must not be copied.
type Store struct {
	mu      sync.RWMutex
	objects map[string]object
}

type object struct {
	data []byte // never changed
	made time.Time
}

var _ storage.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store { return new(Store) }

// Create implements storage.Store.
func (s *Store) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := check(ctx, "create", key); err != nil {
		return err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("create %s: rewind the body: %w", key, err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("create %s: read the body: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.objects[key]; taken {
		return fmt.Errorf("create %s: %w", key, fs.ErrExist)
	}
	if s.objects == nil {
		s.objects = make(map[string]object)
	}
	s.objects[key] = object{data: data, made: time.Now()}
	return nil
}

// Open implements storage.Store.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := check(ctx, "open", key); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("open %s: negative offset %d", key, off)
	}
	o, err := s.object("open", key)
	if err != nil {
		return nil, err
	}
	data := o.data[min(off, int64(len(o.data))):]
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	return &reader{ctx: ctx, rest: data}, nil
}

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := check(ctx, "stat", key); err != nil {
		return storage.Info{}, err
	}
	o, err := s.object("stat", key)
	return storage.Info{Key: key, Size: int64(len(o.data)), ModTime: o.made}, err
}

// List implements storage.Store. It yields what was there when it began.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		if err := storage.CheckPrefix(prefix); err != nil {
			yield(storage.Info{}, fmt.Errorf("list: %w", err))
			return
		}
		s.mu.RLock()
		objects := maps.Clone(s.objects)
		s.mu.RUnlock()
		for _, key := range slices.Sorted(maps.Keys(objects)) {
			if err := ctx.Err(); err != nil {
				yield(storage.Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			o := objects[key]
			if !yield(storage.Info{Key: key, Size: int64(len(o.data)), ModTime: o.made}, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(storage.Info{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, "delete", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

func (s *Store) object(op, key string) (object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s %s: %w", op, key, fs.ErrNotExist)
	}
	return o, nil
}

func check(ctx context.Context, op, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	return nil
}

// reader ends with the context, as a read from a real store does.
type reader struct {
	ctx  context.Context
	rest []byte
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *reader) Close() error {
	r.rest = nil
	return nil
}
