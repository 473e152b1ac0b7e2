package wal

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// maxLost bounds how much WAL FirstCommitAfter reads from the server, in bytes.
const maxLost = 256 << 20

// AheadError says that what is archived of a timeline goes on where the primary
// on it has not come to yet. The archive was listed before the primary was asked,
// and a server archives only what it has flushed: so another branch is archived,
// and how much of the server's own, nobody can tell.
type AheadError struct{ Archived, Flushed postgres.LSN }

func (e *AheadError) Error() string {
	return fmt.Sprintf("the archive is ahead of the server, at %s and not %s: it was put back, or another server archives here",
		e.Archived, e.Flushed)
}

// FirstCommitAfter reads WAL from a running server over the replication
// protocol, without a slot, and finds the oldest commit between a position, at
// which a record begins, and what the server had flushed when it was asked. The
// zero Commit is the proof that there is none.
//
// *AheadError when the server had not come to the position. It is an error too when
// the server is another or on another timeline by now, has removed that WAL, does not
// let this role replicate, or when it is more than 256 MiB.
func FirstCommitAfter(ctx context.Context, conn string, asked ServerState, size postgres.SegmentSize, from postgres.LSN) (Commit, error) {
	switch {
	case asked.Flushed < from:
		return Commit{}, &AheadError{from, asked.Flushed}
	case asked.Flushed == from:
		return Commit{}, nil
	}
	if n := int64(asked.Flushed - from); n > maxLost {
		return Commit{}, fmt.Errorf("read the WAL after %s: %d bytes are too many to look through", from, n)
	}
	tail, err := receiveTail(ctx, conn, asked, postgres.SegmentAt(asked.Timeline, from, size).Start())
	if err != nil {
		return Commit{}, fmt.Errorf("read the WAL after %s: %w", from, err)
	}
	first := postgres.SegmentAt(asked.Timeline, from, size)
	rd := postgres.NewWALReader(from, size, func(no uint64) ([]byte, error) {
		begin := int64(no-first.No) * int64(size)
		if no < first.No || begin >= int64(len(tail)) {
			return nil, io.EOF
		}
		return tail[begin:min(begin+int64(size), int64(len(tail)))], nil
	})
	for {
		rec, err := rd.Next()
		switch {
		case errors.Is(err, io.EOF) && rd.Position() < asked.Flushed && !endsIncomplete(err):
			return Commit{}, fmt.Errorf("read the WAL after %s: it ends at %s: %w", from, rd.Position(), err)
		case errors.Is(err, io.EOF):
			return Commit{}, nil
		case err != nil:
			return Commit{}, fmt.Errorf("read the WAL after %s: %w", from, err)
		case rec.LSN >= asked.Flushed:
			return Commit{}, nil
		}
		ev, err := rec.Event()
		if err != nil {
			return Commit{}, fmt.Errorf("read the WAL after %s: %w", from, err)
		}
		if e, ok := ev.(postgres.TransactionEnd); ok && e.Committed {
			return Commit{e.Time, rec.LSN}, nil
		}
	}
}

// Descends says whether the server has all WAL of a timeline before a position,
// by the history of its own: only then was what it has committed since not
// archived. The server is asked for it; what the archive has of its timeline may
// be another's, or not be there yet.
func Descends(ctx context.Context, conn string, asked ServerState, tl postgres.Timeline, end postgres.LSN) (bool, error) {
	if tl == asked.Timeline {
		return end <= asked.Flushed, nil
	}
	c, err := dialAgain(ctx, conn, asked)
	if err != nil {
		return false, err
	}
	defer c.close()
	_, h, err := c.history(ctx, asked.Timeline)
	return err == nil && h.Contains(tl, end), err
}

// dialAgain connects to the server that was asked, unless it is another one, or on
// another timeline, by now.
func dialAgain(ctx context.Context, conn string, asked ServerState) (*replication, error) {
	c, err := dialReplication(ctx, conn, "lifeboat-drill")
	if err != nil {
		return nil, err
	}
	system, tl, _, err := c.identify(ctx)
	if err == nil && (system != asked.System || tl != asked.Timeline) {
		err = fmt.Errorf("the server is now system %s on timeline %s", system, tl)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// endsIncomplete says whether the last record goes on behind what was read: it
// had not been flushed as a whole.
func endsIncomplete(err error) bool {
	end, ok := errors.AsType[*postgres.EndOfWAL](err)
	return ok && end.Kind == postgres.EndMissing
}

// receiveTail receives what the server had flushed from a position on.
func receiveTail(ctx context.Context, conn string, asked ServerState, from postgres.LSN) ([]byte, error) {
	c, err := dialAgain(ctx, conn, asked)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := c.startWithoutSlot(ctx, asked.Timeline, from); err != nil {
		return nil, err
	}
	var w waiting
	var tail []byte
	for from+postgres.LSN(len(tail)) < asked.Flushed {
		m, err := c.receive(ctx, &w, watchEvery)
		if err != nil {
			return nil, err
		}
		if len(m.data) == 0 {
			continue
		}
		if m.start != from+postgres.LSN(len(tail)) {
			return nil, fmt.Errorf("the server sent %s instead of %s", m.start, from+postgres.LSN(len(tail)))
		}
		tail = append(tail, m.data...)
	}
	return tail, nil
}
