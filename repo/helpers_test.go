package repo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

var testTime = time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)

// world is a repository with everything that a cluster has.
type world struct {
	store    *mem.Store
	cluster  *KeyFile
	recovery *KeyFile
	writer   *Repo // the database host: cluster key and recipients
	reader   *Repo // a bare machine: the recovery key
}

func newWorld(t testing.TB) *world {
	t.Helper()
	cluster, err := NewClusterKey("shop", NewID())
	check(t, err)
	return newWorldOf(t, cluster)
}

func newWorldOf(t testing.TB, cluster *KeyFile) *world {
	t.Helper()
	w := &world{store: mem.New(), cluster: cluster}
	var err error
	w.recovery, err = NewRecoveryKey(cluster)
	check(t, err)
	w.writer, err = Create(t.Context(), w.store, w.writerKeys(t), "db1", testTime)
	check(t, err)
	w.reader, err = Open(t.Context(), w.store, w.readerKeys(), "drill")
	check(t, err)
	return w
}

func (w *world) writerKeys(t testing.TB) Keys {
	return Keys{Cluster: w.cluster, Recipients: recipientsOf(t, w.recovery)}
}

func (w *world) readerKeys() Keys {
	return Keys{Identities: w.recovery.Identities, Trusted: w.recovery.Signers}
}

func recipientsOf(t testing.TB, k *KeyFile) []age.Recipient {
	t.Helper()
	var out []age.Recipient
	for _, s := range k.Recipients() {
		r, err := ParseRecipient(s)
		check(t, err)
		out = append(out, r)
	}
	return out
}

// over is the same repository, with the same keys, on another store.
func over(t testing.TB, r *Repo, s storage.Store) *Repo {
	t.Helper()
	out, err := newRepo(s, r.marker, r.keys, r.host)
	check(t, err)
	return out
}

// put replaces what is stored under key, as only an attacker does.
func (w *world) put(t testing.TB, key string, b []byte) {
	t.Helper()
	check(t, w.store.Delete(t.Context(), key))
	check(t, w.store.Create(t.Context(), key, bytes.NewReader(b)))
}

func (w *world) get(t testing.TB, key string) []byte {
	t.Helper()
	return suite.Read(t, w.store, key)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// request is one Open of a store.
type request struct {
	key    string
	off, n int64
}

// watched is a store that notes what is read from it.
type watched struct {
	storage.Store
	mu    sync.Mutex
	opens []request
}

func (w *watched) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	w.mu.Lock()
	w.opens = append(w.opens, request{key, off, n})
	w.mu.Unlock()
	return w.Store.Open(ctx, key, off, n)
}

func (w *watched) taken() []request {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.opens
	w.opens = nil
	return out
}

// walLike is n bytes that compress about as WAL does: pages of repeated
// records with a few random bytes each.
func walLike(n int) []byte {
	out := make([]byte, 0, n+64)
	state := uint64(0x9e3779b97f4a7c15)
	for i := 0; len(out) < n; i++ {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		out = append(out, "INSERT xl_tot_len xid rmgr pgbench_history "...)
		for s := range 12 {
			out = append(out, byte(state>>(s*5)))
		}
		out = append(out, byte(i), byte(i>>8), byte(i>>16))
	}
	return out[:n]
}

// forgetful does what its n-th Create asks and says that it failed.
type forgetful struct {
	storage.Store
	n int
}

func (f *forgetful) Create(ctx context.Context, key string, b io.ReadSeeker) error {
	err := f.Store.Create(ctx, key, b)
	if f.n--; f.n == -1 && err == nil {
		return errors.New("the answer was lost")
	}
	return err
}
