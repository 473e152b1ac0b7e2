package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// unfinishedFile marks a directory that a restore is filling. It is the first
// thing written and the last but one to go, before the control file comes. A
// directory with it holds nothing but what a restore put there, since a restore
// only begins in an empty one; so the next restore may empty it again.
const unfinishedFile = "lifeboat-restore.unfinished"

// lostAndFound is in every file system's top directory. A tablespace may lie
// there; a data directory may not, as initdb has it.
const lostAndFound = "lost+found"

// dirs is the open directories that are filled: the data directory, then the
// tablespaces. Everything is written through os.Root, so nothing in them, not
// even a link that somebody plants meanwhile, leads out of them.
type dirs struct {
	plan  *Plan
	roots []*openDir
	made  []string // parents that were made, the outermost first
}

type openDir struct {
	path   string
	root   *os.Root
	marker *os.File // locked as long as we work
}

// openDirs makes or opens the directories of the plan, empties those that hold an
// unfinished restore, and marks all of them as unfinished.
func openDirs(p *Plan, l *layout) (*dirs, error) {
	d := &dirs{plan: p}
	paths := []string{p.DataDir}
	for _, s := range p.Tablespaces {
		if !s.InPlace {
			paths = append(paths, s.To)
		}
	}
	for i, path := range paths {
		o, err := d.open(path, i > 0)
		if err != nil {
			d.close()
			return nil, err
		}
		d.roots = append(d.roots, o)
	}
	if err := d.makeNewTablespaces(p, l); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *dirs) open(path string, tablespace bool) (*openDir, error) {
	if err := d.makeDir(path); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, dirError(path, err)
	}
	o := &openDir{path: path, root: root}
	if err := o.claim(tablespace); err != nil {
		o.close()
		return nil, err
	}
	if err := d.own(root, "."); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// makeDir makes a directory and its parents, which stay with us: a server only
// passes through them.
func (d *dirs) makeDir(path string) error {
	var missing []string
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return &DirError{Path: dir, Kind: NotADir}
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return dirError(dir, err)
		}
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		mode := fs.FileMode(0o755)
		if dir == path {
			mode = 0o700
		}
		if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return dirError(dir, err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			return dirError(dir, err)
		}
		d.made = append(d.made, dir)
	}
	return nil
}

// claim makes sure that the directory is empty, or empties it when an earlier
// restore left it unfinished, and marks it.
func (o *openDir) claim(tablespace bool) error {
	marker, err := o.root.OpenFile(unfinishedFile, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return dirError(o.path, err)
	}
	o.marker = marker
	// Where locks are not supported there is none; two restores into one directory
	// then end in errors about files that exist.
	if err := syscall.Flock(int(marker.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return &DirError{Path: o.path, Kind: NotEmpty, Detail: "another restore is filling it"}
	}
	info, err := marker.Stat()
	if err != nil {
		return dirError(o.path, err)
	}
	names, err := o.names(tablespace)
	if err != nil {
		return err
	}
	const text = "Lifeboat began to restore into this directory and has not finished.\n" +
		"The next restore into it removes everything that is in it.\n"
	if len(names) > 0 {
		// An empty marker is one that we have just made.
		if info.Size() == 0 || slices.Contains(names, "global") && o.exists(postgres.ControlPath) {
			if info.Size() == 0 {
				o.unmark()
			}
			return &DirError{Path: o.path, Kind: NotEmpty, Detail: names[0]}
		}
		for _, name := range names {
			if err := o.root.RemoveAll(name); err != nil {
				return dirError(o.path, err)
			}
		}
	}
	if _, err := marker.WriteAt([]byte(text), 0); err != nil {
		return dirError(o.path, err)
	}
	return nil
}

// names lists the directory but for the marker.
func (o *openDir) names(tablespace bool) ([]string, error) {
	f, err := o.root.Open(".")
	if err != nil {
		return nil, dirError(o.path, err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && err != io.EOF {
		return nil, dirError(o.path, err)
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		return n == unfinishedFile || tablespace && n == lostAndFound
	})
	slices.Sort(names)
	return names, nil
}

func (o *openDir) exists(name string) bool {
	_, err := o.root.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

func (o *openDir) unmark() error { return o.root.Remove(unfinishedFile) }

func (o *openDir) close() {
	if o.marker != nil {
		o.marker.Close()
	}
	o.root.Close()
}

func (d *dirs) close() {
	for _, o := range d.roots {
		o.close()
	}
}

// own gives a directory or file below root to the plan's owner.
func (d *dirs) own(root *os.Root, name string) error {
	if d.plan.Owner == nil {
		return nil
	}
	if err := root.Lchown(name, d.plan.Owner.UID, d.plan.Owner.GID); err != nil {
		return fmt.Errorf("give %s to %s: %w", filepath.Join(root.Name(), name), d.plan.Owner.User, err)
	}
	return nil
}

// ownFile is own for an open file.
func (d *dirs) ownFile(f *os.File) error {
	if d.plan.Owner == nil {
		return nil
	}
	if err := f.Chown(d.plan.Owner.UID, d.plan.Owner.GID); err != nil {
		return fmt.Errorf("give %s to %s: %w", f.Name(), d.plan.Owner.User, err)
	}
	return nil
}

// makeNewTablespaces makes the directories that the WAL to be replayed will want:
// PostgreSQL makes the link and a directory in it, not the directory itself
// (create_tablespace_directories in commands/tablespace.c).
func (d *dirs) makeNewTablespaces(p *Plan, l *layout) error {
	for _, s := range p.NewTablespaces {
		path := s.directory()
		if p.fills(path) {
			continue
		}
		if err := d.makeDir(path); err != nil {
			return err
		}
		root, err := os.OpenRoot(path)
		if err != nil {
			return dirError(path, err)
		}
		defer root.Close()
		names, err := (&openDir{path: path, root: root}).names(true)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return &DirError{Path: path, Kind: NotEmpty, Detail: "recovery makes a tablespace there"}
		}
		if err := root.Chmod(".", l.rootMode()); err != nil {
			return dirError(path, err)
		}
		if err := d.own(root, "."); err != nil {
			return err
		}
	}
	return nil
}

// makeDirs makes the directories of the manifest, and those of tablespaces in
// place. They get their modes at the end: one without the right to write could
// not be filled.
func (d *dirs) makeDirs(l *layout) error {
	for f := range l.directories() {
		if f.name == "." {
			continue
		}
		root := d.roots[f.root].root
		if err := root.Mkdir(f.name, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		if err := d.own(root, f.name); err != nil {
			return err
		}
	}
	return nil
}

// rootMode is the mode of the data directory and of tablespaces. PostgreSQL
// refuses any but these two (checkDataDir in utils/init/miscinit.c).
func (l *layout) rootMode() fs.FileMode {
	if l.group {
		return 0o750
	}
	return 0o700
}

// finishDirs sets the modes of all directories, whatever the umask.
func (d *dirs) finishDirs(l *layout) error {
	for _, n := range slices.Backward(l.dirs) {
		f := l.directory(n)
		if f.name == "." || f.mode == 0o700 {
			continue
		}
		if err := d.roots[f.root].root.Chmod(f.name, f.mode); err != nil {
			return fmt.Errorf("set mode of directory: %w", err)
		}
	}
	for _, o := range d.roots {
		if err := o.root.Chmod(".", l.rootMode()); err != nil {
			return dirError(o.path, err)
		}
	}
	return nil
}

// dirError names the directory and, for a lack of rights, the kind of problem.
func dirError(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &DirError{Path: path, Kind: NoRights, Detail: err.Error()}
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return &DirError{Path: path, Kind: NotADir}
	}
	return fmt.Errorf("prepare %s: %w", path, err)
}

// syncMade syncs the directories that were made above and beside those that are
// filled.
func (d *dirs) syncMade() error {
	for _, dir := range d.made {
		for _, path := range []string{dir, filepath.Dir(dir)} {
			if err := syncDir(path); err != nil {
				return err
			}
		}
	}
	return nil
}
