package hoststate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

const (
	// lockFile is in each repository's directory. Who writes holds it with flock(2).
	lockFile = "lock"

	// lockWait is how long a lock that another process holds is waited for. They
	// are held for one write.
	lockWait = 10 * time.Second

	// lockPause is the time between two attempts.
	lockPause = 10 * time.Millisecond
)

// mostName is the length of the longest name. It does not stand in the patterns, which
// each start of the program would write out and compile a hundred times over.
const mostName = 100

var (
	idPattern   = regexp.MustCompile(`^[0-9a-zA-Z][0-9a-zA-Z._-]*$`)
	namePattern = regexp.MustCompile(`^[a-z][0-9a-z._-]*$`)
)

func validID(s string) bool   { return len(s) <= mostName && idPattern.MatchString(s) }
func validName(s string) bool { return len(s) <= mostName && namePattern.MatchString(s) }

// Dir is what a host remembers of one repository.
type Dir struct {
	path string // of the directory of all repositories
	id   string // of the repository
}

// Open names the directory of a repository's memory below path, the directory of
// all. Nothing is read or made yet: that is done by Read and Update.
func Open(path, repository string) (*Dir, error) {
	if path == "" || !filepath.IsAbs(path) {
		return nil, fmt.Errorf("state directory %q is not an absolute path", path)
	}
	if !validID(repository) {
		return nil, errors.New("the repository's id is not one that can name a directory")
	}
	return &Dir{path: path, id: repository}, nil
}

// Prepare makes the directory of all repositories, for its owner alone, and says
// whether it was missing. It is made, not its parents' modes changed; one that is
// there is left as it is.
func Prepare(path string) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("make the state directory: %w", err)
	}
	err = os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("make the state directory: %w", err)
	}
	return true, nil
}

// Usable says whether this process could keep files below path: it is a directory
// that can be written to. Nothing is made.
func Usable(path string) bool {
	info, err := os.Stat(path)
	const writeAndPass = 2 | 1 // W_OK and X_OK of access(2)
	return err == nil && info.IsDir() && syscall.Access(path, writeAndPass) == nil
}

// Path of a file, for messages.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, d.id, name) }

// open opens the repository's directory, below which no link leads out.
func (d *Dir) open(make bool) (*os.Root, error) {
	if make {
		if _, err := Prepare(d.path); err != nil {
			return nil, err
		}
	}
	all, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if make {
		err := all.Mkdir(d.id, 0o700)
		if err == nil {
			err = ownLikeParent(all, d.id)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	if info, err := all.Lstat(d.id); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.path, d.id), Err: syscall.ENOTDIR}
	}
	return all.OpenRoot(d.id)
}

// ownLikeParent gives what root made to the owner of the directory that it is in:
// a command that root ran once must not lock out the account that runs the others.
func ownLikeParent(in *os.Root, name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := in.Stat(".")
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return in.Lchown(name, int(owner.Uid), int(owner.Gid))
}

// lock waits until no other process writes. The lock ends with the file, and so
// with the process at the latest.
func lock(ctx context.Context, in *os.Root) (*os.File, error) {
	f, err := openRegular(in, lockFile, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := ownLikeParent(in, lockFile); err != nil {
		_ = f.Close()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	retry := time.NewTicker(lockPause)
	defer retry.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			_ = f.Close()
			return nil, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("another process holds %s: %w", f.Name(), ctx.Err())
		case <-retry.C:
		}
	}
}
