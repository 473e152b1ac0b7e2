package fence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Fence is a fence that stands. Its methods may be called from several
// goroutines.
type Fence struct {
	self string
	spec spec

	// The first process inside, and the way to ask it for more. nil where there is
	// no PID namespace: each Command then makes namespaces of its own.
	control *os.File
	init    *exec.Cmd
	ended   chan struct{} // closed when init was reaped
	cgroups []string

	states []State
}

// spec is what the processes of a fence are told.
type spec struct {
	View    View             `json:"view"`
	Missing map[Layer]string `json:"missing"` // layers that are left out, and why
	Self    string           `json:"self"`    // path of the program, inside
}

func (s *spec) has(l Layer) bool { _, missing := s.Missing[l]; return !missing }

func (s *spec) text() (string, error) {
	text, err := json.Marshal(s)
	return string(text), err
}

// layerError says which layer could not be made.
type layerError struct {
	Layer  Layer  `json:"layer,omitempty"`
	Reason string `json:"reason,omitempty"`
}

func (e *layerError) Error() string { return fmt.Sprintf("%s: %s", e.Layer, e.Reason) }

// hello is the first message of init.
type hello struct {
	Failed *layerError      `json:"failed,omitempty"`
	Also   map[Layer]string `json:"also,omitempty"` // layers without which it goes on
}

const startLimit = 30 * time.Second

// Start makes a fence. Self is the path of the calling program. A layer that
// this host does not have is left out, which Layers tells; an error means that
// not even what needs no right of the host could be had. The caller ends it by
// Kill; it also ends with the calling process, however that dies.
func Start(ctx context.Context, self string, v View) (*Fence, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	root := os.Geteuid() == 0
	switch {
	case root && (v.UID == 0 || v.GID == 0):
		return nil, errors.New("fence: under root the programs inside need an account and a group of their own, and these are root's")
	case !root && (v.UID != 0 || v.GID != 0):
		return nil, errors.New("fence: only root can give the programs inside an account of their own")
	}
	f := &Fence{self: self, spec: spec{View: v, Missing: map[Layer]string{}, Self: insideDir + filepath.Base(self)}, ended: make(chan struct{})}
	for _, l := range v.Without {
		f.spec.Missing[l] = "left out"
	}
	f.lookAtKernel()
	// Each turn has one layer less, so this ends.
	for range Layers() {
		failed, err := f.try(ctx)
		if err != nil && f.lookAtNamespaces() {
			continue
		}
		if err != nil {
			return nil, err
		}
		if failed == nil {
			f.limit()
			f.settle()
			return f, nil
		}
		if !f.spec.has(failed.Layer) {
			return nil, fmt.Errorf("fence: %w", failed)
		}
		f.spec.Missing[failed.Layer] = failed.Reason
	}
	return nil, errors.New("fence: this system has nothing to make one of")
}

// try makes the fence with the layers that are left, and says which one failed.
func (f *Fence) try(ctx context.Context) (*layerError, error) {
	if f.spec.has(Processes) {
		return f.startInit(ctx)
	}
	return f.rehearse(ctx)
}

// rehearse runs a program that does nothing in namespaces of its own.
func (f *Fence) rehearse(ctx context.Context) (*layerError, error) {
	cmd := exec.CommandContext(ctx, "")
	if err := f.direct(cmd); err != nil {
		return nil, err
	}
	cmd.Dir, cmd.Env = "/", []string{}
	out, err := cmd.Output()
	if err == nil {
		return nil, nil
	}
	var failed layerError
	if json.Unmarshal(out, &failed) == nil && failed.Layer != "" {
		return &failed, nil
	}
	return nil, fmt.Errorf("fence: %w: %s", err, lastLine(stderrOf(err)))
}

func stderrOf(err error) string {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(e.Stderr)
	}
	return ""
}

// startInit starts the first process inside and waits until it is ready.
func (f *Fence) startInit(ctx context.Context) (*layerError, error) {
	text, err := f.spec.text()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	cmd := exec.Command(f.self, Argument, asInit, text)
	var said bytes.Buffer
	cmd.Dir, cmd.Env, cmd.ExtraFiles, cmd.Stderr = "/", []string{}, []*os.File{theirs}, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	f.attributes(cmd.SysProcAttr)
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("fence: %w", err)
	}
	f.init, f.control, f.ended = cmd, ours, make(chan struct{})
	go func(ended chan struct{}) { // end of said: Wait has copied it
		_ = cmd.Wait()
		close(ended)
	}(f.ended)
	h, err := f.greeting(ctx)
	if err != nil {
		_ = f.Kill()
		return nil, fmt.Errorf("fence: %w: %s", err, lastLine(said.String()))
	}
	if h.Failed != nil {
		return h.Failed, f.Kill()
	}
	for l, why := range h.Also {
		f.spec.Missing[l] = why
	}
	return nil, nil
}

func (f *Fence) greeting(ctx context.Context) (hello, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	// A fence whose greeting did not come in time is killed, so the deadline may stay.
	defer context.AfterFunc(ctx, func() { _ = f.control.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 64<<10)
	n, err := f.control.Read(buf)
	if err != nil {
		return hello{}, fmt.Errorf("the first process inside does not answer: %w", err)
	}
	var h hello
	return h, json.Unmarshal(buf[:n], &h)
}

// socketPair is a pair of sockets that keep messages apart. The first is for
// this process and can have deadlines.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "fence"), os.NewFile(uintptr(fds[1]), "fence"), nil
}

// Command changes cmd, which was not started yet, so that it runs inside. Its
// process then stands outside for the program inside: it hands signals on, and
// ends as the program does; when it is killed everything inside is. The program
// has the same process id inside as that process has outside, so that files such
// as postmaster.pid are true for both. Account and namespaces that cmd asks for
// are of no matter.
func (f *Fence) Command(cmd *exec.Cmd) error {
	if f.control == nil {
		return f.direct(cmd)
	}
	if len(cmd.ExtraFiles) > 0 {
		return errors.New("fence: no files can be handed in")
	}
	ids := fmt.Sprintf("%d:%d", f.spec.View.UID, f.spec.View.GID)
	cmd.Args = append([]string{f.self, Argument, asClient, ids, cmd.Path}, cmd.Args[1:]...)
	cmd.Path, cmd.Err = f.self, nil
	cmd.ExtraFiles = []*os.File{f.control}
	attr := plainAttributes(cmd)
	if attr.Pdeathsig != 0 {
		attr.Pdeathsig = syscall.SIGKILL // and with it all that is inside
	}
	return nil
}

func plainAttributes(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = nil
	return cmd.SysProcAttr
}

// direct has the process of cmd put itself behind a fence.
func (f *Fence) direct(cmd *exec.Cmd) error {
	here := f.spec
	here.Self = f.Inside()
	text, err := here.text()
	if err != nil {
		return err
	}
	attr := plainAttributes(cmd)
	if attr.Pdeathsig != 0 {
		attr.Pdeathsig = syscall.SIGKILL // what runs inside may ignore all others
	}
	f.attributes(attr)
	args := []string{f.self, Argument, asDirect, text, cmd.Path}
	if len(cmd.Args) > 0 {
		args = append(args, cmd.Args[1:]...)
	}
	cmd.Path, cmd.Args, cmd.Err = f.self, args, nil
	return nil
}

// Inside is the path of the calling program inside.
func (f *Fence) Inside() string {
	if f.spec.has(Mounts) {
		return f.spec.Self
	}
	return f.self
}

// PID is the first process inside, 0 where there is no PID namespace.
func (f *Fence) PID() int {
	if f.init == nil {
		return 0
	}
	return f.init.Process.Pid
}

// Kill ends the fence and all that runs inside, and returns when it is gone.
// Where there is no PID namespace, programs inside are their starter's to end.
func (f *Fence) Kill() error {
	if f.control == nil {
		return nil
	}
	// The end of its control has init kill and reap all others first. One that
	// does not is killed, and the kernel kills the rest (pid_namespaces(7)).
	_ = unix.Shutdown(int(f.control.Fd()), unix.SHUT_RDWR)
	if f.init == nil {
		return nil
	}
	defer func() { _ = RemoveCgroups(f.cgroups) }()
	defer f.control.Close()
	select {
	case <-f.ended:
		return nil
	case <-time.After(endLimit):
	}
	if err := f.init.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the fence: %w", err)
	}
	<-f.ended
	return nil
}

// endLimit is how long init may take to end everything inside.
const endLimit = 5 * time.Second

// Cgroups are the directories of cgroups that were made for it, which stay when what
// ends it may not remove them: see RemoveCgroups.
func (f *Fence) Cgroups() []string { return slices.Clone(f.cgroups) }
