package drill

import (
	"context"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// check runs all checks. The first three decide whether the others make sense.
func (r *run) check(ctx context.Context) error {
	err := r.record.Phase(evidence.PhaseChecks, func(*evidence.Phase) error {
		ok := r.looked(ctx, "server opens", "server opens", true, checkLimit)
		ok = r.builtIn(ctx, "recovery end", true, checkLimit, r.reachedEnd) && ok
		r.builtIn(ctx, "fence", true, checkLimit+answerLimit, r.proveFence)
		r.libraries()
		if !ok {
			return nil
		}
		r.looked(ctx, "catalogue", "catalogue", true, checkLimit)
		for _, c := range r.o.Checks {
			r.own(ctx, c)
		}
		if r.o.Level == evidence.Deep {
			r.deep(ctx)
			return nil
		}
		r.looked(ctx, "checksums", "checksum failures", false, checkLimit)
		return nil
	})
	r.took = r.record.Since()
	r.proven = err == nil
	for _, c := range r.doc.Checks {
		r.proven = r.proven && (!c.Required || c.Verdict == evidence.Passed)
	}
	return err
}

// deep reads everything: pages, rows, indexes.
func (r *run) deep(ctx context.Context) {
	r.looked(ctx, "amcheck", "amcheck", true, deepLimit)
	r.looked(ctx, "dump", "dump", true, deepLimit)
	// The last: it wants the server to be stopped. Of a cluster that has none it
	// stays unknown, and nobody can ask for it.
	r.looked(ctx, "checksums", "checksums", r.plan.Backup.Checksums, deepLimit)
}

// answerLimit is how much longer the helper may take to say that a check has
// ended than the check itself.
const answerLimit = 30 * time.Second

// looked has the helper do one of our own checks; true when it passed.
func (r *run) looked(ctx context.Context, name, look string, required bool, limit time.Duration) bool {
	return r.builtIn(ctx, name, required, limit+answerLimit, func(ctx context.Context) (evidence.Verdict, string) {
		s, err := r.look(ctx, lookRequest{Check: look, Limit: limit})
		if err != nil {
			return evidence.Unknown, err.Error()
		}
		return s.Verdict, s.Detail
	})
}

// own has the helper do a check of the user's.
func (r *run) own(ctx context.Context, c probe.Check) {
	disaster := r.listed
	if r.primary != nil {
		disaster = r.primary.Now
	}
	kind := "sql"
	if len(c.Command) > 0 {
		kind = "command"
	}
	done := probe.Timed(ctx, r.o.Now, evidence.Check{Name: c.Name, Kind: kind, Required: c.Required}, c.Limit()+answerLimit, func(ctx context.Context) (evidence.Verdict, string) {
		s, err := r.look(ctx, lookRequest{Own: &c, Disaster: disaster})
		if err != nil {
			return evidence.Unknown, err.Error()
		}
		return s.Verdict, s.Detail
	})
	done.Seconds = evidence.Round(done.Seconds)
	r.doc.Checks = append(r.doc.Checks, done)
}

// look asks the helper for one check.
func (r *run) look(ctx context.Context, q lookRequest) (seen, error) {
	var s seen
	err := r.helper.call(ctx, doLook, q, &s)
	if err == nil {
		err = s.clean()
	}
	return s, err
}

// builtIn runs one of our own checks; true when it passed.
func (r *run) builtIn(ctx context.Context, name string, required bool, limit time.Duration, look func(context.Context) (evidence.Verdict, string)) bool {
	c := probe.Timed(ctx, r.o.Now, evidence.Check{Name: name, Kind: "built-in", Required: required}, limit, look)
	c.Seconds = evidence.Round(c.Seconds)
	r.doc.Checks = append(r.doc.Checks, c)
	return c.Verdict == evidence.Passed
}

// reachedEnd compares where recovery ended with what was found by reading the
// archive, which PostgreSQL had no part in.
func (r *run) reachedEnd(context.Context) (evidence.Verdict, string) {
	l, end := r.recovery, r.recovery.End
	if end == 0 {
		return evidence.Failed, "where recovery ended is not known: " + l.Why
	}
	// Where recovery stops before a record, the log names that one; the end of
	// what was replayed is in the history of the new timeline in any case.
	if r.plan.Point.Kind != restore.ToEnd {
		if end != r.plan.StopLSN {
			return evidence.Failed, fmt.Sprintf("recovery ended at %s; it should be %s", end, r.plan.StopLSN)
		}
		return evidence.Passed, fmt.Sprintf("at %s, as the plan had it", end)
	}
	if l.Last != r.plan.LastLSN {
		return evidence.Failed, fmt.Sprintf("the last record that was replayed is at %s; it should be the one at %s", l.Last, r.plan.LastLSN)
	}
	// The server's is of the newest transaction that ended, also by an abort.
	if c := r.plan.StopTime; l.Ended.Before(c.Add(-time.Millisecond)) {
		return evidence.Failed, fmt.Sprintf("the newest transaction that was replayed is of %s; there should be a commit of %s", l.Ended, c)
	}
	return evidence.Passed, fmt.Sprintf("at %s, the last record at %s", end, l.Last)
}

// libraries reports what production preloads and is not installed here.
func (r *run) libraries() {
	if len(r.missing) == 0 {
		return
	}
	r.doc.Checks = append(r.doc.Checks, evidence.Check{Name: "preload libraries", Kind: "built-in", Required: true, Verdict: evidence.Unknown,
		Detail: "production loads " + joined(r.missing) + ", not installed here: what needs them was not tested"})
}
