package drill

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// endOrphans ends what a crashed drill has left running on its directory. It should
// have ended with the drill. What the server wrote there, its postmaster.pid too,
// says nothing: it could name a process of production's. Processes are known by what
// the kernel says of them, and are held by a descriptor while they are looked at, so
// that a number that is given again does no harm (pidfd_open(2)).
func endOrphans(dir string) error {
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		left, err := killOrphans(dir)
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-limit.C:
			return fmt.Errorf("%d processes do not end", left)
		case <-again.C:
		}
	}
}

// killOrphans kills them and says how many there were.
func killOrphans(dir string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	ours, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	mounted := !mountsBelow(ours, dir) // a mount there in our own view says nothing of others
	found := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !orphan(pid, dir, mounted) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		if orphan(pid, dir, mounted) { // still the same one: it is held now
			found++
			err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		_ = unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return found, fmt.Errorf("end process %d: %w", pid, err)
		}
	}
	return found, nil
}

// orphan says whether a process belongs to the server of the drill: the directory is
// mounted in a file system of its own, or it is a postmaster that was started on the
// data directory and works there.
func orphan(pid int, dir string, mounted bool) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if status, err := os.ReadFile(filepath.Join(proc, "stat")); err != nil || bytes.Contains(status, []byte(") Z ")) {
		return false
	}
	if mounted {
		if text, err := os.ReadFile(filepath.Join(proc, "mountinfo")); err == nil && mountsBelow(text, dir) {
			return true
		}
	}
	data := filepath.Join(dir, "data")
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	if err != nil || cwd != data {
		return false
	}
	command, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	return err == nil && bytes.Contains(command, []byte("\x00-D\x00"+data+"\x00"))
}

// mountsBelow says whether a table of mounts (proc_pid_mountinfo(5)) has one at or
// below a directory.
func mountsBelow(table []byte, dir string) bool {
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		at := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(f[4])
		if at == dir || strings.HasPrefix(at, dir+"/") {
			return true
		}
	}
	return false
}
