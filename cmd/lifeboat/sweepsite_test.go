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
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// sweepSite is a small server with its repository in a directory, into which the
// server itself archives without any fault.
type sweepSite struct {
	*site
	store *file.Store
	keys  repo.Keys
	still map[string]string // files of the data directory that nobody writes to, and their hashes
	known map[string]bool   // backups that were seen to restore
	clock time.Time
}

// newSweepSite makes one with a table of each kind of content.
func newSweepSite(t *testing.T) *sweepSite {
	t.Helper()
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
func (s *sweepSite) leasesEnd() error { return s.age(repo.LeasesPrefix, 10*time.Minute) }

// age makes the objects under a prefix, which ends with "/", older by the store's clock.
func (s *sweepSite) age(prefix string, by time.Duration) error {
	root := filepath.Join(s.dir, "repository", filepath.FromSlash(prefix))
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	before := time.Now().Add(-by)
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

// treeOf describes every file and directory below path, by its relative name.
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

// sameTree fails the test unless the two restored directories are the same.
func sameTree(t *testing.T, when, dir string, want map[string]string) {
	t.Helper()
	have := treeOf(t, dir)
	if maps.Equal(have, want) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have[name] != want[name] {
			t.Errorf("%s: %s is %q in the restored directory, want %q", when, name, have[name], want[name])
		}
		delete(have, name)
	}
	for name := range have {
		t.Errorf("%s: %s came from nowhere", when, name)
	}
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
