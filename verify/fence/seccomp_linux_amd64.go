package fence

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// deniedHere are the calls that only this architecture has.
var deniedHere = []uint32{unix.SYS_KEXEC_FILE_LOAD, unix.SYS_MKNOD, unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS}

// foreignCalls refuses the x32 ABI, whose numbers have this bit set and whose
// audit architecture is the same.
var foreignCalls = []unix.SockFilter{jump(unix.BPF_JGE, 0x40000000, 0, 1), answer(unix.ENOSYS)}
