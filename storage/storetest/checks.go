package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// check is one part of the contract; directory is where its objects go.
type check struct {
	name      string
	directory string
	run       func(context.Context, *scratch) error
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
		return fmt.Errorf("stat says %q of %d bytes, want %q of 5", info.Key, info.Size, s.root+"a/b")
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
			return fmt.Errorf("open(%d, %d) of an empty object gives %s and error %v, want neither", r[0], r[1], short(got), err)
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
		return fmt.Errorf("create with a body that fails: %v, want another error", err)
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
			return fmt.Errorf("open(%d, %d): %w", r.off, r.n, err)
		}
		if string(got) != r.want {
			return fmt.Errorf("open(%d, %d) gives %s, want %q", r.off, r.n, short(got), r.want)
		}
	}
	if _, err := s.read(ctx, "a", -1, 5); err == nil {
		return errors.New("open at a negative offset succeeded")
	}
	return nil
}

func checkMissing(ctx context.Context, s *scratch) error {
	if err := s.createAll(ctx, "there/a"); err != nil {
		return err
	}
	// "there" is a directory to a file system, and no object.
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
			return fmt.Errorf("delete of missing %s: %w", name, err)
		}
	}
	return s.wantBody(ctx, "there/a", "body of there/a")
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
