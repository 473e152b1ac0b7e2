package drill

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// makePlan has the restorer pick a backup and plan its restore.
func (r *run) makePlan(ctx context.Context) error {
	return r.record.Phase(evidence.PhasePlan, func(*evidence.Phase) error {
		if err := r.restorer.call(ctx, doBackups, nil, &r.covered); err != nil {
			return err
		}
		owner, err := r.owner()
		if err != nil {
			return err
		}
		var p planned
		if err := r.restorer.call(ctx, doPlan, planRequest{
			Pick: r.o.Pick, Policy: r.o.Policy, Time: r.o.Time, RandomTime: r.o.RandomTime, Owner: owner, Conn: r.o.Conn,
			DataDir: r.stage.dataDir(), Tablespaces: r.stage.tablespaces(),
		}, &p); err != nil {
			return err
		}
		if p.Plan == nil {
			return errBadAnswer
		}
		if o := p.Plan.Owner; o != nil && o.GID == 0 {
			return &restore.OwnerError{Owner: o.User, Reason: "its group is root's, and what a drill runs is not to have that"}
		}
		r.plan, r.listed, r.primary = p.Plan, p.Listed, p.Primary
		r.plan.Backup, r.plan.LastLSN = p.Backup, p.LastLSN
		r.doc.RPO.Reason, r.doc.RPO.Skew = p.Reason, p.Skew
		r.describe()
		return nil
	})
}

// describe notes in the evidence what the plan is.
func (r *run) describe() {
	p, b := r.plan, r.plan.Backup
	r.doc.Backup = &evidence.Backup{
		Label: b.Label, Taken: b.StopTime.UTC(), System: b.System.String(), Host: b.Host, PostgreSQL: b.PGVersion,
		Files: p.Files, Bytes: p.WriteBytes, Fetched: p.FetchBytes, Picked: r.o.Pick,
	}
	r.doc.Target = evidence.Target{Kind: "end", Timeline: uint32(p.Timeline)}
	switch p.Point.Kind {
	case restore.Immediate:
		r.doc.Target.Kind = "immediate"
		r.doc.RPO = evidence.RPO{Basis: "none", Reason: "recovery to the backup's own end does not show what would be lost"}
	case restore.AtTime:
		r.doc.Target.Kind, r.doc.Target.Time, r.doc.Target.Random = "time", p.Point.Time.UTC(), r.o.RandomTime
		r.doc.RPO = evidence.RPO{Basis: "none", Reason: "recovery to a chosen time does not show what would be lost"}
	}
	r.doc.WAL = &evidence.WAL{Begin: p.WAL.Begin.String(), End: p.StopLSN.String(), Segments: p.WAL.Segments,
		Bytes: int64(p.StopLSN - p.WAL.Begin), Stored: p.WAL.Bytes}
	for _, d := range p.Disks {
		r.doc.Host.StagingFree = d.Free
		break
	}
}

// quickChecks are what the plan has shown: NewPlan refuses everything else.
func (r *run) quickChecks() {
	p := r.plan
	for _, c := range []struct{ name, detail string }{
		{"manifest", fmt.Sprintf("backup %s: signed, whole, %d files", p.Label, p.Files)},
		{"packs", fmt.Sprintf("all %d are there with their sizes", p.Backup.Packs)},
		{"WAL", fmt.Sprintf("%d segments from %s to %s: signed, no gap, every record read", p.WAL.Segments, p.WAL.Begin, p.StopLSN)},
	} {
		r.doc.Checks = append(r.doc.Checks, evidence.Check{Name: c.name, Kind: "built-in", Required: true, Verdict: evidence.Passed, Detail: c.detail})
	}
	r.doc.Notes = append(r.doc.Notes, "the quick level starts no server: it measures neither RPO nor RTO")
	r.doc.RPO = evidence.RPO{Basis: "none"}
}

// coverage notes which backups there are, and which were ever tested.
func (r *run) coverage(ctx context.Context) {
	if len(r.covered) == 0 {
		return
	}
	tested := map[string]time.Time{}
	for e, err := range evidence.Walk(ctx, r.repo.Store(), r.doc.Repository, time.Time{}) {
		if err != nil {
			r.doc.Notes = append(r.doc.Notes, probe.OneLine("which backups earlier drills have tested is not known: "+err.Error()))
			break
		}
		if e.Err == nil && e.Doc.TrustedBy(r.trusted()) {
			noteTested(tested, &e.Doc.Drill)
		}
	}
	noteTested(tested, r.doc)
	c := &evidence.Coverage{}
	for _, b := range slices.Backward(r.covered) {
		c.Backups = append(c.Backups, evidence.Covered{Label: b.Label, Taken: b.Taken.UTC(), Tested: tested[b.Label]})
	}
	// Of the backup that was planned with: its WAL is known to have no gap.
	if r.plan != nil {
		c.From, c.To = r.plan.ConsistentTime.UTC(), later(r.plan.ConsistentTime, r.plan.NewestTime).UTC()
	}
	r.doc.Coverage = c
}

func (r *run) trusted() []repo.PublicKey {
	return append([]repo.PublicKey{r.o.Key.Public()}, r.o.Trusted...)
}

func noteTested(tested map[string]time.Time, d *evidence.Drill) {
	if d.Verdict == evidence.Passed && d.Level != evidence.Quick && d.Backup != nil {
		tested[d.Backup.Label] = d.Ended
	}
}
