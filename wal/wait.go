package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// firstPoll is the first pause between two looks at the archive. An archiver
// that works needs about that long for a segment.
const firstPoll = 50 * time.Millisecond

// MissingError says that a segment was not seen in the archive in the time given.
type MissingError struct {
	Segment postgres.Segment
	Looked  bool          // and it was not there; else the time ended before the answer
	Waited  time.Duration // since it was first looked for
	Err     error         // why the wait ended
}

func (e *MissingError) Error() string {
	if !e.Looked {
		return fmt.Sprintf("the time given ended before it was known whether WAL segment %s is in the archive", e.Segment)
	}
	return fmt.Sprintf("WAL segment %s is not in the archive after %s of waiting",
		e.Segment, e.Waited.Round(time.Millisecond))
}

func (e *MissingError) Unwrap() error { return e.Err }

// BadSegmentError says that what is archived under the name of a segment is not that
// segment, by its signed header.
type BadSegmentError struct {
	Segment postgres.Segment
	Object  string
	Err     error // repo.AboutObject or *HeaderError
}

func (e *BadSegmentError) Error() string {
	return fmt.Sprintf("what is archived as segment %s is not it: %v", e.Segment, e.Err)
}

func (e *BadSegmentError) Unwrap() error { return e.Err }

// Stretch is WAL of one timeline, from a position (included) to another (not included).
type Stretch struct {
	System   postgres.SystemID
	Timeline postgres.Timeline
	From, To postgres.LSN
	Size     postgres.SegmentSize
}

// ends are the first and the last segment with any of it; ok is false when it is empty.
func (s Stretch) ends() (first, last postgres.Segment, ok bool) {
	if s.To <= s.From {
		return first, last, false
	}
	return postgres.SegmentAt(s.Timeline, s.From, s.Size), postgres.SegmentEndingAt(s.Timeline, s.To, s.Size), true
}

// WaitArchived returns nil once every segment of the stretch is archived: an object of
// its name is there, and its header is signed for that name and says that it has the
// size of a segment. It looks
// again and again, at first soon, later every poll, until ctx ends; then
// *MissingError names the first missing segment. *BadSegmentError when something
// else bears the name of one: archiving does not replace it, so it is not waited for.
// Any other error of the store ends the wait at once too.
func WaitArchived(ctx context.Context, r *repo.Repo, of Stretch, poll time.Duration) error {
	seg, last, ok := of.ends()
	if !ok {
		return nil
	}
	w := &waiter{r, of.System, poll}
	known, err := w.among(ctx, seg, last)
	if err != nil {
		return waitError(ctx, &MissingError{Segment: seg}, err)
	}
	for ; seg.No <= last.No; seg = seg.Next() {
		if known[seg.No] {
			continue
		}
		if err := w.waitFor(ctx, seg); err != nil {
			return err
		}
	}
	return nil
}

// waiter waits for WAL of one system.
type waiter struct {
	repo   *repo.Repo
	system postgres.SystemID
	poll   time.Duration
}

func (w *waiter) key(seg postgres.Segment) string {
	return repo.WALKey(w.system, postgres.WALName{Kind: postgres.WALSegment, Timeline: seg.Timeline, Segment: seg.Name()})
}

// among are the numbers of the segments from first to last that are archived, by one
// listing and many headers at once, when that is faster than to look for each.
func (w *waiter) among(ctx context.Context, first, last postgres.Segment) (map[uint64]bool, error) {
	if last.No-first.No < 4 {
		return nil, nil
	}
	known := map[uint64]bool{}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(headersAtOnce)
	prefix := repo.WALPrefix(w.system, first.Timeline)
	var listing error
	for info, err := range w.repo.Store().List(ctx, prefix+commonPrefix(first.Name(), last.Name())) {
		if err != nil {
			listing = fmt.Errorf("list the archive: %w", err)
			break
		}
		seg, err := postgres.ParseSegment(info.Key[len(prefix):], first.Size)
		if err != nil || seg.No < first.No || seg.No > last.No {
			continue
		}
		g.Go(func() error {
			err := w.check(gctx, seg, info)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it has gone since; it is waited for
			}
			if err == nil {
				mu.Lock()
				known[seg.No] = true
				mu.Unlock()
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return known, listing
}

// check reads the header of a segment. *BadSegmentError when it is not one; others
// are the store's.
func (w *waiter) check(ctx context.Context, seg postgres.Segment, o storage.Info) error {
	h, err := readListed(ctx, w.repo, o)
	if err == nil && h.Size != int64(seg.Size) {
		err = &HeaderError{Name: seg.Name(), Reason: fmt.Sprintf("it has %d bytes, and segments here have %d", h.Size, seg.Size)}
	}
	if AboutObject(err) {
		return &BadSegmentError{seg, o.Key, err}
	}
	return err
}

func commonPrefix(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// waitFor waits for one segment.
func (w *waiter) waitFor(ctx context.Context, seg postgres.Segment) error {
	pause := min(firstPoll, w.poll)
	missing := &MissingError{Segment: seg}
	for {
		info, err := w.repo.Store().Stat(ctx, w.key(seg))
		if err == nil {
			err = w.check(ctx, seg, info)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return waitError(ctx, missing, err)
		}
		missing.Looked = true
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return waitError(ctx, missing, ctx.Err())
		case <-timer.C:
		}
		missing.Waited += pause
		pause = min(pause*2, w.poll)
	}
}

func waitError(ctx context.Context, missing *MissingError, err error) error {
	if ctx.Err() != nil {
		missing.Err = ctx.Err()
		return missing
	}
	if bad, ok := errors.AsType[*BadSegmentError](err); ok {
		return bad
	}
	return fmt.Errorf("look for WAL segment %s in the archive: %w", missing.Segment, err)
}
