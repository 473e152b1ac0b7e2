package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// What costs seconds, on a copy of its own of the attacked repository: a restore that
// writes, a drill, and a server that archives and is backed up. Its backup must be taken
// and restore, whatever was done; at the latest when the leases have ended that the
// attack has put.

// liveSteps are the steps in their order, by the words with which judge knows them.
func liveSteps() [][]string {
	return [][]string{
		{"restore", "--to", "OUT"},
		{"drill", "--level", "standard"},
		{"wal", "push", "by the server"},
		{"backup", "of the server"},
		{"restore", "--backup", "the new one"},
	}
}

// runLive runs them after attacks, each in a test of its own.
func (w *swept) runLive(t *testing.T) {
	clean := w.live(t, "live", nil)
	for i, o := range clean {
		if o.code != 0 {
			t.Fatalf("%q without an attack: exit code %d\n%s", liveSteps()[i], o.code, o.text())
		}
	}
	for i, one := range w.liveCases() {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			for j, o := range w.live(t, fmt.Sprintf("live-%d", i), one.attack) {
				if why := one.judge(liveSteps()[j], clean[j], o); why != "" {
					t.Errorf("%s (%s ...): %q %s\n%s", one.what, one.attacked[0], strings.Join(liveSteps()[j], " "), why, o.text())
				}
			}
		})
	}
}

// liveCases are the cases in which these are run: all of them with -sweep-all, else one of
// a few.
func (w *swept) liveCases() (some []sweptAttack) {
	const few = 6
	for i, one := range w.cases() {
		if *sweepAll || i%few == 0 {
			some = append(some, one)
		}
	}
	return some
}

// live runs the steps after an attack.
func (w *swept) live(t *testing.T, name string, attack func(*sweptCase) error) []outcome {
	t.Helper()
	c, err := w.newCase(name)
	must(t, err)
	defer c.remove()
	if attack != nil {
		must(t, attack(c))
	}
	all := []outcome{c.restored(t), c.drilled(t)}
	l := c.serve(t)
	defer l.Stop(t, server.Immediate)
	archived := l.archives(t)
	took, label := l.backUp(t)
	again := took
	if label != "" {
		again = c.restored(t, "--backup", label)
	}
	return append(all, archived, took, again)
}

// restored restores, and has a description of what was written as the facts.
func (c *sweptCase) restored(t *testing.T, flags ...string) outcome {
	t.Helper()
	dir := filepath.Join(filepath.Dir(c.repository), "restored")
	o := c.inProcess(append([]string{"restore", "--to", dir, "--identity", c.identity}, flags...)...)
	_, err := os.Stat(filepath.Join(dir, postgres.ControlPath))
	if started := err == nil; started != (o.code == 0) {
		t.Errorf("a restore exits with %d, and that what it wrote can be started is %t", o.code, started)
	}
	if o.facts = ""; o.code == 0 && flags == nil { // a server's that has started since is another
		o.facts = described(t, dir)
	}
	must(t, os.RemoveAll(dir))
	return o
}

// described are the files of a restored data directory, but for what names the case.
func described(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	for path, what := range treeOf(t, dir) {
		if path != "postgresql.auto.conf" {
			all = append(all, path+" "+what)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// drilled runs a drill, whose verdict and checks are the facts.
func (c *sweptCase) drilled(t *testing.T) outcome {
	t.Helper()
	staging := filepath.Join(filepath.Dir(c.repository), "staging")
	must(t, os.MkdirAll(staging, 0o700))
	var o outcome
	o.code, o.stdout, o.stderr = runProgram(t, c.dir, []string{"STATE_DIRECTORY=" + c.state()},
		append([]string{"drill", "--level", "standard", "--identity", c.identity, "--staging", staging, "--json"}, c.flags()...)...)
	var d evidence.Drill
	if err := json.Unmarshal([]byte(o.stdout), &d); err != nil {
		t.Errorf("drill: %v\n%s", err, o.text())
	}
	facts := []string{string(d.Verdict)}
	for _, check := range d.Checks {
		facts = append(facts, check.Name+": "+string(check.Verdict))
	}
	o.facts = strings.Join(append(facts, d.Reasons...), "\n")
	if left, err := os.ReadDir(staging); err != nil || len(left) > 0 {
		t.Errorf("left in staging: %v %v", left, err)
	}
	return o
}

// liveServer is a copy of the server that archives into a case.
type liveServer struct {
	*servertest.Cluster
	*sweptCase
}

// serve starts one. What was taken out of the archive is to be archived again.
func (c *sweptCase) serve(t *testing.T) *liveServer {
	t.Helper()
	dir := filepath.Join(filepath.Dir(c.repository), "live")
	if out, err := exec.Command("cp", "-a", c.DataDir(), dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the data directory: %v: %s", err, out)
	}
	status := filepath.Join(dir, "pg_wal", "archive_status")
	entries, err := os.ReadDir(status)
	must(t, err)
	for _, e := range entries {
		if name, done := strings.CutSuffix(e.Name(), ".done"); done && len(name) == 24 && name >= filepath.Base(c.next) {
			must(t, os.Rename(filepath.Join(status, e.Name()), filepath.Join(status, name+".ready")))
		}
	}
	command := fmt.Sprintf("env STATE_DIRECTORY=%s %s wal push %%p --config %s --pgdata %s --cluster-key %s",
		c.state(), servertest.Command(t, "lifeboat"), c.config, dir, c.clusterKey)
	return &liveServer{servertest.Open(t, dir, servertest.Options{Settings: map[string]string{"archive_command": command}}), c}
}

// archives writes WAL and waits for it to be archived.
func (l *liveServer) archives(t *testing.T) outcome {
	t.Helper()
	l.Exec(t, "insert into t values (1); select pg_switch_wal(); insert into t values (2)")
	name := l.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
	const done = "select failed_count = 0 and last_archived_wal >= '%s' or failed_count > 0 from pg_stat_archiver"
	l.Eventually(t, "archiving of "+name, func() bool { return l.QueryString(t, fmt.Sprintf(done, name)) == "t" })
	if l.QueryString(t, "select failed_count from pg_stat_archiver") != "0" {
		return outcome{code: 1, stderr: l.Log(t)}
	}
	return outcome{}
}

// backUp takes a backup: when somebody else is said to hold the lease, once more after
// the time that a lease lasts. Its label is "" when it was not taken.
func (l *liveServer) backUp(t *testing.T) (o outcome, label string) {
	t.Helper()
	backup := []string{"backup", "--conn", l.ConnString(), "--pgdata", l.DataDir(), "--wal-timeout", "20s"}
	if o = l.inProcess(backup...); exitCode(o.code) == exitBusy {
		old := time.Now().Add(-4*time.Minute - time.Second)
		must(t, filepath.WalkDir(l.path("leases"), func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			return os.Chtimes(path, old, old)
		}))
		o = l.inProcess(backup...)
	}
	var r backupReport
	_ = json.Unmarshal([]byte(o.stdout), &r)
	o.facts = fmt.Sprintf("%d bad pages, timeline %s", r.BadCount, r.Timeline)
	return o, r.Label
}

func (c *sweptCase) state() string {
	return filepath.Join(filepath.Dir(c.repository), "lifeboat-state")
}

func (c *sweptCase) flags() []string {
	return []string{"--config", c.config, "--cluster-key", c.clusterKey}
}

// inProcess runs a command on the case.
func (c *sweptCase) inProcess(args ...string) outcome {
	args = append(args, append(c.flags(), "--json")...)
	if !slices.Contains(args, "--pgdata") {
		args = append(args, "--pgdata", c.pgdata)
	}
	o := inProcess(c.state(), args...)
	debug.SetGCPercent(100) // wal push and backup have set them for their process
	debug.SetMemoryLimit(math.MaxInt64)
	o.facts = c.normal(o.stdout)
	return o
}
