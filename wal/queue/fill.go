package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

const (
	// A Fill has so many segments on their way, so that a store that is far
	// keeps it busy; of large ones fewer. Each takes at most some 30 MiB of
	// memory (the repository's spool).
	fillers      = 4
	fewerFillers = 2
	largeSegment = 32 << 20
)

// Source brings a segment: it writes all of it to the file and returns nil only
// if it was verified to the last byte; fs.ErrNotExist when it is not archived
// whole.
type Source func(ctx context.Context, name postgres.WALName, to *os.File) error

// Fill fetches the segments that follow the one asked for last into the queue,
// until the queue is full: as many as its window holds, counted from what is
// asked for meanwhile. It ends at the first segment that is not archived whole,
// at the first error, when recovery goes another way, and when the file system
// gets full: spare is the number of bytes to leave free there. It does nothing
// if another is at it. open is called once it is known that there is something
// to do.
//
// The error is for a person who looks for the reason why nothing is fetched
// ahead; PostgreSQL is told by its own call.
func (q *Queue) Fill(ctx context.Context, open func(context.Context) (Source, error), spare int64) (fetched int, err error) {
	root, err := os.OpenRoot(q.dir)
	if err != nil {
		return 0, notThere(err) // nothing was asked for
	}
	defer root.Close()
	f := &filler{Queue: q, root: root, spare: spare}
	lock, err := f.lock()
	if lock == nil {
		return 0, err
	}
	defer lock.Close()
	if err := f.sweep(); err != nil {
		return 0, err
	}
	if _, ok := f.next(); !ok {
		return 0, f.stopped
	}
	if f.source, err = open(ctx); err != nil {
		return 0, err
	}
	fetched, err = f.run(ctx)
	if !f.inPlace() {
		// Whoever put the directory aside may not have been able to remove what
		// was being written.
		err = errors.Join(err, removeGone(filepath.Dir(q.dir)))
	}
	return fetched, err
}

// filler is a Fill under way.
type filler struct {
	*Queue
	root    *os.Root
	source  Source
	spare   int64
	begun   postgres.Segment // the newest that was begun
	stopped error            // why nothing more is begun, if that is an error
}

// lock returns nil when another has it.
func (f *filler) lock() (*os.File, error) {
	lock, err := f.root.OpenFile(fillingLock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(lock, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = nil
		}
		return nil, err
	}
	return lock, nil
}

// sweep removes the parts that killed ones left.
func (f *filler) sweep() error {
	entries, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isPart(e) {
			if err := notThere(f.root.Remove(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// run begins the next segment whenever one is done.
func (f *filler) run(ctx context.Context) (fetched int, err error) {
	workers := fillers
	if f.size >= largeSegment {
		workers = fewerFillers
	}
	done := make(chan error)
	for running, ended := 0, false; ; {
		for running < workers && !ended && ctx.Err() == nil {
			seg, ok := f.next()
			if !ok {
				break
			}
			f.begun = seg
			running++
			part, err := f.openPart(seg)
			go func() {
				if err == nil {
					err = f.fetch(ctx, seg, part)
				}
				done <- err
			}()
		}
		if running == 0 {
			return fetched, errors.Join(err, f.stopped)
		}
		failed := <-done
		running--
		switch {
		case failed == nil:
			fetched++
		case errors.Is(failed, fs.ErrNotExist): // the end of the archive, or of the queue
			ended = true
		default:
			ended = true
			err = errors.Join(err, failed)
		}
	}
}

// next is the segment to begin now, false when the queue is full or recovery
// goes another way.
func (f *filler) next() (postgres.Segment, bool) {
	raw, err := f.root.ReadFile(askedFile)
	if err != nil || !f.inPlace() {
		return postgres.Segment{}, false
	}
	a, _ := f.parseAsked(raw)
	if a.owner != f.owner || f.begun.Timeline != 0 && a.last.Timeline != f.begun.Timeline {
		return postgres.Segment{}, false
	}
	seg := a.last
	for range a.window {
		seg = seg.Next()
		if f.begun.Timeline != 0 && seg.No <= f.begun.No {
			continue
		}
		if _, err := f.root.Lstat(seg.Name()); err == nil {
			continue
		}
		return seg, f.roomFor(seg)
	}
	return postgres.Segment{}, false
}

// inPlace says whether the directory still is the queue's.
func (f *filler) inPlace() bool {
	ours, err := f.root.Stat(".")
	if err != nil {
		return false
	}
	now, err := os.Lstat(f.dir)
	return err == nil && os.SameFile(ours, now)
}

// roomFor says whether the file system can take one more segment, beside
// those on their way, without getting full: PostgreSQL needs room more than we.
func (f *filler) roomFor(seg postgres.Segment) bool {
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.dir, &st); err != nil {
		f.stopped = fmt.Errorf("look for free space in %s: %w", f.dir, err)
		return false
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	if free < f.spare+(fillers+1)*int64(seg.Size) {
		f.stopped = fmt.Errorf("nothing is fetched ahead: only %d bytes are free in %s", free, f.dir)
		return false
	}
	return true
}

// openPart makes the file in which a segment comes, locked: a call that wants
// this very segment waits for it.
func (f *filler) openPart(seg postgres.Segment) (*os.File, error) {
	part, err := f.root.OpenFile(seg.Name()+PartSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("fetch %s ahead: %w", seg, err)
	}
	if err := flock(part, syscall.LOCK_EX); err != nil {
		part.Close()
		return nil, fmt.Errorf("lock %s: %w", part.Name(), err)
	}
	return part, nil
}

// fetch brings one segment into the queue. It has its own name only when all
// of it was verified, the header of its first page is right, and it is on disk.
func (f *filler) fetch(ctx context.Context, seg postgres.Segment, part *os.File) (err error) {
	defer part.Close()
	defer func() {
		// Where PostgreSQL is the first process of a container it inherits
		// this one, and takes a bad end of it for one of its own.
		if p := recover(); p != nil {
			err = fmt.Errorf("fetch %s ahead: internal error: %v", seg, p)
		}
	}()
	name := postgres.WALName{Kind: postgres.WALSegment, Timeline: seg.Timeline, Segment: seg.Name()}
	err = f.source(ctx, name, part)
	if err == nil {
		err = f.check(name, part) // what is signed can be wrong
	}
	if err == nil {
		// PostgreSQL will do so too, and then has nothing to wait for.
		err = part.Sync()
	}
	if err == nil {
		err = f.root.Rename(seg.Name()+PartSuffix, seg.Name())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("fetch %s ahead: %w", seg, err), notThere(f.root.Remove(seg.Name()+PartSuffix)))
	}
	return nil
}
