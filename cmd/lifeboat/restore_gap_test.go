package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// A restore up to a gap gets there. Since 15 PostgreSQL reads ahead of what it
// replays, so the record before the gap must not wait for the one behind it.
func TestRestoreUpToGap(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Exec(t, "create table t (x int)")
	s.run(t, "backup")
	s.Exec(t, "insert into t values (1)")
	s.flush(t) // the segment ends in a switch, and the next is needed at once
	missing := s.QueryString(t, "select pg_walfile_name(pg_current_wal_insert_lsn())")
	s.Exec(t, "insert into t values (2)")
	s.flush(t)
	s.Exec(t, "insert into t values (3)")
	s.flush(t)
	s.Stop(t, server.Fast)

	found, err := filepath.Glob(filepath.Join(s.dir, "repository", "wal", "*", "*", missing))
	if err != nil || len(found) != 1 {
		t.Fatalf("the segment %s is at %v: %v", missing, found, err)
	}
	if err := os.Remove(found[0]); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "restored")
	args := []string{"restore", "--to", dir, "--identity", s.identity}
	code, _, stderr := s.exec(t, args...)
	hint := upToGap.FindStringSubmatch(stderr)
	if code == 0 || hint == nil {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	s.run(t, append(args, "--target-lsn", hint[1], "--target-action", "promote")...)
	c := s.open(t, dir)
	if got := c.QueryString(t, "select count(*) from t"); got != "1" {
		t.Errorf("%s rows, want 1", got)
	}
	stopAll(t, c)
}
