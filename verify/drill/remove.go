package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// removeStage removes a directory whose marker the caller has seen, and makes sure that
// it is gone. Links in it are removed, not followed. The marker goes last, so that what
// is left after a failure, or when ctx ends, is still known to be ours.
func removeStage(ctx context.Context, dir string) error {
	if err := emptyStage(ctx, dir); err != nil {
		return fmt.Errorf("remove the staging directory: %w", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the staging directory %s is still there", dir)
	}
	return nil
}

func emptyStage(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := (&remover{root: root, prefix: "removed-" + repo.NewID()[:8] + "-"}).empty(ctx, "."); err != nil {
		return err
	}
	if err := root.Remove(markerName); err != nil {
		return err
	}
	return os.Remove(dir)
}

// remover empties a directory that a hostile server could write to. The tree below may
// be of any depth, which would take a descriptor or a frame of the stack for each level,
// and of any width, and directories may be closed to their owner. So what lies in a
// directory below the top is moved to the top, and the memory and the descriptors that
// this takes are the same for every tree.
type remover struct {
	root   *os.Root
	prefix string // of the names that directories get at the top; nobody can guess them
	moved  int
}

// namesAtOnce is how many names are read of a directory before they are removed.
const namesAtOnce = 1024

// empty removes all that is in a directory but the marker.
func (r *remover) empty(ctx context.Context, dir string) error {
	at, err := r.root.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	for {
		names, err := names(at, dir == ".")
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := r.remove(ctx, at, dir, name); err != nil {
				return err
			}
		}
	}
}

// names are some of a directory's, none when there are none; at the top the marker alone
// is none.
func names(at *os.Root, top bool) ([]string, error) {
	f, err := at.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(namesAtOnce)
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if len(names) == 1 && top && names[0] == markerName {
			continue
		}
		return names, nil
	}
}

// remove removes one entry of a directory, which is open at, or moves it to the top.
func (r *remover) remove(ctx context.Context, at *os.Root, dir, name string) error {
	path := filepath.Join(dir, name)
	if path == markerName {
		return nil
	}
	err := at.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	info, statErr := at.Lstat(name)
	if statErr != nil || !info.IsDir() {
		return err
	}
	// It takes the right to write to a directory to give it another parent, and to read
	// it to list it.
	if err := at.Chmod(name, 0o700); err != nil {
		return err
	}
	if dir != "." {
		r.moved++
		return r.root.Rename(path, fmt.Sprintf("%s%d", r.prefix, r.moved))
	}
	if err := r.empty(ctx, path); err != nil {
		return err
	}
	err = at.Remove(name)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return nil // it is listed again
	}
	return err
}
