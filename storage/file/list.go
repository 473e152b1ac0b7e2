package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// List implements storage.Store. Files whose names cannot be keys are not
// objects and are left out, and so is what is not a regular file.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		if err := storage.CheckPrefix(prefix); err != nil {
			yield(storage.Info{}, fmt.Errorf("list: %w", err))
			return
		}
		l := &lister{ctx: ctx, root: s.root, prefix: prefix, yield: yield}
		err := l.start()
		if err == nil && l.found == 0 || gone(err) {
			// Nothing there, or nothing mounted?
			if dead := s.alive(); dead != nil {
				err = dead
			}
		}
		if err != nil && err != errStopped {
			yield(storage.Info{}, opaque("list", strconv.Quote(prefix), err))
		}
	}
}

// errStopped says that the caller wants no more.
var errStopped = errors.New("stopped")

// lister walks the directories that can hold keys with a prefix.
type lister struct {
	ctx    context.Context
	root   *os.Root
	prefix string
	yield  func(storage.Info, error) bool
	found  int
}

// start begins at the deepest directory that the prefix names in full.
func (l *lister) start() error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	slash := strings.LastIndexByte(l.prefix, '/')
	if slash < 0 {
		return l.walk(l.root, "")
	}
	if strings.HasPrefix(l.prefix, lostFound+"/") {
		return nil
	}
	return l.descend(l.root, l.prefix[:slash], l.prefix[:slash+1])
}

// walk yields what lies in and below dir, whose keys start with at.
func (l *lister) walk(dir *os.Root, at string) error {
	names, err := entries(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		key := at + strings.TrimSuffix(name, "/")
		if !strings.HasPrefix(at+name, l.prefix) && !strings.HasPrefix(l.prefix, at+name) {
			continue
		}
		if storage.CheckKey(key) != nil || key == lostFound {
			continue
		}
		if strings.HasSuffix(name, "/") {
			err = l.descend(dir, path.Base(key), key+"/")
		} else {
			err = l.file(dir, path.Base(key), key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) descend(dir *os.Root, name, at string) error {
	sub, err := dir.OpenRoot(name)
	if err != nil {
		// Nothing to list when the directory is not there, was deleted while we
		// walked, or is an object. OpenRoot has no error value for the last.
		if info, statErr := dir.Stat(name); gone(statErr) || statErr == nil && !info.IsDir() {
			return nil
		}
		return err
	}
	defer sub.Close()
	return l.walk(sub, at)
}

func (l *lister) file(dir *os.Root, name, key string) error {
	info, err := dir.Lstat(name)
	if gone(err) {
		return nil // deleted while we walked
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || !strings.HasPrefix(key, l.prefix) {
		return nil
	}
	l.found++
	if !l.yield(describe(key, info), nil) {
		return errStopped
	}
	return nil
}

// entries names the files of a directory, and its directories with a slash at the
// end. The slash takes part in the order, since it does in the keys: "a-b"
// and "a.b" come before "a/b".
func entries(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(found))
	for _, entry := range found {
		name := entry.Name()
		if entry.IsDir() {
			name += "/"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// gone says that a directory or file is not there (any more).
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
