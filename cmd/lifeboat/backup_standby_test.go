package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// A backup from a standby: files, start and stop are the standby's, the WAL is
// the primary's. It restores, also when it is an incremental one, and what was
// committed later comes with the WAL.
func TestBackupFromStandby(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{Checksums: true}})
	s.Exec(t, "create table t as select i, repeat('x', 100) b from generate_series(1, 20000) i")
	two := s.standby(t, "two")
	flags := []string{"backup", "--pgdata", two.DataDir(), "--conn", two.ConnString()}
	s.caughtUp(t, two)
	// The primary is quiet: its last segment comes when it is switched.
	stop := s.switching(t)
	first := s.run(t, flags...)
	if !strings.Contains(first, "a full backup") {
		t.Errorf("the first backup of the standby:\n%s", first)
	}
	s.Exec(t, "update t set b = 'y' where i % 100 = 0; checkpoint")
	s.caughtUp(t, two)
	s.loseReplayed(t, two)
	second := s.run(t, flags...)
	if !strings.Contains(second, "block summaries") {
		t.Errorf("the second backup of the standby:\n%s", second)
	}
	s.Exec(t, "insert into t values (0, 'later')")
	third := s.run(t, append(flags, "--scan")...) // of the same restart point
	if !strings.Contains(third, "a scan of all pages") {
		t.Errorf("the third backup of the standby:\n%s", third)
	}
	stop()
	s.flush(t)

	for _, label := range s.labels(t) {
		restored := s.restoreTo(t, "--backup", label)
		if got := restored.QueryString(t, "select count(*) || ' ' || count(*) filter (where b = 'y') || ' ' || min(i) from t"); got != "20001 200 0" {
			t.Errorf("restored from %s: %s", label, got)
		}
		if _, err := os.Stat(filepath.Join(restored.DataDir(), "standby.signal")); err == nil {
			t.Error("the restored server is a standby")
		}
		restored.Stop(t, server.Fast)
		restored.Checksums(t)
	}
}

// loseReplayed removes the WAL that a standby is done with, as its restart points do
// in time: what changed in it only the archive can tell then.
func (s *site) loseReplayed(t *testing.T, standby *servertest.Cluster) {
	t.Helper()
	at := s.QueryString(t, "select pg_walfile_name('"+standby.QueryString(t, "select pg_last_wal_replay_lsn()")+"')")
	dir := filepath.Join(standby.DataDir(), "pg_wal")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for _, e := range entries {
		if len(e.Name()) == len(at) && e.Name() < at && os.Remove(filepath.Join(dir, e.Name())) == nil {
			lost++
		}
	}
	if lost == 0 {
		t.Error("the standby had no WAL to lose, and the test says nothing")
	}
}

// switching has the server write a little and end its segment, again and again,
// as archive_timeout does.
func (s *site) switching(t *testing.T) (stop func()) {
	t.Helper()
	conn := s.Conn(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, err := conn.Exec(ctx, "select pg_logical_emit_message(false, 'test', 'tick'), pg_sleep(0.2)")
			if err == nil {
				_, err = conn.Exec(ctx, "select pg_switch_wal()")
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}
