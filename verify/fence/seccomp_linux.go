package fence

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denied are the system calls that nothing of PostgreSQL's needs and that lead
// to other processes, to other file systems or to parts of the kernel that had
// most of its faults. What exists on one architecture only is in deniedHere.
var denied = []uint32{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PROCESS_MRELEASE, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_FANOTIFY_INIT,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
	unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_TREE_ATTR,
	unix.SYS_SETNS, unix.SYS_UNSHARE,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
	unix.SYS_MKNODAT, // PostgreSQL makes no FIFO, and a reader of its directory should meet none
	unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
}

// absent are the system calls that programs have another way for when the
// kernel does not know them. The flags of clone3 lie in memory, where a filter
// cannot look: C libraries fall back to clone.
var absent = []uint32{unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// newNamespaces are the flags of clone(2) that make a namespace.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// Where the kernel puts the call into what a filter reads (struct seccomp_data
// in linux/seccomp.h); arguments are little-endian words of 64 bits.
const (
	dataNr   = 0
	dataArch = 4
)

func dataArg(n uint32) uint32 { return 16 + 8*n }

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func jump(test uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func load(at uint32) unix.SockFilter {
	return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, at)
}

func answer(errno unix.Errno) unix.SockFilter {
	return statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(errno))
}

// filter is the program of the filter (seccomp(2), SECCOMP_SET_MODE_FILTER).
func filter() []unix.SockFilter {
	allow := statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW)
	p := []unix.SockFilter{
		load(dataArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_KILL_PROCESS), // another architecture has other numbers
		load(dataNr),
	}
	p = append(p, foreignCalls...)
	for _, nr := range slices.Concat(denied, deniedHere) {
		p = append(p, jump(unix.BPF_JEQ, nr, 0, 1), answer(unix.EPERM))
	}
	for _, nr := range absent {
		p = append(p, jump(unix.BPF_JEQ, nr, 0, 1), answer(unix.ENOSYS))
	}
	// No socket but Unix sockets: PostgreSQL listens on one, and is told to listen nowhere else.
	for _, nr := range []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		p = append(p, jump(unix.BPF_JEQ, nr, 0, 4), load(dataArg(0)), jump(unix.BPF_JEQ, unix.AF_UNIX, 1, 0), answer(unix.EAFNOSUPPORT), allow)
	}
	p = append(p, jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 4), load(dataArg(0)), jump(unix.BPF_JSET, newNamespaces, 0, 1), answer(unix.EPERM), allow)
	// Characters for the terminal's next reader (ioctl_tty(2)).
	p = append(p, jump(unix.BPF_JEQ, unix.SYS_IOCTL, 0, 5), load(dataArg(1)), jump(unix.BPF_JEQ, unix.TIOCSTI, 1, 0), jump(unix.BPF_JEQ, unix.TIOCLINUX, 0, 1), answer(unix.EPERM), allow)
	return append(p, allow)
}

// restrictCalls gives the calling thread the filter; what it executes has it too.
func restrictCalls() error {
	p := filter()
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(p)
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}

// whyNoFilter says why system calls cannot be filtered here; nil when they can.
func whyNoFilter() error {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return errno
	}
	return nil
}
