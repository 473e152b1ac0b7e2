package main

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

var (
	kills    = flag.Int("kills", 6, "how often TestKill9 kills each command")
	killSeed = flag.Uint64("kill-seed", 0, "seed of the moments at which TestKill9 kills; 0 is a new one")
)

// killer kills the program at random moments.
type killer struct {
	*sweepSite
	random *rand.Rand
}

// start runs the program in the background.
func (k *killer) start(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(servertest.Command(t, "lifeboat"), append(args, "--config", k.config)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, k.dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &out
}

// kill runs the program and kills it after a random part of the time that it
// would need; killed is false when it was done before, which must be with 0.
func (k *killer) kill(t *testing.T, whole time.Duration, args ...string) (killed bool) {
	t.Helper()
	delay := time.Duration(k.random.Int64N(int64(whole) + 1))
	cmd, out := k.start(t, args...)
	timer := time.AfterFunc(delay, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	err := cmd.Wait()
	timer.Stop()
	if err == nil {
		return false
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("lifeboat %s, killed after %v: %v\n%s", args[0], delay, err, out)
	}
	return true
}

// measured is how long a run takes that nobody kills, at the longest of two.
func measured(run func()) time.Duration {
	var longest time.Duration
	for range 2 {
		began := time.Now()
		run()
		longest = max(longest, time.Since(began))
	}
	return longest
}

// TestKill9 kills the program with SIGKILL at random moments. Whatever the
// moment, every backup that is listed restores, a segment is archived whole or
// not at all, a restore that was killed cannot be started, and running again
// succeeds at once.
func TestKill9(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-kill-seed %d", seed)
	k := &killer{sweepSite: newSweepSite(t), random: rand.New(rand.NewPCG(seed, 0))}
	want := content(t, k.Cluster)
	t.Run("backup", func(t *testing.T) { k.killBackup(t) })
	t.Run("push", func(t *testing.T) { k.killPush(t) })
	t.Run("restore", func(t *testing.T) { k.killRestore(t) })
	t.Run("server", func(t *testing.T) {
		c := k.restoreTo(t)
		sameContent(t, c, want)
		c.Stop(t, server.Fast)
	})
}

// count reports how many runs were killed; a test whose kills all come too
// late proves nothing.
func count(t *testing.T, killed int) {
	t.Helper()
	t.Logf("%d of %d runs were killed before they were done", killed, *kills)
	if killed == 0 {
		t.Error("no run was killed")
	}
}

func (k *killer) killBackup(t *testing.T) {
	whole := measured(func() { k.run(t, "backup") })
	killed := 0
	for range *kills {
		dead := k.kill(t, whole, "backup")
		if dead {
			killed++
		}
		k.checkBackups(t, "after a kill")
		// The lease of the dead process does not keep its own host waiting.
		if code, _, stderr := k.exec(t, "backup"); code != 0 {
			t.Fatalf("the backup after a killed one (%v) exits with %d\n%s", dead, code, stderr)
		}
	}
	k.checkBackups(t, "after all kills")
	count(t, killed)
}

func (k *killer) killPush(t *testing.T) {
	// A segment that the server has, for an archive that lacks it.
	_, names := k.segments(t)
	wanted := names[len(names)-1].Segment
	dir := t.TempDir()
	path := filepath.Join(dir, wanted)
	fetch := func(to string) int {
		code, _, _ := k.exec(t, "wal", "fetch", wanted, to, "--identity", k.identity)
		return code
	}
	if code := fetch(path); code != 0 {
		t.Fatalf("fetch: exit code %d", code)
	}
	want := hashOf(t, path)
	object, err := filepath.Glob(filepath.Join(k.dir, "repository", "wal", "*", "*", wanted))
	if err != nil || len(object) != 1 {
		t.Fatalf("%q, %v", object, err)
	}
	remove := func() {
		if err := os.Remove(object[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	whole := measured(func() {
		remove()
		k.run(t, "wal", "push", path)
	})
	killed := 0
	for range *kills {
		remove()
		if k.kill(t, whole, "wal", "push", path) {
			killed++
		} else if _, err := os.Lstat(object[0]); err != nil {
			t.Errorf("a push left with 0 and archived nothing: %v", err)
		}
		back := filepath.Join(dir, "back")
		if _, err := os.Lstat(object[0]); err == nil {
			if code := fetch(back); code != 0 || hashOf(t, back) != want {
				t.Errorf("a killed push left half a segment: exit code %d", code)
			}
		}
		k.run(t, "wal", "push", path)
		if code := fetch(back); code != 0 || hashOf(t, back) != want {
			t.Errorf("after a push that followed a killed one: exit code %d, or another file", code)
		}
	}
	count(t, killed)
}

func (k *killer) killRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "restored")
	remove := func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"restore", "--to", dir, "--identity", k.identity}
	whole := measured(func() {
		remove()
		k.run(t, args...)
	})
	want := treeOf(t, dir)
	killed := 0
	for range *kills {
		remove()
		dead := k.kill(t, whole, args...)
		if dead {
			killed++
		}
		k.checkRestored(t, dir, dead, args, want)
	}
	count(t, killed)
}

// checkRestored looks at what a killed restore left.
func (k *killer) checkRestored(t *testing.T, dir string, dead bool, args []string, want map[string]string) {
	t.Helper()
	_, err := os.Lstat(filepath.Join(dir, postgres.ControlPath))
	if err == nil {
		// The very last step was done, so everything was.
		sameTree(t, "a restore that was killed at its end", dir, want)
		return
	}
	if !dead || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a restore that was done (%v): %v", !dead, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "PG_VERSION")); err == nil {
		c := servertest.Open(t, dir, servertest.Options{Stopped: true})
		if c.TryStart(t) == nil {
			t.Error("PostgreSQL starts on what a killed restore left")
		}
	}
	code, _, stderr := k.exec(t, args...)
	if code != 0 {
		// Between the removal of the mark and the last step nobody can tell the
		// directory from another one: it must be refused, and said what to do.
		if code != 1 || !strings.Contains(stderr, "not empty") || !strings.Contains(stderr, "lifeboat: hint:") {
			t.Errorf("the restore after a killed one exits with %d\n%s", code, stderr)
		}
		return
	}
	sameTree(t, "the restore after a killed one", dir, want)
}
