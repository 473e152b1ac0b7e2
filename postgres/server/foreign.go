package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrNotPlain means that something else than a regular file lies where one
// belongs: a link, a pipe, a directory, a device.
var ErrNotPlain = errors.New("it is not a regular file")

// ErrTooLarge means that a file is larger than its reader takes.
var ErrTooLarge = errors.New("it is larger than such a file can be")

// ReadForeign reads a file that a running server can have replaced or written:
// once a restored server has run, its directories are an attacker's. The name is
// relative to dir and slash-separated. Nothing outside of dir is reached, no link
// is followed, only a regular file is read, a pipe does not block, and no more
// than most bytes are taken: a larger file is ErrTooLarge. Errors never quote the
// content.
func ReadForeign(dir, name string, most int64) ([]byte, error) {
	return readForeign(dir, name, func(f *os.File, size int64) (io.Reader, error) {
		if size > most {
			return nil, ErrTooLarge
		}
		return io.LimitReader(f, most), nil
	})
}

// ReadForeignTail is ReadForeign for the end of a file, at most so many bytes and
// none before the offset from. whole says whether it begins at from.
func ReadForeignTail(dir, name string, from, most int64) (tail []byte, whole bool, err error) {
	tail, err = readForeign(dir, name, func(f *os.File, size int64) (io.Reader, error) {
		start := max(from, size-most)
		whole = start == from
		return io.NewSectionReader(f, start, min(most, max(0, size-start))), nil
	})
	return tail, whole, err
}

// ForeignSize is the size of a regular file below dir, in bytes.
func ForeignSize(dir, name string) (int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	info, err := root.Lstat(filepath.FromSlash(name))
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s: %w", filepath.Join(dir, name), ErrNotPlain)
	}
	return info.Size(), nil
}

// readForeign opens the file and reads what choose says of it.
func readForeign(dir, name string, choose func(f *os.File, size int64) (io.Reader, error)) ([]byte, error) {
	f, size, err := openForeign(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := choose(f, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return io.ReadAll(r)
}

// openForeign looks before it opens, so that no device and no pipe is opened, and
// again at what it has opened: the name may have been given to something else in
// between.
func openForeign(dir, name string) (*os.File, int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	name = filepath.FromSlash(name)
	before, err := root.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	plain := fmt.Errorf("%s: %w", filepath.Join(dir, name), ErrNotPlain)
	if !before.Mode().IsRegular() {
		return nil, 0, plain
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, 0, err
	}
	after, err := f.Stat()
	if err == nil && (!after.Mode().IsRegular() || !os.SameFile(before, after)) {
		err = plain
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, after.Size(), nil
}

// foreignMissing says that the file is not there.
func foreignMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
