// Package file is a storage.Store in a directory: of a disk, or of a file system
// that is mounted from elsewhere.
//
// An object is a regular file at the path that its key spells, below the
// root. It gets there complete or not at all: the bytes are written to a file
// of a random name in the directory ~tmp of the root and fsynced, and then linked
// to the final name, which fails when that is taken. The last step fsyncs the
// directory that holds the name. What a crash leaves in ~tmp has no key, since
// no key may hold a tilde: it is never listed, and Sweep removes it.
//
// Two keys of which one is a directory of the other ("a" and "a/b") cannot both
// exist, and on a file system that ignores case keys that differ in case only
// are one. Symbolic links that lead out of the root are refused. The name
// lost+found at the root belongs to the file system, not to the store.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// tmpDir holds files that are being written. It is no part of any key,
// because storage.CheckKey does not allow the tilde.
const tmpDir = "~tmp"

// Files and directories are their owner's alone, whatever the umask says.
const (
	fileMode fs.FileMode = 0o600
	dirMode  fs.FileMode = 0o700
)

// Store is a store in a directory. It holds that directory open; Close lets it go.
type Store struct {
	path string // of the root, for messages and to see whether it is still there
	root *os.Root

	// durable holds the directories whose own names are known to have been
	// fsynced, so that this is done once for each.
	durable sync.Map // path below the root → struct{}
}

var _ storage.Store = (*Store)(nil)

// Init makes a store in the directory at root, together with the directories above
// it that are missing, and returns it. One that exists is opened.
func Init(root string) (*Store, error) {
	if err := makeRoot(root); err != nil {
		return nil, opaque("make the store's root", root, err)
	}
	return New(root)
}

// New returns the store in the directory at root. A root that is missing, that is
// not a directory, or that is empty is storage.ErrNoStore, never fs.ErrNotExist:
// an empty directory is what remains where a file system is no longer mounted.
func New(root string) (*Store, error) {
	info, err := os.Stat(root)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, opaque("open the store's root", root, err, storage.ErrNoStore)
	}
	if err != nil {
		return nil, opaque("open the store's root", root, err)
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, opaque("open the store's root", root, err)
	}
	s := &Store{path: root, root: r}
	if err := s.alive(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return s, nil
}

// Close lets go of the root directory. The store is of no use afterwards.
func (s *Store) Close() error { return s.root.Close() }

// Open implements storage.Store.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := check(ctx, "open", key); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("open %s: negative offset %d", key, off)
	}
	// Opening anything but a regular file could block, as a FIFO does.
	if _, err := s.lstat("open", key); err != nil {
		return nil, err
	}
	f, err := s.root.Open(key)
	if err != nil {
		return nil, s.absent("open", key, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(opaque("open", key, err), f.Close())
	}
	left := max(info.Size()-off, 0)
	if n >= 0 {
		left = min(left, n)
	}
	return &reader{ctx: ctx, key: key, file: f, off: off, left: left}, nil
}

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := check(ctx, "stat", key); err != nil {
		return storage.Info{}, err
	}
	info, err := s.lstat("stat", key)
	if err != nil {
		return storage.Info{}, err
	}
	return describe(key, info), nil
}

func describe(key string, info fs.FileInfo) storage.Info {
	return storage.Info{Key: key, Size: info.Size(), ModTime: info.ModTime(), Tag: tagOf(info)}
}

// Delete implements storage.Store. After it returns nil the object is gone
// for good, also when the machine stops. Directories that it leaves empty go too.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, "delete", key); err != nil {
		return err
	}
	_, err := s.lstat("delete", key)
	if err == nil {
		err = s.root.Remove(key)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = s.alive()
	}
	if err != nil {
		return opaque("delete", key, err)
	}
	// Also for an object that is not there: whoever removed it may have died
	// before this. A deletion that comes back to life after a crash would
	// leave a manifest without its packs.
	dir := path.Dir(key)
	if err := s.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return opaque("delete", key, err)
	}
	for ; dir != "."; dir = path.Dir(dir) {
		// Fails at the first directory that is not empty.
		if s.removeDir(dir) != nil {
			break
		}
		s.durable.Delete(dir)
	}
	return nil
}

// removeDir removes an empty directory, and never a file: os.Root.Remove would
// take an object that another process made under the directory's name just now.
func (s *Store) removeDir(dir string) error {
	above, err := s.root.Open(path.Dir(dir))
	if err != nil {
		return err
	}
	defer above.Close()
	return unix.Unlinkat(int(above.Fd()), path.Base(dir), unix.AT_REMOVEDIR)
}

// lstat describes the object's file. It returns fs.ErrNotExist where there is
// none, a directory included, and another error where something else is in its place.
func (s *Store) lstat(op, key string) (fs.FileInfo, error) {
	info, err := s.root.Lstat(key)
	switch {
	case err != nil:
		return nil, s.absent(op, key, err)
	case info.IsDir():
		return nil, fmt.Errorf("%s %s: is a directory: %w", op, key, fs.ErrNotExist)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s %s: is not a regular file but %v", op, key, info.Mode().Type())
	}
	return info, nil
}

// absent turns the error of a file operation into the store's: fs.ErrNotExist
// only if the object is absent from a root that is in its place.
func (s *Store) absent(op, key string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return opaque(op, key, err)
	}
	if err := s.alive(); err != nil {
		return opaque(op, key, err)
	}
	return fmt.Errorf("%s %s: %w", op, key, fs.ErrNotExist)
}

// alive returns storage.ErrNoStore unless the root's path still leads to the
// directory that was opened and that directory holds something. A root that was
// unmounted or deleted would otherwise make every object look absent.
func (s *Store) alive() error {
	opened, err := s.root.Stat(".")
	if err != nil {
		return opaque("look at the store's root", s.path, err)
	}
	now, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(opened, now) {
		return fmt.Errorf("%s: %w: the directory was removed, or its file system is no longer mounted", s.path, storage.ErrNoStore)
	}
	if err != nil {
		return opaque("look at the store's root", s.path, err)
	}
	dir, err := s.root.Open(".")
	if err != nil {
		return opaque("look at the store's root", s.path, err)
	}
	defer dir.Close()
	switch _, err := dir.Readdirnames(1); {
	case err == io.EOF:
		return fmt.Errorf("%s: %w: the directory is empty; is its file system mounted?", s.path, storage.ErrNoStore)
	case err != nil:
		return opaque("look at the store's root", s.path, err)
	}
	return nil
}

// check refuses what no operation may go on with.
func check(ctx context.Context, op, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if key == lostFound || strings.HasPrefix(key, lostFound+"/") {
		return fmt.Errorf("%s %s: %w: the name belongs to the file system", op, key, storage.ErrKey)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	return nil
}

// lostFound is where fsck puts what it finds; other users cannot read it.
const lostFound = "lost+found"

// reader reads a range of an object's file.
type reader struct {
	ctx       context.Context
	key       string
	file      *os.File
	off, left int64
}

// Read reads on. The range lay inside the file when it was opened, so the end
// of the file before the end of the range is an error.
func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, fmt.Errorf("read %s: %w", r.key, err)
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.file.ReadAt(p[:min(int64(len(p)), r.left)], r.off)
	r.off += int64(n)
	r.left -= int64(n)
	switch {
	case err == io.EOF && r.left > 0:
		return n, fmt.Errorf("read %s at %d: %w", r.key, r.off, io.ErrUnexpectedEOF)
	case err == io.EOF:
		return n, nil // the next call says so
	case err != nil:
		return n, opaque("read", r.key, err)
	}
	return n, nil
}

func (r *reader) Close() error { return r.file.Close() }

// failure is an error that says nothing about whether an object exists: it
// matches every target that its causes match, but for fs.ErrNotExist and
// fs.ErrExist.
type failure struct {
	op, name string
	causes   []error
}

// opaque wraps the first cause, and has the error match the others as well.
func opaque(op, name string, cause error, more ...error) error {
	return &failure{op: op, name: name, causes: append([]error{cause}, more...)}
}

func (f *failure) Error() string {
	text := f.causes[0].Error()
	var p *fs.PathError
	var l *os.LinkError
	if errors.As(f.causes[0], &p) && p == f.causes[0] {
		text = p.Err.Error() // the name is said already
	} else if errors.As(f.causes[0], &l) && l == f.causes[0] {
		text = l.Err.Error()
	}
	return f.op + " " + f.name + ": " + text
}

// Is stands before Unwrap, which is not there on purpose: what a cause would
// match is asked here, so that the two answers about objects can be left out.
func (f *failure) Is(target error) bool {
	if target == fs.ErrNotExist || target == fs.ErrExist {
		return false
	}
	for _, cause := range f.causes {
		if errors.Is(cause, target) {
			return true
		}
	}
	return false
}

// As looks for the target among the causes.
func (f *failure) As(target any) bool {
	for _, cause := range f.causes {
		if errors.As(cause, target) {
			return true
		}
	}
	return false
}
