package escape

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/verify/fence"
)

// canaries are what stands outside, and what was seen to come to it.
type canaries struct {
	targets
	closers []func()
	shared  []byte // the System V segment

	mu   sync.Mutex
	came map[string]bool
}

// Try runs the probe inside and outside of a fence, with canaries of the account
// that programs inside have (0 is ours), and says of each road what became of it.
func Try(ctx context.Context, f *fence.Fence, self string, uid, gid int) ([]Attempt, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := &canaries{came: map[string]bool{}}
	defer c.close()
	if err := c.open(ctx, self, uid, gid); err != nil {
		return nil, fmt.Errorf("make what to escape to: %w", err)
	}
	inside, err := c.run(ctx, f.Inside(), f.Command)
	if err != nil {
		return nil, fmt.Errorf("try to escape: %w: %w", ErrNotRun, err)
	}
	// What came has come from inside: a probe's word that it failed counts for nothing then.
	arrived := c.arrived()
	outside, err := c.run(ctx, self, func(cmd *exec.Cmd) error {
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("try the way without the fence: %w", err)
	}
	var all []Attempt
	for _, r := range roads(c.targets) {
		a := Attempt{What: r.what, Outcome: Blocked, Error: inside[r.what], Outside: outside[r.what]}
		switch {
		case a.Error == "" || arrived[r.what]:
			a.Outcome = Reached
		case a.Outside != "":
			a.Outcome = Unknown
		}
		all = append(all, a)
	}
	return all, nil
}

func (c *canaries) run(ctx context.Context, self string, fenced func(*exec.Cmd) error) (result, error) {
	text, err := json.Marshal(c.targets)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, Argument, "probe", string(text))
	cmd.Dir, cmd.Env = "/", []string{}
	if err := fenced(cmd); err != nil {
		return nil, err
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %.300s", err, said.String())
	}
	var r result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return nil, err
	}
	for _, road := range roads(c.targets) {
		if _, ok := r[road.what]; !ok {
			return nil, errors.New("the probe did not try to " + road.what)
		}
	}
	return r, nil
}

func (c *canaries) see(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.came[what] = true
}

// arrived says what reached a canary so far. What was on its way has come: each
// canary is asked after the probe has ended.
func (c *canaries) arrived() map[string]bool {
	for what, name := range map[string]string{"write a file by its path": "write", "write a file by /proc/PID/root": "write-root"} {
		if text, err := os.ReadFile(filepath.Join(c.Dir, name)); err != nil || len(text) > 0 {
			c.see(what)
		}
	}
	if c.shared[len(c.Token)] != 0 {
		c.see("System V shared memory")
	}
	c.sysvArrived()
	if text, err := readMemory(c.PID, c.Memory+uint64(os.Getpagesize()), len(c.Token)); err == nil && string(text) == c.Token {
		c.see("write to the memory of a process")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]bool{}
	for what := range c.came {
		out[what] = true
	}
	return out
}

func (c *canaries) onClose(f func()) { c.closers = append(c.closers, f) }

func (c *canaries) close() {
	for i := len(c.closers) - 1; i >= 0; i-- {
		c.closers[i]()
	}
}

// open makes the canaries.
func (c *canaries) open(ctx context.Context, self string, uid, gid int) (err error) {
	c.Token = rand.Text()
	if c.Host, err = os.Hostname(); err != nil {
		return err
	}
	if c.Dir, err = os.MkdirTemp("", "lifeboat-canary-"); err != nil {
		return err
	}
	c.onClose(func() { _ = os.RemoveAll(c.Dir) })
	if err := os.Chmod(c.Dir, 0o777); err != nil {
		return err
	}
	for name, text := range map[string]string{"read": c.Token, "write": "", "write-root": ""} {
		if err := openFile(filepath.Join(c.Dir, name), text); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "own"), []byte(c.Token), 0o600); err != nil {
		return err
	}
	if err := c.openDescriptor(); err != nil {
		return err
	}
	c.Shm = "/dev/shm/lifeboat-canary-" + c.Token
	if err := openFile(c.Shm, c.Token); err == nil {
		c.onClose(func() { _ = os.Remove(c.Shm) })
	}
	if h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(c.Dir, "read"), 0); err == nil {
		c.Handle, c.Type = h.Bytes(), h.Type()
	}
	if err := c.listen(); err != nil {
		return err
	}
	if err := c.openSegment(); err != nil {
		return err
	}
	c.openSystemV()
	c.openKey()
	c.findPostmaster()
	return c.openProcess(ctx, self, uid, gid)
}

// openDescriptor opens a file in this process as a careless program would: what it
// starts inherits it (FD_CLOEXEC, fcntl(2)).
func (c *canaries) openDescriptor() error {
	f, err := os.Open(filepath.Join(c.Dir, "read"))
	if err != nil {
		return err
	}
	defer f.Close()
	const high = 100 // beyond what is handed on on purpose
	if c.Descriptor, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD, high); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	c.onClose(func() { _ = unix.Close(c.Descriptor) })
	return nil
}

// findPostmaster looks for a server of PostgreSQL's on this host: production, where there
// is one. Its processes have names of their own but for the first, which leads them.
func (c *canaries) findPostmaster() {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, err := os.ReadFile(filepath.Join("/proc", e.Name(), "comm"))
		if text := strings.TrimSpace(string(name)); err != nil || text != "postgres" && text != "postmaster" {
			continue
		}
		if session, err := unix.Getsid(pid); err == nil && session == pid {
			c.Postmaster, c.Session = pid, session
			return
		}
	}
}

// openFile makes a file that every account can read and write.
func openFile(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Chmod(path, 0o666)
}

// listen opens the sockets.
func (c *canaries) listen() error {
	c.Abstract = "@lifeboat-canary-" + c.Token
	for what, at := range map[string][2]string{
		"connect to a Unix socket":                  {"unix", filepath.Join(c.Dir, "socket")},
		"connect to a Unix socket by /proc/PID/cwd": {"unix", filepath.Join(c.Dir, "socket-proc")},
		"connect to an abstract socket":             {"unix", c.Abstract},
		"connect to TCP on the loopback":            {"tcp", "127.0.0.1:0"},
	} {
		l, err := net.Listen(at[0], at[1])
		if err != nil {
			return err
		}
		c.onClose(func() { _ = l.Close() })
		switch {
		case at[0] == "tcp":
			c.TCP = l.Addr().String()
		case !strings.HasPrefix(at[1], "@"):
			if err := os.Chmod(at[1], 0o777); err != nil {
				return err
			}
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				c.see(what)
				_ = conn.Close()
			}
		}()
	}
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.UDP = p.LocalAddr().String()
	c.onClose(func() { _ = p.Close() })
	go func() {
		buf := make([]byte, 256)
		for {
			n, _, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			if string(buf[:n]) == c.Token {
				c.see("send UDP to the loopback")
			}
		}
	}()
	return nil
}

func (c *canaries) openSegment() (err error) {
	if c.Segment, err = unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o666); err != nil {
		return err
	}
	if c.shared, err = unix.SysvShmAttach(c.Segment, 0, 0); err != nil {
		return err
	}
	copy(c.shared, c.Token)
	c.onClose(func() {
		_ = unix.SysvShmDetach(c.shared)
		_, _ = unix.SysvShmCtl(c.Segment, unix.IPC_RMID, nil)
	})
	return nil
}

// openKey adds a key that every account can read. Without keyrings the attempt
// fails on both sides.
func (c *canaries) openKey() {
	id, err := unix.AddKey("user", "lifeboat-canary-"+c.Token, []byte(c.Token), unix.KEY_SPEC_USER_KEYRING)
	if err != nil {
		return
	}
	c.Key = id
	_ = unix.KeyctlSetperm(id, 0x3f3f3f3f)
	c.onClose(func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0) })
}

// openProcess starts the process, as the account of what runs inside.
func (c *canaries) openProcess(ctx context.Context, self string, uid, gid int) error {
	cmd := exec.CommandContext(ctx, self, Argument, c.Dir, strconv.Itoa(uid), strconv.Itoa(gid))
	cmd.Dir, cmd.Env = "/", []string{}
	file, err := os.Open(filepath.Join(c.Dir, "read"))
	if err != nil {
		return err
	}
	defer file.Close()
	cmd.ExtraFiles = []*os.File{file}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.PID = cmd.Process.Pid
	c.onClose(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		return errors.New("the process does not answer")
	}
	if _, err := fmt.Sscanf(lines.Text(), "ready %d", &c.Memory); err != nil {
		return errors.New("the process does not answer")
	}
	go func() {
		for lines.Scan() {
			c.see("signal a process")
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	return nil
}
