package main

import (
	"context"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// A stream into each repository, one of which is down at the start: the other goes
// on. Which of them a commit waits for is PostgreSQL's to say.
func TestStreamSeveral(t *testing.T) {
	t.Parallel()
	s := newSeveralSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.run(t, "backup")
	s.Setting(t, "archive_command", "true") // what comes now comes by the streams
	s.Exec(t, "create table t (n int)")
	back := away(t, s.far)
	st := s.startStream(t, "--create-slot", "--synchronous", "--slot", "boat")
	st.waitFor(t, "near: streaming timeline")
	st.waitFor(t, "far: ")
	s.Setting(t, "synchronous_standby_names", "ANY 1 (boat_near, boat_far)")
	s.Exec(t, "insert into t values (1)")

	// Both: the commit waits, and is there as soon as the far one is.
	s.Setting(t, "synchronous_standby_names", "FIRST 2 (boat_near, boat_far)")
	done := make(chan error, 1)
	conn := s.Conn(t)
	go func() {
		_, err := conn.Exec(context.Background(), "insert into t values (2)")
		done <- err
	}()
	eventually(t, "the commit to wait", func() bool {
		return s.QueryString(t, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'") == "1"
	})
	select {
	case err := <-done:
		t.Errorf("a commit ended that no far repository has: %v", err)
	default:
	}
	back()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the commit still waits")
	}
	s.Kill9(t)
	st.kill(t)
	for _, name := range []string{"near", "far"} {
		r := s.restoreTo(t, "--repository", name)
		if got := r.QueryString(t, "select string_agg(n::text, ' ' order by n) from t"); got != "1 2" {
			t.Errorf("from %s came back %q", name, got)
		}
		stopAll(t, r)
	}
}
