package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolate asks for the namespaces. Without root they belong to a user
// namespace in which the account is itself, and the process keeps the one
// capability that mounting needs until it has mounted.
func isolate(cmd *exec.Cmd, v *View) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	attr := cmd.SysProcAttr
	attr.Cloneflags |= syscall.CLONE_NEWNS | syscall.CLONE_NEWNET
	v.DieWith = int(attr.Pdeathsig)
	uid, gid := os.Geteuid(), os.Getegid()
	if uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
		return nil
	}
	if c := attr.Credential; c != nil {
		v.UID, v.GID, v.Groups, v.Drop = c.Uid, c.Gid, c.Groups, true
		attr.Credential = nil // root has to mount first
	}
	return nil
}

func enter(v View, path string, args, env []string) error {
	runtime.LockOSThread() // capabilities and the parent-death signal belong to a thread
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	if err := v.mount(); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	if err := v.drop(); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return fmt.Errorf("fence: run %s: %w", path, syscall.Exec(path, args, env))
}

// system are the folders of programs and libraries, and the files of /etc that
// they need. The rest of /etc holds secrets: Lifeboat's own keys may be there.
var system = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
	"/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
	"/etc/localtime", "/etc/timezone", "/etc/alternatives", "/etc/locale.alias",
}

// devices are the files of /dev that a program may expect.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// mount puts the new file system together and makes it the root of this
// process. What was mounted before cannot be reached any more.
func (v View) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separate the mounts: %w", err)
	}
	if err := unix.Mount("tmpfs", v.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=16m"); err != nil {
		return fmt.Errorf("mount a new root: %w", err)
	}
	for _, dir := range slices.Concat(system, v.Readable) {
		if err := v.show(dir); err != nil {
			return err
		}
	}
	if err := v.devices(); err != nil {
		return err
	}
	// Nothing of /proc is for writing; a user namespace can show it as a whole only.
	if err := v.bindAll("/proc", "/proc", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID); err != nil {
		return err
	}
	if err := v.scratch("/tmp", "mode=1777,size=64m"); err != nil {
		return err
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

// show makes a folder or file readable at its own path; a link stays one, and what is
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

// bindAll shows a folder with all that is mounted below it.
func (v View) bindAll(outside, inside string, attributes uint64) error {
	return v.mountAt(outside, inside, unix.MS_BIND|unix.MS_REC, attributes)
}

// bind shows the folder or file outside at the path inside, and nothing that is
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

func makePlace(path string, folder bool) error {
	if folder {
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
	return v.scratch("/dev/shm", "mode=1777")
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

// drop gives up what mounting needed, for good, and becomes the account. A
// change of account takes the parent-death signal back (prctl(2)), and the
// parent may have died before it was set again.
func (v View) drop() error {
	if v.Drop {
		groups := make([]int, len(v.Groups))
		for i, g := range v.Groups {
			groups[i] = int(g)
		}
		if err := syscall.Setgroups(groups); err != nil {
			return fmt.Errorf("set the groups: %w", err)
		}
		if err := syscall.Setresgid(int(v.GID), int(v.GID), int(v.GID)); err != nil {
			return fmt.Errorf("set the group: %w", err)
		}
		if err := syscall.Setresuid(int(v.UID), int(v.UID), int(v.UID)); err != nil {
			return fmt.Errorf("set the account: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new rights: %w", err)
	}
	if v.DieWith == 0 {
		return nil
	}
	parent := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(v.DieWith), 0, 0, 0); err != nil {
		return fmt.Errorf("tie to the parent: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the parent has died")
	}
	return nil
}

// Isolation is what was seen of a running process.
type Isolation struct {
	Network bool
	Files   bool
	Mounts  []string // writable mounts other than those in memory: their paths inside
}

// Look says how far the process with this id is separated from the calling one.
func Look(pid int) (Isolation, error) {
	var i Isolation
	for _, ns := range []struct {
		name string
		out  *bool
	}{{"net", &i.Network}, {"mnt", &i.Files}} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name))
		if err != nil {
			return i, err
		}
		ours, err := os.Readlink("/proc/self/ns/" + ns.name)
		if err != nil {
			return i, err
		}
		*ns.out = theirs != ours
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return i, err
	}
	for line := range strings.Lines(string(text)) {
		// ID, parent, device, root, mount point, options, …, "-", type (proc_pid_mountinfo(5))
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(kind) < 1 || kind[0] == "tmpfs" || strings.HasPrefix(fields[4], "/dev/") {
			continue
		}
		if slices.Contains(strings.Split(fields[5], ","), "rw") {
			i.Mounts = append(i.Mounts, unescaped(fields[4]))
		}
	}
	slices.Sort(i.Mounts)
	return i, nil
}

// unescaped undoes what the kernel does to a path in a table of mounts
// (mangle in fs/seq_file.c, called by fs/proc_namespace.c).
func unescaped(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(path)
}
