package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// ConfigDir is the directory in a restored data directory that holds the
// configuration files that lay outside the original one, as on Debian.
const ConfigDir = "lifeboat-config"

const controlPath = "global/pg_control"

// source is a regular file to copy.
type source struct {
	path  string // as in the manifest
	from  string // where it is read
	size  int64  // when it was listed; see copier.listAgain
	mode  fs.FileMode
	mtime time.Time
	id    string // see fileID
	rel   postgres.RelationFile
	pages bool // a relation file: it consists of pages
}

// tree is what the data directory holds.
type tree struct {
	directories []repo.FileEntry
	files       []source
	control     source
	bytes       int64
	spaces      map[uint32]bool // the tablespaces of which there are files
}

// walker lists a data directory. What vanishes while it looks was removed
// after the backup's start, so its removal is in the WAL.
type walker struct {
	tree
	facts facts
	warn  func(string, ...any)
}

// walk lists everything that belongs into the backup of dataDir, by the rules
// of the server's own base backup (backup/basebackup.c).
func walk(dataDir string, f facts, warn func(string, ...any)) (*tree, error) {
	w := &walker{facts: f, warn: warn}
	w.spaces = map[uint32]bool{}
	root, err := filepath.EvalSymlinks(dataDir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dataDir, err)
	}
	if err := w.dir(root, ""); err != nil {
		return nil, err
	}
	if w.control.from == "" {
		return nil, &MismatchError{dataDir + " holds no global/pg_control"}
	}
	w.outsideConfig(root)
	return &w.tree, nil
}

// dir lists one directory; rel is its path in the manifest, "" for the top.
func (w *walker) dir(from, rel string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) && rel != "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", from, err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	unlogged := postgres.UnloggedFiles(names)
	for _, e := range entries {
		p := path.Join(rel, e.Name())
		if postgres.Excluded(p) || w.facts.standby && standbyFile(p) || unlogged.Excludes(e.Name()) || p == ConfigDir || p == wal.SpoolDir {
			continue
		}
		if err := w.entry(filepath.Join(from, e.Name()), p); err != nil {
			return err
		}
	}
	return nil
}

// standbyFile says whether the file makes a server a standby. A restore says
// itself what the restored server is to be.
func standbyFile(p string) bool { return p == "standby.signal" || p == "recovery.signal" }

func (w *walker) entry(from, p string) error {
	fi, err := os.Lstat(from)
	if err == nil && fi.Mode().Type() == fs.ModeSymlink {
		return w.link(from, p)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", from, err)
	}
	switch {
	case fi.IsDir():
		return w.directory(from, p, fi)
	case fi.Mode().IsRegular():
		w.file(from, p, fi)
	default:
		w.warn("left out %s: neither a file nor a directory", p)
	}
	return nil
}

func (w *walker) directory(from, p string, fi fs.FileInfo) error {
	if path.Dir(p) == "pg_tblspc" && !w.knows(p) {
		return nil
	}
	w.directories = append(w.directories, repo.FileEntry{Type: repo.Dir, Path: p, Mode: uint32(fi.Mode().Perm())})
	switch {
	case p == "pg_wal":
		// Its content comes from the archive; the server wants this directory in it.
		w.directories = append(w.directories, repo.FileEntry{Type: repo.Dir, Path: "pg_wal/archive_status", Mode: uint32(fi.Mode().Perm())})
		return nil
	case postgres.EmptyDir(p):
		return nil
	case path.Dir(p) == "pg_tblspc":
		return w.tablespace(from, p)
	}
	return w.dir(from, p)
}

// link follows a symbolic link. The manual knows two: pg_wal and those of
// tablespaces. Others, to files or directories, are administrators' own; what
// they lead to is backed up in their place, so that a restore on a bare
// machine is whole.
func (w *walker) link(from, p string) error {
	target, err := filepath.EvalSymlinks(from)
	switch {
	case errors.Is(err, fs.ErrNotExist) && path.Dir(p) == "pg_tblspc":
		return nil // checkTablespaces tells of it
	case err != nil && !ofServer(p) && !errors.Is(err, fs.ErrPermission):
		w.warn("left out %s: its link leads nowhere", p)
		return nil
	case err != nil:
		return fmt.Errorf("follow %s: %w", from, err)
	}
	fi, err := os.Stat(target)
	if err != nil {
		return fmt.Errorf("follow %s: %w", from, err)
	}
	switch {
	case fi.IsDir() && p == "pg_wal":
		return w.directory(target, p, fi)
	case fi.IsDir() && path.Dir(p) == "pg_tblspc":
		if !w.knows(p) {
			return nil
		}
		return w.tablespace(target, p) // the link itself is among the tablespaces
	case fi.IsDir() && (path.Dir(p) == "." || path.Dir(p) == "base"):
		w.warn("%s is a link to %s: its content is backed up as a directory of the data directory", p, target)
		return w.directory(target, p, fi)
	case fi.Mode().IsRegular():
		w.file(target, p, fi)
	case ofServer(p):
		return fmt.Errorf("%s is a link to %s: what is there cannot be backed up", from, target)
	default:
		w.warn("left out %s: a link to %s", p, target)
	}
	return nil
}

// ofServer says whether a path lies within a directory of PostgreSQL's own, of which
// nothing can be left out.
func ofServer(p string) bool {
	top, _, below := strings.Cut(p, "/")
	return below && (top == "base" || top == "global" || strings.HasPrefix(top, "pg_") && top != "pg_log")
}

// tablespace lists the one directory of a tablespace that is this cluster's.
func (w *walker) tablespace(from, p string) error {
	version := postgres.TablespaceDir(w.facts.version/10000, w.facts.control.CatalogVersion)
	fi, err := os.Stat(filepath.Join(from, version))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list tablespace %s: %w", path.Base(p), err)
	}
	if oid, err := strconv.ParseUint(path.Base(p), 10, 32); err == nil {
		w.spaces[uint32(oid)] = true
	}
	return w.directory(filepath.Join(from, version), path.Join(p, version), fi)
}

// knows says whether the server listed the tablespace at pg_tblspc/<oid>. One
// that was made since is in the WAL.
func (w *walker) knows(p string) bool {
	oid, err := strconv.ParseUint(path.Base(p), 10, 32)
	for _, t := range w.facts.tablespaces {
		if err == nil && t.OID == uint32(oid) {
			return true
		}
	}
	w.warn("left out %s: the server knows no such tablespace", p)
	return false
}

func (w *walker) file(from, p string, fi fs.FileInfo) {
	if strings.HasPrefix(p, "pg_tblspc/") && !postgres.TablespaceFile(p) {
		w.warn("left out %s: it lies in the directory of a tablespace, and is no file of PostgreSQL's; no restore would write it", p)
		return
	}
	s := source{path: p, from: from, size: fi.Size(), mode: fi.Mode().Perm(), mtime: fi.ModTime(), id: fileID(from)}
	if p == controlPath {
		w.control = s
		return
	}
	s.rel, s.pages = postgres.ParseRelationPath(p)
	w.files = append(w.files, s)
	w.bytes += s.size
}

// outsideConfig adds the configuration files that lie elsewhere.
func (w *walker) outsideConfig(root string) {
	used := map[string]bool{}
	for _, name := range []string{"config_file", "hba_file", "ident_file"} {
		from := w.facts.settings[name]
		if real, err := filepath.EvalSymlinks(from); err != nil || filepath.Dir(real) == root {
			continue
		}
		fi, err := os.Stat(from)
		if err != nil || !fi.Mode().IsRegular() {
			w.warn("left out %s: it cannot be read", from)
			continue
		}
		if len(used) == 0 {
			w.directories = append(w.directories, repo.FileEntry{Type: repo.Dir, Path: ConfigDir, Mode: 0o700})
		}
		base := filepath.Base(from)
		if used[base] { // two files of one name, from different directories
			base = name + "-" + base
		}
		used[base] = true
		w.file(from, path.Join(ConfigDir, base), fi)
	}
}

// TooManyFilesError says that the data directory holds more than a manifest can.
type TooManyFilesError struct{ Err error }

func (e *TooManyFilesError) Error() string {
	return fmt.Sprintf("the data directory cannot be backed up: %v", e.Err)
}

func (e *TooManyFilesError) Unwrap() error { return e.Err }

// check refuses what no manifest can hold, before anything is copied: *TooManyFilesError.
// What a backup leaves out later only makes the list shorter.
func (t *tree) check() error {
	n := len(t.directories) + len(t.files) + 1
	_, err := repo.NewFiles(n, func(yield func(repo.FileEntry) bool) {
		for _, f := range t.directories {
			if !yield(f) {
				return
			}
		}
		for _, s := range t.files {
			if !yield(s.entry(s.size)) {
				return
			}
		}
		yield(t.control.entry(t.control.size))
	})
	if err != nil {
		return &TooManyFilesError{err}
	}
	return nil
}
