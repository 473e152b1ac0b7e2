package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights of Landlock (landlock(7)) on what can be read, and all those on files.
const (
	landlockRead = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landlockDev  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	landlockFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// landlockVersion is the version of the kernel's Landlock; an error when it has
// none, or it is not switched on.
func landlockVersion() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	return int(v), nil
}

// handled are the rights that a version knows, all of which are taken away but
// for the rules.
func handled(version int) unix.LandlockRulesetAttr {
	a := unix.LandlockRulesetAttr{Handled_access_fs: 1<<13 - 1}
	if version >= 2 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= 3 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 4 {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= 5 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return a
}

// restrictAccess takes from the calling thread, and what it executes, all
// access but that of the View. With a root of its own that is what is mounted.
func (v View) restrictAccess(ownRoot bool, program string) error {
	version, err := landlockVersion()
	if err != nil {
		return fmt.Errorf("restrict access: %w", err)
	}
	attr := handled(version)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), landlockAttrSize(version), 0)
	if errno != 0 {
		return fmt.Errorf("restrict access: %w", errno)
	}
	defer unix.Close(int(fd))
	allow := func(path string, access uint64) error {
		err := allowBeneath(int(fd), path, access&attr.Handled_access_fs)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	readable := slices.Concat(system, v.Readable, []string{program})
	writable := slices.Concat(v.Writable, slices.Sorted(maps.Keys(v.Binds)))
	if ownRoot {
		readable, writable = []string{"/"}, append(writable, "/tmp", "/dev/shm")
	}
	for _, path := range readable {
		if err := allow(path, landlockRead); err != nil {
			return err
		}
	}
	for _, path := range writable {
		if err := allow(path, attr.Handled_access_fs); err != nil {
			return err
		}
	}
	for _, name := range devices {
		if err := allow("/dev/"+name, landlockDev); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("restrict access: %w", errno)
	}
	return nil
}

// landlockAttrSize is how much of the attributes a version knows: the kernel
// refuses more, unless it is zero.
func landlockAttrSize(version int) uintptr {
	switch {
	case version < 4:
		return 8
	case version < 6:
		return 16
	}
	return 24
}

func allowBeneath(ruleset int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "restrict access to", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.IsDir() {
		access &= landlockFile
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
		return &fs.PathError{Op: "restrict access to", Path: path, Err: errno}
	}
	return nil
}
