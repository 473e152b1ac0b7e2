package fence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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

// namespaces are the layers that are namespaces, by the flag of clone(2).
var namespaces = map[Layer]uintptr{
	Mounts: unix.CLONE_NEWNS, Network: unix.CLONE_NEWNET, Processes: unix.CLONE_NEWPID, IPC: unix.CLONE_NEWIPC, UTS: unix.CLONE_NEWUTS, Cgroup: unix.CLONE_NEWCGROUP,
}

// lookAtKernel finds out which layers there can be that no failure of init names.
func (f *Fence) lookAtKernel() {
	f.missFor(User, tryClone(unix.CLONE_NEWUSER, true))
	_, err := landlockVersion()
	f.missFor(Landlock, err)
	f.missFor(Seccomp, whyNoFilter())
	if os.Geteuid() != 0 && !f.spec.has(User) {
		f.lookAtNamespaces()
	}
}

func (f *Fence) missFor(l Layer, err error) {
	if err != nil {
		f.miss(l, plain(err))
	}
}

// lookAtNamespaces finds out which namespaces there cannot be: a process that asks for
// all of them at once is not told. Without root all belong to a user namespace. It
// reports whether it has found any; it is for a fence that could not be made with them,
// since making each takes time.
func (f *Fence) lookAtNamespaces() bool {
	before := len(f.spec.Missing)
	with, why := uintptr(0), error(nil)
	if os.Geteuid() != 0 {
		with = unix.CLONE_NEWUSER
		if !f.spec.has(User) {
			why = errors.New("without root it takes a user namespace: " + f.spec.Missing[User])
		}
	}
	for l, flag := range namespaces {
		if why != nil {
			f.missFor(l, why)
		} else if f.spec.has(l) {
			f.missFor(l, tryClone(with|flag, with != 0))
		}
	}
	return len(f.spec.Missing) > before
}

// tryClone makes a process in new namespaces that ends at once: a program that
// does not exist is looked for after the namespaces were made.
func tryClone(flags uintptr, mapped bool) error {
	attr := &syscall.SysProcAttr{Cloneflags: flags}
	if mapped {
		oneAccount(attr, os.Geteuid(), os.Getegid())
	}
	_, err := syscall.ForkExec("/nonexistent", []string{"nonexistent"}, &syscall.ProcAttr{Sys: attr})
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// oneAccount asks for a user namespace with one account and group in it.
func oneAccount(attr *syscall.SysProcAttr, uid, gid int) {
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	attr.GidMappingsEnableSetgroups = os.Geteuid() == 0
}

// attributes are those of the process that mounts: it has all namespaces.
func (f *Fence) attributes(attr *syscall.SysProcAttr) {
	for l, flag := range namespaces {
		if f.spec.has(l) {
			attr.Cloneflags |= flag
		}
	}
	if os.Geteuid() != 0 && attr.Cloneflags != 0 {
		oneAccount(attr, os.Geteuid(), os.Getegid())
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
	}
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

// Command changes cmd, which was not started yet, so that it runs in a fence of
// its own, which ends with cmd or with the calling process. Under root the
// account of cmd is the one inside, unless the View has one.
func Command(ctx context.Context, cmd *exec.Cmd, self string, v View) (*Fence, error) {
	if attr := cmd.SysProcAttr; os.Geteuid() == 0 && v.UID == 0 && attr != nil && attr.Credential != nil {
		v.UID, v.GID = attr.Credential.Uid, attr.Credential.Gid
	}
	f, err := Start(ctx, self, v)
	if err != nil {
		return nil, err
	}
	if err := f.Command(cmd); err != nil {
		return nil, errors.Join(err, f.Kill())
	}
	return f, nil
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

// File is what another process needs to run programs behind this fence, by
// Join; nil where there is nothing to join.
func (f *Fence) File() *os.File { return f.control }

// Join is the fence that another process has made: file is that process's
// Fence.File, inherited. Only Command and Kill can be used.
func Join(file *os.File, self string) (*Fence, error) {
	if file == nil {
		return nil, errors.New("fence: there is none to join")
	}
	return &Fence{self: self, control: file, spec: spec{Missing: map[Layer]string{}}}, nil
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

// Layers says of each layer whether it holds.
func (f *Fence) Layers() []State { return slices.Clone(f.states) }

// Holds says whether all of these layers hold.
func (f *Fence) Holds(layers ...Layer) bool {
	for _, l := range layers {
		if !slices.ContainsFunc(f.states, func(s State) bool { return s.Layer == l && s.Held }) {
			return false
		}
	}
	return true
}

// Why says which of these layers do not hold, and why; "" when all do.
func (f *Fence) Why(layers ...Layer) string {
	var out []string
	for _, s := range f.states {
		if slices.Contains(layers, s.Layer) && !s.Held {
			out = append(out, string(s.Layer)+": "+s.Reason)
		}
	}
	return strings.Join(out, "; ")
}

// settle writes down what holds.
func (f *Fence) settle() {
	v := f.spec.View
	if !f.spec.has(Mounts) {
		f.miss(Proc, "there are no mounts of its own")
	}
	if v.UID == 0 {
		f.miss(Account, "without root it is the account of the drill, which may own other things")
		if groups, err := os.Getgroups(); err != nil || slices.ContainsFunc(groups, func(g int) bool { return g != os.Getegid() }) {
			f.miss(Groups, "without root the account keeps its supplementary groups")
		}
	}
	if v.UID != 0 && !outOfUse(v.UID) {
		f.miss(Account, "it is an account that this host gives a name, which may own other things")
	}
	for _, bound := range []struct {
		l Layer
		n int64
	}{{Memory, v.Limits.Memory}, {Tasks, v.Limits.Processes}, {FileSize, v.Limits.FileSize}} {
		if bound.n == 0 {
			f.miss(bound.l, "no bound was asked for")
		}
	}
	for _, l := range Layers() {
		f.states = append(f.states, State{Layer: l, Held: f.spec.has(l), Reason: f.spec.Missing[l]})
	}
}

func (f *Fence) miss(l Layer, why string) {
	if f.spec.has(l) {
		f.spec.Missing[l] = why
	}
}

// plain is the system's own error, without the names that go before it.
func plain(err error) string {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	return err.Error()
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
