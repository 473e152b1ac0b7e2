//go:build unix && !linux

package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
)

// dieWithParent does nothing: there is no parent-death signal here.
func dieWithParent(*syscall.SysProcAttr) {}

// parentsOfAll maps every process to its parent, from ps.
func parentsOfAll() (map[int]int, error) {
	out, err := exec.Command("/bin/ps", "-axo", "pid=,ppid=").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	parents := map[int]int{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var pid, parent int
		if _, err := fmt.Sscan(lines.Text(), &pid, &parent); err == nil {
			parents[pid] = parent
		}
	}
	return parents, nil
}

// gone says whether a process has ended. launchd reaps what it inherits.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
