package wal

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// put puts bytes under a key, as somebody can who has a right to and no key.
func put(t testing.TB, store storage.Store, key, bytes string) {
	t.Helper()
	if err := store.Create(context.Background(), key, strings.NewReader(bytes)); err != nil {
		t.Fatal(err)
	}
}

func fetched(t testing.TB, r *repo.Repo, name string) []byte {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	if err := Fetch(context.Background(), r, testSystem, walName(t, name), dest); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dest)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Whoever can write to the bucket takes the names of WAL that is still to come: it is
// archived all the same, comes back, is counted once, and holds its place against
// another content.
func TestPushPastTakenNames(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		ctx := context.Background()
		names := []string{"000000010000000000000001", "000000010000000000000002", "00000002.history", "000000010000000000000002.00000028.backup"}
		for _, name := range names {
			key := repo.WALKey(testSystem, walName(t, name))
			put(t, store, key, "junk")
			put(t, store, key+"+"+strings.Repeat("0", 16)+"-"+strings.Repeat("A", 86), "junk beside")
			content := []byte("1\t0/2000028\tno recovery target specified\n")
			if walName(t, name).Kind == postgres.WALSegment {
				content = segmentBytes(segment(t, name, 1<<20), testSystem, 1)
			}
			path := writeFile(t, name, content)
			for range 2 { // PostgreSQL may ask twice
				stored, err := Push(ctx, a.Repo, path, PushOptions{System: testSystem})
				if err != nil || stored.Beside == "" == !stored.Existed {
					t.Fatalf("%s: %+v, %v", name, stored, err)
				}
			}
			if got := fetched(t, a.Repo, name); !bytes.Equal(got, content) {
				t.Errorf("%s: %d bytes came back, want %d", name, len(got), len(content))
			}
		}
		other := writeFile(t, names[1], segmentBytes(segment(t, names[1], 1<<20), testSystem, 2))
		_, err := Push(ctx, a.Repo, other, PushOptions{System: testSystem})
		if _, two := errors.AsType[*TwoPrimariesError](err); !two {
			t.Errorf("other content: %v", err)
		}
		for what, load := range map[string]func() (*Index, error){
			"listed": func() (*Index, error) { return LoadIndex(ctx, a.Repo, testSystem) },
			"checked": func() (*Index, error) {
				return LoadChecked(ctx, a.Repo, testSystem, func(storage.Info) {}, HeaderCheck{})
			},
		} {
			ix, err := load()
			if err != nil {
				t.Fatal(what, err)
			}
			if got := ix.Ranges(1); len(got) != 1 || got[0].Segments(1<<20) != 2 || len(ix.Bad()) != 0 || !ix.HasHistory(2) {
				t.Errorf("%s: %v, bad %v", what, got, ix.Bad())
			}
		}
		// Who may delete removes the junk: what lies beside stands for it still.
		if err := store.Delete(ctx, repo.WALKey(testSystem, walName(t, names[0]))); err != nil {
			t.Fatal(err)
		}
		fetched(t, a.Repo, names[0])
		if err := tryFetch(t, a.Repo, testSystem, "000000010000000000000003"); !errors.Is(err, ErrNotArchived) {
			t.Errorf("behind the end: %v", err)
		}
	})
}

// A name beside a key is no use to who has no key: that of another repository, of
// another key, of a signer who is not believed, or moved.
func TestNamesBesideAreSigned(t *testing.T) {
	t.Parallel()
	store, ctx := mem.New(), context.Background()
	a, foreign := newArchive(t, store), newArchive(t, mem.New())
	name := "000000010000000000000001"
	key := repo.WALKey(testSystem, walName(t, name))
	beside := func(a *archive, store storage.Store, name string) string {
		put(t, store, repo.WALKey(testSystem, walName(t, name)), "junk")
		stored, err := Push(ctx, a.Repo, writeFile(t, name, segmentBytes(segment(t, name, 1<<20), testSystem, 1)), PushOptions{System: testSystem})
		if err != nil {
			t.Fatal(err)
		}
		return stored.Beside
	}
	genuine := beside(a, store, "000000010000000000000002")
	for what, junk := range map[string]string{
		"another repository": beside(foreign, foreign.store, name),
		"another key":        key + genuine[len(key):],
		"another mark":       strings.Replace(genuine, "+", "-", 1),
		"cut short":          genuine[:len(genuine)-1],
	} {
		if got, as, _ := a.ArchiveKey(junk); as || got != junk {
			t.Errorf("%s stands for %s", what, got)
		}
	}
	if got, as, ok := a.ArchiveKey(genuine); !as || !ok || got != key[:len(key)-1]+"2" {
		t.Errorf("the genuine one stands for %s, %v", got, as)
	}
}

// Junk among the slices of a segment stops neither its push nor recovery by the
// genuine ones, and where the end of the archive is, it is no later WAL.
func TestJunkAmongSlices(t *testing.T) {
	t.Parallel()
	store, ctx := mem.New(), context.Background()
	a := newArchive(t, store)
	a.pushSegment(t, "000000010000000000000001")
	seg := segment(t, "000000010000000000000002", 1<<20)
	content := segmentBytes(seg, testSystem, 1)
	half := content[:1<<19]
	if _, err := a.CreateEnvelope(ctx, repo.SliceKey(testSystem, 1, seg.Name(), 0, 1<<19), repo.KindWAL, bytes.NewReader(half), 1<<19); err != nil {
		t.Fatal(err)
	}
	for _, to := range []int64{1 << 18, 1 << 20, 1<<20 - 8} {
		put(t, store, repo.SliceKey(testSystem, 1, seg.Name(), 0, to), "junk")
	}
	put(t, store, repo.WALKey(testSystem, walName(t, "000000010000000000000009")), "junk")
	if got := fetched(t, a.Repo, seg.Name()); !bytes.Equal(got[:1<<19], half) || !bytes.Equal(got[1<<19:], make([]byte, 1<<19)) {
		t.Error("the segment that was put together is not what its genuine slice holds")
	}
	if err := tryFetch(t, a.Repo, testSystem, "000000010000000000000003"); !errors.Is(err, ErrNotArchived) {
		t.Errorf("behind the end: %v", err)
	}
	if _, err := Push(ctx, a.Repo, writeFile(t, seg.Name(), content), PushOptions{System: testSystem}); err != nil {
		t.Errorf("push over junk slices: %v", err)
	}
	if _, err := store.Stat(ctx, repo.WALKey(testSystem, walName(t, seg.Name()))); errors.Is(err, fs.ErrNotExist) {
		t.Error("it is not archived")
	}
}
