package restore

import (
	"bytes"
	"context"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

const testSystem postgres.SystemID = 7300000000000000001

// keyring is what one cluster's users hold.
type keyring struct {
	cluster  *repo.KeyFile
	identity *age.X25519Identity
}

func newKeyring(t testing.TB) keyring {
	t.Helper()
	cluster, err := repo.NewClusterKey("main", repo.NewID())
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return keyring{cluster, id}
}

func (k keyring) keys() repo.Keys {
	return repo.Keys{Cluster: k.cluster, Recipients: []age.Recipient{k.identity.Recipient()}, Identities: []age.Identity{k.identity}}
}

// newTestRepo makes a repository in memory.
func newTestRepo(t testing.TB) (*repo.Repo, *mem.Store, keyring) {
	t.Helper()
	k, store := newKeyring(t), mem.New()
	r, err := repo.Create(context.Background(), store, k.keys(), "db1", time.Unix(1800000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return r, store, k
}

func openTestRepo(t testing.TB, store storage.Store, keys repo.Keys) *repo.Repo {
	t.Helper()
	r, err := repo.Open(context.Background(), store, keys, "db1")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// putWAL stores an object of the archive as a push would, without a push's
// checks of what is in it.
func putWAL(t testing.TB, r *repo.Repo, name string, content []byte) {
	t.Helper()
	n, err := postgres.ParseWALName(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.CreateEnvelope(context.Background(), repo.WALKey(testSystem, n), repo.KindWAL, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
}

// putSegments stores empty segments of 1 MiB, from the first to the last.
func putSegments(t testing.TB, r *repo.Repo, first, last string) {
	t.Helper()
	const size = 1 << 20
	from, err := postgres.ParseSegment(first, size)
	if err != nil {
		t.Fatal(err)
	}
	to, err := postgres.ParseSegment(last, size)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, size)
	for seg := from; seg.No <= to.No; seg = seg.Next() {
		putWAL(t, r, seg.Name(), zeros)
	}
}
