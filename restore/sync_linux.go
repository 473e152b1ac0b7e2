package restore

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// On Linux one syncfs(2) a file system brings everything to disk that was
// written to it. Since Linux 5.8 it reports errors of writing back that came up
// since the file that it is given was opened. That is the marker, which is
// opened before anything else is written.

// startWriteback begins to write a part of a file to disk while the next is
// still being fetched, so that the disk does not wait for the end.
// It is advice: what cannot be begun now is written by sync.
func startWriteback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// totalMemory is the memory of the machine in bytes, and the most there can be when
// that is not known.
func totalMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return math.MaxInt64
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// writeUncached writes b and lets the system forget it once it is on disk, which
// Linux can from 6.14 on, on some file systems. Where it cannot, nothing is written
// and the error is ErrUnsupported.
func writeUncached(f *os.File, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwritev2(int(f.Fd()), [][]byte{b}, off, unix.RWF_DONTCACHE)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EINVAL:
			return errors.ErrUnsupported
		case err != nil:
			return &os.PathError{Op: "write", Path: f.Name(), Err: err}
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// reserveFrom is the smallest file that is given its blocks at once.
const reserveFrom = 1 << 20

// reserve gives a file its blocks before it is written, which saves about a
// fifth of the time that the system takes for the writes, and finds out early
// that the disk is full. A file system that cannot do it does without.
func reserve(f *os.File, size int64) error {
	if size < reserveFrom {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// finishFile closes a file that has all its bytes; sync makes it durable.
func finishFile(f *os.File) error { return f.Close() }

// sync makes everything written so far durable.
func (d *dirs) sync() error {
	synced := map[uint64]bool{}
	for _, o := range d.roots {
		f := o.marker
		var st syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
			return fmt.Errorf("sync %s: %w", f.Name(), err)
		}
		if synced[uint64(st.Dev)] {
			continue
		}
		synced[uint64(st.Dev)] = true
		if err := unix.Syncfs(int(f.Fd())); err != nil {
			return fmt.Errorf("sync the file system of %s: %w", f.Name(), err)
		}
	}
	return d.syncMade()
}
