package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// check is one part of the contract; folder is where its objects go.
type check struct {
	name   string
	folder string
	run    func(context.Context, *scratch) error
}

var checks = []check{
	{"create, stat, open, delete", "life", checkLife},
	{"a taken key keeps its object", "taken", checkTaken},
	{"of 16 concurrent creates one wins", "race", checkRace},
	{"empty object", "empty", checkEmpty},
	{"object of 20 MiB", "large", checkLarge},
	{"a body is read from its start", "rewind", checkRewind},
	{"a body that fails leaves nothing", "broken", checkBrokenBody},
	{"ranges", "ranges", checkRanges},
	{"missing objects", "missing", checkMissing},
	{"listing: order and prefixes", "list", checkList},
	{"listing: stop early", "stop", checkListStop},
	{"invalid keys are refused", "invalid", checkInvalidKeys},
	{"a cancelled context", "cancel", checkCancelled},
	{"visible to another handle", "second", checkSecond},
	{"used by many at once", "many", checkMany},
}

func checkLife(ctx context.Context, s *scratch) error {
	before := time.Now()
	if err := s.create(ctx, "a/b", "hello"); err != nil {
		return err
	}
	if err := s.wantBody(ctx, "a/b", "hello"); err != nil {
		return err
	}
	info, err := s.Stat(ctx, s.root+"a/b")
	if err != nil {
		return err
	}
	if info.Key != s.root+"a/b" || info.Size != 5 {
		return fmt.Errorf("Stat says %q of %d bytes, want %q of 5", info.Key, info.Size, s.root+"a/b")
	}
	// Clocks may differ a little; a time that is off by a day is another error.
	if d := info.ModTime.Sub(before); d < -24*time.Hour || d > 24*time.Hour {
		return fmt.Errorf("an object made just now is dated %v", info.ModTime)
	}
	if err := s.Delete(ctx, s.root+"a/b"); err != nil {
		return err
	}
	_, err = s.Stat(ctx, s.root+"a/b")
	if err := wantError("Stat of a deleted object", err, fs.ErrNotExist); err != nil {
		return err
	}
	// The key is free again.
	if err := s.create(ctx, "a/b", "again"); err != nil {
		return err
	}
	return s.wantBody(ctx, "a/b", "again")
}

func checkTaken(ctx context.Context, s *scratch) error {
	if err := s.create(ctx, "a", "first"); err != nil {
		return err
	}
	for _, body := range []string{"second, and longer", "first", ""} {
		err := s.create(ctx, "a", body)
		if err := wantError("Create of a taken key", err, fs.ErrExist); err != nil {
			return err
		}
		if err := s.wantBody(ctx, "a", "first"); err != nil {
			return err
		}
	}
	return nil
}

func checkRace(ctx context.Context, s *scratch) error {
	const writers, rounds = 16, 3
	for round := range rounds {
		name := fmt.Sprintf("contested-%d", round)
		var won atomic.Int32
		var winner atomic.Value
		var gate sync.WaitGroup // until all are there
		gate.Add(writers)
		err := parallelBy(writers, writers, func(i int) error {
			body := fmt.Sprintf("written by %d", i)
			gate.Done()
			gate.Wait()
			err := s.create(ctx, name, body)
			if err == nil {
				won.Add(1)
				winner.Store(body)
				return nil
			}
			return wantError("Create that lost", err, fs.ErrExist)
		})
		if err != nil {
			return err
		}
		if won.Load() != 1 {
			return fmt.Errorf("%d of %d concurrent creates of one key succeeded", won.Load(), writers)
		}
		if err := s.wantBody(ctx, name, winner.Load().(string)); err != nil {
			return err
		}
	}
	return nil
}

func checkEmpty(ctx context.Context, s *scratch) error {
	if err := s.create(ctx, "a", ""); err != nil {
		return err
	}
	info, err := s.Stat(ctx, s.root+"a")
	if err != nil {
		return err
	}
	if info.Size != 0 {
		return fmt.Errorf("an empty object has %d bytes", info.Size)
	}
	for _, r := range [][2]int64{{0, -1}, {0, 0}, {0, 10}, {5, -1}} {
		got, err := s.read(ctx, "a", r[0], r[1])
		if err != nil || len(got) > 0 {
			return fmt.Errorf("Open(%d, %d) of an empty object gives %s and error %v, want neither", r[0], r[1], short(got), err)
		}
	}
	return wantError("Create over an empty object", s.create(ctx, "a", "x"), fs.ErrExist)
}

func checkLarge(ctx context.Context, s *scratch) error {
	body := randomBytes(20 << 20)
	if err := s.Create(ctx, s.root+"a", bytes.NewReader(body)); err != nil {
		return err
	}
	got, err := s.read(ctx, "a", 0, -1)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, body) {
		return fmt.Errorf("%d bytes came back differently, as %d", len(body), len(got))
	}
	got, err = s.read(ctx, "a", 11<<20+1, 1<<20)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, body[11<<20+1:12<<20+1]) {
		return errors.New("a range of 1 MiB came back differently")
	}
	err = s.Create(ctx, s.root+"a", bytes.NewReader(body))
	return wantError("Create of a taken key with a large body", err, fs.ErrExist)
}

func checkRewind(ctx context.Context, s *scratch) error {
	body := strings.NewReader("0123456789")
	if _, err := body.Seek(7, io.SeekStart); err != nil {
		return err
	}
	if err := s.Create(ctx, s.root+"a", body); err != nil {
		return err
	}
	return s.wantBody(ctx, "a", "0123456789")
}

var errBody = errors.New("the body cannot be read")

// brokenBody fails after some bytes.
type brokenBody struct {
	*bytes.Reader
	left int
}

func (b *brokenBody) Seek(off int64, whence int) (int64, error) {
	b.left = 100_000
	return b.Reader.Seek(off, whence)
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errBody
	}
	n, err := b.Reader.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func checkBrokenBody(ctx context.Context, s *scratch) error {
	body := &brokenBody{Reader: bytes.NewReader(make([]byte, 300_000))}
	err := s.Create(ctx, s.root+"a", body)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("Create with a body that fails: %v, want another error", err)
	}
	_, err = s.Stat(ctx, s.root+"a")
	if err := wantError("Stat after a failed Create", err, fs.ErrNotExist); err != nil {
		return err
	}
	return s.create(ctx, "a", "now it works")
}

func checkRanges(ctx context.Context, s *scratch) error {
	const body = "0123456789"
	if err := s.create(ctx, "a", body); err != nil {
		return err
	}
	for _, r := range []struct {
		off, n int64
		want   string
	}{
		{0, -1, body}, {0, 10, body}, {0, 100, body}, {0, 1, "0"}, {3, 4, "3456"}, {9, 1, "9"},
		{4, -1, "456789"}, {4, 6, "456789"}, {4, 100, "456789"}, // to the end
		{0, 0, ""}, {5, 0, ""}, {10, 0, ""}, // nothing
		{10, -1, ""}, {10, 5, ""}, {11, -1, ""}, {1 << 40, 7, ""}, // past the end
	} {
		got, err := s.read(ctx, "a", r.off, r.n)
		if err != nil {
			return fmt.Errorf("Open(%d, %d): %w", r.off, r.n, err)
		}
		if string(got) != r.want {
			return fmt.Errorf("Open(%d, %d) gives %s, want %q", r.off, r.n, short(got), r.want)
		}
	}
	if _, err := s.read(ctx, "a", -1, 5); err == nil {
		return errors.New("Open at a negative offset succeeded")
	}
	return nil
}

func checkMissing(ctx context.Context, s *scratch) error {
	if err := s.createAll(ctx, "there/a"); err != nil {
		return err
	}
	// "there" is a folder to a file system, and no object.
	for _, name := range []string{"b", "there/b", "nowhere/b", "there", "there/a/b"} {
		_, err := s.Stat(ctx, s.root+name)
		if err := wantError("Stat of missing "+name, err, fs.ErrNotExist); err != nil {
			return err
		}
		for _, n := range []int64{-1, 0, 10} {
			_, err = s.read(ctx, name, 0, n)
			if err := wantError(fmt.Sprintf("Open(0, %d) of missing %s", n, name), err, fs.ErrNotExist); err != nil {
				return err
			}
		}
		if err := s.Delete(ctx, s.root+name); err != nil {
			return fmt.Errorf("Delete of missing %s: %w", name, err)
		}
	}
	return s.wantBody(ctx, "there/a", "body of there/a")
}

func checkList(ctx context.Context, s *scratch) error {
	// '+', '-' and '.' sort before '/', the digits after it: a walk from
	// folder to folder gets that wrong.
	names := []string{
		"a+b", "a-", "a-b/c", "a.b", "a/b", "a/b.d/x", "a/c", "a/c-d/e", "a0", "a=b", "aB", "a_", "ab/c", "abc",
		"b/a/a", "b/a-", "b/b", "c",
	}
	slices.Sort(names)
	// Made in another order than listed.
	for _, i := range []int{7, 0, 16, 3, 11, 5, 1, 9, 14, 2, 17, 4, 12, 6, 8, 15, 10, 13} {
		if err := s.createAll(ctx, names[i]); err != nil {
			return err
		}
	}
	prefixes := []string{"", "a", "a/", "a/b", "a/b/", "a/b.", "a/c", "a-", "a-b", "a-b/", "ab", "ab/", "b", "b/a", "b/a/", "b/a/a", "c", "c/", "d", "nowhere/x"}
	for _, prefix := range prefixes {
		var want []string
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				want = append(want, s.root+name)
			}
		}
		got, err := keysOf(ctx, s, s.root+prefix)
		if err != nil {
			return fmt.Errorf("List(%q): %w", prefix, err)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("List(%q) gives\n%q, want\n%q", s.root+prefix, got, want)
		}
	}
	for info, err := range s.List(ctx, s.root+"a/b.d/") {
		if err != nil {
			return err
		}
		if want := int64(len("body of a/b.d/x")); info.Size != want || info.ModTime.IsZero() {
			return fmt.Errorf("List says that %s has %d bytes and is of %v, want %d bytes and a time", info.Key, info.Size, info.ModTime, want)
		}
	}
	for _, bad := range []string{"/", "//", "../", "a b"} {
		if _, err := keysOf(ctx, s, s.root+bad); !errors.Is(err, storage.ErrKey) {
			return fmt.Errorf("List(%q): %v, want %q", s.root+bad, err, storage.ErrKey)
		}
	}
	return nil
}

func checkListStop(ctx context.Context, s *scratch) error {
	if err := s.createAll(ctx, "a", "b/c", "b/d", "e"); err != nil {
		return err
	}
	for stop := 1; stop <= 4; stop++ {
		seen := 0
		for _, err := range s.List(ctx, s.root) {
			if err != nil {
				return err
			}
			if seen++; seen == stop {
				break
			}
		}
		if seen != stop {
			return fmt.Errorf("the listing gave %d objects, want %d at least", seen, stop)
		}
	}
	return nil
}

func checkInvalidKeys(ctx context.Context, s *scratch) error {
	for _, key := range []string{
		"", "/", "..", ".", "../up", "/root", s.root, s.root + "a//b", s.root + "./a", s.root + "../../../../up",
		s.root + "a/..", s.root + "a b", s.root + "a\x00", s.root + "a\n", s.root + "~a", s.root + "ä", strings.Repeat("a", storage.MaxKey+1),
	} {
		_, statErr := s.Stat(ctx, key)
		_, openErr := readFrom(ctx, s, key, 0, -1)
		for op, err := range map[string]error{
			"Create": s.Create(ctx, key, strings.NewReader("x")),
			"Stat":   statErr,
			"Open":   openErr,
			"Delete": s.Delete(ctx, key),
		} {
			if err := wantError(fmt.Sprintf("%s(%q)", op, key), err, storage.ErrKey); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkCancelled(ctx context.Context, s *scratch) error {
	if err := s.createAll(ctx, "a"); err != nil {
		return err
	}
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	body, err := s.Open(reading, s.root+"a", 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	stopReading()
	if _, err := io.ReadAll(body); err != nil && !errors.Is(err, context.Canceled) {
		return wantError("reading on after the context ended", err, context.Canceled)
	}

	ended, end := context.WithCancel(ctx)
	end()
	_, statErr := s.Stat(ended, s.root+"a")
	_, openErr := readFrom(ended, s, s.root+"a", 0, -1)
	_, listErr := keysOf(ended, s, s.root)
	for op, err := range map[string]error{
		"Create": s.Create(ended, s.root+"b", strings.NewReader("x")),
		"Stat":   statErr,
		"Open":   openErr,
		"List":   listErr,
		"Delete": s.Delete(ended, s.root+"a"),
	} {
		if err := wantError(op+" with an ended context", err, context.Canceled); err != nil {
			return err
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s with an ended context claims to know: %w", op, err)
		}
	}
	if err := s.wantBody(ctx, "a", "body of a"); err != nil {
		return err
	}
	_, err = s.Stat(ctx, s.root+"b")
	return wantError("Stat of what an ended context should not have made", err, fs.ErrNotExist)
}

func checkSecond(ctx context.Context, s *scratch) error {
	if err := s.create(ctx, "a", "hello"); err != nil {
		return err
	}
	got, err := readFrom(ctx, s.second, s.root+"a", 0, -1)
	if err != nil {
		return err
	}
	if string(got) != "hello" {
		return fmt.Errorf("the second handle reads %s", short(got))
	}
	keys, err := keysOf(ctx, s.second, s.root)
	if err != nil {
		return err
	}
	if !slices.Equal(keys, []string{s.root + "a"}) {
		return fmt.Errorf("the second handle lists %q", keys)
	}
	err = s.second.Create(ctx, s.root+"a", strings.NewReader("x"))
	if err := wantError("Create through the second handle", err, fs.ErrExist); err != nil {
		return err
	}
	if err := s.second.Delete(ctx, s.root+"a"); err != nil {
		return err
	}
	_, err = s.Stat(ctx, s.root+"a")
	return wantError("Stat after deletion through the second handle", err, fs.ErrNotExist)
}

// checkMany makes, reads and deletes objects in the same folders at once. One
// object stays in each: servers that keep objects as files may fail a Create
// that meets the removal of the folder it goes to (versitygw 1.8 does).
func checkMany(ctx context.Context, s *scratch) error {
	if err := s.createAll(ctx, "folder/0/stays", "folder/1/stays"); err != nil {
		return err
	}
	return parallelBy(24, 8, func(i int) error {
		store := s.Store
		if i%3 == 0 {
			store = s.second
		}
		key := s.root + fmt.Sprintf("folder/%d/x%d", i%2, i)
		body := strings.Repeat(key, 100)
		if err := store.Create(ctx, key, strings.NewReader(body)); err != nil {
			return err
		}
		got, err := readFrom(ctx, store, key, 0, -1)
		if err != nil {
			return err
		}
		if string(got) != body {
			return fmt.Errorf("%s holds %s", key, short(got))
		}
		return store.Delete(ctx, key)
	})
}

func checkPaging(ctx context.Context, s *scratch, n int) error {
	want := make([]string, n)
	for i := range want {
		want[i] = fmt.Sprintf("%s%d/%05d", s.root, i%3, i)
	}
	err := parallel(n, func(i int) error { return s.Create(ctx, want[i], strings.NewReader("x")) })
	if err != nil {
		return err
	}
	slices.Sort(want)
	got, err := keysOf(ctx, s, s.root)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("the listing of %d objects has %d, or is out of order", len(want), len(got))
	}
	return nil
}

// randomBytes are the same in every run, and do not compress.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

// parallel runs work(0) … work(n-1), 16 at a time, and returns one error of theirs.
func parallel(n int, work func(i int) error) error { return parallelBy(n, 16, work) }

func parallelBy(n, workers int, work func(i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(n, workers) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				errs[i] = work(i)
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
