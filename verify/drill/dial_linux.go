package drill

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// dialPlain connects to a socket that lies at a path itself: no link is followed, and
// what was looked at is what is connected to (open(2), O_PATH).
func dialPlain(ctx context.Context, path string) (net.Conn, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("%w: no socket lies there", errNotOurs)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
}

// isServer asks the kernel who listens (SO_PEERCRED, unix(7)): a process of the fence, or
// one that this process has started.
func (h *helper) isServer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	if e := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return e
	}
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	first := 0
	if h.fence != nil {
		first = h.fence.PID() // the host may hide what is above it (hidepid, proc(5))
	}
	if pid := int(peer.Pid); pid <= 0 || !childOf(pid, os.Getpid()) && !(first > 0 && childOf(pid, first)) {
		return fmt.Errorf("%w: process %d listens on it", errNotOurs, peer.Pid)
	}
	return nil
}
