package drill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// measureLoss bounds what would have been lost, by the method of docs/drill.md.
// It rests on where the restored server really ended, not on the plan.
func (r *run) measureLoss(ctx context.Context) {
	if r.plan.Point.Kind != restore.ToEnd {
		return
	}
	rpo := &r.doc.RPO
	end := r.recovery.End
	if end == 0 {
		rpo.Reason = probe.OneLine("where recovery ended is not known: " + r.recovery.Why)
		return
	}
	rpo.Recovered = end.String()
	commit := r.newestCommit()
	rpo.Commit = at(commit)
	if r.o.Heartbeat > 0 {
		h := r.o.Heartbeat.Seconds()
		rpo.Heartbeat = &h
	}
	if r.primary == nil {
		// Our clock stands in for the primary's; by how far they differ is not
		// known, and Reason says why it could not be asked.
		rpo.Basis, rpo.Disaster = "archive", at(r.listed)
		r.bound(r.listed.Sub(commit), 0)
		return
	}
	rpo.Basis, rpo.Disaster, rpo.Flushed = "primary", at(r.primary.Now), r.primary.Flushed.String()
	if r.lossTo(ctx, end, commit); rpo.Upper != nil {
		lost := int64(r.primary.Flushed - min(end, r.primary.Flushed))
		rpo.LostBytes = &lost
	}
}

// lossTo bounds the loss by the primary's own WAL after the recovered end.
func (r *run) lossTo(ctx context.Context, end postgres.LSN, commit time.Time) {
	rpo, since := &r.doc.RPO, r.primary.Now.Sub(commit)
	rctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if r.primary.Timeline != r.plan.Timeline {
		rpo.Reason = fmt.Sprintf("the primary is on timeline %s, and recovery followed %s", r.primary.Timeline, r.plan.Timeline)
		has, err := wal.Descends(rctx, r.o.Conn, *r.primary, r.plan.Timeline, end)
		switch {
		case err != nil:
			rpo.Reason += probe.OneLine("; whether it descends from there is not known: " + err.Error())
		case !has: // what it has committed since they parted is lost too
			rpo.Reason += fmt.Sprintf(" to %s, which it does not descend from: there are two branches", end)
		default:
			r.bound(since, 0)
		}
		return
	}
	first, err := wal.FirstCommitAfter(rctx, r.o.Conn, *r.primary, r.plan.Backup.SegSize, end)
	_, ahead := errors.AsType[*wal.AheadError](err)
	switch {
	case ahead: // what was recovered is not what the primary has
		rpo.Reason = probe.OneLine(err.Error())
	case err != nil:
		rpo.Reason = probe.OneLine("what the primary wrote after the recovered end could not be looked through: " + err.Error())
		r.bound(since, 0)
	case first.Time.IsZero():
		rpo.Zero = true
		r.bound(0, 0)
	default:
		rpo.FirstLost = at(first.Time)
		r.bound(r.primary.Now.Sub(first.Time), r.atLeast(since, first.Time.Sub(commit)))
	}
}

// atLeast is what is lost at least: with a heartbeat each H something was
// committed within H of the newest commit that was brought back. That holds only
// while heartbeats are written, and they were if the oldest lost commit came
// within H.
func (r *run) atLeast(since, pause time.Duration) time.Duration {
	if r.o.Heartbeat <= 0 || pause > r.o.Heartbeat {
		return 0
	}
	return since - r.o.Heartbeat
}

func (r *run) bound(most, least time.Duration) {
	upper := evidence.Round(max(0, most).Seconds())
	lower := min(upper, evidence.Round(max(0, least).Seconds()))
	r.doc.RPO.Upper, r.doc.RPO.Lower = &upper, &lower
}

// newestCommit is the newest commit that was brought back, by the records that
// the plan has read; the check of the recovery end has shown that all of them
// were replayed. What the server itself says counts aborts too. Without any,
// all is there that was committed before the backup began.
func (r *run) newestCommit() time.Time {
	if r.plan.StopTime.IsZero() {
		return r.plan.Backup.StartTime
	}
	return r.plan.StopTime
}

func at(t time.Time) *time.Time {
	t = t.UTC().Truncate(time.Microsecond)
	return &t
}
