package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// processName names this process among all that ever ran anywhere: by the
// boot of the kernel, the PID namespace and the PID. Host names would not do,
// because containers share them. "" when any of it cannot be known.
func processName() string {
	where := processPlace()
	if where == "" {
		return ""
	}
	return fmt.Sprintf("%s %d", where, os.Getpid())
}

// processPlace is where PIDs count: two processes with the same place see each
// other. See random(4) for the boot's id and pid_namespaces(7); the number of
// a namespace may be given again once all its processes are gone.
func processPlace() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + namespace
}

// processGone says whether the process of this name is proven to have ended.
// One of another boot, container or host is never; kill(2) tells of the
// others, also of those that /proc hides. A PID that was given again counts
// as alive.
func processGone(name string) bool {
	where := processPlace()
	rest, ours := strings.CutPrefix(name, where+" ")
	var pid int
	if n, err := fmt.Sscanf(rest, "%d", &pid); where == "" || !ours || n != 1 || err != nil || pid <= 0 {
		return false
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
