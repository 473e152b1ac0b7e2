package drill

import (
	"context"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// measureLoss bounds what would have been lost, by the method of docs/drill.md.
// It rests on where the restored server really ended, not on the plan.
func (r *run) measureLoss(ctx context.Context) {
	if r.plan.Point.Kind != restore.ToEnd {
		return
	}
	rpo := &r.doc.RPO
	l, err := readServerLog(r.stage.log())
	if err != nil {
		rpo.Reason = oneLine(err.Error())
		return
	}
	end, err := r.recovered(l)
	if err != nil {
		rpo.Reason = oneLine("where recovery ended is not known: " + err.Error())
		return
	}
	rpo.Recovered = end.String()
	commit := r.newestCommit(l)
	rpo.Commit = at(commit)
	if r.o.Heartbeat > 0 {
		h := r.o.Heartbeat.Seconds()
		rpo.Heartbeat = &h
	}
	if r.primary == nil {
		// Our clock stands in for the primary's; by how far they differ is not
		// known, and Reason says why it could not be asked.
		rpo.Basis, rpo.Disaster = "archive", at(r.listed)
		r.bound(r.listed.Sub(commit), r.listed.Sub(commit))
		return
	}
	rpo.Basis, rpo.Disaster, rpo.Flushed = "primary", at(r.primary.Now), r.primary.Flushed.String()
	lost := int64(max(0, r.primary.Flushed-min(end, r.primary.Flushed)))
	rpo.LostBytes = &lost
	r.lossTo(ctx, end, commit)
}

// lossTo bounds the loss by the primary's own WAL after the recovered end.
func (r *run) lossTo(ctx context.Context, end postgres.LSN, commit time.Time) {
	rpo, since := &r.doc.RPO, r.primary.Now.Sub(commit)
	if r.primary.Timeline != r.plan.Timeline {
		rpo.Reason = fmt.Sprintf("the primary is on timeline %s, and recovery followed %s", r.primary.Timeline, r.plan.Timeline)
		r.bound(since, since)
		return
	}
	rctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	first, err := wal.FirstCommitAfter(rctx, r.o.Conn, *r.primary, r.plan.Backup.SegSize, end)
	switch {
	case err != nil:
		rpo.Reason = oneLine("what the primary wrote after the recovered end could not be looked through: " + err.Error())
		r.bound(since, since)
	case first.Time.IsZero():
		rpo.Zero = true
		r.bound(0, 0)
	default:
		rpo.FirstLost = at(first.Time)
		r.bound(since, r.primary.Now.Sub(first.Time))
	}
}

// bound sets the bounds. since is from the newest commit that was brought back,
// most from the oldest that was not, where that is known. With a heartbeat each
// H something was committed within H of the newest commit, so at least since-H
// is lost; without, nothing is said below.
func (r *run) bound(since, most time.Duration) {
	upper, lower := max(0, most).Seconds(), 0.0
	if r.o.Heartbeat > 0 && upper > 0 {
		lower = min(upper, max(0, since-r.o.Heartbeat).Seconds())
	}
	upper, lower = round(upper), round(lower)
	r.doc.RPO.Upper, r.doc.RPO.Lower = &upper, &lower
}

// newestCommit is the newest commit that was brought back: what the server
// says that it replayed, else all that was committed before the backup began.
func (r *run) newestCommit(l serverLog) time.Time {
	switch {
	case !l.commit.IsZero():
		return l.commit
	case !r.plan.StopTime.IsZero():
		return r.plan.StopTime
	}
	return r.plan.Backup.StartTime
}

func at(t time.Time) *time.Time {
	t = t.UTC().Truncate(time.Microsecond)
	return &t
}
