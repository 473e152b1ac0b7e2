package wal

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

const testSystem postgres.SystemID = 7300000000000000001

// archive is a repository for tests, and the keys to it.
type archive struct {
	*repo.Repo
	store    storage.Store
	cluster  *repo.KeyFile
	identity age.Identity
}

func newArchive(t testing.TB, store storage.Store) *archive {
	t.Helper()
	cluster, err := repo.NewClusterKey("main", repo.NewID())
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{store: store, cluster: cluster, identity: id}
	a.Repo, err = repo.Create(context.Background(), store, a.keys(id), "db1", time.Unix(1800000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// keys are those of the archive, with the given identities.
func (a *archive) keys(ids ...age.Identity) repo.Keys {
	return repo.Keys{Cluster: a.cluster, Recipients: []age.Recipient{a.identity.(*age.X25519Identity).Recipient()}, Identities: ids}
}

// open opens the archive once more, with other keys.
func (a *archive) open(t testing.TB, store storage.Store, host string, ids ...age.Identity) *repo.Repo {
	t.Helper()
	r, err := repo.Open(context.Background(), store, a.keys(ids...), host)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// writer opens the archive as a push does.
func (a *archive) writer(store storage.Store) (*repo.Repo, error) {
	open := func(context.Context) (storage.Store, error) { return store, nil }
	return repo.OpenWriter(context.Background(), open, a.keys(), "db1")
}

// What waltest makes, by the names that the tests here use.
var (
	segmentBytes = waltest.SegmentBytes
	segment      = waltest.Segment
	walName      = waltest.Name
)

// writeFile writes a file into a new directory and returns its path.
func writeFile(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pushSegment pushes a segment of 1 MiB with this name and returns its bytes.
func (a *archive) pushSegment(t testing.TB, name string) []byte {
	t.Helper()
	b := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
	a.push(t, name, b)
	return b
}

func (a *archive) push(t testing.TB, name string, content []byte) {
	t.Helper()
	if _, err := Push(context.Background(), a.Repo, writeFile(t, name, content), PushOptions{System: testSystem}); err != nil {
		t.Fatal(err)
	}
}
