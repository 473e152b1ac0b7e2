package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// What PostgreSQL does on the codes of "wal fetch" is the reason for them, so
// the server itself is asked: it may open only when the archive has ended.
func TestPostgresOnFetchCodes(t *testing.T) {
	t.Parallel()
	broken := servertest.Command(t, "lifeboat-broken")
	for name, c := range map[string]struct {
		command string
		opens   bool
	}{
		"end of the archive": {broken + " wal fetch missing %f", true},
		"failure":            {broken + " wal fetch code 1", false},
		"fault":              {broken + " wal fetch panic %f %p", false},
		"fault elsewhere":    {broken + " wal fetch panic-elsewhere %f %p", false},
		"misspelt command":   {broken + " wal fetsh %f %p", false},
		"misspelt flag":      {broken + " wal fetch --confg x %f %p", false},
		"only help":          {broken + " wal fetch --help", false},
		"other command":      {broken + " version %f %p", false},
		// Why all of this matters.
		"a tool that says 2": {"exit 2", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := servertest.New(t, servertest.Options{Stopped: true, Settings: map[string]string{"restore_command": c.command}})
			if err := os.WriteFile(filepath.Join(cluster.DataDir(), "recovery.signal"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			err := cluster.TryStart(t)
			if !c.opens {
				if err == nil || !strings.Contains(err.Error(), "could not restore file") {
					t.Errorf("the server started, or stopped for another reason: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			cluster.WaitPromoted(t)
		})
	}
}

// SIGTERM to a fetch is PostgreSQL's own shutdown: it must end in good order
// while the command waits.
func TestPostgresStopsDuringFetch(t *testing.T) {
	t.Parallel()
	cluster := servertest.New(t, servertest.Options{Stopped: true, Settings: map[string]string{
		"restore_command": servertest.Command(t, "lifeboat-broken") + " wal fetch wait",
	}})
	if err := os.WriteFile(filepath.Join(cluster.DataDir(), "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	srv, err := server.Start(t.Context(), cluster.Install, server.Options{DataDir: cluster.DataDir(), SocketDir: cluster.SocketDir(), DieWithParent: true})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the fetch runs", func() bool { return strings.Contains(srv.LogTail(), "waiting") })
	if err := srv.Stop(t.Context(), server.Fast); err != nil {
		t.Fatal(err)
	}
	if log := srv.LogTail(); strings.Contains(log, "FATAL") || !strings.Contains(log, "database system is shut down") {
		t.Errorf("not an orderly shutdown:\n%s", log)
	}
}

// The archiver must survive every failure of a push, and keep the segment.
func TestPostgresOnPushCodes(t *testing.T) {
	t.Parallel()
	broken := servertest.Command(t, "lifeboat-broken")
	for name, command := range map[string]string{
		"failure":      broken + " wal push code 200",
		"fault":        broken + " wal push panic %p",
		"misspelt":     broken + " wal push --confg x %p",
		"help in vain": broken + " wal push -h db1 %p",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := servertest.New(t, servertest.Options{Settings: map[string]string{"archive_mode": "on", "archive_command": command}})
			const archiver = "select pid from pg_stat_activity where backend_type = 'archiver'"
			var before string
			waitFor(t, "there is an archiver", func() bool {
				before = cluster.QueryString(t, archiver)
				return before != ""
			})
			segment := cluster.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
			waitFor(t, "two tries have failed", func() bool {
				return cluster.QueryString(t, "select failed_count >= 2 and last_failed_wal = '"+segment+"' from pg_stat_archiver") == "t"
			})
			if after := cluster.QueryString(t, archiver); after == "" || after != before {
				t.Errorf("the archiver was process %s and is %q", before, after)
			}
			if _, err := os.Stat(filepath.Join(cluster.DataDir(), "pg_wal", segment)); err != nil {
				t.Error(err)
			}
		})
	}
}

// waitFor polls a condition that another process brings about.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
