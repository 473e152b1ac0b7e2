package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// standby makes a streaming standby of the site's server that archives as the
// server does once it is promoted, and starts it.
func (s *site) standby(t *testing.T, name string) *servertest.Cluster {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	s.BaseBackup(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := os.OpenFile(filepath.Join(dir, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conf.Close()
	for name, value := range map[string]string{"primary_conninfo": s.ConnString(), "archive_command": s.command(t, `wal push --pgdata `+dir+` "%p"`)} {
		if _, err := fmt.Fprintf(conf, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''")); err != nil {
			t.Fatal(err)
		}
	}
	return servertest.Open(t, dir, servertest.Options{})
}

// caughtUp waits until a standby has replayed what the server has written.
func (s *site) caughtUp(t *testing.T, standby *servertest.Cluster) {
	t.Helper()
	lsn := s.QueryString(t, "select pg_current_wal_flush_lsn()")
	eventually(t, "the standby to reach "+lsn, func() bool {
		return standby.QueryString(t, "select pg_last_wal_replay_lsn() >= '"+lsn+"'") == "t"
	})
}

// promote makes a primary of a standby.
func promote(t *testing.T, c *servertest.Cluster) {
	t.Helper()
	c.Exec(t, "select pg_promote()")
	c.WaitPromoted(t)
}

// The primary is lost, a standby takes over, and the old primary comes back and
// goes on as if nothing had happened. The stream follows the new one by itself;
// the archive keeps both timelines apart; a restore goes along the new one.
func TestStreamFailover(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Exec(t, "create table t (n int, at text)")
	two, three := s.standby(t, "two"), s.standby(t, "three")
	both := fmt.Sprintf("host=%s,%s port=%d user=postgres dbname=postgres target_session_attrs=read-write", s.SocketDir(), two.SocketDir(), server.DefaultPort)
	st := s.stream(t, "--create-slot", "--conn", both)
	s.run(t, "backup")
	s.Exec(t, "insert into t select generate_series(1, 20000), 'before'")
	s.caughtUp(t, two)
	s.caughtUp(t, three)

	s.Kill9(t)
	// The third server stays where it is when the old primary comes back.
	three.Exec(t, "alter system set primary_conninfo = ''")
	three.Exec(t, "select pg_reload_conf()")
	promote(t, two)
	st.waitFor(t, "streaming timeline 2")
	two.Exec(t, "insert into t select generate_series(1, 500), 'two'")
	// A whole segment, under whose name the third server will come.
	own := two.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
	eventually(t, own+" to be archived", func() bool {
		return two.QueryString(t, "select coalesce(max(last_archived_wal), '') from pg_stat_archiver where last_archived_wal !~ 'history'") >= own
	})
	two.Exec(t, "insert into t select generate_series(501, 600), 'two'")
	want := content(t, two)

	// The old primary archives on, past where it was left.
	s.Start(t)
	s.Exec(t, "insert into t select generate_series(1, 30000), 'lost branch'")
	s.flush(t)
	lsn := two.QueryString(t, "select pg_current_wal_flush_lsn()")
	eventually(t, "the stream of the new primary", func() bool {
		return two.QueryString(t, "select coalesce(restart_lsn >= '"+lsn+"', false) from pg_replication_slots where slot_name = 'lifeboat'") == "t"
	})
	st.kill(t)
	stopAll(t, two)
	restored := s.restoreTo(t)
	sameContent(t, restored, want)
	stopAll(t, restored)
	old := s.restoreTo(t, "--target-timeline", "1")
	sameContent(t, old, content(t, s.Cluster))
	stopAll(t, old)

	// A second standby that was promoted to the same timeline, and writes other
	// WAL under the same names.
	promote(t, three)
	three.Exec(t, "create table other as select generate_series(1, 150000)")
	var failed string
	eventually(t, "the archiver of the third server to fail", func() bool {
		failed = three.QueryString(t, "select coalesce(last_failed_wal, '') from pg_stat_archiver")
		return failed != ""
	})
	path := filepath.Join(three.DataDir(), "pg_wal", failed)
	s.refuses(t, 1, "two primaries", "wal", "push", path, "--pgdata", three.DataDir())
	// Nor does a whole segment hide what was streamed of one that was not complete.
	streamed := s.slicedOn(t, 2)
	path = filepath.Join(three.DataDir(), "pg_wal", streamed)
	s.refuses(t, 1, "another slice of "+streamed, "wal", "push", path, "--pgdata", three.DataDir())
	again := s.restoreTo(t)
	sameContent(t, again, want)
}

// slicedOn is the segment of a timeline that is archived in slices only.
func (s *site) slicedOn(t *testing.T, tl postgres.Timeline) string {
	t.Helper()
	objects := s.objects(t)
	for key := range objects {
		whole, _, slice := strings.Cut(key, ".d/")
		if _, stored := objects[whole]; slice && !stored && strings.Contains(whole, "/"+tl.Hex()+"/") {
			return filepath.Base(whole)
		}
	}
	t.Fatalf("no segment of timeline %s is there in slices only", tl)
	return ""
}

// Stopping the server in order waits for the stream no longer than one
// interval, and what it wrote last is in the archive then.
func TestServerStopsBesideStream(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{{"--interval", "1s"}, {"--synchronous"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			s := newSite(t, siteOptions{})
			s.Exec(t, "create table t (n int)")
			alone := s.stop(t)
			s.Start(t)
			st := s.stream(t, append(flags, "--create-slot")...)
			s.run(t, "backup")
			s.Exec(t, "insert into t select generate_series(1, 1000)")
			if took := s.stop(t); took > alone+time.Second {
				t.Errorf("the server took %v to stop, %v without the stream", took, alone)
			}
			// The shutdown checkpoint itself is archived.
			st.kill(t)
			c := s.restoreTo(t)
			if got := c.QueryString(t, "select count(*) from t"); got != "1000" {
				t.Errorf("%s rows", got)
			}
			stopAll(t, c)
			// And after a restart the stream goes on by itself.
			st = s.startStream(t, flags...)
			s.Start(t)
			st.waitFor(t, "streaming timeline 1")
			s.Exec(t, "insert into t values (0)")
			s.waitDurable(t, s.QueryString(t, "select pg_current_wal_flush_lsn()"))
			s.Restart(t)
			eventually(t, "the stream to come back", func() bool { return strings.Count(st.said(), "streaming timeline 1") == 2 })
			st.stop(t)
		})
	}
}

// stop stops the server in order and says how long that took.
func (s *site) stop(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	s.Stop(t, server.Fast)
	return time.Since(began)
}

// While the store is away nothing moves that must not, and when it is back all
// arrives without a person.
func TestStreamOutlivesTheStore(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{s3: true, server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Setting(t, "archive_mode", "off")
	s.Restart(t)
	s.Exec(t, "create table t (n int, filler text)")
	st := s.stream(t, "--create-slot", "--interval", "100ms", "--store-timeout", "3s")
	s.run(t, "backup")
	s.bucket.Pause()
	before := s.QueryString(t, "select restart_lsn from pg_replication_slots")
	// More than the stream keeps in memory, so it must make the server wait.
	s.Exec(t, "insert into t select n, repeat('x', 500) from generate_series(1, 30000) n")
	st.waitFor(t, "trying again")
	held := s.QueryString(t, "select pg_wal_lsn_diff(restart_lsn, '"+before+"') from pg_replication_slots")
	if len(held) > 6 { // a million bytes could have been under way
		t.Errorf("the slot moved by %s bytes while the store was away", held)
	}
	s.bucket.Resume()
	s.waitDurable(t, s.QueryString(t, "select pg_current_wal_flush_lsn()"))
	st.kill(t)
	s.Kill9(t)
	c := s.restoreTo(t)
	if got := c.QueryString(t, "select count(*) from t"); got != "30000" {
		t.Errorf("%s rows", got)
	}
}

// Stream and archive_command store the same segments, and both are content.
// What the slices held is removed.
func TestStreamBesidePush(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1 << 20, 64 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: size}})
			s.Exec(t, "create table t as select n, repeat('x', 500) filler from generate_series(1, 100) n")
			st := s.stream(t, "--create-slot", "--interval", "20ms")
			s.run(t, "backup")
			for range 5 {
				s.Exec(t, "insert into t select n, repeat('x', 500) from generate_series(1, 3000) n")
				s.flush(t)
			}
			s.Exec(t, "insert into t select n, repeat('x', 500) from generate_series(1, 3000) n")
			s.waitDurable(t, s.QueryString(t, "select pg_current_wal_flush_lsn()"))
			if got := s.QueryString(t, "select failed_count from pg_stat_archiver"); got != "0" {
				t.Errorf("archive_command failed %s times: %s", got, s.Log(t))
			}
			st.stop(t)
			want := content(t, s.Cluster)
			directories := map[string]bool{}
			for key := range s.objects(t) {
				if i := strings.Index(key, ".d/"); i > 0 {
					directories[key[:i]] = true
				}
			}
			if len(directories) > 1 {
				t.Errorf("slices are left of %d segments", len(directories))
			}
			s.Stop(t, server.Immediate)
			sameContent(t, s.restoreTo(t), want)
		})
	}
}

// A slot that falls too far behind is told of before the server cuts it off,
// and afterwards the stream does not pretend.
func TestStreamLosesItsSlot(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.stream(t, "--create-slot").stop(t)
	s.Setting(t, "max_slot_wal_keep_size", "3MB")
	s.Setting(t, "max_wal_size", "2MB")
	s.Setting(t, "min_wal_size", "2MB")
	s.Setting(t, "archive_command", "true") // what is lost is lost
	s.Restart(t)
	s.Exec(t, "create table t as select n, repeat('x', 500) from generate_series(1, 30000) n")
	for range 3 {
		s.Exec(t, "select pg_switch_wal()")
		s.Exec(t, "checkpoint")
	}
	if got := s.QueryString(t, "select wal_status from pg_replication_slots"); got != "lost" {
		t.Fatalf("the slot is %s", got)
	}
	s.refuses(t, 1, "is lost", "wal", "stream")
}

// What a person gets wrong.
func TestStreamRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.refuses(t, 1, "no replication slot \"lifeboat\"", "wal", "stream")
	s.refuses(t, 2, "cannot name a replication slot", "wal", "stream", "--slot", "Life-Boat")
	s.refuses(t, 2, "--interval", "wal", "stream", "--interval", "1ms")
	other := servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20}) // of another initdb
	s.refuses(t, 1, "is of system", "wal", "stream", "--conn", other.ConnString())
}
