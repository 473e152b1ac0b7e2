package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// sweepSite is a small server with its repository in a folder, into which the
// server itself archives without any fault.
type sweepSite struct {
	*site
	store *file.Store
	keys  repo.Keys
	still map[string]string // files of the data directory that nobody writes to, and their hashes
	known map[string]bool   // backups that were seen to restore
	clock time.Time
}

// memoryRoot is a file system in memory on Linux.
const memoryRoot = "/dev/shm"

// inMemory puts the folders of a test into memory where there is room: it
// syncs thousands of times, and what a disk makes of that is not its business.
// What a test that was killed has left there goes away with the next one.
func inMemory(t *testing.T) {
	t.Helper()
	var fs unix.Statfs_t
	if unix.Statfs(memoryRoot, &fs) != nil || fs.Bavail*uint64(fs.Bsize) < 2<<30 {
		t.Logf("%s does not exist or has less than 2 GiB: the test works on the disk, and is slow", memoryRoot)
		return
	}
	old, err := filepath.Glob(memoryRoot + "/lifeboat-test-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range old {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(dir) // another account's stays
		}
	}
	dir, err := os.MkdirTemp(memoryRoot, "lifeboat-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("TMPDIR", dir)
}

// newSweepSite makes one with a table of each kind of content.
func newSweepSite(t *testing.T) *sweepSite {
	t.Helper()
	inMemory(t)
	s := &sweepSite{known: map[string]bool{}, clock: time.Now()}
	s.site = newSite(t, siteOptions{server: servertest.Options{
		WALSegmentSize: 1 << 20, Checksums: true, Settings: map[string]string{"autovacuum": "off", "min_wal_size": "2MB", "max_wal_size": "64MB"},
	}})
	var err error
	if s.store, err = file.New(filepath.Join(s.dir, "repository")); err != nil {
		t.Fatal(err)
	}
	s.keys = s.readKeys(t)
	// Less to copy: what is swept is the number of operations.
	s.Exec(t, "update pg_database set datistemplate = false where datistemplate")
	for _, name := range []string{"template0", "template1"} {
		s.Exec(t, "drop database "+name)
	}
	for i := range 20 {
		s.Exec(t, fmt.Sprintf("create table fixed%d as select i, repeat(md5(i::text), 20) as x from generate_series(1, 500) i", i))
	}
	s.Exec(t, "vacuum (freeze)")
	s.Exec(t, "checkpoint")
	s.still = map[string]string{}
	for i := range 20 {
		path := s.QueryString(t, fmt.Sprintf("select pg_relation_filepath('fixed%d')", i))
		s.still[path] = hashOf(t, filepath.Join(s.DataDir(), path))
	}
	return s
}

// readKeys reads the keys that init made.
func (s *site) readKeys(t *testing.T) repo.Keys {
	t.Helper()
	cluster, err := readKeyFile(filepath.Join(s.dir, "test-cluster.key"), "cluster key")
	if err != nil {
		t.Fatal(err)
	}
	recovery, err := readKeyFile(s.identity, "recovery key")
	if err != nil {
		t.Fatal(err)
	}
	k := repo.Keys{Cluster: cluster, Identities: recovery.Identities, Trusted: recovery.Signers}
	if k.Recipients, err = parseRecipients(recovery.Recipients()); err != nil {
		t.Fatal(err)
	}
	return k
}

func (s *sweepSite) repo(t *testing.T, store storage.Store) *repo.Repo {
	t.Helper()
	r, err := repo.Open(context.Background(), store, s.keys, "db1")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// takeBackup does what the command does, at a time when every lease of
// earlier runs is over.
func (s *sweepSite) takeBackup(store storage.Store) (label string, err error) {
	s.clock = s.clock.Add(5 * time.Minute)
	if err := s.leasesEnd(); err != nil {
		return "", err
	}
	r, err := repo.Open(context.Background(), store, s.keys, "db1")
	if err != nil {
		return "", err
	}
	info, err := backup.Run(context.Background(), r, backup.Options{
		DataDir: s.DataDir(), Conn: s.ConnString(), Jobs: 2, Level: repo.Fastest, WALTimeout: time.Minute,
		Host: "db1", Program: "test", Now: func() time.Time { return s.clock },
	})
	if err != nil {
		return "", err
	}
	return info.Label, nil
}

// leasesEnd makes the leases older by the store's clock than a lease lasts.
func (s *sweepSite) leasesEnd() error {
	root := filepath.Join(s.dir, "repository", "leases")
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	before := time.Now().Add(-10 * time.Minute)
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chtimes(path, before, before)
	})
}

// restoreBackup does what the command does, up to the server's start.
func (s *sweepSite) restoreBackup(store storage.Store, label, dir string) error {
	ctx := context.Background()
	r, err := repo.Open(ctx, store, s.keys, "db1")
	if err != nil {
		return err
	}
	target := restore.Target{DataDir: dir, Backup: label, Timeline: wal.CurrentTimeline,
		Point: restore.Point{Kind: restore.Immediate}, FetchCommand: []string{"lifeboat", "wal", "fetch"}}
	in, err := restore.Load(ctx, r, target, restore.Options{})
	if err != nil {
		return err
	}
	plan, err := restore.NewPlan(in, target)
	if err != nil {
		return err
	}
	return restore.Apply(ctx, r, plan, restore.Options{Jobs: 2})
}

// checkBackups restores every backup that is listed and was not seen before,
// which opens each of its frames, and compares the files that stand still.
func (s *sweepSite) checkBackups(t *testing.T, when string) {
	t.Helper()
	labels, err := s.repo(t, s.store).Backups(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range labels {
		if s.known[label] {
			continue
		}
		s.known[label] = true
		dir := filepath.Join(t.TempDir(), "restored")
		if err := s.restoreBackup(s.store, label, dir); err != nil {
			t.Errorf("%s: backup %s is listed and does not restore: %v", when, label, err)
			continue
		}
		for path, want := range s.still {
			if have := hashOf(t, filepath.Join(dir, path)); have != want {
				t.Errorf("%s: backup %s restores another %s", when, label, path)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// treeOf describes every file and folder below path, by its relative name.
func treeOf(t *testing.T, path string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(path, name)
		if err != nil {
			return err
		}
		if e.Type().IsRegular() {
			out[rel] = hashOf(t, name)
		} else {
			out[rel] = e.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func hashOf(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err == nil && info.IsDir() {
		return info.Mode().Type().String()
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %x", info.Mode(), sha256.Sum256(raw))
}

// sameTree fails the test unless the two restored folders are the same.
func sameTree(t *testing.T, when, dir string, want map[string]string) {
	t.Helper()
	have := treeOf(t, dir)
	if maps.Equal(have, want) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have[name] != want[name] {
			t.Errorf("%s: %s is %q in the restored folder, want %q", when, name, have[name], want[name])
		}
		delete(have, name)
	}
	for name := range have {
		t.Errorf("%s: %s came from nowhere", when, name)
	}
}

var sweepModes = []fault.Mode{fault.Before, fault.After, fault.Truncate}

// faultSweep fails the n-th operation on store for n = 1, 2, 3 … in each mode,
// until the work needs fewer. Work is followed by check.
func faultSweep(t *testing.T, store storage.Store, work func(storage.Store) error, check func(mode fault.Mode, when string, err error)) {
	t.Helper()
	for _, mode := range sweepModes {
		began, n := time.Now(), int64(1)
		for ; !t.Failed(); n++ {
			f := fault.New(store, fault.Fault{At: n, Mode: mode, Err: storage.ErrUnavailable})
			err := work(f)
			if !f.Fired() {
				if err != nil {
					t.Errorf("%v: without a fault: %v", mode, err)
				}
				break
			}
			check(mode, fmt.Sprintf("%v %s (operation %d)", mode, f.FiredAt(), n), err)
		}
		t.Logf("%v: %d operations failed in %v", mode, n-1, time.Since(began).Round(time.Millisecond))
		if n == 1 {
			t.Errorf("%v: no operation failed", mode)
		}
	}
}

// TestFaultSweep fails each store operation in turn. Each time the error
// surfaces, every backup that is listed restores, and running again succeeds.
func TestFaultSweep(t *testing.T) {
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
	faultSweep(t, s.store, func(store storage.Store) (err error) {
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
	faultSweep(t, s.store, func(store storage.Store) error {
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

// copyStore is the marker and what is archived, in memory, but for one object.
func (s *sweepSite) copyStore(t *testing.T, prefixes []string, without string) *mem.Store {
	t.Helper()
	out := mem.New()
	for _, prefix := range prefixes {
		for info, err := range s.store.List(context.Background(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			if info.Key == without {
				continue
			}
			raw := suite.Read(t, s.store, info.Key)
			if err := out.Create(context.Background(), info.Key, bytes.NewReader(raw)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

// switchedStore is a store that can be exchanged.
type switchedStore struct{ storage.Store }
