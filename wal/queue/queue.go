// Package queue keeps, in a data directory, the WAL segments that were fetched
// before PostgreSQL asked for them.
//
// It knows neither repositories nor keys, and imports next to nothing: the
// call that PostgreSQL waits for is done with it alone when the segment is
// there (cmd/lifeboat/early).
package queue

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// SpoolDir is the directory, in the data directory, in which push notes what it
// has made durable ahead of being asked, and fetch keeps what it got ahead. It
// lives and dies with the cluster whose WAL it is about, it is on PostgreSQL's
// own file system, so that a segment is handed over by a rename, and its
// account can write there. Nothing in it is ever needed: without it push and
// fetch only do their work later. A base backup leaves it out.
const SpoolDir = "lifeboat.spool"

// The queue's directory in SpoolDir, and what is in it beside segments.
const (
	fetchedDir  = "fetch"
	goneSuffix  = ".gone-" // behind fetchedDir: put aside, to be removed
	fillingLock = "filling"
)

// Queue is the directory, in a data directory, of the segments that were fetched
// before PostgreSQL asked for them. The call that PostgreSQL waits for takes a
// segment from it (Take) and says how far recovery has come (Asked); a process
// that nobody waits for fetches what comes next (Fill). Nothing of it decides
// anything: what is not in the queue is fetched as if there were none, and that
// something is not archived is never in it.
//
// A file has the name of a segment only once all of it was verified, as wal.Fetch
// does it, and is on disk, so that what a crash leaves is whole too. Segments
// of another system, another data directory (a copy has a directory of its own),
// another source or another timeline than the last one asked for are not used.
type Queue struct {
	dataDir string
	dir     string
	system  postgres.SystemID
	size    postgres.SegmentSize
	owner   string
}

// New is the queue of a data directory with this control file. source
// says where its WAL comes from, in any words: repository, keys. Nothing is
// made or read yet.
func New(dataDir string, control postgres.ControlFile, source string) (*Queue, error) {
	info, err := os.Stat(dataDir)
	if err != nil {
		return nil, err
	}
	id := ""
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id = fmt.Sprint(st.Dev, " ", st.Ino)
	}
	sum := fnv.New128a() // against mistakes, not against anybody who can write here
	fmt.Fprintf(sum, "%s\n%s\n%s", id, control.SystemID, source)
	return &Queue{
		dataDir: dataDir,
		dir:     filepath.Join(dataDir, SpoolDir, fetchedDir),
		system:  control.SystemID,
		size:    control.WALSegmentSize,
		owner:   fmt.Sprintf("%032x", sum.Sum(nil)),
	}, nil
}

// DamagedError says that a file of the queue was not the segment that its name
// says. It was removed, and must be fetched.
type DamagedError struct{ Err error }

func (e *DamagedError) Error() string { return "what was fetched ahead is damaged: " + e.Err.Error() }
func (e *DamagedError) Unwrap() error { return e.Err }

// Take moves a segment from the queue to dest, replacing what is there, whole
// or not at all. When it is just being fetched, Take waits for it until ctx
// ends: waited. took is false when the queue does not have it; an error, with
// which took is false too, is no answer to PostgreSQL, only worth a line.
func (q *Queue) Take(ctx context.Context, name postgres.WALName, dest string) (took, waited bool, err error) {
	if name.Kind != postgres.WALSegment {
		return false, false, nil
	}
	if last, err := q.readAsked(); err != nil || last.owner != q.owner {
		return false, false, notThere(err)
	}
	path := filepath.Join(q.dir, name.Segment)
	err = q.handOver(name, path, dest)
	if errors.Is(err, fs.ErrNotExist) {
		if waited, err = awaitHolder(ctx, path+PartSuffix); err != nil {
			return false, waited, err
		}
		err = q.handOver(name, path, dest)
	}
	return err == nil, waited, notThere(err)
}

// notThere takes what is missing for no error.
func notThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// handOver checks that the file at path is the segment, by its size and by
// the header of its first page, and moves it to dest.
func (q *Queue) handOver(name postgres.WALName, path, dest string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := q.check(name, f); err != nil {
		return errors.Join(&DamagedError{err}, os.Remove(path))
	}
	err = os.Rename(path, dest)
	if !errors.Is(err, syscall.EXDEV) { // pg_wal may be on another file system
		return err
	}
	if err := WriteWhole(dest, f); err != nil {
		return err
	}
	return os.Remove(path)
}

func (q *Queue) check(name postgres.WALName, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	first := make([]byte, postgres.SegmentHeaderSize)
	n, err := f.ReadAt(first, 0)
	if err != nil && err != io.EOF {
		return err
	}
	h, err := postgres.CheckSegment(name.String(), info.Size(), first[:n])
	if err == nil && (h.SystemID != q.system || h.SegmentSize != q.size || info.Size() != int64(q.size)) {
		err = fmt.Errorf("%s is of system %s and has %d bytes, wanted %s and %d", f.Name(), h.SystemID, info.Size(), q.system, q.size)
	}
	return err
}

// awaitHolder waits until nobody holds a lock on the file, or ctx ends, and
// says whether anybody did. A process that dies holds none.
func awaitHolder(ctx context.Context, path string) (held bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, notThere(err)
	}
	err = flock(f, syscall.LOCK_SH|syscall.LOCK_NB)
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return false, err
	}
	done := make(chan error, 1)
	go func() { // it ends with the holder
		defer f.Close()
		done <- flock(f, syscall.LOCK_SH)
	}()
	select {
	case err := <-done:
		return true, err
	case <-ctx.Done():
		return true, nil
	}
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// Clear empties the queue, for good: a Fill that is still under way ends and
// brings nothing back.
func (q *Queue) Clear() error { return Clear(q.dataDir) }

// Clear removes what was fetched ahead for a data directory, if there is
// anything. After a promotion, or when recovery goes another way, none of it is
// wanted any more.
func Clear(dataDir string) error {
	spool := filepath.Join(dataDir, SpoolDir)
	dir := filepath.Join(spool, fetchedDir)
	_, err := os.Lstat(dir)
	if err == nil {
		// A Fill knows its directory by an open descriptor, so what it still
		// writes goes to the directory that was put aside.
		var aside string
		if aside, err = os.MkdirTemp(spool, fetchedDir+goneSuffix); err == nil {
			err = os.Rename(dir, filepath.Join(aside, fetchedDir))
		}
	}
	return errors.Join(notThere(err), removeGone(spool))
}

// removeGone removes the directories that were put aside.
func removeGone(spool string) error {
	entries, err := os.ReadDir(spool)
	if err != nil {
		return notThere(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), fetchedDir+goneSuffix) {
			continue
		}
		path := filepath.Join(spool, e.Name())
		// A Fill may create one more file while we remove; then it ends, and
		// does this too.
		for range 10 {
			if err = os.RemoveAll(path); err == nil {
				break
			}
		}
	}
	return err
}
