package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// place is where one thing of a backup goes: a folder that the restore fills
// (the data directory or a tablespace) and a path below it.
type place struct {
	root int    // index of the folder; 0 is the data directory
	name string // relative, with slashes; "." is the folder itself
}

// layout is the files of a manifest brought to their places.
type layout struct {
	folders []folder
	files   []target
	control int  // index of global/pg_control among the files
	group   bool // initdb --allow-group-access
	kinds   map[string]repo.FileType
}

// has says whether the backup holds something at this path.
func (l *layout) has(path string) bool { return l.kinds[path] != "" }

// folder is a folder to make.
type folder struct {
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
// The checks are what keeps a restore inside its folders before any file
// system is involved: no path leaves its folder (FileEntry.Check), none passes
// through a file or a link, none occurs twice, and pg_tblspc holds nothing but
// the tablespaces that the plan knows.
func newLayout(entries []repo.FileEntry, spaces []Tablespace) (*layout, error) {
	l := &layout{control: -1, files: make([]target, len(entries)), kinds: make(map[string]repo.FileType, len(entries))}
	roots := tablespaceRoots(spaces)
	for i, e := range entries {
		if err := l.add(i, e, roots); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnsafeManifest, err)
		}
	}
	for p, root := range roots {
		if root == 0 && l.kinds[p] == "" {
			l.kinds[p] = repo.Dir
			l.folders = append(l.folders, folder{place{0, p}, 0o700})
		}
	}
	if err := checkParents(entries, l.kinds, roots); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsafeManifest, err)
	}
	if l.control < 0 || l.files[l.control].skip {
		return nil, fmt.Errorf("%w: it has no %s", ErrUnsafeManifest, postgres.ControlPath)
	}
	return l, nil
}

// tablespaceRoots maps pg_tblspc/<oid> to the index of its folder; in-place
// tablespaces are folders of the data directory and map to 0.
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

func (l *layout) add(i int, e repo.FileEntry, roots map[string]int) error {
	if err := e.Check(); err != nil {
		return err
	}
	if _, twice := l.kinds[e.Path]; twice {
		return fmt.Errorf("%.200q occurs twice", e.Path)
	}
	l.kinds[e.Path] = e.Type
	where, err := locate(e, roots)
	if err != nil {
		return err
	}
	switch e.Type {
	case repo.Dir:
		l.folders = append(l.folders, folder{where, fileMode(e)})
		l.files[i] = target{path: e.Path, skip: true}
	case repo.Regular:
		l.files[i] = target{place: where, path: e.Path, size: e.Size, mode: fileMode(e), skip: leftOut(e.Path)}
		if e.Path == postgres.ControlPath {
			l.control = i
			if e.Size > maxControlFile {
				return fmt.Errorf("%s has %d bytes", e.Path, e.Size)
			}
		}
		if e.Path == "PG_VERSION" && e.Mode&0o040 != 0 {
			l.group = true // made by initdb --allow-group-access
		}
	default:
		return fmt.Errorf("%.200q is neither a file nor a folder", e.Path)
	}
	return nil
}

// locate finds the folder that a path of the manifest belongs to.
func locate(e repo.FileEntry, roots map[string]int) (place, error) {
	rest, ok := strings.CutPrefix(e.Path, "pg_tblspc/")
	if !ok {
		if e.Path == "pg_tblspc" && e.Type != repo.Dir {
			return place{}, errors.New("pg_tblspc is not a folder")
		}
		return place{0, e.Path}, nil
	}
	oid, below, deeper := strings.Cut(rest, "/")
	root, known := roots["pg_tblspc/"+oid]
	switch {
	case !known:
		return place{}, fmt.Errorf("%.200q is in no tablespace of the backup", e.Path)
	case !deeper && e.Type != repo.Dir:
		return place{}, fmt.Errorf("tablespace %s is not a folder", oid)
	case root == 0:
		return place{0, e.Path}, nil
	case !deeper:
		return place{root, "."}, nil
	}
	return place{root, below}, nil
}

// checkParents makes sure that each path lies in folders of the manifest.
func checkParents(entries []repo.FileEntry, kinds map[string]repo.FileType, roots map[string]int) error {
	for _, e := range entries {
		parent := path.Dir(e.Path)
		if parent == "." {
			continue
		}
		if _, tablespace := roots[parent]; tablespace {
			parent = "pg_tblspc" // its folder is made in any case
		}
		if kinds[parent] != repo.Dir {
			return fmt.Errorf("%.200q lies in %.200q, which is not a folder of the backup", e.Path, parent)
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
