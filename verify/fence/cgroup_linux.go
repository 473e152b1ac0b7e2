package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// limit bounds memory and processes by a cgroup (cgroups(7)), of either version.
// What the host does not let this account do is a layer that is missing.
func (f *Fence) limit() {
	l := f.spec.View.Limits
	if l.Memory > 0 {
		if err := f.bound("memory", map[string]string{"memory.max": strconv.FormatInt(l.Memory, 10)}, map[string]string{"memory.limit_in_bytes": strconv.FormatInt(l.Memory, 10)}); err != nil {
			f.miss(Memory, "no cgroup can be made: "+plain(err))
		}
	}
	if l.Processes > 0 {
		n := map[string]string{"pids.max": strconv.FormatInt(l.Processes, 10)}
		if err := f.bound("pids", n, n); err != nil && os.Geteuid() == 0 && !f.spec.has(User) {
			f.miss(Tasks, "no cgroup can be made: "+plain(err))
		}
	}
}

var errNoController = errors.New("the host has no such controller")

// bound puts init into a new cgroup of one controller.
func (f *Fence) bound(controller string, v2, v1 map[string]string) error {
	if f.init == nil {
		return errors.New("there is no process that all others descend from")
	}
	parent, version, err := cgroupOf(controller)
	if err != nil {
		return err
	}
	dir := filepath.Join(parent, fmt.Sprintf("%s%d", cgroupPrefix, f.init.Process.Pid))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f.cgroups = append(f.cgroups, dir)
	set := v1
	if version == 2 {
		set = v2
	}
	for name, value := range set {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(f.init.Process.Pid)), 0)
}

// cgroupOf finds this process's cgroup of a controller, where a new one goes. In
// version 2 a cgroup with processes in it has none below it that are bounded, so
// the new one stands beside.
func cgroupOf(controller string) (dir string, version int, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", 0, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for name := range strings.SplitSeq(f[1], ",") {
			if name == controller {
				return filepath.Join("/sys/fs/cgroup", f[1], f[2]), 1, nil
			}
		}
		if f[1] == "" {
			beside := filepath.Join("/sys/fs/cgroup", filepath.Dir(f[2]))
			if enabled, err := os.ReadFile(filepath.Join(beside, "cgroup.subtree_control")); err == nil && strings.Contains(" "+string(enabled), " "+controller) {
				return beside, 2, nil
			}
		}
	}
	return "", 0, errNoController
}

// RemoveCgroups removes the cgroups of a fence that has ended. The kernel notices a
// moment after the last process was reaped that it is gone, so it tries for a second.
// Who ends a fence after it has given up root cannot do so.
func RemoveCgroups(dirs []string) (err error) {
	for _, dir := range dirs {
		for range 100 {
			if err = os.Remove(dir); err == nil || !errors.Is(err, syscall.EBUSY) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return err
}

// SweepCgroups removes cgroups of fences whose first process is gone. Only empty ones
// can be removed (cgroups(7)), so one that is in use stays whatever its name is.
func SweepCgroups() {
	for _, controller := range []string{"memory", "pids"} {
		parent, _, err := cgroupOf(controller)
		if err != nil {
			continue
		}
		found, _ := filepath.Glob(filepath.Join(parent, cgroupPrefix+"*"))
		for _, dir := range found {
			pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix))
			if err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				_ = os.Remove(dir)
			}
		}
	}
}

// cgroupPrefix and the id of the first process inside are the name of a cgroup.
const cgroupPrefix = "lifeboat-drill-"
