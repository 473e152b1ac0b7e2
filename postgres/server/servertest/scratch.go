package servertest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// scratch is the directory in which one run of a test binary does everything. Its
// file "lock" stays locked as long as the run lives, however it ends.
type scratch struct {
	dir  string
	lock *os.File
}

// scratchPrefix is short because sockets lie below.
const scratchPrefix = "lifeboat-test-"

// makeScratch makes the directory, after a look at what earlier runs left.
func makeScratch() (*scratch, error) {
	parent := scratchParent()
	removeAbandoned(parent)
	dir, err := os.MkdirTemp(parent, scratchPrefix)
	if err != nil {
		return nil, err
	}
	s := &scratch{dir: dir}
	s.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// Another run may be looking at it, for a moment; it removes no directory
	// whose lock is new and empty.
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	if _, err := s.lock.WriteString("locked\n"); err != nil {
		return nil, err
	}
	// 0755: another account must pass. What is secret in a test has its own mode.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	for _, sub := range []string{"home", "tmp", "out"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// scratchParent is the directory for temporary files, unless another account
// could not reach it or the paths of sockets below it would be too long.
func scratchParent() string {
	dir := os.TempDir()
	if len(dir) > 50 || os.Geteuid() == 0 && !passable(dir) {
		return "/tmp"
	}
	return dir
}

// passable says whether every account can reach and list a directory.
func passable(dir string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	for need := os.FileMode(0o005); ; need = 0o001 {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&need != need {
			return false
		}
		if dir == "/" {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// removeAbandoned removes the directories of runs that were killed: nobody holds
// their lock. One without a lock may be in the making, so it has a minute.
func removeAbandoned(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		info, err := e.Info()
		if err != nil || !e.IsDir() || !strings.HasPrefix(e.Name(), scratchPrefix) || !mine(info) {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if err != nil {
			if os.IsNotExist(err) && time.Since(info.ModTime()) > time.Minute {
				os.RemoveAll(dir)
			}
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil && !inTheMaking(lock) {
			os.RemoveAll(dir)
		}
		lock.Close()
	}
}

// inTheMaking says whether the run that made the lock has not taken it yet.
func inTheMaking(lock *os.File) bool {
	info, err := lock.Stat()
	return err != nil || info.Size() == 0 && time.Since(info.ModTime()) < time.Minute
}

func mine(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// environment is what points a test process at the directory.
func (s *scratch) environment() map[string]string {
	return map[string]string{
		rootVariable: s.dir,
		"HOME":       filepath.Join(s.dir, "home"),
		"TMPDIR":     filepath.Join(s.dir, "tmp"),
		"GOCACHE":    filepath.Join(s.dir, "home", "go-build"),
	}
}

// remove removes the directory. Servers of a test process that died are just
// shutting down and may still write, so it tries for a while.
func (s *scratch) remove() error {
	defer s.lock.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := os.RemoveAll(s.dir)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
