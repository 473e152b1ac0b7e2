package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

func TestPushFetch(t *testing.T) {
	t.Parallel()
	const miB = 1 << 20
	files := map[string][]byte{
		"000000010000000000000001":                 segmentBytes(postgres.Segment{Timeline: 1, No: 1, Size: miB}, testSystem, 1),
		"0000000100000000000000FF":                 segmentBytes(postgres.Segment{Timeline: 1, No: 255, Size: 16 * miB}, testSystem, 1),
		"000000010000000A0000003F":                 segmentBytes(postgres.Segment{Timeline: 1, No: 10*64 + 63, Size: 64 * miB}, testSystem, 1),
		"00000002000000000000000F":                 segmentBytes(postgres.Segment{Timeline: 1, No: 15, Size: miB}, testSystem, 2), // a copy of the old timeline's
		"000000010000000000000002.partial":         segmentBytes(postgres.Segment{Timeline: 1, No: 2, Size: miB}, testSystem, 2),
		"00000002.history":                         []byte("1\t0/200100\tno recovery target specified\n"),
		"000000010000000000000001.00000028.backup": []byte("START WAL LOCATION: 0/100028\n"),
	}
	if testing.Short() {
		delete(files, "000000010000000A0000003F") // the largest, slow under the race detector
	}
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		for name, content := range files {
			path := writeFile(t, name, content)
			for again := range 2 {
				s, err := Push(context.Background(), a.Repo, path, PushOptions{System: testSystem})
				if err != nil || s.Existed != (again == 1) || s.Header.Size != int64(len(content)) {
					t.Fatalf("push %s, time %d: existed %t, %d bytes, %v", name, again, s.Existed, s.Header.Size, err)
				}
			}
			if got := a.fetch(t, name); !bytes.Equal(got, content) {
				t.Fatalf("%s came back as %d other bytes", name, len(got))
			}
		}
	})
}

// fetch fetches a file into a new directory and returns its content.
func (a *archive) fetch(t testing.TB, name string) []byte {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	if err := Fetch(context.Background(), a.Repo, testSystem, walName(t, name), dest); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dest)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPushRefusesOtherContent(t *testing.T) {
	t.Parallel()
	names := []string{"000000010000000000000001", "000000010000000000000001.partial", "00000002.history",
		"000000010000000000000001.00000028.backup"}
	content := func(name string, seed uint64) []byte {
		if n := walName(t, name); n.Segment != "" && n.Kind != postgres.WALBackup {
			return segmentBytes(segment(t, n.Segment, 1<<20), testSystem, seed)
		}
		return []byte{'1', '\t', '0', '/', byte('0' + seed), '\n'}
	}
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		other := a.open(t, store, "db2")
		for _, name := range names {
			first := content(name, 1)
			a.push(t, name, first)
			_, err := Push(context.Background(), other, writeFile(t, name, content(name, 2)), PushOptions{System: testSystem})
			two, ok := errors.AsType[*TwoPrimariesError](err)
			if !ok {
				t.Fatalf("%s: other content under its name: %v", name, err)
			}
			for _, want := range []string{name, two.HaveSHA256, two.SHA256, "db1", "db2", "two primaries"} {
				if want == "" || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: the error does not tell %q: %v", name, want, err)
				}
			}
			if got := a.fetch(t, name); !bytes.Equal(got, first) {
				t.Errorf("%s was replaced", name)
			}
		}
	})
}

func TestPushRefusesFalseSegments(t *testing.T) {
	t.Parallel()
	const name = "000000020000000000000004"
	seg := segment(t, name, 1<<20)
	put32 := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[off:], v); return b }
	}
	tests := map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"zeros":              {func(b []byte) []byte { return make([]byte, len(b)) }, "zeros"},
		"empty":              {func([]byte) []byte { return nil }, "0 bytes"},
		"half a header":      {func(b []byte) []byte { return b[:30] }, "30 bytes"},
		"short":              {func(b []byte) []byte { return b[:len(b)-1] }, "1048575 bytes"},
		"long":               {func(b []byte) []byte { return append(b, 0) }, "1048577 bytes"},
		"another system":     {put32(24, 7), "is of system"},
		"another size":       {put32(32, 2<<20), "header says"},
		"a size of nothing":  {put32(32, 12345), "12345"},
		"another place":      {put32(8, 0x500000), "0/500000"},
		"a later timeline":   {put32(4, 3), "timeline 3"},
		"timeline zero":      {put32(4, 0), "timeline 0"},
		"an unknown magic":   {func(b []byte) []byte { b[0] = 1; return b }, "D101"},
		"no long header":     {func(b []byte) []byte { b[2] = 0; return b }, "flags"},
		"random bytes":       {func(b []byte) []byte { copy(b, b[1000:1100]); return b }, "magic"},
		"the other pgdata's": {func([]byte) []byte { return segmentBytes(seg, testSystem+1, 1) }, "is of system"},
	}
	for what, test := range tests {
		t.Run(what, func(t *testing.T) {
			for _, suffix := range []string{"", ".partial"} {
				store := mem.New()
				a := newArchive(t, store)
				path := writeFile(t, name+suffix, test.change(segmentBytes(seg, testSystem, 1)))
				_, err := Push(context.Background(), a.Repo, path, PushOptions{System: testSystem})
				if _, ok := errors.AsType[*HeaderError](err); !ok || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: %v; want a *HeaderError that tells %q", suffix, err, test.want)
				}
				a.expectEmpty(t)
			}
		})
	}
	t.Run("another size than the cluster's", func(t *testing.T) {
		a := newArchive(t, mem.New())
		path := writeFile(t, name, segmentBytes(seg, testSystem, 1))
		_, err := Push(context.Background(), a.Repo, path, PushOptions{System: testSystem, SegmentSize: 16 << 20})
		if _, ok := errors.AsType[*HeaderError](err); !ok {
			t.Errorf("%v", err)
		}
		a.expectEmpty(t)
	})
}

// expectEmpty makes sure that no WAL is stored.
func (a *archive) expectEmpty(t testing.TB) {
	t.Helper()
	for info, err := range a.store.List(context.Background(), "wal/") {
		t.Fatalf("stored: %s %v", info.Key, err)
	}
}

func TestPushRefusesFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(dir, "000000010000000000000009"), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{ // path: part of the error
		put("0000000100000000000000zz", nil):                           "not the name of a WAL file",
		put("000000010000000000000001.tmp", nil):                       "not the name of a WAL file",
		put("archive_status", nil):                                     "not the name of a WAL file",
		put("00000002.history", nil):                                   "empty",
		put("00000003.history", make([]byte, maxSmallFile+1)):          "at most",
		put("000000010000000000000001.00000028.backup", nil):           "empty",
		filepath.Join(dir, "000000010000000000000009"):                 "regular file",
		filepath.Join(dir, "000000010000000000000008"):                 "no such file",
		filepath.Join(dir, "pg_wal", "..", "000000010000000000000008"): "no such file",
	}
	for path, want := range tests {
		a := newArchive(t, mem.New())
		_, err := Push(context.Background(), a.Repo, path, PushOptions{System: testSystem})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
		a.expectEmpty(t)
	}
	a := newArchive(t, mem.New())
	_, err := Push(context.Background(), a.Repo, writeFile(t, "00000002.history", []byte("1\t0/1\n")), PushOptions{})
	if err == nil || !strings.Contains(err.Error(), "system identifier") {
		t.Errorf("a history file of no system: %v", err)
	}
	a.expectEmpty(t)
}

// A file must be at the end of reading what it was when it was opened.
func TestPushRefusesFileThatChanges(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000001"
	content := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
	later := time.Now().Add(time.Hour)
	for what, change := range map[string]func(path string) error{
		"grows":         func(path string) error { return os.Truncate(path, int64(len(content))+1) },
		"shrinks":       func(path string) error { return os.Truncate(path, int64(len(content))/2) },
		"is written to": func(path string) error { return os.Chtimes(path, later, later) },
	} {
		t.Run(what, func(t *testing.T) {
			a := newArchive(t, mem.New())
			path := writeFile(t, name, content)
			src, err := openSource(path)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			_, body, err := src.check(walName(t, name), PushOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			_, err = a.CreateEnvelope(context.Background(), repo.WALKey(testSystem, walName(t, name)), repo.KindWAL, body, src.size)
			changed, ok := errors.AsType[*ChangedError](err)
			if !ok || strings.Contains(changed.Reason, "bytes") != (what != "is written to") {
				t.Errorf("a file that %s: %v", what, err)
			}
			a.expectEmpty(t)
		})
	}
}

func TestPushNeedsKeys(t *testing.T) {
	t.Parallel()
	store := mem.New()
	a := newArchive(t, store)
	r, err := repo.Open(context.Background(), store, repo.Keys{Trusted: a.cluster.Signers}, "reader")
	if err != nil {
		t.Fatal(err)
	}
	const name = "000000010000000000000001"
	_, err = Push(context.Background(), r, writeFile(t, name, segmentBytes(segment(t, name, 1<<20), testSystem, 1)), PushOptions{})
	if !errors.Is(err, repo.ErrReadOnly) {
		t.Errorf("a push without keys: %v", err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		t.Error("it looks like a missing file")
	}
}

func TestPushTwiceAtOnce(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000001"
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		path := writeFile(t, name, segmentBytes(segment(t, name, 1<<20), testSystem, 1))
		made := make(chan bool, 6)
		var group sync.WaitGroup
		for range cap(made) {
			group.Go(func() {
				s, err := Push(context.Background(), a.Repo, path, PushOptions{System: testSystem})
				if err != nil {
					t.Error(err)
				}
				made <- err == nil && !s.Existed
			})
		}
		group.Wait()
		close(made)
		n := 0
		for m := range made {
			if m {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d pushes stored it", n)
		}
	})
}

// The key of this host is retired while it pushes a segment. At whatever moment that
// happens, what the push said is archived is believed.
func TestPushWhileItsKeyIsRetired(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := writeFile(t, "000000010000000000000001", segmentBytes(segment(t, "000000010000000000000001", 1<<20), testSystem, 1))
	refused := 0
	for n := int64(1); ; n++ {
		a := newArchive(t, mem.New())
		next, err := repo.NewClusterKey("main", a.cluster.Repository)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(a.RegisterSystem(ctx, testSystem, []byte("{}")), a.AddSigner(ctx, next.Signing.Public(), time.Unix(1800000000, 0))); err != nil {
			t.Fatal(err)
		}
		next.Signers = append(next.Signers, a.cluster.Signers...)
		old := a.cluster
		keys := a.keys()
		keys.Cluster = next
		successor, err := repo.Open(ctx, a.store, keys, "db2")
		if err != nil {
			t.Fatal(err)
		}
		a.Repo = successor
		a.pushSegment(t, "000000010000000000000002")
		h := fault.New(a.store, fault.Fault{At: n, Mode: fault.Meanwhile, Do: func() {
			if err := successor.Retire(ctx, old.Signing.Public(), time.Unix(1800000000, 0)); err != nil {
				t.Error(err)
			}
		}})
		r, err := a.writer(h)
		if err == nil {
			_, err = Push(ctx, r, path, PushOptions{System: testSystem})
		}
		if !h.Fired() {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if _, retired := errors.AsType[*repo.RetiredKeyError](err); retired {
			refused++
		} else if err != nil {
			t.Fatalf("at %s: %v", h.FiredAt(), err)
		} else if _, err := a.open(t, a.store, "drill", a.identity).Header(ctx, repo.WALKey(testSystem, walName(t, "000000010000000000000001"))); err != nil {
			t.Errorf("retired at %s: %v", h.FiredAt(), err)
		}
	}
	if refused < 2 {
		t.Errorf("only %d pushes were refused", refused)
	}
}
