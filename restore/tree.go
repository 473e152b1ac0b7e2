package restore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// place is where one thing of a backup goes: a directory that the restore fills
// (the data directory or a tablespace) and a path below it.
type place struct {
	root int    // index of the directory; 0 is the data directory
	name string // relative, with slashes; "." is the directory itself
}

// layout is the files of a manifest brought to their places.
type layout struct {
	manifest *repo.Files
	roots    map[string]int // see tablespaceRoots
	dirs     []numbered     // the directories to make, parents first
	inPlace  []string       // tablespaces in the data directory whose directories no record tells of
	control  int            // number of global/pg_control among the files
	group    bool           // initdb --allow-group-access
}

// numbered is a directory by the number of its record, and how deep it lies; below 0
// are those in place, from -1 on.
type numbered struct {
	file  int32
	depth uint16
}

// has says whether the backup holds something at this path.
func (l *layout) has(path string) bool {
	_, there := l.manifest.Find(path)
	return there
}

// count is how many records there are.
func (l *layout) count() int { return l.manifest.Len() }

// target is where the i-th record goes; a directory has skip set, and no name.
func (l *layout) target(i int) target {
	e := l.manifest.At(i)
	if e.Type == repo.Dir {
		return target{path: e.Path, skip: true}
	}
	where, _ := locate(e, l.roots)
	return target{place: where, path: e.Path, size: e.Size, mode: fileMode(e), skip: leftOut(e.Path)}
}

// directories yields the directories to make, parents first.
func (l *layout) directories() iter.Seq[directory] {
	return func(yield func(directory) bool) {
		for _, d := range l.dirs {
			if !yield(l.directory(d)) {
				return
			}
		}
	}
}

func (l *layout) directory(d numbered) directory {
	if d.file < 0 {
		return directory{place{0, l.inPlace[-1-d.file]}, 0o700}
	}
	e := l.manifest.At(int(d.file))
	where, _ := locate(e, l.roots)
	return directory{where, fileMode(e)}
}

// directory is a directory to make.
type directory struct {
	place
	mode fs.FileMode
}

// target is a regular file to write. Those that are not written, because
// Apply makes its own, have skip set.
type target struct {
	place
	path string // in the manifest
	size int64
	mode fs.FileMode
	skip bool
}

// maxControlFile bounds what is kept in memory for the control file.
const maxControlFile = 64 << 10

// newLayout checks the file records of a manifest against each other and says
// where each goes. Every error wraps ErrUnsafeManifest: a signed manifest of
// our own never has one.
//
// The checks are what keeps a restore inside its directories before any file
// system is involved: no path leaves its directory (FileEntry.Check), none passes
// through a file or a link, none occurs twice (repo.Files), and pg_tblspc holds nothing but
// the tablespaces that the plan knows.
func newLayout(files *repo.Files, spaces []Tablespace) (*layout, error) {
	l := &layout{manifest: files, control: -1, roots: tablespaceRoots(spaces)}
	for i, e := range files.All() {
		if err := l.add(i, e); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnsafeManifest, err)
		}
	}
	for p, root := range l.roots {
		if root == 0 && !l.has(p) {
			l.inPlace = append(l.inPlace, p)
			l.dirs = append(l.dirs, numbered{-int32(len(l.inPlace)), 1})
		}
	}
	slices.SortStableFunc(l.dirs, func(a, b numbered) int { return cmp.Compare(a.depth, b.depth) })
	if err := l.checkParents(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsafeManifest, err)
	}
	if l.control < 0 {
		return nil, fmt.Errorf("%w: it has no %s", ErrUnsafeManifest, postgres.ControlPath)
	}
	return l, nil
}

// tablespaceRoots maps pg_tblspc/<oid> to the index of its directory; in-place
// tablespaces are directories of the data directory and map to 0.
func tablespaceRoots(spaces []Tablespace) map[string]int {
	roots := map[string]int{}
	n := 0
	for _, s := range spaces {
		key := "pg_tblspc/" + strconv.FormatUint(uint64(s.OID), 10)
		roots[key] = 0
		if !s.InPlace {
			n++
			roots[key] = n
		}
	}
	return roots
}

func (l *layout) add(i int, e repo.FileEntry) error {
	if _, err := locate(e, l.roots); err != nil {
		return err
	}
	if e.Type == repo.Dir {
		l.dirs = append(l.dirs, numbered{int32(i), uint16(strings.Count(e.Path, "/"))})
		return nil
	}
	if e.Path == postgres.ControlPath {
		l.control = i
		if e.Size > maxControlFile {
			return fmt.Errorf("%s has %d bytes", e.Path, e.Size)
		}
	}
	if e.Path == "PG_VERSION" && e.Mode&0o040 != 0 {
		l.group = true // made by initdb --allow-group-access
	}
	return nil
}

// locate finds the directory that a path of the manifest belongs to.
func locate(e repo.FileEntry, roots map[string]int) (place, error) {
	rest, ok := strings.CutPrefix(e.Path, "pg_tblspc/")
	if !ok {
		if e.Path == "pg_tblspc" && e.Type != repo.Dir {
			return place{}, errors.New("pg_tblspc is not a directory")
		}
		return place{0, e.Path}, nil
	}
	oid, below, deeper := strings.Cut(rest, "/")
	root, known := roots["pg_tblspc/"+oid]
	switch {
	case !known:
		return place{}, fmt.Errorf("%.200q is in no tablespace of the backup", e.Path)
	case !deeper && e.Type != repo.Dir:
		return place{}, fmt.Errorf("tablespace %s is not a directory", oid)
	case root == 0:
		return place{0, e.Path}, nil
	case !deeper:
		return place{root, "."}, nil
	}
	return place{root, below}, nil
}

// checkParents makes sure that each path lies in directories of the manifest.
func (l *layout) checkParents() error {
	for parent := range l.manifest.Parents() {
		if _, tablespace := l.roots[parent]; tablespace {
			parent = "pg_tblspc" // its directory is made in any case
		}
		if e, there := l.manifest.Find(parent); !there || e.Type != repo.Dir {
			return fmt.Errorf("files lie in %.200q, which is not a directory of the backup", parent)
		}
	}
	return nil
}

// fileMode is the mode that an entry gets: its own, but that nobody else may write.
// A server reads its settings from these files, and runs what they name.
func fileMode(e repo.FileEntry) fs.FileMode { return fs.FileMode(e.Mode) &^ 0o002 }

// leftOut says whether Apply does not write a file of the backup: what belongs
// to a running server, what Apply writes itself, and what is not PostgreSQL's in
// the directory of a tablespace, which may be any of the host's.
func leftOut(p string) bool {
	if strings.HasPrefix(p, "pg_tblspc/") {
		return !postgres.TablespaceFile(p)
	}
	switch p {
	case "postmaster.pid", "postmaster.opts", "recovery.signal", "standby.signal", "recovery.done", "recovery.conf",
		postgres.BackupLabelFile, postgres.TablespaceMapFile, postgres.BackupLabelFile + ".old",
		postgres.TablespaceMapFile + ".old", unfinishedFile:
		return true
	}
	return false
}
