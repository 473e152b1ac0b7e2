package asroot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// hostile is a cluster whose data directory holds a library of an attacker's, which
// every session of the database postgres loads.
type hostile struct {
	*host
	config, key, staging string
	secrets              []string // lines of the key file
	production           int      // process id
}

func newHostile(t *testing.T) *hostile {
	t.Helper()
	h := &hostile{host: newHost(t)}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	data := filepath.Join(h.home, "data")
	h.config, h.staging, h.key = filepath.Join(h.home, "lifeboat.yaml"), filepath.Join(h.dir, "links"), filepath.Join(h.dir, "root.key")
	must(t, h.install.Initdb(ctx, server.InitdbOptions{DataDir: data, Account: h.account, NoSync: true}))
	h.run(t, false, "init", "--cluster", "test", "--pgdata", data, "--repository", "file://"+filepath.Join(h.home, "repository"), "--config", h.config,
		"--conn", server.ConnString(filepath.Join(h.home, "s"), server.DefaultPort, "postgres", "postgres"))
	must(t, os.Rename(filepath.Join(h.home, "test-recovery.key"), h.key))
	must(t, os.Chown(h.key, 0, 0))
	text, err := os.ReadFile(h.key)
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "AGE-SECRET-KEY-") {
			h.secrets = append(h.secrets, line)
		}
	}
	if len(h.secrets) == 0 {
		t.Fatal("there is no secret in the key file: this test would prove nothing")
	}
	srv, err := server.Start(ctx, h.install, server.Options{DataDir: data, SocketDir: filepath.Join(h.home, "s"), DieWithParent: true, Settings: map[string]string{
		"fsync": "off", "archive_mode": "on", "archive_command": h.program + " --config " + h.config + ` wal push "%p"`}})
	must(t, err)
	t.Cleanup(func() { _ = srv.Stop(context.WithoutCancel(ctx), server.Immediate) })
	must(t, srv.WaitReady(ctx))
	h.production = srv.PID()
	library := filepath.Join(data, "xx", "evil.so")
	must(t, os.Mkdir(filepath.Dir(library), 0o700))
	must(t, os.Chown(filepath.Dir(library), int(h.account.UID), int(h.account.GID)))
	compile := exec.Command("cc", "-shared", "-fPIC", "-w", "-o", library, fmt.Sprintf("-DSECRET=%q", h.key), fmt.Sprintf(`-DPID="%d"`, h.production),
		fmt.Sprintf("-DDATA=%q", data), fmt.Sprintf("-DSOCKET=%q", filepath.Join(srv.SocketDir(), fmt.Sprintf(".s.PGSQL.%d", srv.Port()))),
		fmt.Sprintf("-DCANARY=%q", h.canary()), "testdata/evil.c")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Skipf("the attack cannot be compiled here: %v: %s", err, out)
	}
	must(t, os.Chown(library, int(h.account.UID), int(h.account.GID)))
	h.stageIn(t, "links")
	sql := func(s string) string { return h.sql(t, srv.SocketDir(), srv.Port(), s) }
	sql("alter database postgres set session_preload_libraries = 'xx/evil.so'")
	sql("create table t as select generate_series(1, 1000) n")
	h.run(t, true, "--config", h.config, "backup", "--fingerprints")
	sql("insert into t values (0)")
	flush(t, sql)
	return h
}

// stageIn makes a staging directory whose name says what the library does.
func (h *hostile) stageIn(t *testing.T, how string) {
	t.Helper()
	h.staging = filepath.Join(h.dir, how)
	must(t, os.Mkdir(h.staging, 0o755))
}

// asAccount gives the account what a drill of its own needs.
func (h *hostile) asAccount(t *testing.T) {
	t.Helper()
	for _, path := range []string{h.key, h.staging, filepath.Join(h.home, "test-drill.key"), filepath.Join(h.home, "repository")} {
		must(t, filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error { // root's drills have written there
			return errors.Join(err, os.Lchown(path, int(h.account.UID), int(h.account.GID)))
		}))
	}
}

// noSecret fails the test when a text has a secret of the key file in it.
func (h *hostile) noSecret(t *testing.T, where string, text []byte) {
	t.Helper()
	for _, s := range h.secrets {
		if bytes.Contains(bytes.ToUpper(text), []byte(s[:30])) {
			t.Errorf("%s holds the recovery key", where)
		}
	}
}

// evidence is all that drills have stored, as it lies in the repository.
func (h *hostile) evidence(t *testing.T) []byte {
	t.Helper()
	var all []byte
	dir := filepath.Join(h.home, "repository", "drills")
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) == 0 {
		t.Error("no evidence was stored")
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		all = append(all, text...)
	}
	return all
}

// cleared fails the test unless nothing is left of a drill, and production is.
func (h *hostile) cleared(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(h.staging); err != nil || len(left) > 0 {
		t.Errorf("left in staging: %v %v", left, err)
	}
	if left := h.processes(t); len(left) > 0 {
		t.Errorf("these outlive the drill: %v", left)
	}
	if err := syscall.Kill(h.production, 0); err != nil {
		t.Errorf("production: %v", err)
	}
}

// processes are those of a drill: by command line or by what is mounted for them.
func (h *hostile) processes(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	must(t, err)
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		command, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		mounts, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "mountinfo"))
		if len(command) > 0 && (bytes.Contains(command, []byte(h.staging)) || bytes.Contains(mounts, []byte(h.staging)) || bytes.Contains(command, []byte(h.program+"\x00drill-"))) {
			found = append(found, pid)
		}
	}
	return found
}

// A library of an attacker's puts links to the recovery key in the place of all that
// a drill reads of a restored server. Nothing of the key is printed or stored.
func TestDrillFollowsNoLinks(t *testing.T) {
	h := newHostile(t)
	for _, c := range []struct {
		level     string
		asAccount bool
	}{{"standard", false}, {"deep", false}, {"standard", true}} {
		level := c.level
		if c.asAccount { // what the server can reach is then the drill's own
			h.asAccount(t)
			level = "standard, without root"
		}
		code, stdout, stderr := h.lifeboat(t, c.asAccount, "--config", h.config, "drill", "--json", "--identity", h.key, "--staging", h.staging, "--level", c.level)
		h.noSecret(t, "stdout", []byte(stdout))
		h.noSecret(t, "stderr", []byte(stderr))
		h.noSecret(t, "the evidence", h.evidence(t))
		var d evidence.Drill
		if err := json.Unmarshal([]byte(stdout), &d); err != nil || d.Fence == nil || d.Verdict == evidence.Passed {
			t.Errorf("%s: exit code %d: %v\n%s%s", level, code, err, stdout, stderr)
		}
		for _, r := range d.Reasons {
			if len(r) > 2000 || strings.ContainsAny(r, "\x1b\r\n") {
				t.Errorf("%s: a reason of %d bytes is not one clean line: %.200q", level, len(r), r)
			}
		}
		h.cleared(t)
	}
	h.notLed(t)
}

// notLed has the library put a link to production's socket in the place of the server's:
// no check goes there, neither a query nor a program.
func (h *hostile) notLed(t *testing.T) {
	t.Helper()
	h.stageIn(t, "lead")
	h.run(t, true, "--config", h.config, "backup") // without notes of tables: one start, and checks come first
	text, err := os.ReadFile(h.config)
	must(t, err)
	before, after, found := strings.Cut(string(text), "\ndrill:\n")
	if !found {
		t.Fatal("the configuration has no section drill")
	}
	must(t, os.WriteFile(h.config, []byte(before+"\ndrill:\n  checks:\n    - name: writes\n      sql: create table drill_was_here (); select true\n"+
		"    - name: writes by a program\n      command: ["+h.install.Path("psql")+", -Xqc, create table drill_was_there ()]\n"+after), 0o644))
	for _, asAccount := range []bool{false, true} {
		if asAccount {
			h.asAccount(t)
		}
		code, stdout, stderr := h.lifeboat(t, asAccount, "--config", h.config, "drill", "--json", "--identity", h.key, "--staging", h.staging)
		var d evidence.Drill
		if err := json.Unmarshal([]byte(stdout), &d); err != nil || d.Verdict == evidence.Passed || !strings.Contains(stdout, "is not its own") {
			t.Errorf("with a link for its socket: exit code %d: %v\n%s%s", code, err, stdout, stderr)
		}
		if got := h.sql(t, filepath.Join(h.home, "s"), server.DefaultPort, "select coalesce(string_agg(relname, ' '), '') from pg_class where relname like 'drill_was_%'"); got != "" {
			t.Errorf("the drill has written to production: %s", got)
		}
		h.cleared(t)
	}
}
