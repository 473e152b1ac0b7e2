package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// A timeline whose history file is lost must not be passed over in silence.
func TestRecoveryWithLostHistory(t *testing.T) {
	t.Parallel()
	r := newRecovery(t, false)
	second := &site{dir: r.dir, config: r.config, identity: r.identity}
	settings := r.settings(t, nil, "--identity "+r.identity)
	settings["archive_mode"], settings["archive_command"] = "on", second.command(t, `wal push "%p" --pgdata .`)
	second.Cluster = servertest.Open(t, r.copyBase(t), servertest.Options{Settings: settings})
	second.WaitPromoted(t)
	second.Exec(t, "create table second as select 2 x")
	second.flush(t)
	second.Stop(t, server.Immediate)
	history, err := filepath.Glob(filepath.Join(r.dir, "repository", "wal", "*", "00000002", "00000002.history"))
	if err != nil || len(history) != 1 {
		t.Fatalf("%v %v", history, err)
	}
	hidden := filepath.Join(t.TempDir(), "hidden")
	if err := os.Rename(history[0], hidden); err != nil {
		t.Fatal(err)
	}
	r.expectStopped(t, r.settings(t, nil, "--identity "+r.identity), "00000002.history is not", func() {
		if err := os.Rename(hidden, history[0]); err != nil {
			t.Fatal(err)
		}
	})
}

// standby starts a copy of the base backup as a standby.
func (r *recovery) standby(t *testing.T, flags string) (*servertest.Cluster, string) {
	t.Helper()
	dir := r.copyBase(t)
	if err := os.Rename(filepath.Join(dir, "recovery.signal"), filepath.Join(dir, "standby.signal")); err != nil {
		t.Fatal(err)
	}
	settings := r.settings(t, r.env, "--identity "+r.identity+" "+flags)
	settings["hot_standby"], settings["wal_retrieve_retry_interval"], settings["archive_mode"] = "on", "100ms", "off"
	c := servertest.Open(t, dir, servertest.Options{Settings: settings})
	c.Eventually(t, "the standby gets to the end of the archive", func() bool {
		return c.QueryString(t, "select count(*) from pg_class where relname = 'final'") == "1"
	})
	return c, dir
}

// logged waits until the server's log has another line with the words.
func logged(t *testing.T, c *servertest.Cluster, words string) {
	t.Helper()
	before := strings.Count(c.Log(t), words)
	c.Eventually(t, words+" in the log", func() bool { return strings.Count(c.Log(t), words) > before })
}

// With --standby a standby outlives a store that is gone, refuses or has a
// gap, and goes on when that is over. What is proven wrong stops it.
func TestStandbyOutlivesTheStore(t *testing.T) {
	t.Parallel()
	r := newRecovery(t, false)
	c, dir := r.standby(t, "--standby --give-up-after 300ms")
	repository := filepath.Join(r.dir, "repository")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(repository, repository+".away")
	logged(t, c, "lifeboat: error:")
	if got := c.QueryString(t, "select pg_is_in_recovery()"); got != "t" {
		t.Errorf("in recovery: %s", got)
	}
	move(repository+".away", repository)
	r.Exec(t, "create table after_all as select 8 x")
	r.flush(t)
	c.Eventually(t, "the standby goes on", func() bool {
		return c.QueryString(t, "select count(*) from pg_class where relname = 'after_all'") == "1"
	})

	// A gap: it could be streamed, so the standby waits.
	r.Setting(t, "archive_command", "false")
	r.Exec(t, "create table behind_gap as select 9 x")
	missing := r.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
	r.Setting(t, "archive_command", r.command(t, `wal push "%p"`))
	r.Exec(t, "select pg_logical_emit_message(false, 'test', 'x')")
	r.flush(t)
	objects := r.objects(t)
	at := slices.IndexFunc(objects, func(o string) bool { return filepath.Base(o) == missing })
	if at < 0 {
		t.Fatalf("%s is not among %v", missing, objects)
	}
	c.Eventually(t, "the standby goes on", func() bool {
		return c.QueryString(t, "select count(*) from pg_class where relname = 'behind_gap'") == "1"
	})

	// The next segment is damaged before the standby can see it.
	move(repository, repository+".away")
	logged(t, c, "lifeboat: error:")
	c.Stop(t, server.Fast)
	if _, err := os.Lstat(filepath.Join(dir, "standby.signal")); err != nil {
		t.Error(err)
	}
	move(repository+".away", repository)
}

// Without a standby.signal the flag must not open a server early; with one,
// what is damaged still stops it.
func TestStandbyFlagIsNoWayAround(t *testing.T) {
	t.Parallel()
	r := newRecovery(t, false)
	flags := "--identity " + r.identity + " --standby --give-up-after 300ms"
	repository := filepath.Join(r.dir, "repository")
	if err := os.Rename(repository, repository+".away"); err != nil {
		t.Fatal(err)
	}
	r.expectStopped(t, r.settings(t, nil, flags), "standby.signal", func() {
		if err := os.Rename(repository+".away", repository); err != nil {
			t.Fatal(err)
		}
	})

	objects := r.objects(t)
	last := objects[len(objects)-1]
	raw, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-100] ^= 4
	if err := errors.Join(os.Remove(last), os.WriteFile(last, raw, 0o600)); err != nil {
		t.Fatal(err)
	}
	p := newReplayedWithout(t, r)
	if err := os.Rename(filepath.Join(p.dir, "recovery.signal"), filepath.Join(p.dir, "standby.signal")); err != nil {
		t.Fatal(err)
	}
	if code, stderr := p.fetch(t, filepath.Base(last), "--standby", "--give-up-after", "300ms"); code != 200 || !strings.Contains(stderr, "damaged") {
		t.Errorf("a damaged segment: exit code %d: %s", code, stderr)
	}
	if code, stderr := p.fetch(t, filepath.Base(objects[0]), "--repository", "file://"+t.TempDir()+"/none", "--standby", "--give-up-after", "300ms"); code != 1 || !strings.Contains(stderr, "error:") || !strings.Contains(stderr, "hint:") {
		t.Errorf("no repository: exit code %d: %s", code, stderr)
	}
	for what, flags := range map[string][]string{
		"no time":                    {"--standby", "--give-up-after", "soon"},
		"less than no time":          {"--standby", "--give-up-after", "-1s"},
		"a time without the standby": {"--give-up-after", "5s"},
	} {
		if code, stderr := p.fetch(t, filepath.Base(objects[0]), flags...); code != 200 || !strings.Contains(stderr, "--give-up-after") {
			t.Errorf("%s: exit code %d: %s", what, code, stderr)
		}
	}
}

// newReplayedWithout knows no original: for what cannot be fetched.
func newReplayedWithout(t *testing.T, r *recovery) *replayed {
	t.Helper()
	p := &replayed{recovery: r, dir: r.copyBase(t)}
	p.queue = filepath.Join(p.dir, wal.SpoolDir, "fetch")
	return p
}
