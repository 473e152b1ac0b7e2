package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// withoutNamespaces runs the program where the kernel gives out no more
// namespaces: in a user namespace whose limit of them is 0
// (namespaces(7), /proc/sys/user).
func (s *site) withoutNamespaces(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	cmd, out := s.unfenced(t, args...)
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// unfenced starts it.
func (s *site) unfenced(t *testing.T, args ...string) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", `echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"`,
		servertest.Command(t, "lifeboat")}, append(args, "--config", s.config)...)...)
	id := func(n int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: n, HostID: n, Size: 1}}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: id(os.Geteuid()), GidMappings: id(os.Getegid()),
		AmbientCaps: []uintptr{unix.CAP_SYS_RESOURCE}}
	out = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = out, out, append(os.Environ(), s.env...), s.dir
	if err := cmd.Start(); err != nil {
		t.Skipf("this system gives out no user namespace, so that one without the right to more cannot be made: %v", err)
	}
	return cmd, out
}

// Somebody kills the helper of a drill alone, where no PID namespace ends with it, and
// the server takes no signal that it could ignore: it is stopped here. The drill ends it
// and removes all that it had.
func TestDrillHelperKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.run(t, "backup")
	s.flush(t)
	staging, there := t.TempDir(), s.hangingCheck(t)
	cmd, out := s.unfenced(t, "drill", "--identity", s.identity, "--staging", staging)
	awaited(t, "the drill is not in its checks", func() bool { return exists(there) })
	helper := childWith(t, cmd.Process.Pid, "\x00drill-help\x00")
	postmaster := childWith(t, helper, "\x00-D\x00"+staging)
	for _, kill := range []struct {
		pid int
		sig syscall.Signal
	}{{postmaster, syscall.SIGSTOP}, {helper, syscall.SIGKILL}} {
		if err := syscall.Kill(kill.pid, kill.sig); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	if code := exitCode(cmd.ProcessState.ExitCode()); code != exitUnknown {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if left := servers(t, staging); len(left) > 0 {
		t.Errorf("these outlive the drill: %q", left)
	}
	if left, err := os.ReadDir(staging); err != nil || len(left) > 0 {
		t.Errorf("left in staging: %v %v", left, err)
	}
	if d := s.newestEvidence(t); d.Verdict != evidence.Unknown || !d.Cleanup.Done {
		t.Errorf("%s, %+v", d.Verdict, d.Cleanup)
	}
}

// childWith is the child of a process whose command line holds a text.
func childWith(t *testing.T, parent int, text string) (pid int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		command, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		status, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "status"))
		if strings.Contains(string(command)+"\x00", text) && strings.Contains(string(status), "\nPPid:\t"+strconv.Itoa(parent)+"\n") {
			pid, _ = strconv.Atoi(e.Name())
			return pid
		}
	}
	t.Fatalf("process %d has no child with %q in its command line", parent, text)
	return 0
}

// Where there is no fence, WAL that would open production's directory is not
// replayed; what cannot do harm is, and the evidence says that it was unfenced.
func TestDrillUnfenced(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.run(t, "backup")
	s.flush(t)
	staging := t.TempDir()
	args := []string{"drill", "--identity", s.identity, "--staging", staging}
	if code, out := s.withoutNamespaces(t, args...); exitCode(code) != exitOK || !strings.Contains(out, "this system does not allow one") {
		t.Errorf("without a fence: exit code %d\n%s", code, out)
	}
	if d := s.newestEvidence(t); d.Verdict != evidence.Passed || d.Fence.Network == "isolated" || d.Fence.Files == "isolated" {
		t.Errorf("%s, %+v", d.Verdict, d.Fence)
	}

	made := filepath.Join(s.dir, "made")
	if err := os.Mkdir(made, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "create tablespace made location '"+made+"'")
	s.Exec(t, "create table in_made tablespace made as select 1")
	s.flush(t)
	before := fingerprint(t, made)
	code, out := s.withoutNamespaces(t, args...)
	if exitCode(code) != exitUnknown || !strings.Contains(out, "makes a tablespace at "+made) || !strings.Contains(out, "hint: run the drill where namespaces are allowed") {
		t.Errorf("with a tablespace: exit code %d\n%s", code, out)
	}
	if d := s.newestEvidence(t); d.Verdict != evidence.Unknown || d.Fence != nil || !d.Cleanup.Done {
		t.Errorf("%s, %+v, %+v", d.Verdict, d.Fence, d.Cleanup)
	}
	if left, err := os.ReadDir(staging); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	if fingerprint(t, made) != before {
		t.Error("production's tablespace was changed")
	}
	s.drilled(t, exitOK) // fenced
}
