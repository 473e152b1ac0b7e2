package fence

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// become drops all rights of this process and becomes the program: args are the
// spec, the directory to work in, the program and its arguments.
func become(args, env []string) error {
	if len(args) < 3 {
		return errors.New("fence: nothing to run")
	}
	var s spec
	if err := decode(args[0], &s); err != nil {
		return err
	}
	runtime.LockOSThread() // rights belong to a thread, and this one executes the program
	if err := s.drop(); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	if err := os.Chdir(args[1]); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return fmt.Errorf("fence: run %s: %w", args[2], syscall.Exec(args[2], args[2:], env))
}

// becomeDirectly is for a host without PID namespaces: this process mounts for
// itself. Without a program it ends when it has dropped its rights; what fails is
// then told on the standard output.
func becomeDirectly(args, env []string) error {
	if len(args) < 2 {
		return errors.New("fence: nothing to run")
	}
	var s spec
	if err := decode(args[0], &s); err != nil {
		return err
	}
	runtime.LockOSThread()
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	rehearsal := args[1] == ""
	err = s.directly()
	if failed, ok := errors.AsType[*layerError](err); ok && rehearsal {
		if text, err := json.Marshal(failed); err == nil {
			_, _ = os.Stdout.Write(text)
		}
	}
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	if rehearsal {
		os.Exit(0)
	}
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return fmt.Errorf("fence: run %s: %w", args[1], syscall.Exec(args[1], args[1:], env))
}

func (s *spec) directly() error {
	parent := os.Getppid()
	var dies int32
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&dies)), 0, 0, 0); err != nil {
		return err
	}
	if s.has(UTS) {
		if err := unix.Sethostname([]byte("fenced")); err != nil {
			return &layerError{UTS, plain(err)}
		}
	}
	if s.has(Mounts) {
		// /proc of other processes is not shown: there is no PID namespace.
		if err := s.mount(); err != nil {
			return err
		}
	}
	if err := s.drop(); err != nil {
		return err
	}
	return dieWith(parent, int(dies))
}

// dieWith ties this process to its parent again: a change of account has taken
// that back (PR_SET_PDEATHSIG(2const)), and the parent may have died meanwhile.
func dieWith(parent, signal int) error {
	if signal == 0 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(signal), 0, 0, 0); err != nil {
		return fmt.Errorf("tie to the parent: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the parent has died")
	}
	return nil
}

// drop gives up, for good, all that keeps this thread from being an ordinary one
// of its account, and then what ordinary ones have. The order is that of what
// each step still needs.
func (s *spec) drop() error {
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: it leads one
		return fmt.Errorf("leave the terminal: %w", err)
	}
	if s.has(Descriptors) {
		if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
			return &layerError{Descriptors, plain(err)}
		}
	}
	if err := s.View.Limits.set(); err != nil {
		return err
	}
	if s.has(Capabilities) {
		if err := dropBounds(); err != nil {
			return err
		}
	}
	if err := changeAccount(int(s.View.UID), int(s.View.GID)); err != nil {
		return err
	}
	if s.has(Capabilities) {
		if err := dropCapabilities(); err != nil {
			return err
		}
	}
	// The keys of who started the drill are not for what runs inside (session-keyring(7)).
	_, _, errno := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno != 0 && errno != unix.ENOSYS && errno != unix.EPERM && errno != unix.EDQUOT {
		return fmt.Errorf("leave the keyring: %w", errno)
	}
	if s.has(NoNewPrivs) || s.has(Landlock) || s.has(Seccomp) {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return &layerError{NoNewPrivs, plain(err)}
		}
	}
	if s.has(Landlock) {
		if err := s.View.restrictAccess(s.has(Mounts), s.Self); err != nil {
			return &layerError{Landlock, plain(err)}
		}
	}
	if s.has(Seccomp) {
		if err := restrictCalls(); err != nil {
			return &layerError{Seccomp, plain(err)}
		}
	}
	return nil
}

// changeAccount becomes an account for good, without supplementary groups. 0 is
// no account to become, and init has seen to that of the program.
func changeAccount(uid, gid int) error {
	if uid == 0 || os.Geteuid() == uid {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("set the groups: %w", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("set the group: %w", err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("set the account: %w", err)
	}
	return nil
}

// dropBounds has no program ever get a capability again (capabilities(7)). An
// account without any cannot do so, and needs not.
func dropBounds() error {
	for c := uintptr(0); c < 64; c++ {
		switch err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); {
		case errors.Is(err, unix.EINVAL): // there are no more
			return nil
		case errors.Is(err, unix.EPERM):
			return nil
		case err != nil:
			return &layerError{Capabilities, plain(err)}
		}
	}
	return nil
}

func dropCapabilities() error {
	// Bits of PR_SET_SECUREBITS(2const): root is no one, no capability stays over a
	// change of account or is handed on, all of it for good. It takes a capability,
	// so what has none does without.
	const locked = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, locked, 0, 0, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return &layerError{Capabilities, plain(err)}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return &layerError{Capabilities, plain(err)}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := [2]unix.CapUserData{}
	if err := unix.Capset(&header, &none[0]); err != nil {
		return &layerError{Capabilities, plain(err)}
	}
	return nil
}

// set sets the bounds that the kernel keeps for each process or account.
func (l Limits) set() error {
	if err := lower(unix.RLIMIT_CORE, 0); err != nil { // a core holds rows, and its place is the host's to choose
		return err
	}
	if l.FileSize > 0 {
		if err := lower(unix.RLIMIT_FSIZE, uint64(l.FileSize)); err != nil {
			return err
		}
	}
	if l.Processes > 0 && os.Geteuid() != 0 {
		return lower(unix.RLIMIT_NPROC, uint64(l.Processes))
	}
	return nil
}

func lower(resource int, to uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return fmt.Errorf("limit: %w", err)
	}
	to = min(to, now.Max)
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: to, Max: to}); err != nil {
		return fmt.Errorf("limit: %w", err)
	}
	return nil
}
