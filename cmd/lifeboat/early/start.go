package early

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// StartPrefetch starts the process that fetches ahead for a fetch with this
// command line, which nobody waits for. It is this program, in a session of its
// own, so that no signal to the server's processes reaches it, and with none of
// the files that PostgreSQL has left open for us: it must hold no socket, no
// pipe to the server's log.
func StartPrefetch(args, environ []string, dir string, drop ...string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	closeOnExec()
	argv := append([]string{program, "wal", "prefetch"}, common(args, drop)...)
	p, err := os.StartProcess(program, argv, &os.ProcAttr{
		Dir: dir, Env: environ, Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return err
	}
	return p.Release()
}

// closeOnExec keeps all descriptors from the programs that we start.
func closeOnExec() {
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if fd, err := strconv.Atoi(filepath.Base(e.Name())); err == nil && fd > 2 {
				syscall.CloseOnExec(fd)
			}
		}
		return
	}
}
