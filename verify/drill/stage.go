package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// A drill works in one directory of its own, STAGING/lifeboat-drill-ID, whose
// first file is the marker. It is locked as long as the drill lives, so a later
// drill can tell one at work from one that crashed. Nothing is ever removed
// that is not such a directory with its marker in it.
const (
	stagePrefix = "lifeboat-drill-"
	markerName  = "lifeboat-drill.json"
)

// marker says whose directory it is.
type marker struct {
	Drill      string    `json:"drill"`
	Repository string    `json:"repository"`
	Host       string    `json:"host"`
	Began      time.Time `json:"began"`
}

// stage is the directory of one drill.
type stage struct {
	dir  string
	lock *os.File
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

// What lies in the directory. The server's account can write to the first two, and to
// the directory of the socket; nothing else may be its own.
func (s *stage) dataDir() string     { return s.path("data") }
func (s *stage) tablespaces() string { return s.path("tablespaces") }
func (s *stage) conf() string        { return s.path("conf") }
func (s *stage) logs() string        { return s.path("log") }

// makeStage makes the directory of a drill. Others may pass through it, since
// under root the server runs as another account, but not list it.
func makeStage(staging string, m marker) (*stage, error) {
	info, err := os.Stat(staging)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &StagingError{staging, "it does not exist"}
	case err != nil:
		return nil, &StagingError{staging, err.Error()}
	case !info.IsDir():
		return nil, &StagingError{staging, "it is not a directory"}
	}
	dir := filepath.Join(staging, stagePrefix+m.Drill)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, &StagingError{staging, err.Error()}
	}
	s := &stage{dir: dir}
	err = os.Chmod(dir, 0o711) // a umask may have taken away what others need to pass
	if err == nil {
		err = s.mark(m)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("mark the staging directory: %w", err)
	}
	return s, nil
}

func (s *stage) mark(m marker) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	s.lock, err = os.OpenFile(s.path(markerName), os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return err
	}
	if _, err := s.lock.Write(text); err != nil {
		return err
	}
	return s.lock.Sync()
}

// remove removes the directory and makes sure that it is gone.
func (s *stage) remove(ctx context.Context) error {
	defer s.lock.Close()
	return removeStage(ctx, s.dir)
}

// Sweep removes what crashed drills have left in the staging directory, and
// returns their ids. What a drill at work holds, what was kept with --keep, and
// what does not carry our marker stays.
func Sweep(ctx context.Context, staging string) ([]string, error) {
	entries, err := os.ReadDir(staging)
	if err != nil {
		return nil, &StagingError{staging, err.Error()}
	}
	var swept []string
	for _, e := range entries {
		id, ours := strings.CutPrefix(e.Name(), stagePrefix)
		if !ours || !e.IsDir() || evidence.CheckID(id) != nil {
			continue
		}
		gone, err := sweepOne(ctx, filepath.Join(staging, e.Name()), id)
		if err != nil {
			return swept, err
		}
		if gone {
			swept = append(swept, id)
		}
	}
	return swept, nil
}

func sweepOne(ctx context.Context, dir, id string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, markerName), os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ELOOP) {
		return false, nil // not ours, or another account's
	}
	if err != nil {
		return false, fmt.Errorf("look at an earlier drill: %w", err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return false, nil // it is at work
	}
	var m marker
	if err := json.NewDecoder(io.LimitReader(f, 4<<10)).Decode(&m); err != nil || m.Drill != id {
		return false, nil
	}
	if _, err := os.Lstat(filepath.Join(dir, keptName)); err == nil {
		return false, nil
	}
	if err := endOrphans(dir); err != nil {
		return false, fmt.Errorf("the server of the crashed drill %s: %w", id, err)
	}
	return true, removeStage(ctx, dir)
}

// keptName marks a directory that a person wanted to keep.
const keptName = "kept"

// keep leaves the directory to the user.
func (s *stage) keep() error {
	defer s.lock.Close()
	f, err := os.OpenFile(s.path(keptName), os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
