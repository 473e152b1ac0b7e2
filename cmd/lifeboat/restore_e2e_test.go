package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// plan runs "restore --dry-run" and returns the plan.
func (s *site) plan(t *testing.T, flags ...string) restorePlan {
	t.Helper()
	out := s.run(t, append([]string{"restore", "--dry-run", "--json", "--to", filepath.Join(t.TempDir(), "data"), "--identity", s.identity}, flags...)...)
	var doc struct {
		Plan     restorePlan
		Restored bool
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Restored {
		t.Error("a dry run says that it restored")
	}
	return doc.Plan
}

// restorePlan is what the tests use of a plan.
type restorePlan struct {
	Label    string       `json:"backup"`
	StopLSN  postgres.LSN `json:"stop_lsn"`
	StopTime time.Time    `json:"stop_time"`
	Newest   time.Time    `json:"newest_time"`
	Notes    []string     `json:"notes"`
}

// restorePaused restores to a target and waits until recovery has paused there.
func (s *site) restorePaused(t *testing.T, flags ...string) *servertest.Cluster {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	s.run(t, append([]string{"restore", "--to", dir, "--identity", s.identity}, flags...)...)
	c := servertest.Open(t, dir, servertest.Options{})
	deadline := time.Now().Add(time.Minute)
	for c.QueryString(t, "select pg_get_wal_replay_pause_state()") != "paused" {
		if time.Now().After(deadline) {
			t.Fatalf("recovery did not pause within a minute\n%s", c.Log(t))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return c
}

// What a plan says about where recovery stops is what PostgreSQL does, for
// targets on and around everything that can be one; and what the plan says
// cannot be reached, PostgreSQL does not reach.
func TestRestorePlanIsWhatHappens(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20, Settings: map[string]string{
		"track_commit_timestamp": "on", "max_prepared_transactions": "5",
	}}})
	s.Exec(t, "create table t (n int)")
	s.run(t, "backup")
	q := func(sql string) string { return s.QueryString(t, sql) }

	committed := q("begin; insert into t values (1); select pg_current_xact_id(); commit; select max(xmin::text::bigint) from t")
	at := q("select pg_xact_commit_timestamp(max(xmin::text::bigint)::text::xid) from t")
	time.Sleep(3 * time.Millisecond)
	aborted := q("begin; insert into t values (2); select pg_current_xact_id()::text") // the session ends
	s.Exec(t, "begin; insert into t values (3); prepare transaction 'two'")
	prepared := q("select transaction from pg_prepared_xacts")
	s.Exec(t, "commit prepared 'two'")
	time.Sleep(3 * time.Millisecond)
	lsn := q("select pg_create_restore_point('here')")
	s.Exec(t, "insert into t values (4)")
	s.Exec(t, "select pg_create_restore_point('here')") // the first of two counts
	last := q("select pg_xact_commit_timestamp(max(xmin::text::bigint)::text::xid) from t")
	s.flush(t)
	s.flush(t)

	targets := map[string][]string{
		"time of a commit":          {"--target-time", at},
		"time just before a commit": {"--target-time", at, "--target-exclusive"},
		"committed":                 {"--target-xid", committed},
		"committed, exclusive":      {"--target-xid", committed, "--target-exclusive"},
		"prepared":                  {"--target-xid", prepared},
		"restore point":             {"--target-name", "here"},
		"LSN of a record's end":     {"--target-lsn", lsn},
		"LSN within a record":       {"--target-lsn", (parseLSN(t, lsn) - 1).String()},
		"LSN, exclusive":            {"--target-lsn", lsn, "--target-exclusive"},
		"immediate":                 {"--target-immediate"},
		"rolled back":               {"--target-xid", aborted},
	}
	for name, flags := range targets {
		t.Run(name, func(t *testing.T) {
			p := s.plan(t, flags...)
			c := s.restorePaused(t, flags...)
			if got := c.QueryString(t, "select pg_last_wal_replay_lsn()"); got != p.StopLSN.String() {
				t.Errorf("recovery paused at %s, the plan said %s", got, p.StopLSN)
			}
			if want := at; name == "time of a commit" && c.QueryString(t, "select pg_last_xact_replay_timestamp()") != want {
				t.Errorf("the last commit is not the one of %s", want)
			}
			if !p.Newest.After(p.StopTime) && name != "immediate" {
				t.Errorf("newest time %v, stop time %v", p.Newest, p.StopTime)
			}
			stopAll(t, c)
		})
	}

	// PostgreSQL takes the end of the archive for the end of such a recovery,
	// and gives up: "recovery ended before configured recovery target".
	ready := filepath.Join(t.TempDir(), "ready")
	s.run(t, "restore", "--to", ready, "--identity", s.identity)
	for name, target := range map[string]struct{ flag, setting, value string }{
		"time of the last commit": {"--target-time", "recovery_target_time", last},
		"time in the future":      {"--target-time", "recovery_target_time", "2099-01-01 00:00:00+00"},
		"unknown transaction":     {"--target-xid", "recovery_target_xid", "999999"},
		"unknown restore point":   {"--target-name", "recovery_target_name", "there"},
		"LSN behind the end":      {"--target-lsn", "recovery_target_lsn", "7/0"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := s.exec(t, "restore", "--to", filepath.Join(t.TempDir(), "x"), "--identity", s.identity, target.flag, target.value)
			if code != 1 || !strings.Contains(stderr, "cannot be reached") || !strings.Contains(stderr, "reachable is from") || !strings.Contains(stderr, "hint: ") {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			if testing.Short() && name != "time of the last commit" {
				return
			}
			dir := filepath.Join(t.TempDir(), "copy")
			if out, err := exec.Command("cp", "-a", ready, dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			appendTo(t, filepath.Join(dir, "postgresql.auto.conf"), fmt.Sprintf("%s = '%s'\n", target.setting, target.value))
			c := servertest.Open(t, dir, servertest.Options{Stopped: true})
			err := tryUntilEnd(t, c)
			if e, ok := errors.AsType[*server.ExitError](err); !ok || !strings.Contains(e.Log, "recovery ended before configured recovery target was reached") {
				t.Errorf("PostgreSQL reached what the plan refuses: %v", err)
			}
		})
	}
}

// tryUntilEnd starts a server that is to fail in recovery.
func tryUntilEnd(t *testing.T, c *servertest.Cluster) error {
	t.Helper()
	// hot_standby lets it accept connections before it fails.
	appendTo(t, filepath.Join(c.DataDir(), "postgresql.auto.conf"), "hot_standby = 'off'\n")
	return c.TryStart(t)
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func parseLSN(t *testing.T, s string) postgres.LSN {
	t.Helper()
	lsn, err := postgres.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// Settings of the server that was backed up, and of earlier recoveries, must
// not decide anything in the restored one.
func TestRestoreBeatsOldSettings(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{Settings: map[string]string{
		"recovery_target_name":      "an old one",
		"recovery_target_inclusive": "off",
		"recovery_target_timeline":  "1",
		"recovery_target_action":    "shutdown",
		"restore_command":           "exit 99",
		"archive_cleanup_command":   "exit 99",
		"recovery_end_command":      "touch /nonexistent/directory/x",
		"recovery_min_apply_delay":  "1h",
		"max_connections":           "50",
	}}})
	s.Exec(t, "create table t (n int)")
	s.Exec(t, "alter system set recovery_target_name = 'another old one'")
	s.run(t, "backup")
	// More than the restored configuration allows: recovery alone would stop.
	s.Setting(t, "max_connections", "90")
	s.Restart(t)
	s.Exec(t, "insert into t values (1)")
	at := s.QueryString(t, "select clock_timestamp()")
	time.Sleep(3 * time.Millisecond)
	s.Exec(t, "insert into t values (2)")
	s.Setting(t, "synchronous_standby_names", "*")
	s.flush(t)
	s.Kill9(t)

	c := s.restoreTo(t, "--target-time", at, "--target-action", "promote")
	if got := c.QueryString(t, "select string_agg(n::text, ',') from t"); got != "1" {
		t.Errorf("rows %q", got)
	}
	if got := c.QueryString(t, "show max_connections"); got != "90" {
		t.Errorf("max_connections is %s", got)
	}
	c.Exec(t, "insert into t values (3)") // nobody is waited for
	stopAll(t, c)

	// A backup of the restored one, restored again: one block of settings.
	auto, err := os.ReadFile(filepath.Join(c.DataDir(), "postgresql.auto.conf"))
	if err != nil || strings.Contains(string(auto), "another old one") || strings.Count(string(auto), "restore_command") != 1 {
		t.Errorf("%v\n%s", err, auto)
	}
}

// A tablespace made after the backup comes back at its own path; one that the
// backup knows is moved. Neither is ever put where something is.
func TestRestoreTablespaces(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	base := t.TempDir()
	mkdir := func(name string) string {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	known, later, dropped := mkdir("known % \\ it"), mkdir("later"), mkdir("dropped")
	s.Exec(t, "create tablespace known location '"+strings.ReplaceAll(known, "'", "''")+"'")
	s.Exec(t, "create table k tablespace known as select generate_series(1, 1000) n")
	s.run(t, "backup")
	s.Exec(t, "create tablespace later location '"+later+"'")
	s.Exec(t, "create table l tablespace later as select generate_series(1, 500) n")
	s.Exec(t, "create tablespace dropped location '"+dropped+"'")
	s.Exec(t, "drop tablespace dropped")
	s.flush(t)
	oid := s.QueryString(t, "select oid from pg_tablespace where spcname = 'known'")

	// The production server still runs in both.
	moved := filepath.Join(base, "moved")
	restore := func(flags ...string) (int, string, string) {
		return s.exec(t, append([]string{"restore", "--to", filepath.Join(base, "data"), "--identity", s.identity}, flags...)...)
	}
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{nil, known + " is not empty"},
		{[]string{"--tablespace", known + "=" + moved}, later + " is not empty"},
		{[]string{"--tablespace", oid + "=" + moved, "--tablespace", later + "=" + moved + "2"}, "cannot be moved"},
		{[]string{"--tablespace", oid + "=" + known}, known + " is not empty"},
		{[]string{"--tablespace", "/nowhere=" + moved}, "no tablespace /nowhere"},
	} {
		code, _, stderr := restore(c.flags...)
		if code == 0 || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "hint: ") {
			t.Errorf("%v: exit code %d\n%s", c.flags, code, stderr)
		}
	}
	if got := s.QueryString(t, "select (select count(*) from k), (select count(*) from l)"); got != "1000" {
		t.Errorf("production has %s rows", got)
	}

	s.Kill9(t)
	for _, dir := range []string{known, later, dropped} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody has said that it may make what is not there: the hint is what to type.
	for _, dry := range [][]string{{"--dry-run"}, nil} {
		code, _, stderr := restore(append(dry, "--tablespace", oid+"="+moved)...)
		_, typed, found := strings.Cut(stderr, "add ")
		if code != int(exitFailed) || !found || !strings.Contains(typed, "="+later+" ") || !strings.Contains(typed, "="+dropped) || strings.Contains(typed, known) {
			t.Errorf("%v: exit code %d\n%s", dry, code, stderr)
		}
		if _, err := os.Stat(later); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: %s was made: %v", dry, later, err)
		}
	}
	code, stdout, stderr := restore("--tablespace", oid+"="+moved, "--tablespace", later+"="+later, "--tablespace", dropped+"="+dropped)
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for _, want := range []string{moved, later, dropped} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the plan does not name %s:\n%s", want, stdout)
		}
	}
	c := s.open(t, filepath.Join(base, "data"))
	if got := c.QueryString(t, "select (select count(*) from k)::text || ' ' || (select count(*) from l)"); got != "1000 500" {
		t.Errorf("restored rows: %s", got)
	}
	if got := c.QueryString(t, "select string_agg(pg_tablespace_location(oid), ' ' order by spcname) from pg_tablespace where oid > 16000"); got != moved+" "+later {
		t.Errorf("tablespaces at %s", got)
	}
	if _, err := os.Stat(known); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is at the old place again: %v", err)
	}
	stopAll(t, c)
}

// A restore is killed at random moments. What it leaves never starts unless it
// is complete, and the next one makes it whole.
func TestRestoreKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Pgbench(t, "-i", "-q", "-s", "3")
	want := content(t, s.Cluster)
	s.run(t, "backup")
	s.flush(t)
	dir := filepath.Join(t.TempDir(), "restored")
	args := []string{"restore", "--to", dir, "--identity", s.identity, "--config", s.config}
	began := time.Now()
	if out, err := exec.Command(servertest.Command(t, "lifeboat"), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := time.Since(began)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}

	rounds, unfinished := 12, 0
	for range rounds {
		cmd := exec.Command(servertest.Command(t, "lifeboat"), args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(whole))))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_, err := os.Stat(filepath.Join(dir, "global", "pg_control"))
		if err == nil {
			if err := os.RemoveAll(dir); err != nil { // it was complete
				t.Fatal(err)
			}
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err == nil {
			unfinished++
			c := servertest.Open(t, dir, servertest.Options{Stopped: true})
			if err := c.TryStart(t); err == nil {
				t.Fatal("a server started on an unfinished restore")
			}
		}
	}
	t.Logf("%d of %d kills left an unfinished data directory", unfinished, rounds)
	if unfinished == 0 {
		t.Error("no kill hit the writing, so nothing was tested")
	}
	s.run(t, args[:5]...)
	c := s.open(t, dir)
	sameContent(t, c, want)
	if _, err := os.Stat(filepath.Join(dir, "lifeboat-restore.unfinished")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the marker is still there: %v", err)
	}
	stopAll(t, c)
}

// backup_label says where recovery starts. Without it PostgreSQL would start at
// the checkpoint of the control file and corrupt the cluster in silence.
func TestRestoreWithoutBackupLabelDoesNotStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Exec(t, "create table t as select generate_series(1, 1000) n")
	s.run(t, "backup")
	s.flush(t)
	for _, signal := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "restored")
		s.run(t, "restore", "--to", dir, "--identity", s.identity)
		if err := os.Remove(filepath.Join(dir, "backup_label")); err != nil {
			t.Fatal(err)
		}
		if !signal {
			if err := os.Remove(filepath.Join(dir, "recovery.signal")); err != nil {
				t.Fatal(err)
			}
		}
		c := servertest.Open(t, dir, servertest.Options{Stopped: true})
		err := c.TryStart(t)
		if e, ok := errors.AsType[*server.ExitError](err); !ok || !strings.Contains(e.Log, "could not locate") {
			t.Errorf("with recovery.signal %t: %v", signal, err)
		}
	}
}
