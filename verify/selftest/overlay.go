package selftest

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// overlay is a store with changes: objects that are gone, and objects with
// other bytes. What is created stays in it.
type overlay struct {
	storage.Store

	mu      sync.Mutex
	gone    map[string]bool
	changed map[string][]byte
}

func newOverlay(below storage.Store) *overlay {
	return &overlay{Store: below, gone: map[string]bool{}, changed: map[string][]byte{}}
}

func (o *overlay) remove(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.changed, key)
	o.gone[key] = true
}

func (o *overlay) replace(key string, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.gone, key)
	o.changed[key] = data
}

func (o *overlay) lookup(key string) (data []byte, changed, gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	data, changed = o.changed[key]
	return data, changed, o.gone[key]
}

func (o *overlay) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if _, err := o.Stat(ctx, key); err == nil {
		return fs.ErrExist
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	o.replace(key, data)
	return nil
}

func (o *overlay) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	data, changed, gone := o.lookup(key)
	switch {
	case gone:
		return nil, fs.ErrNotExist
	case !changed:
		return o.Store.Open(ctx, key, off, n)
	}
	off = min(off, int64(len(data)))
	end := int64(len(data))
	if n >= 0 {
		end = min(end, off+n)
	}
	return io.NopCloser(bytes.NewReader(data[off:end])), nil
}

func (o *overlay) Stat(ctx context.Context, key string) (storage.Info, error) {
	data, changed, gone := o.lookup(key)
	switch {
	case gone:
		return storage.Info{}, fs.ErrNotExist
	case !changed:
		return o.Store.Stat(ctx, key)
	}
	return storage.Info{Key: key, Size: int64(len(data))}, nil
}

func (o *overlay) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		var all []storage.Info
		for info, err := range o.Store.List(ctx, prefix) {
			if err != nil {
				yield(info, err)
				return
			}
			if _, changed, gone := o.lookup(info.Key); !changed && !gone {
				all = append(all, info)
			}
		}
		o.mu.Lock()
		for key, data := range o.changed {
			if strings.HasPrefix(key, prefix) {
				all = append(all, storage.Info{Key: key, Size: int64(len(data))})
			}
		}
		o.mu.Unlock()
		slices.SortFunc(all, func(a, b storage.Info) int { return strings.Compare(a.Key, b.Key) })
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (o *overlay) Delete(ctx context.Context, key string) error {
	o.remove(key)
	return nil
}

// read is the whole object.
func (o *overlay) read(ctx context.Context, key string) ([]byte, error) {
	info, err := o.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	rc, err := o.Open(ctx, key, 0, info.Size)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// writeTo writes all objects into a new file repository.
func (w *bench) writeTo(ctx context.Context, dir string) error {
	to, err := w.scratch.Init(dir)
	if err != nil {
		return err
	}
	for info, err := range w.store.List(ctx, "") {
		if err != nil {
			return err
		}
		data, err := w.store.read(ctx, info.Key)
		if err == nil {
			err = to.Create(ctx, info.Key, bytes.NewReader(data))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
