package contrib_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// host is a machine as the README sets it up, below a scratch directory: a
// configuration, the recovery key, and a repository with one backup.
type host struct {
	etc, state string
	paths      *strings.Replacer // from the paths of the README to those here
}

// environ is next to nothing, but for the PostgreSQL to test with.
func environ() []string {
	env := []string{"PATH=/usr/bin:/bin"}
	if dir := os.Getenv("LIFEBOAT_PG_BINDIR"); dir != "" {
		env = append(env, "LIFEBOAT_PG_BINDIR="+dir)
	}
	return env
}

func newHost(t *testing.T) host {
	t.Helper()
	program, dir := os.Getenv(programVariable), t.TempDir()
	h := host{etc: filepath.Join(dir, "etc"), state: filepath.Join(dir, "state")}
	if err := os.MkdirAll(filepath.Join(h.state, "staging"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(h.etc, "lifeboat.yaml")
	h.paths = strings.NewReplacer("/usr/bin/lifeboat", program, "/etc/lifeboat", h.etc, "${CREDENTIALS_DIRECTORY}", h.etc, "/var/lib/lifeboat", h.state)

	c := servertest.New(t, servertest.Options{Stopped: true})
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(program, append([]string{"--config", config}, args...)...)
		cmd.Env = environ()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("lifeboat %v: %v: %s", args, err, out)
		}
	}
	if err := os.Mkdir(h.etc, 0o700); err != nil {
		t.Fatal(err)
	}
	run("init", "--cluster", "orders", "--pgdata", c.DataDir(), "--repository", "file://"+filepath.Join(dir, "repository"), "--conn", c.ConnString())
	c.Setting(t, "archive_mode", "on")
	// The tests' own LIFEBOAT_ variables are none that the program knows.
	c.Setting(t, "archive_command", "env -i "+postgres.ShellWord(program)+" --config "+postgres.ShellWord(config)+` wal push "%p"`)
	c.Start(t)
	run("backup")
	if err := os.Rename(filepath.Join(h.etc, "orders-recovery.key"), filepath.Join(h.etc, "recovery.key")); err != nil {
		t.Fatal(err)
	}
	return h
}

// shortDir is a directory whose path leaves room for that of a socket below it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// The line of the unit, in its environment and under its account's rights: no
// new ones. What else systemd would take away was tried under systemd (README).
func TestDrillUnitRuns(t *testing.T) {
	setpriv := tool(t, "setpriv", "package util-linux")
	h, u := newHost(t), readUnit(t, "systemd/lifeboat-drill.service")
	line := strings.ReplaceAll(h.paths.Replace(u["Service.ExecStart"][0]), "$DRILL_FLAGS", "--json")
	cmd := exec.Command(setpriv, append([]string{"--no-new-privs"}, strings.Fields(line)...)...)
	cmd.Env = append(environ(), "TMPDIR="+shortDir(t))
	for _, e := range u["Service.Environment"] {
		cmd.Env = append(cmd.Env, h.paths.Replace(e))
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", line, err, out, stderr.String())
	}
	var d evidence.Drill
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if d.Verdict != evidence.Passed || !d.Cleanup.Done || d.Fence == nil {
		t.Errorf("%s", out)
	} else {
		t.Logf("network of the server: %s", d.Fence.Network)
	}
	if _, err := os.Stat(filepath.Join(h.state, "drill.key")); err != nil {
		t.Errorf("the drill key is not where the unit says: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(h.state, "staging")); err != nil || len(left) > 0 {
		t.Errorf("left in staging: %v %v", left, err)
	}
}

// The lines of the units that remove and check, on a real repository; and those
// of the crontab that do the same.
func TestExpireAndVerifyRun(t *testing.T) {
	h, bin := newHost(t), t.TempDir()
	if err := os.Symlink(os.Getenv(programVariable), filepath.Join(bin, "lifeboat")); err != nil {
		t.Fatal(err)
	}
	run := func(name, line string) {
		t.Helper()
		cmd := exec.Command("/bin/sh", "-c", h.paths.Replace(line))
		cmd.Env = append(environ(), "PATH="+bin+":/usr/bin:/bin", "LIFEBOAT_EXPIRE_KEEP_LAST=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v: %s", name, line, err, out)
		}
	}
	for _, name := range []string{"systemd/lifeboat-expire.service", "systemd/lifeboat-verify.service"} {
		// systemd writes a percent sign twice.
		run(name, strings.ReplaceAll(readUnit(t, name)["Service.ExecStart"][0], "%%", "%"))
	}
	found := 0
	for line := range strings.Lines(read(t, "cron/lifeboat")) {
		if _, command, ok := strings.Cut(line, " * * * lifeboat  lifeboat --quiet"); ok {
			found++
			run("cron/lifeboat", "lifeboat --quiet"+command)
		}
	}
	if found != 2 {
		t.Errorf("%d lines of the crontab were run, want 2", found)
	}
}

// The lines of the units for Amazon RDS are ones that the program takes: it gets as
// far as to miss the sources, of which this host's configuration has none.
func TestRDSUnits(t *testing.T) {
	h := newHost(t)
	units, err := filepath.Glob("systemd/lifeboat-rds-*.service")
	if err != nil || len(units) == 0 {
		t.Fatal(units, err)
	}
	for _, name := range units {
		for _, line := range readUnit(t, name)["Service.ExecStart"] {
			words := strings.Fields(strings.NewReplacer("$DRILL_FLAGS", "--region eu-west-1 --level deep", "%i", "orders").Replace(h.paths.Replace(line)))
			if !strings.Contains(line, " --source %i") {
				t.Errorf("%s: with several sources this one does not know which: %s", name, line)
			}
			cmd := exec.Command(words[0], words[1:]...)
			cmd.Env = append(environ(), "LIFEBOAT_DRILL_KEY="+filepath.Join(h.state, "drill.key"))
			if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "the configuration names no rds.sources") {
				t.Errorf("%s: %s: %v: %s", name, line, err, out)
			}
		}
	}
}

// Every line of the crontab has six fields, a command that a shell takes, and
// no % in it, at which cron would end it; the nightly one is run, twice: the
// second time nothing is due.
func TestCrontab(t *testing.T) {
	var commands []string
	for line := range strings.Lines(read(t, "cron/lifeboat")) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "#"); ok && strings.HasPrefix(rest, "31 ") {
			line = rest // offered as a comment
		}
		if line == "" || strings.HasPrefix(line, "#") || !strings.ContainsAny(line[:1], "0123456789*") {
			continue
		}
		schedule, command, ok := strings.Cut(line, "  ")
		if fields := strings.Fields(schedule); !ok || len(fields) != 6 {
			t.Errorf("not five times and an account: %s", line)
			continue
		}
		if strings.Contains(command, "%") {
			t.Errorf("cron would end this at its %%: %s", command)
		}
		checkShell(t, "sh", "#!/bin/sh\n"+command+"\n")
		checkDrillLines(t, command)
		commands = append(commands, command)
	}
	if len(commands) != 5 {
		t.Fatalf("%d lines, want 5", len(commands))
	}

	h, bin := newHost(t), t.TempDir()
	if err := os.Symlink(os.Getenv(programVariable), filepath.Join(bin, "lifeboat")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/bin/true", filepath.Join(bin, "sleep")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		cmd := exec.Command("/bin/sh", "-c", h.paths.Replace(commands[0]))
		cmd.Dir = t.TempDir()
		cmd.Env = append(environ(), "PATH="+bin+":/usr/bin:/bin", "HOME="+cmd.Dir, "SHELL=/bin/sh",
			"LIFEBOAT_DRILL_STAGING="+filepath.Join(h.state, "staging"))
		out, err := cmd.CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("cron would mail: %v: %s", err, out)
		}
	}
	documents, err := filepath.Glob(filepath.Join(filepath.Dir(h.etc), "repository", "drills", "*"))
	if err != nil || len(documents) != 1 {
		t.Errorf("the documents are %v, want one: %v", documents, err)
	}
}
