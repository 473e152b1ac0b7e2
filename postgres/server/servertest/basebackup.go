package servertest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// BaseBackup copies the data directory of the running server to dir, with the
// WAL that the copy needs to become consistent and a backup_label, as
// pg_basebackup -X stream would, which does not speak to servers newer than
// itself. Nothing may create or drop relations meanwhile.
func (c *Cluster) BaseBackup(t testing.TB, dir string) {
	t.Helper()
	ctx := context.Background()
	conn := c.Conn(t) // backup mode lives with the connection
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("copy the data directory: %v", err)
		}
	}
	_, err := conn.Exec(ctx, "select pg_backup_start('copy', true)")
	must(err)
	must(os.Mkdir(dir, 0o700))
	c.copyEntries(t, dir, func(name string) bool {
		return !slices.Contains([]string{"pg_wal", "pg_replslot", "postmaster.pid", "postmaster.opts"}, name)
	})
	must(os.Mkdir(filepath.Join(dir, "pg_replslot"), 0o700))
	var label string
	must(conn.QueryRow(ctx, "select labelfile from pg_backup_stop(false)").Scan(&label))
	must(os.WriteFile(filepath.Join(dir, "backup_label"), []byte(label), 0o600))
	c.copyWAL(t, dir)
}

// copyWAL copies the WAL files, without what the archiver notes about them,
// which it changes all the time.
func (c *Cluster) copyWAL(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "pg_wal", "archive_status"), 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(c.dataDir, "pg_wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		err := copyFile(filepath.Join(dir, "pg_wal", e.Name()), filepath.Join(c.dataDir, "pg_wal", e.Name()), 0o600)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // recycled
			t.Fatal(err)
		}
	}
}

// copyEntries copies what lies directly in the data directory and is wanted.
func (c *Cluster) copyEntries(t testing.TB, dir string, wanted func(string) bool) {
	t.Helper()
	entries, err := os.ReadDir(c.dataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !wanted(e.Name()) {
			continue
		}
		if err := copyTree(filepath.Join(dir, e.Name()), filepath.Join(c.dataDir, e.Name()), false); err != nil {
			t.Fatalf("copy the data directory: %v", err)
		}
	}
}

// CopyData copies the data directory as it is, times and owners included, as a
// snapshot of a machine does. The server should be stopped.
func (c *Cluster) CopyData(t testing.TB) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", c.dataDir, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", c.dataDir, err, out)
	}
	return dir
}
