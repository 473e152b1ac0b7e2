package escape

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// targets is where the canaries are.
type targets struct {
	Dir        string `json:"dir"` // of the host, with "read", "write" and "socket" in it
	PID        int    `json:"pid"` // of a process that stands in Dir and has "read" open as 3
	Token      string `json:"token"`
	Shm        string `json:"shm"` // a file in /dev/shm
	Abstract   string `json:"abstract"`
	TCP        string `json:"tcp"`
	UDP        string `json:"udp"`
	Segment    int    `json:"segment"` // of System V shared memory
	Semaphore  int    `json:"semaphore"`
	Queue      int    `json:"queue"`
	Memory     uint64 `json:"memory"`               // address of two pages of the process: the token, and one to write to
	Descriptor int    `json:"descriptor"`           // of "read", in who starts the probe: for all that it starts
	Postmaster int    `json:"postmaster,omitempty"` // of a server of this host; 0: none was found
	Session    int    `json:"session,omitempty"`    // of the postmaster
	Key        int    `json:"key"`                  // of the kernel's keyrings
	Handle     []byte `json:"handle"`               // of "read"
	Type       int32  `json:"type"`                 // of the handle
	Host       string `json:"host"`                 // name of the host
}

// result is what the probe found: "" when the road was open.
type result map[string]string

var errNotSeen = errors.New("it is not there")

// Enter is the probe, or the canary's process. It returns only on an error.
func Enter(args []string) error {
	if len(args) == 3 {
		return stand(args[0], args[1], args[2])
	}
	var t targets
	if len(args) != 2 || json.Unmarshal([]byte(args[1]), &t) != nil {
		return errors.New("escape: no targets")
	}
	runtime.LockOSThread()
	found := result{}
	for _, r := range roads(t) {
		if err := r.try(); err != nil {
			found[r.what] = reason(err)
		} else {
			found[r.what] = ""
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		return err
	}
	os.Exit(0)
	return nil
}

func reason(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}

// stand is the canary's process: it waits until its standard input ends, and
// says when a signal has come.
func stand(dir, uid, gid string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR1)
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := become(uid, gid); err != nil {
		return err
	}
	_ = unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0) // Yama, where there is one, is not what is tried
	token, err := os.ReadFile("read")
	if err != nil {
		return err
	}
	page, err := memory(token)
	if err != nil {
		return err
	}
	fmt.Println("ready", uintptr(unsafe.Pointer(&page[0])))
	go func() {
		for range signals {
			fmt.Println("signal")
		}
	}()
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
	return nil
}

// become takes an account, and stays open to others of it as its processes are.
func become(uid, gid string) error {
	u, err := strconv.Atoi(uid)
	if err != nil || u == 0 {
		return err
	}
	g, err := strconv.Atoi(gid)
	if err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(g, g, g), syscall.Setresuid(u, u, u)); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
}

type road struct {
	what string
	try  func() error
}

// roads are all attempts. What writes leaves the token at the canary, where it is
// looked for.
func roads(t targets) []road {
	file := filepath.Join(t.Dir, "read")
	proc := fmt.Sprintf("/proc/%d", t.PID)
	read := func(path string) func() error {
		return func() error { return holds(path, t.Token) }
	}
	dial := func(network, address string) func() error {
		return func() error { return tell(network, address, t.Token) }
	}
	all := []road{
		{"see a process", func() error {
			if err := unix.Kill(t.PID, 0); !errors.Is(err, unix.EPERM) {
				return err
			}
			return nil
		}},
		{"signal a process", func() error { return unix.Kill(t.PID, unix.SIGUSR1) }},
		{"trace a process", func() error { return trace(t.PID) }},
		{"read the memory of a process", func() error { return memoryHolds(t) }},
		{"write to the memory of a process", func() error { return overwriteMemory(t) }},
		{"read a file by its path", read(file)},
		{"write a file by its path", func() error { return overwrite(filepath.Join(t.Dir, "write"), t.Token) }},
		{"read a file by /proc/PID/root", read(proc + "/root" + file)},
		{"write a file by /proc/PID/root", func() error { return overwrite(proc+"/root"+filepath.Join(t.Dir, "write-root"), t.Token) }},
		{"read a file by /proc/PID/cwd", read(proc + "/cwd/read")},
		{"read a file by /proc/PID/fd", read(proc + "/fd/3")},
		{"read a file by its handle", func() error { return byHandle(t) }},
		{"read a file by a descriptor that was left open", func() error { return inherited(t) }},
		{OwnFile, read(filepath.Join(t.Dir, "own"))},
		{"read a file in /dev/shm", read(t.Shm)},
		{"connect to a Unix socket", dial("unix", filepath.Join(t.Dir, "socket"))},
		{"connect to a Unix socket by /proc/PID/cwd", dial("unix", proc+"/cwd/socket-proc")},
		{"connect to an abstract socket", dial("unix", t.Abstract)},
		{"connect to TCP on the loopback", dial("tcp", t.TCP)},
		{"send UDP to the loopback", dial("udp", t.UDP)},
		{"System V shared memory", func() error { return segment(t) }},
		{"System V semaphores", func() error { return semaphore(t) }},
		{"System V message queues", func() error { return queue(t) }},
		{"a key of the kernel's", func() error { return key(t) }},
		{"the name of the host", func() error {
			if name, err := os.Hostname(); err != nil || name != t.Host {
				return errNotSeen
			}
			return nil
		}},
		{"a new user namespace", func() error { return namespace() }},
		{"mount a file system", func() error { return mount() }},
		{"change the root", func() error { return unix.Chroot("/") }},
		{"hold a capability", capable},
		{"become root", func() error {
			if os.Geteuid() == 0 {
				return nil
			}
			_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0)
			if errno != 0 {
				return errno
			}
			return nil
		}},
	}
	if t.Postmaster != 0 {
		all = append(all, road{"see a postmaster of this host", func() error { return postmaster(t) }})
	}
	return all
}

// postmaster looks for a server of the host, which is never touched. A process inside
// may by chance have its number, and has another session then.
func postmaster(t targets) error {
	if err := unix.Kill(t.Postmaster, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
	if session, err := unix.Getsid(t.Postmaster); err != nil || session != t.Session {
		return errNotSeen
	}
	return nil
}

// inherited reads the file by the descriptor that it has in who started the probe.
func inherited(t targets) error {
	buf := make([]byte, len(t.Token))
	n, err := unix.Pread(t.Descriptor, buf, 0)
	if err == nil && string(buf[:max(0, n)]) != t.Token {
		err = errNotSeen
	}
	return err
}

// capable looks for a capability that this thread could use or could take
// (capabilities(7)).
func capable() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	have := [2]unix.CapUserData{}
	if err := unix.Capget(&header, &have[0]); err != nil {
		return err
	}
	if have[0].Permitted|have[1].Permitted|have[0].Inheritable|have[1].Inheritable == 0 {
		return errNotSeen
	}
	return nil
}

func holds(path, token string) error {
	text, err := os.ReadFile(path)
	if err == nil && !strings.Contains(string(text), token) {
		err = errNotSeen
	}
	return err
}

func overwrite(path, token string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(token)
	return err
}

func tell(network, address, token string) error {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err = conn.Write([]byte(token)); network != "udp" {
		return nil // it was let in
	}
	return err
}

func trace(pid int) error {
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	_ = unix.PtraceInterrupt(pid)
	_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
	return unix.PtraceDetach(pid)
}

// byHandle opens the file by its handle, with any directory of its file system
// that can be had.
func byHandle(t targets) (err error) {
	for _, dir := range []string{t.Dir, "/", "/dev/shm", "/tmp"} {
		if err = byHandleIn(dir, t); err == nil || errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return err
}

func byHandleIn(dir string, t targets) error {
	mount, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(t.Type, t.Handle), unix.O_RDONLY)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "handle")
	defer f.Close()
	text, err := io.ReadAll(f)
	if err == nil && string(text) != t.Token {
		err = errNotSeen
	}
	return err
}

func segment(t targets) error {
	data, err := unix.SysvShmAttach(t.Segment, 0, 0)
	if err != nil {
		return err
	}
	defer unix.SysvShmDetach(data)
	if !strings.HasPrefix(string(data), t.Token) {
		return errNotSeen
	}
	data[len(t.Token)] = 1
	return nil
}

func key(t targets) error {
	buf := make([]byte, 64)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, t.Key, buf, 0)
	if err == nil && string(buf[:min(n, len(buf))]) != t.Token {
		err = errNotSeen
	}
	return err
}

// namespace looks for a program that does not exist, in new namespaces.
func namespace() error {
	_, err := syscall.ForkExec("/nonexistent", []string{"nonexistent"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}})
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// mount mounts where, without the fence, nobody but the probe sees it: it has
// mounts of its own then.
func mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "size=4k")
}
