package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// commitLookBack is how many segments NewestCommit looks through.
const commitLookBack = 8

// Commit is a commit in the WAL. The zero value is none.
type Commit struct {
	Time time.Time    // by the clock of the server that made it
	LSN  postgres.LSN // of its record
}

// NewestCommit finds the newest commit on the path before to, in the last
// archived segments that end there, at most eight of them and none before the
// one that holds from. The zero Commit when these hold none. It needs an
// identity; an error when a segment cannot be read, together with the newest
// commit before that place.
func (ix *Index) NewestCommit(ctx context.Context, r *repo.Repo, p Path, from, to postgres.LSN) (Commit, error) {
	if ix.size == 0 || to <= from {
		return Commit{}, nil
	}
	var newest Commit
	last := postgres.SegmentEndingAt(0, to, ix.size)
	for back := range min(commitLookBack, last.No+1) {
		seg := postgres.Segment{No: last.No - back, Size: ix.size}
		if _, _, ok := ix.source(p, seg.No); !ok || seg.End() <= from {
			break
		}
		var err error
		if newest, err = ix.commitsBetween(ctx, r, p, max(from, seg.Start()), min(to, seg.End())); err != nil {
			return newest, err
		}
		if !newest.Time.IsZero() {
			break
		}
	}
	return newest, nil
}

// commitsBetween is the newest of the commits whose records begin between two
// positions. The end of the archive is no error, nor is a gap.
func (ix *Index) commitsBetween(ctx context.Context, r *repo.Repo, p Path, from, to postgres.LSN) (Commit, error) {
	rd := ix.Reader(ctx, r, p, from)
	defer rd.Close()
	var newest Commit
	for {
		rec, err := rd.Next()
		_, gap := errors.AsType[*GapError](err) // the last record before it goes on in it
		switch {
		case ctx.Err() != nil:
			return newest, context.Cause(ctx)
		case errors.Is(err, io.EOF), gap:
			return newest, nil
		case err != nil:
			return newest, fmt.Errorf("look for the newest commit: %w", err)
		case rec.LSN >= to:
			return newest, nil
		case rec.Rmgr != postgres.RmgrTransaction:
			continue
		}
		if ev, err := rec.Event(); err == nil {
			if e, ok := ev.(postgres.TransactionEnd); ok && e.Committed && e.Time.After(newest.Time) {
				newest = Commit{e.Time, rec.LSN}
			}
		}
	}
}
