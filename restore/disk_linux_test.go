package restore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The disk fills up while files are written, in the data directory or in a
// tablespace: the error says so and nothing can start; with room again, the
// same restore works.
func TestApplyDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	for _, place := range []string{"data", "ts16400"} {
		t.Run(place, func(t *testing.T) {
			r, _, _ := newTestRepo(t)
			tr := smallTree(t)
			dir := t.TempDir()
			p := planFor(build(t, r, backupA, tr, built{spread: true}), dir)
			small := filepath.Join(dir, place)
			if err := os.Mkdir(small, 0o700); err != nil {
				t.Fatal(err)
			}
			mount := func(options string, flags uintptr) {
				if err := syscall.Mount("tmpfs", small, "tmpfs", flags, options); err != nil {
					t.Skipf("no file system can be mounted here: %v", err)
				}
			}
			mount("size=1m", 0)
			defer func() {
				if err := syscall.Unmount(small, 0); err != nil {
					t.Error(err)
				}
			}()
			err := Apply(context.Background(), r, p, Options{})
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v", err)
			}
			notStartable(t, p)
			if f := lookAt(small); f.Free > 1<<20 || f.Err != nil || !f.Marked {
				t.Errorf("facts: %+v", f)
			}
			mount("size=64m", syscall.MS_REMOUNT)
			if err := Apply(context.Background(), r, p, Options{}); err != nil {
				t.Fatal(err)
			}
			applied(t, p, tr)
		})
	}
}
