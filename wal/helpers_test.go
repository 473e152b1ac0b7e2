package wal

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/postgres"
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

// segmentBytes makes a segment with the header that PostgreSQL 15 would write
// and a body that half compresses.
func segmentBytes(seg postgres.Segment, system postgres.SystemID, seed uint64) []byte {
	b := make([]byte, seg.Size)
	binary.LittleEndian.PutUint16(b, 0xD110)
	binary.LittleEndian.PutUint16(b[2:], 2)
	binary.LittleEndian.PutUint32(b[4:], uint32(seg.Timeline))
	binary.LittleEndian.PutUint64(b[8:], uint64(seg.Start()))
	binary.LittleEndian.PutUint64(b[24:], uint64(system))
	binary.LittleEndian.PutUint32(b[32:], uint32(seg.Size))
	binary.LittleEndian.PutUint32(b[36:], 8192)
	rnd := rand.New(rand.NewPCG(seed, seg.No))
	for i := postgres.SegmentHeaderSize; i+16 <= len(b); i += 16 {
		binary.LittleEndian.PutUint64(b[i:], rnd.Uint64())
	}
	return b
}

func segment(t testing.TB, name string, size postgres.SegmentSize) postgres.Segment {
	t.Helper()
	seg, err := postgres.ParseSegment(name, size)
	if err != nil {
		t.Fatal(err)
	}
	return seg
}

func walName(t testing.TB, s string) postgres.WALName {
	t.Helper()
	n, err := postgres.ParseWALName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// writeFile writes a file into a new folder and returns its path.
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
