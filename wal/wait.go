package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// firstPoll is the first pause between two looks at the archive. An archiver
// that works needs about that long for a segment.
const firstPoll = 50 * time.Millisecond

// MissingError says that a segment was not archived in the time given.
type MissingError struct {
	Segment postgres.Segment
	Waited  time.Duration // since it was first looked for
	Err     error         // why the wait ended
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("WAL segment %s is not in the archive after %s of waiting",
		e.Segment, e.Waited.Round(time.Millisecond))
}

func (e *MissingError) Unwrap() error { return e.Err }

// WaitArchived returns nil once every segment of timeline tl with WAL from
// from (included) to to (not included) is archived. It looks again and again,
// at first soon, later every poll, until ctx ends; then *MissingError names
// the first missing segment. An error of the store ends the wait at once.
func WaitArchived(ctx context.Context, r *repo.Repo, system postgres.SystemID, tl postgres.Timeline,
	from, to postgres.LSN, size postgres.SegmentSize, poll time.Duration) error {
	if to <= from {
		return nil
	}
	seg := postgres.SegmentAt(tl, from, size)
	last := postgres.SegmentEndingAt(tl, to, size)
	known, err := listBetween(ctx, r, system, seg, last)
	if err != nil {
		return waitError(ctx, seg, 0, err)
	}
	for ; seg.No <= last.No; seg = seg.Next() {
		if known[seg.Name()] {
			continue
		}
		if err := waitFor(ctx, r, system, seg, poll); err != nil {
			return err
		}
	}
	return nil
}

// listBetween lists what is archived from first to last, in one listing, when
// that is cheaper than to ask for each.
func listBetween(ctx context.Context, r *repo.Repo, system postgres.SystemID, first, last postgres.Segment) (map[string]bool, error) {
	if last.No-first.No < 4 {
		return nil, nil
	}
	known := map[string]bool{}
	prefix := repo.WALPrefix(system, first.Timeline)
	for info, err := range r.Store().List(ctx, prefix+commonPrefix(first.Name(), last.Name())) {
		if err != nil {
			return nil, fmt.Errorf("list the archive: %w", err)
		}
		known[info.Key[len(prefix):]] = true
	}
	return known, nil
}

func commonPrefix(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return a[:n]
}

// waitFor waits for one segment.
func waitFor(ctx context.Context, r *repo.Repo, system postgres.SystemID, seg postgres.Segment, poll time.Duration) error {
	key := repo.WALKey(system, postgres.WALName{Kind: postgres.WALSegment, Timeline: seg.Timeline, Segment: seg.Name()})
	pause := min(firstPoll, poll)
	var waited time.Duration
	for {
		_, err := r.Store().Stat(ctx, key)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return waitError(ctx, seg, waited, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return waitError(ctx, seg, waited, ctx.Err())
		case <-timer.C:
		}
		waited += pause
		pause = min(pause*2, poll)
	}
}

func waitError(ctx context.Context, seg postgres.Segment, waited time.Duration, err error) error {
	if ctx.Err() != nil {
		return &MissingError{seg, waited, ctx.Err()}
	}
	return fmt.Errorf("look for WAL segment %s in the archive: %w", seg, err)
}
