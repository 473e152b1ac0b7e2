package drill

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// adoptOrphans has the kernel give this process what loses its parent below it
// (PR_SET_CHILD_SUBREAPER, prctl(2)), so that nothing below it gets away.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt what is started: %w", err)
	}
	return nil
}

// giveUpRoot makes this process the server's account for good; nil changes no
// account. Afterwards no other process of the account can look into it or trace
// it (PR_SET_DUMPABLE, prctl(2)).
func giveUpRoot(a *server.Account) error {
	if a != nil && os.Geteuid() == 0 {
		groups := make([]int, len(a.Groups))
		for i, g := range a.Groups {
			groups[i] = int(g)
		}
		err := errors.Join(syscall.Setgroups(groups), syscall.Setresgid(int(a.GID), int(a.GID), int(a.GID)), syscall.Setresuid(int(a.UID), int(a.UID), int(a.UID)))
		if err != nil {
			return fmt.Errorf("become account %s: %w", a, err)
		}
		if syscall.Setuid(0) == nil {
			return errors.New("root was not given up")
		}
	}
	return Protect()
}

// Protect keeps other processes, those of the same account too, from reading this
// process's memory and environment and from tracing it, and a crash from writing
// it to a file.
func Protect() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("protect this process: %w", err)
	}
	return nil
}

// childOf says whether a process was started by the process parent, or is below it.
func childOf(pid, parent int) bool {
	for range 64 {
		if pid == parent {
			return true
		}
		if pid <= 1 {
			return false
		}
		pid = parentOf(pid)
	}
	return false
}

// parentOf is the parent of a process by /proc/PID/stat (proc_pid_stat(5)), 0 when
// it is not known. The name in it may itself hold spaces and parentheses.
func parentOf(pid int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}
