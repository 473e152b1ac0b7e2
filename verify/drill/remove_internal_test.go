package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// newStage is a staging directory with its marker, and the data directory in it.
func newStage(t *testing.T) *stage {
	t.Helper()
	s, err := makeStage(t.TempDir(), marker{Drill: "20260131T020000Z-1a2b3c4d"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.dataDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// deeper makes a tree of so many levels, which no path reaches.
func deeper(t *testing.T, dir string, levels int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	for i := 0; err == nil && i < levels; i++ {
		if err = unix.Mkdirat(at, "d", 0o700); err != nil {
			break
		}
		var next int
		if next, err = unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_RDONLY, 0); err == nil {
			unix.Close(at)
			at = next
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(at)
}

// Whatever tree a server leaves, it is removed with few descriptors: one deeper than any
// path, one with directories that are closed, one with many files, names like those that
// removing gives, links to what is not ours.
func TestRemoveStage(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(data string) error{
		"deep": func(data string) error { deeper(t, data, 4000); return nil },
		"closed": func(data string) error {
			for i := range 3 {
				dir := filepath.Join(data, "closed"+strconv.Itoa(i), "below", "more")
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return err
				}
				for _, d := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
					if err := os.Chmod(d, 0); err != nil {
						return err
					}
				}
			}
			return os.Chmod(data, 0)
		},
		"wide": func(data string) error {
			for i := range 3 * namesAtOnce {
				if err := os.WriteFile(filepath.Join(data, strconv.Itoa(i)), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		"links": func(data string) error {
			return errors.Join(os.Symlink(outside, filepath.Join(data, "file")), os.Symlink(filepath.Dir(outside), filepath.Join(data, "dir")),
				os.Symlink("..", filepath.Join(data, "up")), syscall.Mkfifo(filepath.Join(data, "fifo"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			if err := make(s.dataDir()); err != nil {
				t.Fatal(err)
			}
			var before, few unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
				t.Fatal(err)
			}
			few = before
			few.Cur = 128
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
				t.Fatal(err)
			}
			err := s.remove(t.Context())
			if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); e != nil {
				t.Fatal(e)
			}
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(s.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
			if _, err := os.Lstat(outside); err != nil {
				t.Errorf("what a link leads to is gone: %v", err)
			}
		})
	}
}

// Removing ends with its time, and what is left is still known as a drill's: the next
// one removes it.
func TestRemoveStageInTime(t *testing.T) {
	s := newStage(t)
	deeper(t, s.dataDir(), 100)
	late := fmt.Errorf("it did not end within a moment")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(late)
	if err := s.remove(ctx); !errors.Is(err, late) {
		t.Errorf("it ended with %v", err)
	}
	if _, err := os.Lstat(s.path(markerName)); err != nil {
		t.Errorf("the marker: %v", err)
	}
	swept, err := Sweep(t.Context(), filepath.Dir(s.dir))
	if err != nil || len(swept) != 1 {
		t.Errorf("the next drill removes %v, %v", swept, err)
	}
}
