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

// startDrill starts a drill in the background.
func (h *hostile) startDrill(t *testing.T, args ...string) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	cmd, out = exec.Command(h.program, append([]string{"--config", h.config, "drill", "--identity", h.key, "--staging", h.staging}, args...)...), &bytes.Buffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out
}

// underAttack waits until the library has done its work in staging.
func (h *hostile) underAttack(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if found, _ := filepath.Glob(filepath.Join(h.staging, "lifeboat-drill-*", "*", "evil-was-here")); len(found) > 0 {
			return
		}
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
	h := newHostile(t, "HANG")
	for _, c := range []struct {
		name string
		args []string
		end  func(*exec.Cmd)
		code int
	}{
		{"the time limit", []string{"--drill-timeout", "15s"}, func(*exec.Cmd) {}, 4},
		{"SIGTERM", nil, func(cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGTERM) }, 143},
	} {
		cmd, out := h.startDrill(t, c.args...)
		h.underAttack(t)
		h.nobodyHasTheKey(t, cmd.Process.Pid)
		began := time.Now()
		c.end(cmd)
		_ = cmd.Wait()
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("%s: it took %s", c.name, took)
		}
		if code := cmd.ProcessState.ExitCode(); code != c.code {
			t.Errorf("%s: exit code %d, want %d\n%s", c.name, code, c.code, out)
		}
		h.noSecret(t, "the output", out.Bytes())
		h.noSecret(t, "the evidence", h.evidence(t))
		h.cleared(t)
	}

	// After SIGKILL the next drill removes what it left, and no process that a file of
	// the server's names.
	cmd, _ := h.startDrill(t)
	h.underAttack(t)
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	h.run(t, false, "--config", h.config, "drill", "--identity", h.key, "--staging", h.staging, "--level", "quick")
	h.cleared(t)
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
