package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// system are the directories of programs and libraries, and the files of /etc that
// they need. The rest of /etc holds secrets: Lifeboat's own keys may be there.
var system = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
	"/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
	"/etc/localtime", "/etc/timezone", "/etc/alternatives", "/etc/locale.alias",
}

// devices are the files of /dev that a program may expect.
var devices = []string{"null", "zero", "full", "random", "urandom"}

// mount puts the new file system together and makes it the root of this
// process. What was mounted before cannot be reached any more. The error is a
// *layerError.
func (s *spec) mount() error {
	if err := s.mountAll(); err != nil {
		return &layerError{Mounts, err.Error()}
	}
	return nil
}

func (s *spec) mountAll() error {
	v := s.View
	if err := mountPrivately("tmpfs", v.Root, "mode=0755,size=16m"); err != nil {
		return fmt.Errorf("mount a new root: %w", err)
	}
	for _, dir := range system {
		if err := v.show(dir); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := v.bind(self, s.Self, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID); err != nil {
		return err
	}
	if err := v.devices(); err != nil {
		return err
	}
	if err := s.proc(); err != nil {
		return err
	}
	if err := v.scratch("/tmp", "mode=1777,size=64m"); err != nil {
		return err
	}
	for _, dir := range v.Readable { // they may lie below /tmp
		if err := v.show(dir); err != nil {
			return err
		}
	}
	for _, dir := range v.Writable {
		if err := v.bind(dir, dir, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
			return err
		}
	}
	for _, inside := range slices.Sorted(maps.Keys(v.Binds)) {
		if err := v.bind(v.Binds[inside], inside, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
			return err
		}
	}
	return v.pivot()
}

// mountPrivately mounts a file system that the host does not get to see.
func mountPrivately(kind, dir, options string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separate the mounts: %w", err)
	}
	return unix.Mount(kind, dir, kind, unix.MS_NOSUID|unix.MS_NODEV, options)
}

// proc shows the processes inside, which can write there to files of their own, and of the kernel nothing where it knows how
// to (proc(5), "hidepid", "subset"). Where none can be mounted, because the host's
// own has something hidden, there is none: PostgreSQL does without.
func (s *spec) proc() error {
	to := s.View.inside("/proc")
	if !s.has(Proc) {
		return s.View.bindAll("/proc", "/proc", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID)
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	if !s.has(Processes) {
		return nil
	}
	for _, options := range []string{"hidepid=2,subset=pid", "hidepid=2", ""} {
		if unix.Mount("proc", to, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options) == nil {
			break
		}
	}
	return nil
}

// show makes a directory or file readable at its own path; a link stays one, and what is
// not there is left out.
func (v View) show(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(dir)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(v.inside(dir)), 0o755); err != nil {
			return err
		}
		return os.Symlink(to, v.inside(dir))
	}
	return v.bindAll(dir, dir, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID)
}

func (v View) inside(path string) string { return filepath.Join(v.Root, path) }

// bindAll shows a directory with all that is mounted below it.
func (v View) bindAll(outside, inside string, attributes uint64) error {
	return v.mountAt(outside, inside, unix.MS_BIND|unix.MS_REC, attributes)
}

// bind shows the directory or file outside at the path inside, and nothing that is
// mounted below it: the new root may be.
func (v View) bind(outside, inside string, attributes uint64) error {
	return v.mountAt(outside, inside, unix.MS_BIND, attributes)
}

func (v View) mountAt(outside, inside string, how uintptr, attributes uint64) error {
	to := v.inside(inside)
	info, err := os.Stat(outside)
	if err != nil {
		return err
	}
	if err := makePlace(to, info.IsDir()); err != nil {
		return fmt.Errorf("make a place for %s: %w", inside, err)
	}
	if err := unix.Mount(outside, to, "", how, ""); err != nil {
		return fmt.Errorf("show %s: %w", inside, err)
	}
	attr := &unix.MountAttr{Attr_set: attributes}
	if err := unix.MountSetattr(-1, to, unix.AT_RECURSIVE, attr); err != nil {
		return fmt.Errorf("protect %s: %w", inside, err)
	}
	return nil
}

func makePlace(path string, directory bool) error {
	if directory {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// scratch mounts an empty file system in memory.
func (v View) scratch(inside, options string) error {
	to := v.inside(inside)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", to, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount %s: %w", inside, err)
	}
	return nil
}

// devices makes a /dev with the few files in it that harm nobody.
func (v View) devices() error {
	if err := os.Mkdir(v.inside("/dev"), 0o755); err != nil {
		return err
	}
	for _, name := range devices {
		path := "/dev/" + name
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := v.bind(path, path, unix.MOUNT_ATTR_NOSUID); err != nil {
			return err
		}
	}
	return v.scratch("/dev/shm", "mode=1777,size=64m")
}

// pivot makes the new file system the root and lets go of the old one.
func (v View) pivot() error {
	if err := os.Chdir(v.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil { // the old root now lies above the new one
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.MountSetattr(-1, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("protect the root: %w", err)
	}
	return nil
}
