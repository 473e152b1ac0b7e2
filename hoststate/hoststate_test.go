package hoststate_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/hoststate"
)

const id = "3f2a9c"

func open(t *testing.T, path string) *hoststate.Dir {
	t.Helper()
	d, err := hoststate.Open(path, id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func put(t *testing.T, d *hoststate.Dir, text string) {
	t.Helper()
	err := d.Update(t.Context(), "seen", 1, func([]byte) ([]byte, error) { return []byte(text), nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestThereAndBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "lifeboat")
	d := open(t, path)
	if raw, err := d.Read("seen", 1); raw != nil || err != nil {
		t.Fatalf("before anything was written: %q, %v", raw, err)
	}
	put(t, d, "one")
	put(t, d, "two")
	if raw, err := open(t, path).Read("seen", 1); string(raw) != "two" || err != nil {
		t.Errorf("%q, %v", raw, err)
	}
	for name, mode := range map[string]os.FileMode{path: 0o700 | os.ModeDir, filepath.Join(path, id): 0o700 | os.ModeDir, d.Path("seen"): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	other, err := hoststate.Open(path, "another")
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := other.Read("seen", 1); raw != nil || err != nil {
		t.Errorf("another repository: %q, %v", raw, err)
	}
}

// What is not a file that this version wrote counts as absent, is told, is never
// followed or waited for, and is replaced by the next write.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	whole := func(path string, raw []byte) error { return os.WriteFile(path, raw, 0o600) }
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("AGE-SECRET-KEY-1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string, good []byte) error{
		"empty":          func(p string, _ []byte) error { return whole(p, nil) },
		"junk":           func(p string, _ []byte) error { return whole(p, []byte("AGE-SECRET-KEY-1\nxx")) },
		"cut":            func(p string, good []byte) error { return whole(p, good[:len(good)-1]) },
		"a byte flipped": func(p string, good []byte) error { good[len(good)-1] ^= 1; return whole(p, good) },
		"another version": func(p string, good []byte) error {
			return whole(p, bytes.Replace(good, []byte(" 1 "), []byte(" 2 "), 2))
		},
		"another file": func(p string, good []byte) error {
			return whole(p, bytes.Replace(good, []byte(" seen "), []byte(" heard "), 1))
		},
		"too large": func(p string, _ []byte) error {
			if err := whole(p, []byte("lifeboat-state 1 seen 1 00\n")); err != nil {
				return err
			}
			return os.Truncate(p, 1<<40)
		},
		"a link":    func(p string, _ []byte) error { return os.Symlink(secret, p) },
		"a FIFO":    func(p string, _ []byte) error { return syscall.Mkfifo(p, 0o600) },
		"directory": func(p string, _ []byte) error { return os.MkdirAll(filepath.Join(p, "below"), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, t.TempDir())
			put(t, d, "good")
			good, err := os.ReadFile(d.Path("seen"))
			if err == nil {
				err = os.Remove(d.Path("seen"))
			}
			if err == nil {
				err = plant(d.Path("seen"), good)
			}
			if err != nil {
				t.Fatal(err)
			}
			raw, err := d.Read("seen", 1)
			if broken, ok := errors.AsType[*hoststate.BrokenError](err); raw != nil || !ok || strings.Contains(broken.Error(), "SECRET") {
				t.Errorf("%q, %v", raw, err)
			}
			err = d.Update(t.Context(), "seen", 1, func(old []byte) ([]byte, error) {
				if old != nil {
					t.Errorf("it counts as %q", old)
				}
				return []byte("again"), nil
			})
			if err != nil {
				t.Error(err)
			}
			if raw, err := d.Read("seen", 1); string(raw) != "again" || err != nil {
				t.Errorf("after a write: %q, %v", raw, err)
			}
		})
	}
	if raw, err := os.ReadFile(secret); string(raw) != "AGE-SECRET-KEY-1" || err != nil {
		t.Errorf("what a link led to was written: %q, %v", raw, err)
	}
}

// A link in the place of the repository's directory leads nowhere.
func TestLinkedDirectory(t *testing.T) {
	t.Parallel()
	path, elsewhere := t.TempDir(), t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(path, id)); err != nil {
		t.Fatal(err)
	}
	err := open(t, path).Update(t.Context(), "seen", 1, func([]byte) ([]byte, error) { return []byte("x"), nil })
	if entries, _ := os.ReadDir(elsewhere); err == nil || len(entries) > 0 {
		t.Errorf("%v, %v", err, entries)
	}
}

// Many who count at once lose none of their counts.
func TestConcurrentUpdates(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			d, err := hoststate.Open(path, id)
			for range 10 {
				if err == nil {
					err = hoststate.UpdateJSON(context.Background(), d, "count", 1, func(n *int) bool { *n++; return true })
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n, err := hoststate.ReadJSON[int](open(t, path), "count", 1); n != 80 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// A lock that is held is given up with the context.
func TestHeldLock(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	put(t, d, "x")
	f, err := os.Open(d.Path("lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = d.Update(ctx, "seen", 1, func([]byte) ([]byte, error) { return []byte("y"), nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if raw, err := d.Read("seen", 1); string(raw) != "x" || err != nil {
		t.Errorf("%q, %v", raw, err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "..", ".", "a/b", "../x", "-x", strings.Repeat("a", 101)} {
		if _, err := hoststate.Open(t.TempDir(), bad); err == nil {
			t.Errorf("%q is taken for an id", bad)
		}
	}
	d := open(t, t.TempDir())
	for _, bad := range []string{"", "..", "a/b", "lock", "x.new", "X", strings.Repeat("a", 101)} {
		if d.Update(t.Context(), bad, 1, func([]byte) ([]byte, error) { return []byte("x"), nil }) == nil {
			t.Errorf("%q is taken for a name", bad)
		}
	}
	if err := d.Update(t.Context(), strings.Repeat("a", 100), 1, func([]byte) ([]byte, error) { return []byte("x"), nil }); err != nil {
		t.Errorf("a long name: %v", err)
	}
}
