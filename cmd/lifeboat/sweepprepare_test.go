package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/file"
)

// swept is a repository with every kind of object, which is copied for each case.
type swept struct {
	*site
	base    string     // its directory
	system  string     // of PostgreSQL
	name    string     // of a segment in the archive
	next    string     // path of the segment that comes next
	label   string     // of the newest backup
	control []byte     // pg_control of the server
	keys    []string   // of all objects, ascending
	foreign *repo.Repo // another repository of a cluster of the same name
}

// newSwept makes it with a real server: backups, a promotion, a drill, a check, a pin, keys
// that were rotated; and what interrupted work leaves, through the package repo.
func newSwept(t *testing.T) *swept {
	t.Helper()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	w := &swept{site: s, base: filepath.Join(s.dir, "repository")}
	s.Exec(t, "update pg_database set datistemplate = false where datistemplate; create table t as select generate_series(1, 1000) n")
	s.Exec(t, "drop database template0")
	s.backup(t)
	s.run(t, "key", "rotate", "--new-cluster-key")
	s.Exec(t, "insert into t values (0)")
	s.flush(t)
	s.Stop(t, server.Fast)
	must(t, os.WriteFile(filepath.Join(s.DataDir(), "standby.signal"), nil, 0o600))
	s.Start(t)
	s.Exec(t, "select pg_promote()")
	s.WaitPromoted(t)
	s.flush(t)
	w.label = s.backup(t)
	s.flush(t)
	s.run(t, "backup", "pin", w.label, "--reason", "audit")
	s.run(t, "verify", "--read")
	if code, out, stderr := s.exec(t, "drill", "--level", "quick", "--identity", s.identity, "--staging", t.TempDir()); code != 0 {
		t.Logf("the drill exits with %d: %s%s", code, out, stderr)
	}
	w.takeNext(t)
	w.leaveWork(t)
	w.foreign = newBareSite(t).repo
	must(t, filepath.WalkDir(w.base, func(path string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(w.base, path); err == nil && !d.IsDir() && !strings.HasPrefix(rel, "~") {
			w.keys = append(w.keys, filepath.ToSlash(rel))
		}
		return err
	}))
	return w
}

// takeNext stops the server and takes the last segment out of the archive: it is the next
// one then.
func (w *swept) takeNext(t *testing.T) {
	t.Helper()
	w.system = w.QueryString(t, "select system_identifier::text from pg_control_system()")
	last := w.QueryString(t, "select last_archived_wal from pg_stat_archiver")
	raw, err := os.ReadFile(filepath.Join(w.DataDir(), "pg_wal", last))
	must(t, err)
	w.Stop(t, server.Fast)
	w.control, err = os.ReadFile(filepath.Join(w.DataDir(), filepath.FromSlash(postgres.ControlPath)))
	must(t, err)
	w.next = filepath.Join(w.dir, last)
	must(t, os.WriteFile(w.next, raw, 0o600))
	dir := filepath.Join(w.base, "wal", w.system, "00000002")
	// What the shutdown has archived comes later still.
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if len(e.Name()) == len(last) && e.Name() >= last {
			must(t, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	_ = os.RemoveAll(filepath.Join(w.base, "blocks", w.system, "00000002"))
	first, err := os.ReadDir(filepath.Join(w.base, "wal", w.system, "00000001"))
	must(t, err)
	w.name = first[0].Name()
}

// leaveWork stores what a stream and a backup leave that were interrupted.
func (w *swept) leaveWork(t *testing.T) {
	t.Helper()
	store, err := file.New(w.base)
	must(t, err)
	r, err := repo.Open(t.Context(), store, w.readKeys(t), "db1")
	must(t, err)
	const label = "20260101T000000Z-aaaaaa"
	must(t, r.Adopt(t.Context(), label, repo.Adoption{Bases: []string{w.label}, Made: time.Now()}))
	must(t, r.CreatePart(t.Context(), 1, repo.Part{Label: label, StartTime: time.Now(), BlockSize: 8192}))
	raw, err := os.ReadFile(w.next)
	must(t, err)
	system, err := postgres.ParseSystemID(w.system)
	must(t, err)
	_, err = r.CreateEnvelope(context.Background(), repo.SliceKey(system, 2, filepath.Base(w.next), 0, 4096), repo.KindWAL, bytes.NewReader(raw[:4096]), 4096)
	must(t, err)
}

// sweptCase is a copy of the repository with its own configuration and keys.
type sweptCase struct {
	*swept
	name, repository, config, clusterKey, pgdata string
}

func (w *swept) newCase(name string) (*sweptCase, error) {
	dir := filepath.Join(w.dir, "cases", name)
	c := &sweptCase{swept: w, name: name, repository: filepath.Join(dir, "repository"), config: filepath.Join(w.dir, name+".yaml"),
		clusterKey: filepath.Join(dir, "cluster.key"), pgdata: filepath.Join(dir, "pgdata")}
	for _, key := range append(w.keys, "x") {
		if err := os.MkdirAll(filepath.Dir(c.path(key)), 0o700); err != nil {
			return nil, err
		}
		if err := os.Link(filepath.Join(w.base, filepath.FromSlash(key)), c.path(key)); err != nil && key != "x" {
			return nil, err
		}
	}
	text, err := os.ReadFile(w.site.config)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(w.dir, "test-cluster.key"))
	if err != nil {
		return nil, err
	}
	segment, err := os.ReadFile(w.next)
	if err != nil {
		return nil, err
	}
	for path, raw := range map[string][]byte{
		c.config:     bytes.ReplaceAll(text, []byte("file://"+w.base), []byte("file://"+c.repository)),
		c.clusterKey: key,
		filepath.Join(c.pgdata, filepath.FromSlash(postgres.ControlPath)):  w.control,
		filepath.Join(c.pgdata, "pg_wal", filepath.Base(w.next)):           segment,
		filepath.Join(c.pgdata, "pg_wal", "archive_status", "unused.done"): nil,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *sweptCase) path(key string) string {
	return filepath.Join(c.repository, filepath.FromSlash(key))
}

func (c *sweptCase) remove() {
	_ = os.RemoveAll(filepath.Dir(c.repository))
	_ = os.Remove(c.config)
}

// put replaces an object as somebody does who writes files into the directory.
func (c *sweptCase) put(key string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(c.path(key)), 0o700); err != nil {
		return err
	}
	_ = os.Remove(c.path(key)) // it has other names
	if err := os.WriteFile(c.path(key), content, 0o600); err != nil {
		return err
	}
	old := time.Now().Add(-time.Minute)
	return os.Chtimes(c.path(key), old, old)
}
