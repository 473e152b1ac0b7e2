package fence

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

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

// Layers says of each layer whether it holds.
func (f *Fence) Layers() []State { return slices.Clone(f.states) }

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
