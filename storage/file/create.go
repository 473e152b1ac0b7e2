package file

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// Create implements storage.Store. In a directory that was used before it costs
// two fsyncs: of the file before it gets its name, because a name without its
// bytes would be a partial object after a crash, and of the directory, because a
// file whose name is lost is lost.
//
// When it returns fs.ErrExist the object that is there is durable too: who
// made it may have been killed before its own last fsync, and "the same bytes
// are there already" is a success to those who call.
func (s *Store) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := check(ctx, "create", key); err != nil {
		return err
	}
	dir := path.Dir(key)
	if taken, err := s.taken(key); err != nil {
		return opaque("create", key, err)
	} else if taken {
		return s.settleTaken(key, dir)
	}

	// The directories do not depend on the bytes: both reach the disk at once.
	directories := make(chan error, 1)
	go func() { directories <- s.makeDir(dir) }()
	tmp, written, err := s.writeTemp(ctx, body)
	dirErr := <-directories
	if tmp != "" {
		defer s.root.Remove(tmp)
	}
	if err := errors.Join(err, dirErr); err != nil {
		return opaque("create", key, err)
	}

	switch won, err := s.link(tmp, written, key); {
	case err != nil:
		return opaque("create", key, err)
	case !won:
		return s.settleTaken(key, dir)
	}
	if err := s.syncDir(dir); err != nil {
		return opaque("create", key, err)
	}
	return nil
}

// taken says whether key names a file already. A directory, or anything else that
// stands in its place, is an error: no object can ever be there.
func (s *Store) taken(key string) (bool, error) {
	info, err := s.root.Lstat(key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, s.alive()
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("something that is no object is in its place: %v", info.Mode())
	}
	return true, nil
}

// settleTaken makes the object that is there durable and returns fs.ErrExist.
func (s *Store) settleTaken(key, dir string) error {
	err := s.makeDir(dir)
	if err == nil {
		err = s.syncDir(dir)
	}
	if err != nil {
		return opaque("create", key, err)
	}
	return fmt.Errorf("create %s: %w", key, fs.ErrExist)
}

// writeTemp writes body to a new file in tmpDir and fsyncs it. It returns the
// file's name as soon as there is one to remove.
func (s *Store) writeTemp(ctx context.Context, body io.ReadSeeker) (name string, info fs.FileInfo, err error) {
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return "", nil, fmt.Errorf("rewind the body: %w", err)
	}
	name = tmpDir + "/" + rand.Text()
	f, err := s.openTemp(name)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	if err := f.Chmod(fileMode); err != nil { // the umask may have taken bits away
		return name, nil, err
	}
	if _, err := io.Copy(onlyWriter{f}, &bodyReader{ctx, body}); err != nil {
		return name, nil, err
	}
	if err := f.Sync(); err != nil {
		return name, nil, err
	}
	info, err = f.Stat()
	return name, info, err
}

// openTemp makes tmpDir too where it is missing: a repository that was copied
// here with another tool has none.
func (s *Store) openTemp(name string) (*os.File, error) {
	for try := 0; ; try++ {
		f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
		if !errors.Is(err, fs.ErrNotExist) || try > 0 {
			return f, err
		}
		if err := s.alive(); err != nil {
			return nil, err
		}
		if err := s.root.Mkdir(tmpDir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
}

// link gives the file its final name and says whether it was free.
func (s *Store) link(tmp string, written fs.FileInfo, key string) (won bool, err error) {
	// A Delete elsewhere may remove the directory, if empty, right after it was
	// made. It does so once for each object it deletes, so this ends.
	for range 100 {
		err = s.root.Link(tmp, key)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if _, tmpErr := s.root.Lstat(tmp); tmpErr != nil {
			return false, fmt.Errorf("the file was swept while it was written: %w", tmpErr)
		}
		s.forget(path.Dir(key))
		if err := s.makeDir(path.Dir(key)); err != nil {
			return false, err
		}
	}
	if !errors.Is(err, fs.ErrExist) {
		return err == nil, err
	}
	// NFS can answer a repeated request with EEXIST although the first one
	// made the link: then the name leads to our own file.
	if there, statErr := s.root.Lstat(key); statErr == nil && os.SameFile(there, written) {
		return true, nil
	}
	taken, err := s.taken(key)
	if err == nil && !taken {
		err = errors.New("the name was taken and then deleted")
	}
	return false, err
}

// makeDir makes dir and the directories above it, and sees to it that their names
// are durable: it fsyncs the directory above each, once in the store's life. It
// does not trust a directory that is there, because who made it may have died, or
// be about to, before its fsync.
func (s *Store) makeDir(dir string) error {
	if dir == "." {
		return nil
	}
	if _, known := s.durable.Load(dir); known {
		return nil
	}
	above := path.Dir(dir)
	if err := s.makeDir(above); err != nil {
		return err
	}
	err := s.root.Mkdir(dir, dirMode)
	if err == nil {
		err = s.root.Chmod(dir, dirMode) // the umask may have taken bits away
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted meanwhile; link finds out and tries again
		}
		return err
	}
	if err := s.syncDir(above); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	s.durable.Store(dir, struct{}{})
	return nil
}

// forget has makeDir look again at dir and the directories above it.
func (s *Store) forget(dir string) {
	for ; dir != "."; dir = path.Dir(dir) {
		s.durable.Delete(dir)
	}
}

// syncDir makes the names in a directory durable.
func (s *Store) syncDir(dir string) error {
	f, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Sweep removes what crashes left in the directory for temporary files: all that
// was last written before the given time. It returns how many files went. A
// Create that is still under way must be younger than that; one that is not
// fails, and loses nothing.
func (s *Store) Sweep(ctx context.Context, before time.Time) (removed int, err error) {
	dir, err := s.root.Open(tmpDir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, s.alive()
	}
	if err != nil {
		return 0, opaque("sweep", s.path, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, opaque("sweep", s.path, err)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return removed, fmt.Errorf("sweep %s: %w", s.path, err)
		}
		name = tmpDir + "/" + name
		info, err := s.root.Lstat(name)
		if err == nil && info.Mode().IsRegular() && info.ModTime().Before(before) {
			err = s.root.Remove(name)
			if err == nil {
				removed++
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, opaque("sweep", s.path, err)
		}
	}
	return removed, nil
}

// makeRoot makes the root and the directories above it that are missing, and in
// it tmpDir, which marks the directory as a store's. All of it is durable then.
func makeRoot(root string) error {
	var missing []string
	for dir := path.Clean(root); ; dir = path.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() || errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("%w: %s is not a directory", storage.ErrNoStore, dir)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, dir)
	}
	missing = append([]string{path.Join(root, tmpDir)}, missing...)
	for i := len(missing) - 1; i >= 0; i-- {
		err := os.Mkdir(missing[i], dirMode)
		if err == nil {
			err = os.Chmod(missing[i], dirMode)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := syncPath(path.Dir(missing[i])); err != nil {
			return err
		}
	}
	return nil
}

func syncPath(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	// The directory above the root may belong to a file system that cannot do
	// this, or to somebody else. What we make there is seldom and seen at once.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// bodyReader stops when the context ends.
type bodyReader struct {
	ctx  context.Context
	body io.Reader
}

func (r *bodyReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.body.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read the body: %w", err)
	}
	return n, err
}

// onlyWriter hides the file's ReadFrom: io.Copy then uses one buffer of its own.
type onlyWriter struct{ io.Writer }
