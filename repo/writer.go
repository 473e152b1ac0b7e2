package repo

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// OpenWriter opens the repository that the cluster key names, for a caller
// who only stores and is waited for. It returns at once; the store is opened
// and the marker read, with the checks of Open, while the caller seals.
// Nothing is created or deleted before the marker has proven good: until then,
// and for ever if it has not, CreateEnvelope and the like fail with what Open
// would have returned.
//
// What is read needs no marker: every signature covers the repository's id,
// and that comes from the cluster key. Marker knows no more than the key file.
// ErrReadOnly without a cluster key that names its repository.
func OpenWriter(ctx context.Context, open func(context.Context) (storage.Store, error), keys Keys, host string) (*Repo, error) {
	c := keys.Cluster
	if c == nil || c.Signing == nil || c.Repository == "" || c.Cluster == "" || len(keys.Recipients) == 0 {
		return nil, ErrReadOnly
	}
	s := &openingStore{opened: make(chan struct{}), checked: make(chan struct{})}
	m := Marker{Format: Format, Repository: c.Repository, Cluster: c.Cluster, Signer: c.Signing.Public().String()}
	r, err := newRepo(s, m, keys, host)
	if err != nil {
		return nil, err
	}
	r.settled, r.archiving = s.checked, true
	go func() {
		defer close(s.checked)
		s.store, s.openErr = open(ctx)
		close(s.opened)
		if s.checkErr = s.openErr; s.checkErr == nil {
			s.checkErr = r.settle(ctx, s.store, keys, host)
		}
	}()
	return r, nil
}

// settle checks the marker and learns who signs.
func (r *Repo) settle(ctx context.Context, store storage.Store, keys Keys, host string) error {
	opened, err := OpenToArchive(ctx, store, keys, host)
	if err != nil {
		return err
	}
	r.believed.Store(opened.who())
	if e := opened.retired.Load(); e != nil {
		return e
	}
	return nil
}

// openingStore is a store that may still be opening. It changes nothing
// before the marker in it is checked.
type openingStore struct {
	opened   chan struct{} // closed when store and openErr are final
	store    storage.Store
	openErr  error
	checked  chan struct{} // closed when checkErr is final
	checkErr error
}

func (s *openingStore) readable(ctx context.Context) (storage.Store, error) {
	select {
	case <-s.opened:
		return s.store, s.openErr
	case <-ctx.Done():
		return nil, fmt.Errorf("open repository: %w", ctx.Err())
	}
}

func (s *openingStore) writable(ctx context.Context) (storage.Store, error) {
	select {
	case <-s.checked:
		return s.store, s.checkErr
	case <-ctx.Done():
		return nil, fmt.Errorf("open repository: %w", ctx.Err())
	}
}

// Create implements storage.Store.
func (s *openingStore) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	store, err := s.writable(ctx)
	if err != nil {
		return err
	}
	return store.Create(ctx, key, body)
}

// Open implements storage.Store.
func (s *openingStore) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	store, err := s.readable(ctx)
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, key, off, n)
}

// Stat implements storage.Store.
func (s *openingStore) Stat(ctx context.Context, key string) (storage.Info, error) {
	store, err := s.readable(ctx)
	if err != nil {
		return storage.Info{}, err
	}
	return store.Stat(ctx, key)
}

// List implements storage.Store.
func (s *openingStore) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		store, err := s.readable(ctx)
		if err != nil {
			yield(storage.Info{}, err)
			return
		}
		store.List(ctx, prefix)(yield)
	}
}

// Delete implements storage.Store.
func (s *openingStore) Delete(ctx context.Context, key string) error {
	store, err := s.writable(ctx)
	if err != nil {
		return err
	}
	return store.Delete(ctx, key)
}
