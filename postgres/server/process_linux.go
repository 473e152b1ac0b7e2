package server

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// dieWithParent has the kernel ask for an immediate shutdown when the parent
// dies. SIGQUIT rather than SIGKILL: the postmaster then ends its children and
// removes its shared memory.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }

// parentsOfAll maps every process to its parent, from /proc.
func parentsOfAll() (map[int]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parents := make(map[int]int, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent, ok := stat(pid); ok {
			parents[pid] = parent
		}
	}
	return parents, nil
}

// gone says whether a process has ended. A zombie has: who should reap it is
// not our business.
func gone(pid int) bool {
	state, _, ok := stat(pid)
	return !ok || state == 'Z' || state == 'X'
}

// stat reads the state and the parent of a process from /proc/PID/stat,
// see proc(5). The name before them may itself hold spaces and parentheses.
func stat(pid int) (state byte, parent int, ok bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, 0, false
	}
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return 0, 0, false
	}
	fields := bytes.Fields(text[end+1:])
	if len(fields) < 2 {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return fields[0][0], parent, err == nil
}
