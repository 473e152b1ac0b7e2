package repo_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// writerKeys are keys that can store, of a new cluster.
func writerKeys(t *testing.T) repo.Keys {
	t.Helper()
	cluster, err := repo.NewClusterKey("main", repo.NewID())
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return repo.Keys{Cluster: cluster, Recipients: []age.Recipient{id.Recipient()}}
}

func TestOpenWriter(t *testing.T) {
	ctx := context.Background()
	keys, others := writerKeys(t), writerKeys(t)
	made := func(k repo.Keys) *mem.Store {
		store := mem.New()
		if _, err := repo.Create(ctx, store, k, "db1", time.Unix(1800000000, 0)); err != nil {
			t.Fatal(err)
		}
		return store
	}
	forged := keys
	forged.Cluster = &repo.KeyFile{Cluster: "main", Repository: keys.Cluster.Repository,
		Signing: others.Cluster.Signing, Signers: others.Cluster.Signers, Identities: others.Cluster.Identities}
	broken := errors.New("no credentials")
	tests := map[string]struct {
		store storage.Store
		open  error
		ok    func(error) bool
	}{
		"its own repository": {store: made(keys), ok: func(err error) bool { return err == nil }},
		"no repository":      {store: mem.New(), ok: func(err error) bool { return errors.Is(err, repo.ErrNoRepository) }},
		"no store":           {open: broken, ok: func(err error) bool { return errors.Is(err, broken) }},
		"another cluster's": {store: made(others), ok: func(err error) bool {
			_, ok := errors.AsType[*repo.ForeignError](err)
			return ok
		}},
		"a forged marker": {store: made(forged), ok: func(err error) bool {
			_, ok := errors.AsType[*repo.UntrustedError](err)
			return ok
		}},
		"a marker that cannot be read": {store: fault.New(made(keys), fault.Fault{At: 1, Err: storage.ErrDenied}),
			ok: func(err error) bool { return errors.Is(err, storage.ErrDenied) }},
	}
	for what, test := range tests {
		t.Run(what, func(t *testing.T) {
			open := func(context.Context) (storage.Store, error) { return test.store, test.open }
			r, err := repo.OpenWriter(ctx, open, keys, "db1")
			if err != nil {
				t.Fatal(err)
			}
			const key = "wal/1/00000001/000000010000000000000001"
			_, err = r.CreateEnvelope(ctx, key, repo.KindWAL, bytes.NewReader([]byte("plain")), 5)
			if !test.ok(err) {
				t.Errorf("stored with %v", err)
			}
			if test.store == nil {
				return
			}
			if _, statErr := test.store.Stat(ctx, key); (statErr == nil) != (err == nil) {
				t.Errorf("the push said %v, the store %v", err, statErr)
			}
			if err := r.Store().Delete(ctx, repo.MarkerKey); !test.ok(err) {
				t.Errorf("deleted with %v", err)
			}
		})
	}
}

// Nothing is written while the marker is still on its way, however long.
func TestOpenWriterWaits(t *testing.T) {
	keys := writerKeys(t)
	ctx, cancel := context.WithCancel(context.Background())
	never := func(ctx context.Context) (storage.Store, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r, err := repo.OpenWriter(context.Background(), func(context.Context) (storage.Store, error) { return never(ctx) }, keys, "db1")
	if err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer stop()
	if err := r.Store().Create(short, "a", bytes.NewReader(nil)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("create: %v", err)
	}
	if _, err := r.Store().Stat(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stat: %v", err)
	}
	cancel()
	if err := r.Store().Create(context.Background(), "a", bytes.NewReader(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
}

func TestOpenWriterNeedsKeys(t *testing.T) {
	keys := writerKeys(t)
	for what, change := range map[string]func(k *repo.Keys){
		"no cluster key":    func(k *repo.Keys) { k.Cluster = nil },
		"no recipients":     func(k *repo.Keys) { k.Recipients = nil },
		"a key of no place": func(k *repo.Keys) { k.Cluster = &repo.KeyFile{Cluster: "main", Signing: k.Cluster.Signing} },
	} {
		k := keys
		change(&k)
		open := func(context.Context) (storage.Store, error) { return mem.New(), nil }
		if _, err := repo.OpenWriter(context.Background(), open, k, "db1"); !errors.Is(err, repo.ErrReadOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
