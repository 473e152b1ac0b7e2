package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// The restored server can put anything in the place of its socket: a link to that of
// production, where checks would then look, and write. So nothing is connected to by the
// path of the socket. This process opens what lies there, which must be a socket, and
// asks the kernel who listens on it: a process below this one. Programs such as
// pg_amcheck know paths alone: they get the path of a socket of this process's, in a
// directory that the server does not see, and what they say is handed on.

// errNotOurs means that somebody else than the server listens on its socket.
var errNotOurs = errors.New("the socket of the restored server is not its own")

// socketName is the name of a server's socket in its directory (unix_socket_directories).
func socketName(port int) string { return ".s.PGSQL." + strconv.Itoa(port) }

// dial connects to the restored server.
func (h *helper) dial(ctx context.Context) (net.Conn, error) {
	conn, err := dialPlain(ctx, filepath.Join(h.want.SocketDir, socketName(h.server.Port())))
	if err != nil {
		return nil, err
	}
	if err := h.isServer(conn.(*net.UnixConn)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// openDoor listens for programs that look at the server, until this process ends.
func (h *helper) openDoor() error {
	path := filepath.Join(h.want.DoorDir, socketName(h.server.Port()))
	err := os.Remove(path) // of the helper before this one
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("make a socket for the checks: %w", err)
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go h.handOn(in.(*net.UnixConn))
		}
	}()
	return nil
}

// handOn copies both ways until both have ended.
func (h *helper) handOn(in *net.UnixConn) {
	defer in.Close()
	conn, err := h.dial(context.Background())
	if err != nil {
		return // the program says that the server has closed the connection
	}
	defer conn.Close()
	out := conn.(*net.UnixConn)
	var both sync.WaitGroup
	for _, way := range [][2]*net.UnixConn{{in, out}, {out, in}} {
		both.Go(func() {
			_, _ = io.Copy(way[1], way[0])
			_ = way[1].CloseWrite()
		})
	}
	both.Wait()
}
