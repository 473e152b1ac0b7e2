package server

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Account is an operating system account that programs run as.
type Account struct {
	Name   string // for messages; may be empty
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
	Home   string   // may be empty
}

// LookupAccount returns the account with a name.
func LookupAccount(name string) (*Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	return accountOf(u)
}

// OwnerOf returns the account that owns a file or directory.
// An owner without an entry in the password database is an account without
// a name.
func OwnerOf(path string) (*Account, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	st := info.Sys().(*syscall.Stat_t)
	u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10))
	if err != nil {
		return &Account{UID: st.Uid, GID: st.Gid}, nil
	}
	return accountOf(u)
}

func accountOf(u *user.User) (*Account, error) {
	a := &Account{Name: u.Username, Home: u.HomeDir}
	var err error
	if a.UID, err = parseID(u.Uid); err != nil {
		return nil, err
	}
	if a.GID, err = parseID(u.Gid); err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		g, err := parseID(id)
		if err != nil {
			return nil, err
		}
		a.Groups = append(a.Groups, g)
	}
	return a, nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

func (a *Account) String() string {
	if a.Name != "" {
		return a.Name
	}
	return fmt.Sprintf("uid %d", a.UID)
}

// accountFor is the account that runs a server on dataDir when none was named:
// root hands the work to the directory's owner, because PostgreSQL refuses to run
// as root; everybody else can only run it as themselves.
func accountFor(dataDir string) (*Account, error) {
	if os.Geteuid() == 0 {
		return OwnerOf(dataDir)
	}
	if _, err := os.Stat(dataDir); err != nil {
		return nil, err
	}
	return &Account{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, nil
}

func (a *Account) check() error {
	if a.UID == 0 {
		return errors.New("PostgreSQL does not run as root: name another account, or give the data directory to one")
	}
	if euid := os.Geteuid(); euid != 0 && uint32(euid) != a.UID {
		return fmt.Errorf("only root can run a server as %s, this process has uid %d", a, euid)
	}
	return nil
}

// apply makes a command run as a. Without root there is nothing to change.
func (a *Account) apply(attr *syscall.SysProcAttr) {
	if os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: a.Groups}
	}
}

// environment is env for a program that runs as a: HOME and the account's name
// follow the account, or the program would look for its files in root's directory.
func (a *Account) environment(env []string) []string {
	if os.Geteuid() != 0 || a.Name == "" {
		return env
	}
	return append(env, "HOME="+a.Home, "USER="+a.Name, "LOGNAME="+a.Name)
}

// own gives a file to a, through its descriptor: a path could be swapped.
func (a *Account) own(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return f.Chown(int(a.UID), int(a.GID))
}
