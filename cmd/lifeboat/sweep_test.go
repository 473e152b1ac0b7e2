package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
)

var sweepModes = []fault.Mode{fault.Before, fault.After, fault.Truncate}

var faultEvery = flag.Int64("fault-every", 4, "TestFaultSweep fails every n-th operation of a backup and of a restore")

// faultSweep fails the n-th operation on store for n = 1, 2, 3 … in each mode,
// until the work needs fewer. Work is followed by check. Of work that takes its time
// each n-th of every is failed, from one on that chance chooses.
func faultSweep(t *testing.T, store storage.Store, every int64, work func(storage.Store) error, check func(mode fault.Mode, when string, err error)) {
	t.Helper()
	for _, mode := range sweepModes {
		began, n, failed := time.Now(), 1+rand.Int64N(every), 0
		for ; !t.Failed(); n += every {
			f := fault.New(store, fault.Fault{At: n, Mode: mode, Err: storage.ErrUnavailable})
			err := work(f)
			if !f.Fired() {
				if err != nil {
					t.Errorf("%v: without a fault: %v", mode, err)
				}
				break
			}
			failed++
			check(mode, fmt.Sprintf("%v %s (operation %d)", mode, f.FiredAt(), n), err)
		}
		t.Logf("%v: %d operations failed in %v", mode, failed, time.Since(began).Round(time.Millisecond))
		if failed == 0 {
			t.Errorf("%v: no operation failed", mode)
		}
	}
}

// TestFaultSweep fails store operations in turn, with -fault-every 1 as in "make soak"
// each of them. Each time the error surfaces, every backup that is listed restores, and running again succeeds.
func TestFaultSweep(t *testing.T) {
	t.Parallel()
	s := newSweepSite(t)
	want := content(t, s.Cluster)
	first, err := s.takeBackup(s.store)
	if err != nil {
		t.Fatal(err)
	}
	s.checkBackups(t, "without a fault")
	if _, err := s.takeBackup(s.store); err != nil { // so that there is WAL after the first
		t.Fatal(err)
	}
	t.Run("restore", func(t *testing.T) { s.sweepRestore(t, first) })
	t.Run("push", func(t *testing.T) { s.sweepPush(t) })
	t.Run("fetch", func(t *testing.T) { s.sweepFetch(t) })
	t.Run("backup", func(t *testing.T) { s.sweepBackup(t) })
	t.Run("server", func(t *testing.T) {
		// The last of all these backups does start, and holds everything.
		c := s.restoreTo(t)
		sameContent(t, c, want)
		c.Stop(t, server.Fast)
	})
}

func (s *sweepSite) sweepBackup(t *testing.T) {
	var label string
	faultSweep(t, s.store, *faultEvery, func(store storage.Store) (err error) {
		label, err = s.takeBackup(store)
		return err
	}, func(mode fault.Mode, when string, err error) {
		s.checkBackups(t, when)
		switch {
		case err != nil && !errors.Is(err, storage.ErrUnavailable):
			t.Errorf("%s: the backup says %v", when, err)
		case err == nil && !s.known[label]:
			t.Errorf("%s: the backup succeeds and is not listed", when)
		case err == nil && mode == fault.Before && !strings.Contains(when, " leases/"):
			// Tidying up old generations and giving back the lease may fail.
			t.Errorf("%s: the backup says nothing of it", when)
		}
		// Also after a read that failed: else there is more WAL to be read of each
		// time, and the sweep never comes to its end.
		if _, err := s.takeBackup(s.store); err != nil {
			t.Errorf("%s: the backup after it: %v", when, err)
		}
		s.checkBackups(t, "after "+when)
	})
}

func (s *sweepSite) sweepRestore(t *testing.T, label string) {
	dir := filepath.Join(t.TempDir(), "restored")
	remove := func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.restoreBackup(s.store, label, dir); err != nil {
		t.Fatal(err)
	}
	want := treeOf(t, dir)
	remove()
	faultSweep(t, s.store, *faultEvery, func(store storage.Store) error {
		remove()
		return s.restoreBackup(store, label, dir)
	}, func(_ fault.Mode, when string, err error) {
		if err != nil {
			if !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("%s: the restore says %v", when, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, postgres.ControlPath)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: what is left could be started (%v)", when, err)
			}
			if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
				return // as before the first restore
			}
			if err := s.restoreBackup(s.store, label, dir); err != nil {
				t.Errorf("%s: the restore after it: %v", when, err)
				return
			}
		}
		sameTree(t, when, dir, want)
	})
}
