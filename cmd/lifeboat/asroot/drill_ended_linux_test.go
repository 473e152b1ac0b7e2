package asroot

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startDrill starts a drill in the background, as root or as the account.
func (h *hostile) startDrill(t *testing.T, asAccount bool, args ...string) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	cmd, out = exec.Command(h.program, append([]string{"--config", h.config, "drill", "--identity", h.key, "--staging", h.staging}, args...)...), &bytes.Buffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	if asAccount {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.account.UID, Gid: h.account.GID}}
	}
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out
}

// underAttack waits until the library has done its work in staging.
func (h *hostile) underAttack(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if found, _ := filepath.Glob(filepath.Join(h.staging, "lifeboat-drill-*", "data", "postmaster.pid")); len(found) > 0 {
			if text, _ := os.ReadFile(found[0]); strings.Contains(string(text), "FORGED") {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("a minute has passed, and the library has not been loaded: this test proves nothing")
		}
	}
}

// While an attacker's code runs in the restored server, no process of the drill has
// the recovery key: not in its environment, its command line, an open file or its
// memory. Pipes in the place of files, a stopped server, processes that ignore every
// signal and a session that never answers do not keep the time limit or SIGTERM from
// ending all of it.
func TestDrillEndsWhateverTheServerDoes(t *testing.T) {
	h := newHostile(t)
	h.stageIn(t, "hang")
	ends := func(name string, cmd *exec.Cmd, out *bytes.Buffer, within time.Duration, want int) {
		t.Helper()
		began := time.Now()
		_ = cmd.Wait()
		if took := time.Since(began); took > within+25*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("%s: exit code %d, want %d\n%s", name, code, want, out)
		}
		h.noSecret(t, "the output", out.Bytes())
		h.noSecret(t, "the evidence", h.evidence(t))
		h.cleared(t)
	}
	for _, asAccount := range []bool{false, true} { // the account's can signal what is the drill's
		as := "as root: "
		if asAccount {
			as = "without root: "
			h.asAccount(t)
		}
		began := time.Now()
		cmd, out := h.startDrill(t, asAccount)
		h.underAttack(t)
		took := time.Since(began)
		h.nobodyHasTheKey(t, cmd.Process.Pid)
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		ends(as+"SIGTERM", cmd, out, 0, 143)

		limit := 2*took + 2*time.Second // the attack has begun by then
		cmd, out = h.startDrill(t, asAccount, "--drill-timeout", limit.Truncate(time.Second).String())
		h.underAttack(t)
		ends(as+"the time limit", cmd, out, limit, 4)

		// After SIGKILL the next drill removes what it left, and no process that a file of
		// the server's names. What says to keep it was not for the server to write.
		cmd, _ = h.startDrill(t, asAccount)
		h.underAttack(t)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		h.notWritten(t)
		h.run(t, asAccount, "--config", h.config, "drill", "--identity", h.key, "--staging", h.staging, "--level", "quick")
		h.cleared(t)
	}
}

// notWritten fails the test when the library has written what a later drill believes.
func (h *hostile) notWritten(t *testing.T) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(h.staging, "lifeboat-drill-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("the drill that was killed has left %v, %v: this test proves nothing", dirs, err)
	}
	for _, name := range []string{"kept", "lifeboat-drill.json.moved", "conf/pg_hba.conf.moved", "log/server.log.moved"} {
		if _, err := os.Lstat(filepath.Join(dirs[0], name)); err == nil {
			t.Errorf("the restored server has written %s", name)
		}
	}
}

// nobodyHasTheKey looks through the drill and all below it.
func (h *hostile) nobodyHasTheKey(t *testing.T, drill int) {
	t.Helper()
	all := append(h.processes(t), drill)
	if len(all) < 4 {
		t.Errorf("the drill, its helper and its server are not all there: %v", all)
	}
	for _, pid := range all {
		proc := filepath.Join("/proc", strconv.Itoa(pid))
		for _, name := range []string{"environ", "cmdline"} {
			text, _ := os.ReadFile(filepath.Join(proc, name))
			h.noSecret(t, fmt.Sprintf("%s of process %d", name, pid), text)
		}
		files, _ := os.ReadDir(filepath.Join(proc, "fd"))
		for _, f := range files {
			if to, _ := os.Readlink(filepath.Join(proc, "fd", f.Name())); to == h.key {
				t.Errorf("process %d has the key file open", pid)
			}
		}
		h.searchMemory(t, pid)
	}
	// The search finds what is there: this process has read the key itself.
	if !h.inMemory(os.Getpid()) {
		t.Error("the key is not found in the memory of this test, which has it: the search proves nothing")
	}
}

func (h *hostile) searchMemory(t *testing.T, pid int) {
	t.Helper()
	if h.inMemory(pid) {
		command, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		t.Errorf("the recovery key is in the memory of process %d %q", pid, command)
	}
}

// inMemory says whether a secret is in the memory of a process, in the form of the
// key file (proc_pid_maps(5), proc_pid_mem(5)).
func (h *hostile) inMemory(pid int) bool {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return false
	}
	defer mem.Close()
	buf := make([]byte, 1<<20)
	const overlap = 64 // longer than what is looked for
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' || strings.Contains(line, "[v") {
			continue
		}
		for at := from; at < to; at += int64(len(buf)) - overlap {
			n, _ := mem.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
			for _, s := range h.secrets {
				if bytes.Contains(buf[:n], []byte(s[:40])) {
					return true
				}
			}
		}
	}
	return false
}
