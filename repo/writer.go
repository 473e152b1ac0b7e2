package repo

import (
	"context"
	"fmt"
	"io"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// OpenWriter opens the repository that the cluster key names, for a caller
// who only stores and is waited for. It returns before the marker is read;
// that is done, with the checks of Open, while the caller seals. Nothing is
// created or deleted before the marker has proven good: until then, and for
// ever if it has not, CreateEnvelope and the like return what Open would have.
//
// What is read needs no marker: every signature covers the repository's id,
// and that comes from the cluster key. Marker knows no more than the key file.
// ErrReadOnly without a cluster key that names its repository.
func OpenWriter(ctx context.Context, store storage.Store, keys Keys, host string) (*Repo, error) {
	c := keys.Cluster
	if c == nil || c.Signing == nil || c.Repository == "" || c.Cluster == "" || len(keys.Recipients) == 0 {
		return nil, ErrReadOnly
	}
	g := &guardedStore{Store: store, checked: make(chan struct{})}
	m := Marker{Format: Format, Repository: c.Repository, Cluster: c.Cluster, Signer: c.Signing.Public().String()}
	r, err := newRepo(g, m, keys, host)
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(g.checked)
		_, g.err = Open(ctx, store, keys, host)
	}()
	return r, nil
}

// guardedStore changes nothing before the marker is checked.
type guardedStore struct {
	storage.Store
	checked chan struct{} // closed when err is final
	err     error
}

func (g *guardedStore) wait(ctx context.Context) error {
	select {
	case <-g.checked:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("open repository: %w", ctx.Err())
	}
}

// Create implements storage.Store.
func (g *guardedStore) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := g.wait(ctx); err != nil {
		return err
	}
	return g.Store.Create(ctx, key, body)
}

// Delete implements storage.Store.
func (g *guardedStore) Delete(ctx context.Context, key string) error {
	if err := g.wait(ctx); err != nil {
		return err
	}
	return g.Store.Delete(ctx, key)
}
