package restore

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
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

// What is put aside fills the disk on which it lies, and nothing that has to be there
// still needs room: the rest is written where it belongs at once.
func TestApplyDiskFullOfPagesAside(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	r, _, _ := newTestRepo(t)
	tr := smallTree(t)
	delete(tr, "base/1/1259") // all that is large lies in the tablespace
	tr["pg_tblspc/16400/PG_15_202209061/5/2001"] = entry{body: pattern(5 * repo.FrameSize)}
	rnd := rand.New(rand.NewPCG(1, 1))
	info := build(t, r, backupA, tr, built{frames: func(all []rawFrame) []rawFrame {
		newer, older := chained(rnd, 5, 0.9, all) // five frames of a MiB, and what is left
		return olderFirst(rnd, newer, older)
	}})
	dir := t.TempDir()
	p := planFor(info, dir)
	if err := os.Mkdir(p.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", p.DataDir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(p.DataDir, 0); err != nil {
			t.Error(err)
		}
	}()
	p.Disks = []Disk{{Paths: []string{p.DataDir}, Free: 1 << 40}} // others took it since
	if err := Apply(t.Context(), r, p, Options{Jobs: 1, memory: 1}); err != nil {
		t.Fatal(err)
	}
	applied(t, p, tr)
}
