package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// --start leaves a server running in the state that the target asks for.
func TestRestoreStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Exec(t, "create table t (n int)")
	s.run(t, "backup")
	s.Exec(t, "insert into t values (1)")
	s.Exec(t, "select pg_create_restore_point('one')")
	s.Exec(t, "insert into t values (2)")
	s.flush(t)
	for _, c := range []struct {
		state, rows string
		flags       []string
	}{
		{serverOpen, "1,2", nil},
		{serverPaused, "1", []string{"--target-name", "one"}},
		{serverOpen, "1", []string{"--target-name", "one", "--target-action", "promote"}},
		{serverStopped, "", []string{"--target-name", "one", "--target-action", "shutdown"}},
	} {
		t.Run(strings.Join(append([]string{c.state}, c.flags...), " "), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "restored")
			out := s.run(t, append([]string{"restore", "--to", dir, "--identity", s.identity, "--start", "--json"}, c.flags...)...)
			var doc struct {
				Restored bool
				Server   restoreServer
			}
			if err := json.Unmarshal([]byte(out), &doc); err != nil {
				t.Fatal(err)
			}
			srv := doc.Server
			if srv.PID != 0 {
				stop := func() { _ = exec.Command(s.Install.Path("pg_ctl"), "-D", dir, "-m", "immediate", "-w", "stop").Run() }
				defer func() { stop(); _ = os.RemoveAll(srv.Socket) }()
			}
			if !doc.Restored || srv.State != c.state {
				t.Fatalf("%+v", doc)
			}
			if c.rows == "" {
				if pid, err := server.Running(dir); pid != 0 || err != nil {
					t.Errorf("a server runs: %d, %v", pid, err)
				}
				return
			}
			cmd := exec.Command(s.Install.Path("psql"), "-XAt", "-h", srv.Socket, "-p", fmt.Sprint(srv.Port), "-U", "postgres", "-c",
				"select string_agg(n::text, ',' order by n) from t", "postgres")
			rows, err := cmd.CombinedOutput()
			if err != nil || strings.TrimSpace(string(rows)) != c.rows {
				t.Errorf("%v: %s", err, rows)
			}
		})
	}
}
