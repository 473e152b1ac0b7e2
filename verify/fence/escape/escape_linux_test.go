package escape_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

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

// With all layers nothing outside is reached; with the ones taken out that a way
// out is blocked by, the probe says that it was reached: it can fail.
func TestEscape(t *testing.T) {
	for _, c := range []struct {
		name    string
		without []fence.Layer
		reached []string
	}{
		{"nothing is left out", nil, nil},
		{"processes", []fence.Layer{fence.Processes, fence.Landlock, fence.Seccomp}, []string{"see a process", "signal a process", "trace a process"}},
		{"ipc", []fence.Layer{fence.IPC}, []string{"System V shared memory"}},
		{"uts", []fence.Layer{fence.UTS}, []string{"the name of the host"}},
		{"network", []fence.Layer{fence.Network, fence.Landlock, fence.Seccomp}, []string{"connect to an abstract socket", "connect to TCP on the loopback", "send UDP to the loopback"}},
		{"mounts", []fence.Layer{fence.Mounts, fence.Landlock}, []string{"read a file by its path", "write a file by its path", "read a file in /dev/shm", "connect to a Unix socket"}},
		{"proc", []fence.Layer{fence.Proc, fence.Processes, fence.User, fence.Landlock}, []string{"read a file by /proc/PID/root", "read a file by /proc/PID/cwd", "read a file by /proc/PID/fd"}},
		{"seccomp", []fence.Layer{fence.Seccomp, fence.Landlock}, []string{"a new user namespace", "a key of the kernel's"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Geteuid() != 0 && slices.Contains(c.without, fence.User) {
				t.Skip("without root there is no fence without a user namespace")
			}
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
			var reached []string
			for _, a := range all {
				t.Logf("%-45s %-8s %s | %s", a.What, a.Outcome, a.Error, a.Outside)
				if a.Outcome == escape.Reached {
					reached = append(reached, a.What)
				}
			}
			if c.reached == nil && len(reached) > 0 {
				t.Errorf("reached: %q", reached)
			}
			for _, what := range c.reached {
				if !slices.Contains(reached, what) {
					t.Errorf("%s was not reached", what)
				}
			}
		})
	}
}
