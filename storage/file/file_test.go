package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

type counter struct{ n atomic.Int64 }

func (c *counter) next() int64 { return c.n.Add(1) }

func initStore(t *testing.T, root string) *file.Store {
	t.Helper()
	s, err := file.Init(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func keys(t *testing.T, s storage.Store, prefix string) []string {
	t.Helper()
	var got []string
	for info, err := range s.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	return got
}

func read(s storage.Store, key string) (string, error) {
	body, err := s.Open(context.Background(), key, 0, -1)
	if err != nil {
		return "", err
	}
	got, err := io.ReadAll(body)
	return string(got), errors.Join(err, body.Close())
}

func create(s storage.Store, key, body string) error {
	return s.Create(context.Background(), key, strings.NewReader(body))
}

func TestContract(t *testing.T) {
	root := filepath.Join(t.TempDir(), "new", "store")
	suite.Run(t, func(t *testing.T) storage.Store { return initStore(t, root) })
}

// everyOperation runs each operation once on a key that is not there.
func everyOperation(s storage.Store) map[string]error {
	ctx := context.Background()
	_, statErr := s.Stat(ctx, "no/key")
	_, openErr := read(s, "no/key")
	var listErr, listAllErr error
	for _, err := range s.List(ctx, "no/") {
		listErr = err
	}
	for _, err := range s.List(ctx, "") {
		listAllErr = err
	}
	return map[string]error{
		"Create": create(s, "no/key", "x"), "Stat": statErr, "Open": openErr,
		"List": listErr, "List all": listAllErr, "Delete": s.Delete(ctx, "no/key"),
	}
}

// wantNoStore is the heart of "a vanished mount is not an absent object".
func wantNoStore(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, storage.ErrNoStore) {
		t.Errorf("%s: %v, want %q", what, err, storage.ErrNoStore)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		t.Errorf("%s: %v counts as an answer about an object", what, err)
	}
}

func TestNoRoot(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{filepath.Join(dir, "missing"), filepath.Join(dir, "missing", "below"), plain, filepath.Join(plain, "below"), empty, ""} {
		_, err := file.New(root)
		wantNoStore(t, fmt.Sprintf("New(%q)", root), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("New made the root")
	}
	for _, root := range []string{plain, filepath.Join(plain, "below")} {
		_, err := file.Init(root)
		wantNoStore(t, fmt.Sprintf("Init(%q)", root), err)
	}
}

func TestRootVanishes(t *testing.T) {
	for name, vanish := range map[string]func(root string) error{
		"removed": os.RemoveAll,
		"renamed": func(root string) error { return os.Rename(root, root+".away") },
		"unmounted": func(root string) error {
			return errors.Join(os.Rename(root, root+".away"), os.Mkdir(root, 0o700))
		},
		"emptied": func(root string) error { return os.Remove(filepath.Join(root, "~tmp")) },
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			s := initStore(t, root)
			if err := vanish(root); err != nil {
				t.Fatal(err)
			}
			for op, err := range everyOperation(s) {
				wantNoStore(t, op, err)
			}
			if entries, err := os.ReadDir(root); err == nil && len(entries) > 0 {
				t.Errorf("something was made in the directory that is no longer the store: %v", entries)
			}
		})
	}
}

// A repository copied here by another program has no directory for temporary files.
func TestCopiedRepository(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "lifeboat.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := file.New(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := read(s, "lifeboat.json"); got != "{}" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := create(s, "a/b", "x"); err != nil {
		t.Error(err)
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"a/b", "lifeboat.json"}) {
		t.Errorf("%q", got)
	}
}

func TestModes(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o777} {
		old := syscall.Umask(mask)
		root := filepath.Join(t.TempDir(), "new", "root")
		s, err := file.Init(root)
		if err == nil {
			err = create(s, "a/b/c", "x")
		}
		syscall.Umask(old)
		if err != nil {
			t.Fatalf("umask %o: %v", mask, err)
		}
		for path, want := range map[string]fs.FileMode{
			"..": 0o700 | fs.ModeDir, ".": 0o700 | fs.ModeDir, "~tmp": 0o700 | fs.ModeDir,
			"a": 0o700 | fs.ModeDir, "a/b": 0o700 | fs.ModeDir, "a/b/c": 0o600,
		} {
			info, err := os.Stat(filepath.Join(root, path))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != want {
				t.Errorf("umask %o: %s has mode %v, want %v", mask, path, info.Mode(), want)
			}
		}
		s.Close()
	}
}

type failingBody struct{ strings.Reader }

func (*failingBody) Read([]byte) (int, error) { return 0, fs.ErrNotExist }

// endingBody ends the context when it is read for the first time.
type endingBody struct {
	*bytes.Reader
	end func()
}

func (b *endingBody) Read(p []byte) (int, error) {
	b.end()
	return b.Reader.Read(p[:min(len(p), 1000)])
}

// The error of a Create is never "not there", even if that is what broke it.
func TestBodyErrorsAreNotAnswers(t *testing.T) {
	s := initStore(t, filepath.Join(t.TempDir(), "root"))
	err := s.Create(context.Background(), "a", &failingBody{})
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		t.Errorf("Create with a body that fails: %v", err)
	}
}

func TestNothingEscapes(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	s := initStore(t, root)
	outside := filepath.Join(dir, "outside")
	if err := errors.Join(os.Mkdir(outside, 0o700), os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.Symlink(outside, filepath.Join(root, "directory")),
		os.Symlink("../outside", filepath.Join(root, "relative")),
		os.Symlink(filepath.Join(outside, "secret"), filepath.Join(root, "link")),
		os.Symlink(filepath.Join(outside, "none"), filepath.Join(root, "dangling")),
		syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600),
		create(s, "real", "x"),
	); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, key := range []string{"directory/secret", "relative/secret", "link", "dangling", "fifo"} {
		got, err := read(s, key)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%q): %q, %v", key, got, err)
		}
		if _, err := s.Stat(ctx, key); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(%q): %v", key, err)
		}
		if err := create(s, key, "forged"); err == nil || errors.Is(err, fs.ErrExist) {
			t.Errorf("Create(%q): %v", key, err)
		}
		if err := s.Delete(ctx, key); err == nil {
			t.Errorf("Delete(%q) succeeded", key)
		}
	}
	for _, key := range []string{"directory/new", "relative/new"} {
		if err := create(s, key, "forged"); err == nil {
			t.Errorf("Create(%q) succeeded", key)
		}
	}
	if got := keys(t, s, ""); !slices.Equal(got, []string{"real"}) {
		t.Errorf("listed: %q", got)
	}
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

// A directory where an object should go, and an object where a directory should go,
// are neither "taken" nor "absent": nothing can be stored there.
func TestDirsAndObjects(t *testing.T) {
	s := initStore(t, filepath.Join(t.TempDir(), "root"))
	if err := create(s, "a/b", "x"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "a/b/c"} {
		if err := create(s, key, "y"); err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Create(%q) beside a/b: %v", key, err)
		}
		if err := s.Delete(context.Background(), key); err != nil {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
	if err := create(s, "lost+found/a", "x"); !errors.Is(err, storage.ErrKey) {
		t.Errorf("Create in lost+found: %v", err)
	}
	if got, err := read(s, "a/b"); got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// The directory of a file system's own at its root is not listed, and need not be
// readable.
func TestLostAndFound(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	s := initStore(t, root)
	if err := errors.Join(os.Mkdir(filepath.Join(root, "lost+found"), 0o700),
		os.WriteFile(filepath.Join(root, "lost+found", "12345"), nil, 0o600), create(s, "a", "x")); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "l", "lost+found", "lost+found/"} {
		want := []string{"a"}
		if prefix != "" {
			want = nil
		}
		if got := keys(t, s, prefix); !slices.Equal(got, want) {
			t.Errorf("List(%q): %q, want %q", prefix, got, want)
		}
	}
}

// A file that is shorter than it was must not end in a plain io.EOF.
func TestTruncatedWhileRead(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	s := initStore(t, root)
	if err := create(s, "a", strings.Repeat("x", 100_000)); err != nil {
		t.Fatal(err)
	}
	body, err := s.Open(context.Background(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(root, "a"), 50_000); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading a file that was truncated: %v", err)
	}
}
