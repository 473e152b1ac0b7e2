package escape_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/verify/fence"
	"github.com/lifeboat-dr/lifeboat/verify/fence/escape"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fence.Argument {
		fmt.Fprintln(os.Stderr, fence.Enter(os.Args[2:], os.Environ()))
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == escape.Argument {
		fmt.Fprintln(os.Stderr, escape.Enter(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// With all layers nothing outside is reached, and all of it is without the fence; with the
// layers taken out that a way out is blocked by, the probe says that it was reached: it can
// fail. Where one layer is left of those that keep a way closed, it keeps it closed.
func TestEscape(t *testing.T) {
	standIn(t)
	namespaces := []fence.Layer{fence.Mounts, fence.Network, fence.Processes, fence.Proc, fence.IPC, fence.UTS}
	files := []string{"read a file by its path", "write a file by its path", "read a file in /dev/shm"}
	memory := []string{"trace a process", "read the memory of a process", "write to the memory of a process"}
	processes := []string{"see a process", "signal a process", "see a postmaster of this host"}
	loopback := []string{"connect to TCP on the loopback", "send UDP to the loopback"}
	const own = escape.OwnFile
	account, tracing := struct{ reached, blocked []string }{reached: []string{own}}, struct{ reached, blocked []string }{blocked: memory}
	if os.Geteuid() == 0 { // else the account is the drill's, and its user namespace is in the way of tracing (ptrace(2))
		account.reached, account.blocked = nil, account.reached
		tracing.reached, tracing.blocked = tracing.blocked, nil
	}
	for _, c := range []struct {
		name    string
		without []fence.Layer
		reached []string
		blocked []string
	}{
		{"nothing is left out", nil, nil, nil},
		{"processes", []fence.Layer{fence.Processes, fence.Landlock, fence.Seccomp}, append(tracing.reached, processes...), tracing.blocked},
		{"ipc", []fence.Layer{fence.IPC}, []string{"System V shared memory", "System V semaphores", "System V message queues"}, nil},
		{"uts", []fence.Layer{fence.UTS}, []string{"the name of the host"}, nil},
		{"network", []fence.Layer{fence.Network, fence.Landlock, fence.Seccomp}, append([]string{"connect to an abstract socket"}, loopback...), nil},
		{"mounts", []fence.Layer{fence.Mounts, fence.Landlock}, append([]string{"connect to a Unix socket"}, files...), nil},
		{"account", []fence.Layer{fence.Mounts, fence.Landlock}, append(account.reached, files...), account.blocked},
		{"proc", []fence.Layer{fence.Proc, fence.Processes, fence.User, fence.Landlock}, []string{"read a file by /proc/PID/root", "read a file by /proc/PID/cwd", "read a file by /proc/PID/fd"}, nil},
		{"seccomp", []fence.Layer{fence.Seccomp, fence.Landlock}, []string{"a new user namespace", "a key of the kernel's"}, nil},
		{"capabilities", []fence.Layer{fence.Capabilities}, []string{"hold a capability"}, nil},
		{"descriptors", []fence.Layer{fence.Descriptors, fence.Processes}, []string{"read a file by a descriptor that was left open"}, nil},
		{"the descriptors are left", []fence.Layer{fence.Processes}, nil, []string{"read a file by a descriptor that was left open"}},
		{"Landlock is left", append([]fence.Layer{fence.Seccomp}, namespaces...), []string{"see a process", "System V semaphores", "send UDP to the loopback"},
			slices.Concat(files, memory, []string{"signal a process", "connect to an abstract socket", "connect to TCP on the loopback"})},
		{"Landlock is not", append([]fence.Layer{fence.Seccomp, fence.Landlock}, namespaces...), slices.Concat(files, processes, tracing.reached, loopback, []string{"connect to an abstract socket"}), nil},
		{"the network is left", []fence.Layer{fence.Landlock, fence.Seccomp}, nil, append([]string{"connect to an abstract socket"}, loopback...)},
		{"the filter is left", append([]fence.Layer{fence.Landlock}, namespaces...), files, slices.Concat(memory, loopback, []string{"a new user namespace", "a key of the kernel's"})},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Geteuid() != 0 && slices.Contains(c.without, fence.User) {
				t.Skip("without root there is no fence without a user namespace")
			}
			t.Parallel()
			base := t.TempDir()
			for _, dir := range []string{base, base + "/..", base + "/root", base + "/staging"} {
				_ = os.Mkdir(dir, 0o755)
				_ = os.Chmod(dir, 0o755)
			}
			v := fence.View{Root: base + "/root", Writable: []string{base + "/staging"}, Without: c.without}
			// Where there are no mounts of its own, the account has to reach the program.
			self := base + "/program"
			text, err := os.ReadFile("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(self, text, 0o755); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 {
				if v.UID, v.GID, err = fence.OwnIDs(); err != nil {
					t.Fatal(err)
				}
			}
			f, err := fence.Start(t.Context(), self, v)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Kill()
			all, err := escape.Try(t.Context(), f, self, int(v.UID), int(v.GID))
			if err != nil {
				t.Fatal(err)
			}
			outcome := map[string]escape.Outcome{}
			for _, a := range all {
				t.Logf("%-45s %-8s %s | %s", a.What, a.Outcome, a.Error, a.Outside)
				outcome[a.What] = a.Outcome
				if c.without == nil && (a.Outcome == escape.Reached || a.Outcome == escape.Unknown && os.Geteuid() == 0) {
					t.Errorf("%s: %s", a.What, a.Outcome)
				}
			}
			if c.name == "Landlock is left" && f.Why(fence.Landlock) != "" {
				if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno == 0 {
					t.Fatal("this kernel has Landlock, and the fence does without: " + f.Why(fence.Landlock))
				}
				t.Skip("this kernel has no Landlock: " + f.Why(fence.Landlock))
			}
			for _, what := range c.reached {
				if outcome[what] != escape.Reached {
					t.Errorf("%s: %s, want reached", what, outcome[what])
				}
			}
			for _, what := range c.blocked {
				if outcome[what] != escape.Blocked {
					t.Errorf("%s: %s, want blocked", what, outcome[what])
				}
			}
		})
	}
}

// standIn is a process that looks like the postmaster of a server of this host.
func standIn(t *testing.T) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "postgres")
	text, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
