package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/wal/queue"
)

// tryFetch fetches over a file that is there, and makes sure that after an
// error it still is what it was, with nothing beside it.
func tryFetch(t testing.TB, r *repo.Repo, system postgres.SystemID, name string) error {
	t.Helper()
	dir := t.TempDir()
	dest := filepath.Join(dir, "RECOVERYXLOG")
	if err := os.WriteFile(dest, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Fetch(context.Background(), r, system, walName(t, name), dest)
	if err == nil {
		return nil
	}
	got, readErr := os.ReadFile(dest)
	if readErr != nil || string(got) != "before" {
		t.Errorf("a failed fetch (%v) left %d bytes at its destination: %v", err, len(got), readErr)
	}
	entries, readErr := os.ReadDir(dir)
	if readErr != nil || len(entries) != 1 {
		t.Errorf("a failed fetch (%v) left files: %v %v", err, entries, readErr)
	}
	return err
}

func TestFetchProvesAbsence(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		for _, name := range []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000004",
			"000000020000000000000007", "0000000200000001000000FE"} {
			a.pushSegment(t, name)
		}
		a.push(t, "000000030000000000000009.partial", segmentBytes(segment(t, "000000030000000000000009", 1<<20), testSystem, 1))
		absent := []string{
			"000000010000000000000005",                 // after the last
			"0000000200000001000000FF",                 // after the last, last of its run
			"000000020000000200000000",                 // further on
			"000000030000000000000008",                 // a partial segment is no later segment
			"000000040000000000000001",                 // of a timeline that is not there
			"00000003.history",                         // of a timeline of which no whole segment is there
			"00000005.history",                         // of one that never was
			"00000001.history",                         // the first has none
			"000000010000000000000001.00000028.backup", // nor does a backup history file
			"000000010000000000000003.partial",         // nor a partial segment
		}
		for _, name := range absent {
			if err := tryFetch(t, a.Repo, testSystem, name); !errors.Is(err, ErrNotArchived) {
				t.Errorf("%s: %v; want ErrNotArchived", name, err)
			}
		}
		gaps := map[string]string{
			"000000010000000000000000": "000000010000000000000001",
			"000000010000000000000003": "000000010000000000000004",
			"000000020000000000000001": "000000020000000000000007",
			"000000020000000000000008": "0000000200000001000000FE", // 4 GiB further
		}
		for name, later := range gaps {
			err := tryFetch(t, a.Repo, testSystem, name)
			gap, ok := errors.AsType[*GapError](err)
			if !ok || gap.Later != later || gap.Missing != name || errors.Is(err, ErrNotArchived) {
				t.Errorf("%s: %v; want a gap before %s", name, err, later)
			}
		}
		err := tryFetch(t, a.Repo, testSystem, "00000002.history")
		if lost, ok := errors.AsType[*HistoryLostError](err); !ok || lost.Timeline != 2 || lost.Segment != "000000020000000000000007" || errors.Is(err, ErrNotArchived) {
			t.Errorf("a history file that is lost: %v", err)
		}
		a.push(t, "00000002.history", []byte("1\t0/700000\tno recovery target specified\n"))
		a.fetch(t, "00000002.history")
		err = tryFetch(t, a.Repo, testSystem+1, "000000010000000000000001")
		if _, ok := errors.AsType[*UnknownSystemError](err); !ok || errors.Is(err, ErrNotArchived) {
			t.Errorf("another system's segment: %v", err)
		}
		if err := store.Delete(context.Background(), repo.MarkerKey); err != nil {
			t.Fatal(err)
		}
		err = tryFetch(t, a.Repo, testSystem, absent[0])
		if !errors.Is(err, repo.ErrNoRepository) || errors.Is(err, ErrNotArchived) {
			t.Errorf("without a marker: %v", err)
		}
	})
}

// A bucket or directory that is gone says nothing about what the archive held.
func TestFetchFromMissingStore(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "repository")
	a := newArchive(t, fileStoreAt(t, root))
	a.pushSegment(t, "000000010000000000000001")
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"000000010000000000000002", "00000002.history"} {
		if err := tryFetch(t, a.Repo, testSystem, name); err == nil || errors.Is(err, ErrNotArchived) {
			t.Errorf("%s from a directory that is gone: %v", name, err)
		}
	}
	if err := os.Mkdir(root, 0o700); err != nil { // as when a file system is not mounted
		t.Fatal(err)
	}
	if err := tryFetch(t, a.Repo, testSystem, "000000010000000000000002"); err == nil || errors.Is(err, ErrNotArchived) {
		t.Errorf("from an empty directory: %v", err)
	}
}

// While PostgreSQL waits at the end of the archive, the next segments come in:
// those must not look like a gap.
func TestFetchWhileArchiving(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	a.pushSegment(t, "000000010000000000000001")
	var once sync.Once
	hooked := &hookedStore{Store: a.store, beforeList: func() {
		once.Do(func() {
			a.pushSegment(t, "000000010000000000000002")
			a.pushSegment(t, "000000010000000000000003")
		})
	}}
	r := a.open(t, hooked, "db1", a.identity)
	if err := tryFetch(t, r, testSystem, "000000010000000000000002"); err != nil {
		t.Error(err)
	}
}

type hookedStore struct {
	storage.Store
	beforeList func()
}

func (h *hookedStore) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	h.beforeList()
	return h.Store.List(ctx, prefix)
}

func TestFetchNeedsTheRightKeys(t *testing.T) {
	t.Parallel()
	store := mem.New()
	a := newArchive(t, store)
	const name = "000000010000000000000001"
	a.pushSegment(t, name)
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := tryFetch(t, a.open(t, store, "db1", other), testSystem, name); !errors.Is(err, repo.ErrWrongIdentity) {
		t.Errorf("with another identity: %v", err)
	}
	// The database host can write, not read.
	if err := tryFetch(t, a.open(t, store, "db1"), testSystem, name); !errors.Is(err, repo.ErrWrongIdentity) && !errors.Is(err, repo.ErrNoIdentity) {
		t.Errorf("with the cluster key alone: %v", err)
	}
	stranger, err := repo.NewClusterKey("main", a.cluster.Repository)
	if err != nil {
		t.Fatal(err)
	}
	_, err = repo.Open(context.Background(), store, repo.Keys{Trusted: stranger.Signers, Identities: []age.Identity{a.identity}}, "db1")
	if _, ok := errors.AsType[*repo.UntrustedError](err); !ok {
		t.Errorf("with another trust anchor: %v", err)
	}
}

func TestFetchRefusesForgery(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	store := mem.New()
	a := newArchive(t, store)
	const name, next = "000000010000000000000001", "000000010000000000000002"
	key := repo.WALKey(testSystem, walName(t, name))
	plain := a.pushSegment(t, name)
	a.pushSegment(t, next)
	good := rawObject(t, store, key)
	expectRefused := func(what string, raw []byte) {
		t.Helper()
		replaceObject(t, store, key, raw)
		err := tryFetch(t, a.Repo, testSystem, name)
		_, corrupt := errors.AsType[*repo.CorruptError](err)
		_, untrusted := errors.AsType[*repo.UntrustedError](err)
		if !corrupt && !untrusted {
			t.Errorf("%s: %v", what, err)
		}
		if errors.Is(err, ErrNotArchived) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) {
			t.Errorf("%s looks like the end of the archive: %v", what, err)
		}
	}
	expectRefused("another segment's object", rawObject(t, store, repo.WALKey(testSystem, walName(t, next))))
	expectRefused("the marker", rawObject(t, store, repo.MarkerKey))
	expectRefused("an object with a byte more", append(slices.Clone(good), 0))
	for _, off := range offsets(good) {
		flipped := slices.Clone(good)
		flipped[off] ^= 1 << (off % 8)
		expectRefused(fmt.Sprintf("a bit flipped in byte %d of %d", off, len(good)), flipped)
		expectRefused(fmt.Sprintf("%d bytes of %d", off, len(good)), good[:off])
	}
	replaceObject(t, store, key, good)
	if got := a.fetch(t, name); !bytes.Equal(got, plain) {
		t.Error("the genuine object is refused too")
	}
}

// offsets are places in every part of an object: all of its header line and
// of age's header, and some of the sealed bytes, up to the last.
func offsets(raw []byte) []int {
	body := bytes.Index(raw, []byte("\n--- ")) + 100
	var out []int
	for off := 0; off < body; off += 3 {
		out = append(out, off)
	}
	for i := range 40 {
		out = append(out, body+(len(raw)-body-1)*i/39)
	}
	return out
}

// What is signed can still be wrong, when it was pushed by something else.
func TestFetchChecksTheHeader(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000001"
	for what, content := range map[string][]byte{
		"another place":  segmentBytes(segment(t, "000000010000000000000002", 1<<20), testSystem, 1),
		"another system": segmentBytes(segment(t, name, 1<<20), testSystem+1, 1),
		"too short":      segmentBytes(segment(t, name, 1<<20), testSystem, 1)[:1<<19],
		"empty":          {},
	} {
		a := newArchive(t, mem.New())
		_, err := a.CreateEnvelope(context.Background(), repo.WALKey(testSystem, walName(t, name)), repo.KindWAL,
			bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		err = tryFetch(t, a.Repo, testSystem, name)
		if _, ok := errors.AsType[*HeaderError](err); !ok {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestFetchTwiceAtOnce(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	const name = "000000010000000000000001"
	content := a.pushSegment(t, name)
	dir := t.TempDir()
	dest := filepath.Join(dir, "RECOVERYXLOG")
	// A killed fetch leaves a file, longer than what comes now.
	if err := os.WriteFile(dest+queue.PartSuffix, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 5 {
				// It may be refused, because another writes; never half done.
				err := Fetch(context.Background(), a.Repo, testSystem, walName(t, name), dest)
				if got, readErr := os.ReadFile(dest); err == nil && (readErr != nil || !bytes.Equal(got, content)) {
					t.Errorf("%d bytes, %v", len(got), readErr)
				}
			}
		})
	}
	group.Wait()
	if err := Fetch(context.Background(), a.Repo, testSystem, walName(t, name), dest); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("files left: %v %v", entries, err)
	}
}

func TestFetchToUnwritablePlace(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	a.pushSegment(t, "000000010000000000000001")
	name := walName(t, "000000010000000000000001")
	dir := t.TempDir()
	if err := Fetch(context.Background(), a.Repo, testSystem, name, filepath.Join(dir, "none", "RECOVERYXLOG")); err == nil || errors.Is(err, ErrNotArchived) {
		t.Errorf("to a directory that is not there: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "RECOVERYXLOG"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Fetch(context.Background(), a.Repo, testSystem, name, filepath.Join(dir, "RECOVERYXLOG")); err == nil || errors.Is(err, ErrNotArchived) {
		t.Errorf("onto a directory: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("a failed fetch left files: %v %v", entries, err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "X"+queue.PartSuffix)); err != nil {
		t.Fatal(err)
	}
	if err := Fetch(context.Background(), a.Repo, testSystem, name, filepath.Join(dir, "X")); err == nil {
		t.Error("written through a symbolic link")
	}
}
