package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// controlFD is the descriptor of the control in init and in a client.
const controlFD = 3

// insideDir is where the program lies inside, under its own name.
const insideDir = "/.fence/"

// maxRequest bounds a request, in bytes.
const maxRequest = 128 << 10

// request asks init for a program. With it come four descriptors: the socket of
// the client, and the standard ones.
type request struct {
	PID  int      `json:"pid"` // of the client, outside: the program gets the same inside
	Dir  string   `json:"dir"`
	Args []string `json:"args"` // the first is the path of the program
	Env  []string `json:"env"`
}

// reply is what a client is told: once that the program has started, or why
// not, and once how it has ended.
type reply struct {
	Error  string `json:"error,omitempty"`
	Ended  bool   `json:"ended,omitempty"`
	Code   int    `json:"code,omitempty"`
	Signal int    `json:"signal,omitempty"`
}

// initProcess is the first process inside. It starts programs, reaps them and
// all that they leave behind, and ends with its control.
type initProcess struct {
	spec    *spec
	lastPID *os.File // /proc/sys/kernel/ns_last_pid

	mu      sync.Mutex
	started *sync.Cond // there are children to wait for
	clients map[int]*os.File
}

// runInit is the life of init.
func runInit(args []string) error {
	// To a process inside, init has no handler but those of Go, which end it: take
	// them all and do nothing. What a child executes gets the defaults again.
	signal.Notify(make(chan os.Signal, 1))
	control := os.NewFile(controlFD, "control")
	p := &initProcess{spec: &spec{}, clients: map[int]*os.File{}}
	p.started = sync.NewCond(&p.mu)
	if len(args) != 1 {
		return errors.New("fence: init wants one argument")
	}
	if err := decode(args[0], p.spec); err != nil {
		return err
	}
	also, err := p.prepare()
	h := hello{Also: also}
	if err != nil && !errors.As(err, &h.Failed) {
		return err
	}
	if err := send(control, h); err != nil {
		return err
	}
	if h.Failed != nil {
		return h.Failed
	}
	go p.reap()
	p.serve(control)
	p.end()
	os.Exit(0)
	return nil
}

func send(f *os.File, v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		_, err = f.Write(text)
	}
	return err
}

// prepare makes what the namespaces are filled with. The error is a *layerError
// for what the fence can do without.
func (p *initProcess) prepare() (also map[Layer]string, err error) {
	also = map[Layer]string{}
	// None of it is for what runs inside.
	if p.spec.has(Descriptors) {
		if err := unix.CloseRange(controlFD+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
			return nil, &layerError{Descriptors, plain(err)}
		}
	}
	// A process of the same account could otherwise look into this one.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, err
	}
	if p.spec.has(UTS) {
		if err := unix.Sethostname([]byte("fenced")); err != nil {
			return nil, &layerError{UTS, plain(err)}
		}
	}
	if !p.spec.has(Proc) {
		p.noUser(also)
	}
	if p.lastPID, err = openLastPID(p.spec); err != nil {
		return nil, &layerError{Processes, "process ids cannot be chosen in it: " + plain(err)}
	}
	if !p.spec.has(Mounts) {
		p.noUser(also)
		p.spec.Self, err = os.Executable()
		return also, err
	}
	if err := p.spec.mount(); err != nil {
		return also, err
	}
	if _, err := os.Stat("/proc/self"); err != nil {
		p.noUser(also)
	}
	return also, nil
}

// noUser leaves out the user namespace of each program: under root its account is
// written down by way of a /proc of this PID namespace, and there is none.
func (p *initProcess) noUser(also map[Layer]string) {
	if p.spec.View.UID != 0 && p.spec.has(User) {
		also[User] = "there is no /proc of the PID namespace"
		p.spec.Missing[User] = also[User]
	}
}

// openLastPID opens the file by which the next process id is chosen. In a /proc
// of its own it can be written to also where the host's is closed.
func openLastPID(s *spec) (*os.File, error) {
	if s.has(Mounts) {
		if err := mountPrivately("proc", s.View.Root, ""); err == nil {
			defer unix.Unmount(s.View.Root, unix.MNT_DETACH)
			if f, err := os.OpenFile(s.View.Root+lastPID, os.O_WRONLY, 0); err == nil {
				return f, nil
			}
		}
	}
	return os.OpenFile("/proc"+lastPID, os.O_WRONLY, 0)
}

const lastPID = "/sys/kernel/ns_last_pid"

// serve starts what is asked for until the control is closed everywhere.
func (p *initProcess) serve(control *os.File) {
	buf, oob := make([]byte, maxRequest), make([]byte, unix.CmsgSpace(4*8))
	for {
		n, oobn, _, _, err := unix.Recvmsg(controlFD, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		files, err := descriptors(oob[:oobn])
		if err != nil || len(files) != 4 {
			closeAll(files)
			continue
		}
		var r request
		err = json.Unmarshal(buf[:n], &r)
		if err == nil {
			err = p.start(r, files)
		}
		closeAll(files[1:])
		if err != nil {
			_ = send(files[0], reply{Error: err.Error()})
			files[0].Close()
		}
	}
}

func descriptors(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed in"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// start starts a program under the process id that was asked for.
func (p *initProcess) start(r request, files []*os.File) error {
	if len(r.Args) == 0 {
		return errors.New("nothing to run")
	}
	text, err := (&spec{View: p.spec.View, Missing: p.spec.Missing, Self: p.spec.Self}).text()
	if err != nil {
		return err
	}
	argv := append([]string{p.spec.Self, Argument, asRun, text, r.Dir}, r.Args...)
	attr := &syscall.ProcAttr{Dir: "/", Env: r.Env, Sys: &syscall.SysProcAttr{}}
	for _, f := range files[1:] {
		attr.Files = append(attr.Files, f.Fd())
	}
	if v := p.spec.View; v.UID != 0 {
		if p.spec.has(User) {
			oneAccount(attr.Sys, int(v.UID), int(v.GID))
		}
		attr.Sys.Credential = &syscall.Credential{Uid: v.UID, Gid: v.GID}
	}
	attr.Sys.AmbientCaps = []uintptr{unix.CAP_SETPCAP} // to give up the rest with
	p.mu.Lock()
	defer p.mu.Unlock()
	pid, err := p.forkAs(r.PID, p.spec.Self, argv, attr)
	if err != nil {
		return err
	}
	p.clients[pid] = files[0]
	go p.follow(pid, files[0])
	p.started.Broadcast()
	return send(files[0], reply{})
}

// forkAs starts a process under a given id. The next id is the one after what
// was written (proc_sys_kernel(5)), unless another thread of this program comes
// between, so it tries until it is right.
func (p *initProcess) forkAs(want int, path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	for range 20 {
		if _, err := p.lastPID.WriteAt([]byte(strconv.Itoa(want-1)), 0); err != nil {
			return 0, fmt.Errorf("choose a process id: %w", err)
		}
		pid, err := syscall.ForkExec(path, argv, attr)
		if err != nil || pid == want {
			return pid, err
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	return 0, fmt.Errorf("no process could get the id %d", want)
}

// follow hands on the signals of a client. When the client is gone and its
// program is not, all that is inside is killed.
func (p *initProcess) follow(pid int, client *os.File) {
	buf := make([]byte, 16)
	for {
		n, err := client.Read(buf)
		if err != nil || n == 0 {
			break
		}
		p.mu.Lock()
		if p.clients[pid] == client { // not reaped: the id is still its own
			_ = syscall.Kill(pid, syscall.Signal(buf[0]))
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clients[pid] == client {
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
}

// reap waits for children, for ever: its own, and those whose parents died.
func (p *initProcess) reap() {
	for {
		var status syscall.WaitStatus
		p.mu.Lock()
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
		if errors.Is(err, unix.ECHILD) {
			p.started.Wait()
			p.mu.Unlock()
			continue
		}
		p.mu.Unlock()
		// A child is there. It is seen before it is reaped, so that no id is given
		// out again between the two.
		if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			continue
		}
		p.mu.Lock()
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == nil && pid > 0 {
			p.ended(pid, status)
		}
		p.mu.Unlock()
	}
}

// ended tells the client, if it was one's program. The caller holds the lock.
func (p *initProcess) ended(pid int, status syscall.WaitStatus) {
	client := p.clients[pid]
	if client == nil {
		return
	}
	delete(p.clients, pid)
	r := reply{Ended: true, Code: status.ExitStatus()}
	if status.Signaled() {
		r.Code, r.Signal = 0, int(status.Signal())
	}
	_ = send(client, r)
	_ = unix.Shutdown(int(client.Fd()), unix.SHUT_WR)
}

// end kills all that is left and waits until it is gone.
func (p *initProcess) end() {
	p.mu.Lock()
	for {
		_ = syscall.Kill(-1, syscall.SIGKILL)
		if _, err := syscall.Wait4(-1, nil, 0, nil); errors.Is(err, syscall.ECHILD) {
			return
		}
	}
}
