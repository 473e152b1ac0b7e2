// Package fence starts programs that can reach nothing but what they are shown:
// no process, network or shared memory of the host, and of its files only a few
// directories, most of them to read.
//
// A drill starts a copy of a production database. The copy knows production's
// hosts, its WAL may hold production's paths, and a library in it may be
// anybody's. Settings cannot keep it in, so the kernel has to: namespaces, an
// account of its own, no privileges and no way to new ones, Landlock, a filter
// of system calls, limits. Each of these is a Layer. A host that does not have
// one leaves it out, and Fence.Layers says so: what holds is never assumed.
//
// Start makes the fence, as a process that is the first one of its namespaces
// (pid_namespaces(7)): when it ends, the kernel kills all that runs inside.
// Command has a program run inside. All of these processes are the calling
// program, started once more with Argument as its first argument: its main must
// hand that to Enter.
package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Argument is the first argument of a process that has to call Enter.
const Argument = "fence-enter"

// View is what a fenced program sees beside the system's own programs and
// libraries, which it can read. All paths are absolute and clean.
type View struct {
	// Root is an empty directory that the new file system is put together in.
	// Outside of the fence it stays empty.
	Root string `json:"root"`

	Writable []string          `json:"writable"`           // directories, at their own paths
	Readable []string          `json:"readable,omitempty"` // more directories and files to read, at their own paths
	Binds    map[string]string `json:"binds,omitempty"`    // by path inside: writable directories that lie elsewhere outside

	// UID and GID are what programs inside run as, under root: neither may be 0,
	// and OwnIDs picks a pair that owns nothing else. Without root they run as
	// the calling account, and these must be 0.
	UID uint32 `json:"uid,omitempty"`
	GID uint32 `json:"gid,omitempty"`

	Limits  Limits  `json:"limits,omitzero"`
	Without []Layer `json:"without,omitempty"` // layers to leave out: for tests that show what each one is for
}

// Limits bound what all programs inside use together. 0 is no limit.
type Limits struct {
	Memory    int64 `json:"memory,omitempty"`    // bytes, page cache included
	Processes int64 `json:"processes,omitempty"` // and threads
	FileSize  int64 `json:"file_size,omitempty"` // bytes of one file
}

// Layer is one thing that keeps a program in.
type Layer string

// The layers, in the order in which they are told.
const (
	Mounts       Layer = "mounts"       // a mount namespace with nothing but the View in it
	Network      Layer = "network"      // a network namespace without any interface that is up
	Processes    Layer = "processes"    // a PID namespace
	Proc         Layer = "proc"         // a /proc of that namespace, or none
	IPC          Layer = "ipc"          // System V and POSIX shared memory, semaphores and queues of its own
	UTS          Layer = "uts"          // a host name of its own
	Cgroup       Layer = "cgroup"       // a cgroup namespace
	User         Layer = "user"         // a user namespace with one account in it
	Account      Layer = "account"      // an account and a group that own nothing else
	Groups       Layer = "groups"       // no supplementary groups
	Capabilities Layer = "capabilities" // none, also none to be had
	Descriptors  Layer = "descriptors"  // nothing that was open is inherited
	NoNewPrivs   Layer = "no_new_privs" // no rights from set-user-ID programs
	Landlock     Layer = "landlock"     // rules of its own for files, TCP, signals and abstract sockets
	Seccomp      Layer = "seccomp"      // a filter of system calls
	Memory       Layer = "memory"       // a bound on memory, by a cgroup
	Tasks        Layer = "tasks"        // a bound on processes
	FileSize     Layer = "file_size"    // a bound on the size of a file
)

// Layers are all layers in their order.
func Layers() []Layer {
	return []Layer{Mounts, Network, Processes, Proc, IPC, UTS, Cgroup, User, Account, Groups, Capabilities, Descriptors, NoNewPrivs, Landlock, Seccomp,
		Memory, Tasks, FileSize}
}

// State says whether a layer holds.
type State struct {
	Layer  Layer  `json:"layer"`
	Held   bool   `json:"held"`
	Reason string `json:"reason,omitempty"` // why it does not hold, or how it does
}

// ErrUnsupported means that this system cannot fence a program.
var ErrUnsupported = errors.New("this system has no namespaces")

func (v View) check() error {
	for inside, outside := range v.Binds {
		if err := checkPath(inside); err != nil {
			return err
		}
		if err := checkPath(outside); err != nil {
			return err
		}
	}
	for _, p := range slices.Concat([]string{v.Root}, v.Writable, v.Readable) {
		if err := checkPath(p); err != nil {
			return err
		}
	}
	return nil
}

func checkPath(p string) error {
	if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" || strings.ContainsRune(p, 0) {
		return fmt.Errorf("fence: %q is not an absolute, clean path of a directory", p)
	}
	return nil
}

// The processes that the program is started as.
const (
	asInit   = "init"   // the first process inside
	asClient = "client" // outside, stands for one program inside
	asRun    = "run"    // inside, drops its rights and becomes the program
	asDirect = "direct" // makes its own fence, and becomes the program
)

// Enter does the work of a process that was started with Argument; args are
// those after it. It returns only on an error.
func Enter(args, env []string) error {
	if len(args) < 1 {
		return errors.New("fence: nothing to do")
	}
	switch args[0] {
	case asInit:
		return runInit(args[1:])
	case asClient:
		return runClient(args[1:], env)
	case asRun:
		return become(args[1:], env)
	case asDirect:
		return becomeDirectly(args[1:], env)
	}
	return fmt.Errorf("fence: %q is not known", args[0])
}

func decode(text string, v any) error {
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return nil
}
