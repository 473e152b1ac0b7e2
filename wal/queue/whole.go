package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// PartSuffix is put behind the name of a file while it is being written.
const PartSuffix = ".lifeboat-part"

// WriteWhole puts body at dest by way of a file beside it, so that dest never
// is half a file. The file beside it is locked, not unique: a killed fetch
// leaves one, the next uses it again, and two at once do not mix.
func WriteWhole(dest string, body io.Reader) error {
	part := dest + PartSuffix
	f, err := lockPart(part)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = io.Copy(f, body); err == nil {
		err = os.Rename(part, dest)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return nil
}

// lockPart opens the file, empty and locked. The lock ends with the process.
func lockPart(part string) (*os.File, error) {
	for {
		f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		ours, err := lockSame(f, part)
		if err == nil && ours {
			err = f.Truncate(0)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		if ours {
			return f, nil
		}
		// Another fetch renamed it away between open and lock.
		f.Close()
	}
}

// lockSame locks f and says whether it still is the file at path.
func lockSame(f *os.File, path string) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, fmt.Errorf("another fetch is writing %s", path)
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", path, err)
	}
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(have, now), err
}
