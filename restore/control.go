package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// writeControl writes global/pg_control, whole or not at all, and takes the
// marks of an unfinished restore away just before it appears: whoever sees a
// mark may remove the directory's content.
func (d *dirs) writeControl(data []byte, l *layout) error {
	data, err := postgres.WithCheckpoint(data, postgres.NoCheckpoint)
	if err != nil {
		return err
	}
	t := l.target(l.control)
	t.name += ".lifeboat"
	if err := d.writeWhole(&t, data); err != nil {
		return err
	}
	for _, o := range d.roots {
		if err := o.unmark(); err != nil {
			return fmt.Errorf("finish %s: %w", o.path, err)
		}
		if err := syncRoot(o.root, "."); err != nil {
			return err
		}
	}
	root := d.roots[0].root
	if err := root.Rename(t.name, postgres.ControlPath); err != nil {
		return fmt.Errorf("put the control file in place: %w", err)
	}
	return syncRoot(root, filepath.Dir(postgres.ControlPath))
}

// writeWhole makes a file with this content and syncs it.
func (d *dirs) writeWhole(t *target, data []byte) error {
	f, err := d.openFile(t, false)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", t.path, err)
	}
	return nil
}

// syncRoot syncs a directory below root.
func syncRoot(root *os.Root, name string) error {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", f.Name(), err)
	}
	return nil
}

// syncDir syncs a directory outside of those that are filled.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}
