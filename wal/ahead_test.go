package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

func TestPushAhead(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		d := newDataDir(t, mixedNames...)
		if others := a.pushAhead(t, d, d.names[1]); others != len(d.names)-1 {
			t.Errorf("%d others were pushed of %d", others, len(d.names)-1)
		}
		for _, name := range d.names {
			if !a.has(t, d, name) {
				t.Errorf("%s is not archived", name)
			}
		}
		if n := a.expectTrueMemory(t, d); n != len(d.names) {
			t.Errorf("%d files are remembered of %d", n, len(d.names))
		}
		// What is done is forgotten, and what is remembered is not pushed again.
		if err := os.Remove(filepath.Join(d.path, "pg_wal", "archive_status", d.names[2]+readySuffix)); err != nil {
			t.Fatal(err)
		}
		if others := a.pushAhead(t, d, d.names[1]); others != 0 {
			t.Errorf("%d files were pushed again", others)
		}
		if _, err := os.Lstat(d.memoryFile(d.names[2])); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the memory of a file that is done: %v", err)
		}
		if _, known := a.memory(d).Recall(d.file(d.names[3])); !known {
			t.Error("the memory of a file that is ready went with it")
		}
	})
}

func TestReadyOrder(t *testing.T) {
	t.Parallel()
	d := newDataDir(t, mixedNames...)
	for _, name := range []string{"0000000100000000000000ZZ", "000000010000000000000001.tmp", "xlogtemp.12"} {
		d.ready(t, name)
	}
	got, err := readyFiles(d.path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range got {
		names = append(names, n.String())
	}
	if strings.Join(names, " ") != strings.Join(mixedNames, " ") {
		t.Errorf("%v", names)
	}
}

// hookStore calls before ahead of each Create.
type hookStore struct {
	storage.Store
	before func(ctx context.Context, key string) error
}

func (s *hookStore) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := s.before(ctx, key); err != nil {
		return err
	}
	return s.Store.Create(ctx, key, body)
}

// The own file is stored before any other is sent.
func TestPushAheadStoresTheOwnFileFirst(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	d := newDataDir(t, mixedNames...)
	own := repo.WALKey(testSystem, walName(t, d.names[4]))
	r := a.open(t, &hookStore{Store: a.store, before: func(ctx context.Context, key string) error {
		if key == own {
			time.Sleep(50 * time.Millisecond) // long enough for others to be sealed
		} else if _, err := a.store.Stat(ctx, own); err != nil {
			t.Errorf("%s is sent before the own file is stored", key)
		}
		return nil
	}}, "db1")
	_, others, err := PushAhead(t.Context(), r, d.file(d.names[4]), PushOptions{System: testSystem}, a.ahead(d))
	if err != nil || others != len(d.names)-1 {
		t.Errorf("%d others, %v", others, err)
	}
}

// Where another primary archives, the own file is refused, and nothing else of
// this server gets into the archive.
func TestPushAheadOfTwoPrimaries(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	d := newDataDir(t, "000000010000000000000001", "000000010000000000000002", "000000010000000000000003", "000000010000000000000004")
	foreign := segmentBytes(segment(t, d.names[0], 1<<20), testSystem, 99)
	a.push(t, d.names[0], foreign)
	other := a.open(t, a.store, "db2")
	push := func(name string) error {
		_, _, err := PushAhead(t.Context(), other, d.file(name), PushOptions{System: testSystem}, a.ahead(d))
		return err
	}
	two, ok := errors.AsType[*TwoPrimariesError](push(d.names[0]))
	if !ok || two.HaveHost != "db1" || two.Host != "db2" || two.HaveSHA256 == two.SHA256 {
		t.Errorf("%v", two)
	}
	if a.expectTrueMemory(t, d) != 0 || a.has(t, d, d.names[1]) {
		t.Error("a server whose own file was refused archived another")
	}

	// In the middle: its own push tells, whatever looked ahead before.
	d2 := newDataDir(t, d.names...)
	d2.put(t, d.names[0], foreign)
	b := newArchive(t, mem.New())
	b.push(t, d.names[1], segmentBytes(segment(t, d.names[1], 1<<20), testSystem, 99))
	if _, _, err := PushAhead(t.Context(), b.Repo, d2.file(d.names[0]), PushOptions{System: testSystem}, b.ahead(d2)); err != nil {
		t.Errorf("a conflict of another file failed the push: %v", err)
	}
	if _, known := b.memory(d2).Recall(d2.file(d.names[1])); known {
		t.Error("the refused file is remembered as durable")
	}
	_, _, err := PushAhead(t.Context(), b.Repo, d2.file(d.names[1]), PushOptions{System: testSystem}, b.ahead(d2))
	if _, ok := errors.AsType[*TwoPrimariesError](err); !ok {
		t.Errorf("the own push of the refused file: %v", err)
	}
}

// What cannot be pushed ends the looking ahead, and not the push.
func TestPushAheadPassesNoOddFile(t *testing.T) {
	t.Parallel()
	const own, odd = "000000010000000000000001", "000000010000000000000002"
	outside := writeFile(t, odd, segmentBytes(segment(t, odd, 1<<20), testSystem, 1))
	for what, put := range map[string]func(path string) error{
		"missing":        func(path string) error { return nil },
		"a directory":    func(path string) error { return os.Mkdir(path, 0o700) },
		"a link outside": func(path string) error { return os.Symlink(outside, path) },
		"a pipe":         func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"zeros":          func(path string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
		"another system's": func(path string) error {
			return os.WriteFile(path, segmentBytes(segment(t, odd, 1<<20), testSystem+1, 1), 0o600)
		},
	} {
		t.Run(what, func(t *testing.T) {
			a := newArchive(t, mem.New())
			d := newDataDir(t, own)
			if err := put(d.file(odd)); err != nil {
				t.Fatal(err)
			}
			d.ready(t, odd)
			if others := a.pushAhead(t, d, own); others != 0 {
				t.Errorf("%d others", others)
			}
			if a.has(t, d, odd) {
				t.Error("it is archived")
			}
		})
	}
}

// Whatever operation fails, in whatever way: the push says what became of its
// own file, and what is remembered is archived.
func TestPushAheadUnderFaults(t *testing.T) {
	t.Parallel()
	names := mixedNames[:4] // each operation fails in each way, and all is pushed again
	if testing.Short() {
		names = names[:2] // under the race detector sealing takes long
	}
	var a *archive
	var d *dataDir
	sweep(t, func(_ fault.Mode, broken func(storage.Store) *fault.Store) (*fault.Store, error) {
		a, d = newArchive(t, mem.New()), newDataDir(t, names...)
		s := broken(a.store)
		r, err := a.writer(s)
		if err != nil {
			return s, err
		}
		_, _, err = PushAhead(t.Context(), r, d.file(d.names[0]), PushOptions{System: testSystem}, a.ahead(d))
		return s, err
	}, func(mode fault.Mode, fired string, err error) {
		_, key, _ := strings.Cut(fired, " ")
		own := !strings.HasPrefix(key, "wal/") || strings.Contains(key, "/"+d.names[0])
		// In an outage that begins with another file's operation the own file may be
		// on its way still, and then fails as well.
		told := own == (err != nil) || mode == fault.Outage && !own
		// Who is believed is asked for each file: TestPushUnderFaults asks for one.
		told = told || strings.HasPrefix(key, "keys/")
		if !told || err == nil && !a.has(t, d, d.names[0]) {
			t.Errorf("%v: %s failed, and the push said %v", mode, fired, err)
		}
		a.expectTrueMemory(t, d)
		for _, name := range d.names { // PostgreSQL tries again
			a.pushAhead(t, d, name)
			if !a.has(t, d, name) {
				t.Errorf("%v, after %s failed: %s is not archived", mode, fired, name)
			}
		}
	})
}

// A push ends soon after it was told to, whatever hangs; its own file is
// durable, so it has succeeded.
func TestPushAheadEnds(t *testing.T) {
	t.Parallel()
	names := []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000003"}
	for what, heed := range map[string]bool{"a store that heeds it": true, "a store that hangs": false} {
		for _, by := range []string{"its context", "the time to finish"} {
			t.Run(what+", by "+by, func(t *testing.T) {
				t.Parallel()
				a := newArchive(t, mem.New())
				d := newDataDir(t, names...)
				ctx, cancel := context.WithCancel(t.Context())
				end := make(chan struct{})
				defer close(end)
				r := a.open(t, &hookStore{Store: a.store, before: func(opCtx context.Context, key string) error {
					if strings.HasSuffix(key, names[0]) {
						return nil
					}
					if by == "its context" {
						cancel()
					}
					if heed {
						<-opCtx.Done()
						return opCtx.Err()
					}
					<-end
					return errors.New("the end of the test")
				}}, "db1")
				ahead := a.ahead(d)
				if by == "the time to finish" {
					ahead.Finish = 20 * time.Millisecond
				}
				begin := time.Now()
				_, others, err := PushAhead(ctx, r, d.file(names[0]), PushOptions{System: testSystem}, ahead)
				if took := time.Since(begin); err != nil || others != 0 || took > aheadLinger+30*time.Second {
					t.Errorf("after %v: %d others, %v", took, others, err)
				}
				if a.expectTrueMemory(t, d) != 1 {
					t.Error("not just the own file is remembered")
				}
				cancel()
			})
		}
	}
}

// After the time to begin, what is under way is finished and nothing begun.
func TestPushAheadBeginsNothingLate(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("0000000100000000%08X", i+1))
	}
	a := newArchive(t, mem.New())
	d := newDataDir(t, names...)
	ahead := a.ahead(d)
	ahead.Begin, ahead.Sealers = 0, 1
	_, others, err := PushAhead(t.Context(), a.Repo, d.file(names[0]), PushOptions{System: testSystem}, ahead)
	if err != nil || others > aheadFiles {
		t.Errorf("%d others, %v", others, err)
	}
}

func TestPushAheadTwiceAtOnce(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		d := newDataDir(t, mixedNames...)
		var group sync.WaitGroup
		for i := range 4 {
			group.Go(func() { a.pushAhead(t, d, d.names[i]) })
		}
		group.Wait()
		for _, name := range d.names {
			if !a.has(t, d, name) {
				t.Errorf("%s is not archived", name)
			}
		}
		a.expectTrueMemory(t, d)
		left, err := filepath.Glob(d.memoryFile(pushedTemp + "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

// Large segments go by way of temporary files.
func TestPushAheadOfLargeSegments(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow under the race detector, and smaller ones do the same there: run in full")
	}
	a := newArchive(t, newFileStore(t))
	names := []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000003"}
	d := newDataDir(t)
	for i, name := range names {
		d.put(t, name, segmentBytes(segment(t, name, 64<<20), testSystem, uint64(i)))
		d.ready(t, name)
	}
	if others := a.pushAhead(t, d, names[0]); others != 2 {
		t.Errorf("%d others", others)
	}
	for _, name := range names {
		if got := a.fetch(t, name); !bytes.Equal(got, d.content[name]) {
			t.Errorf("%s came back as %d other bytes", name, len(got))
		}
	}
}
