package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// maxNames is how many names of a directory are looked at: one is enough to know
// that it is not empty.
const maxNames = 32

// lookAt gathers the facts about a directory to be written to.
func lookAt(path string) Directory {
	var f Directory
	if f.Err = f.look(path); f.Err != nil {
		return f
	}
	f.Err = f.lookAbove(path)
	return f
}

func (f *Directory) look(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		// A link that leads nowhere is something, and nothing can be made there.
		if _, err := os.Lstat(path); err == nil {
			f.Exists = true
		}
		return nil
	}
	if err != nil {
		return err
	}
	f.Exists, f.IsDir, f.Self = true, info.IsDir(), os.Geteuid()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.UID = int(st.Uid)
	}
	if !f.IsDir {
		return nil
	}
	if f.PID, err = server.Running(path); err != nil {
		return err
	}
	_, err = os.Lstat(filepath.Join(path, unfinishedFile))
	f.Marked = err == nil
	_, err = os.Lstat(filepath.Join(path, filepath.FromSlash(postgres.ControlPath)))
	f.Control = err == nil
	f.Names, err = someNames(path)
	return err
}

func someNames(path string) ([]string, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxNames)
	if err != nil && err != io.EOF {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == unfinishedFile })
	slices.Sort(names)
	return names, nil
}

// lookAbove looks at the nearest directory that exists, the path itself or one
// above it: its file system is the one that will be written to.
func (f *Directory) lookAbove(path string) error {
	existing := path
	for {
		info, err := os.Stat(existing)
		if err == nil && info.IsDir() {
			break
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
		existing = filepath.Dir(existing)
	}
	real, err := filepath.EvalSymlinks(existing)
	if err != nil {
		return err
	}
	f.Real = filepath.Join(real, strings.TrimPrefix(path, existing))
	f.Writable = unix.Access(real, unix.W_OK|unix.X_OK) == nil
	if f.IsDir && os.Geteuid() != 0 && f.UID != os.Geteuid() {
		f.Writable = false // PostgreSQL wants to own it, and modes cannot be set
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(real, &fsys); err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	f.Free = int64(fsys.Bavail) * int64(fsys.Bsize)
	for dir := real; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("no owner of %s can be told", dir)
		}
		if dir == real {
			f.Device = uint64(st.Dev)
		}
		if dir != f.Real { // itself will be given to the owner
			f.Above = append(f.Above, Above{dir, info.Mode().Perm(), int(st.Uid), int(st.Gid)})
		}
		if dir == "/" {
			return nil
		}
	}
}

// findOwner decides who the files belong to. Only root can choose: the account
// that was named, else the owner of the directory if it is there, else the one
// that owned them when they were backed up.
func findOwner(t Target, info repo.Info) (*Owner, error) {
	if os.Geteuid() != 0 {
		return nil, t.checkOwnerIsMe()
	}
	if t.Owner != "" {
		name, group, _ := strings.Cut(t.Owner, ":")
		return lookupOwner(name, group)
	}
	if st, err := os.Stat(t.DataDir); err == nil && st.IsDir() {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 {
			return lookupOwner(strconv.Itoa(int(sys.Uid)), strconv.Itoa(int(sys.Gid)))
		}
	}
	if info.Owner == "" {
		return nil, &OwnerError{Reason: "the backup does not say who owned the files, and PostgreSQL does not run as root"}
	}
	own, err := lookupOwner(info.Owner, "")
	if err != nil {
		return nil, err
	}
	// The group may have another name here. And a group that the account is not in
	// would be a right that the backup gives to the server.
	if o, err := lookupOwner(info.Owner, info.Group); err == nil && own.inGroup(o.GID) {
		return o, nil
	}
	return own, nil
}

func (t Target) checkOwnerIsMe() error {
	if t.Owner == "" {
		return nil
	}
	name, group, _ := strings.Cut(t.Owner, ":")
	o, err := lookupOwner(name, group)
	if err != nil {
		return err
	}
	if o.UID != os.Geteuid() || o.GID != os.Getegid() {
		return &OwnerError{Owner: t.Owner, Reason: "only root can give files away"}
	}
	return nil
}

// lookupOwner finds an account by its name or number; without a group it is
// the account's own.
func lookupOwner(name, group string) (*Owner, error) {
	o := &Owner{User: name, Group: group}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			uid, numErr := strconv.ParseUint(name, 10, 31)
			if numErr != nil || group == "" {
				return nil, &OwnerError{Owner: name, Reason: "there is no such account on this host"}
			}
			u = &user.User{Username: name, Uid: strconv.FormatUint(uid, 10)} // a number without a name
		}
	}
	o.User = u.Username
	if o.UID, err = strconv.Atoi(u.Uid); err != nil {
		return nil, &OwnerError{Owner: name, Reason: "its number is " + u.Uid}
	}
	if o.UID == 0 {
		return nil, &OwnerError{Owner: name, Reason: "PostgreSQL does not run as root"}
	}
	if group == "" {
		group = u.Gid
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		if g, err = user.LookupGroupId(group); err != nil {
			gid, numErr := strconv.ParseUint(group, 10, 31)
			if numErr != nil {
				return nil, &OwnerError{Owner: name + ":" + group, Reason: "there is no such group on this host"}
			}
			g = &user.Group{Name: group, Gid: strconv.FormatUint(gid, 10)}
		}
	}
	o.Group = g.Name
	if o.GID, err = strconv.Atoi(g.Gid); err != nil {
		return nil, &OwnerError{Owner: name + ":" + group, Reason: "the group's number is " + g.Gid}
	}
	if ids, err := u.GroupIds(); err == nil {
		for _, id := range ids {
			if n, err := strconv.Atoi(id); err == nil {
				o.groups = append(o.groups, n)
			}
		}
	}
	return o, nil
}
