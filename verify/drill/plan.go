package drill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// makePlan picks a backup and plans its restore.
func (r *run) makePlan(ctx context.Context) error {
	return r.phase(evidence.PhasePlan, func(p *evidence.Phase) error {
		label, err := r.pick(ctx)
		if err != nil {
			return err
		}
		point, err := r.point(ctx, label)
		if err != nil {
			return err
		}
		if r.plan, err = r.planFor(ctx, label, point); err != nil {
			return err
		}
		if r.o.RandomTime {
			if point, err = randomPoint(r.plan); err != nil {
				return err
			}
			if r.plan, err = r.planFor(ctx, label, point); err != nil {
				return err
			}
		}
		r.describe()
		return nil
	})
}

// pick chooses the backup. A broken newest one is not replaced.
func (r *run) pick(ctx context.Context) (string, error) {
	labels, err := r.repo.Backups(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case len(labels) == 0:
		return "", restore.ErrNoBackup
	case r.o.Pick == Latest || r.o.Pick == "":
		return r.newest(ctx, labels)
	case r.o.Pick == Random:
		return r.random(ctx, labels)
	case !slices.Contains(labels, r.o.Pick):
		return "", &MissingBackupError{r.o.Pick}
	}
	return r.o.Pick, nil
}

// random is any backup from which the policy wants all WAL to the end: expire
// takes it away after the others, and a drill to the end could only fail there.
func (r *run) random(ctx context.Context, labels []string) (string, error) {
	if r.o.Policy.Check() != nil { // there is none
		return labels[rand.IntN(len(labels))], nil
	}
	lasting, unread, err := r.lasting(ctx)
	if len(unread) > 0 {
		return unread[0], nil // such a one is what a drill must find
	}
	if err != nil {
		return "", err
	}
	labels = slices.DeleteFunc(slices.Clone(labels), func(l string) bool { return !lasting[l] })
	return labels[rand.IntN(len(labels))], nil
}

// lasting are the backups from which the policy wants all WAL to the end, and
// unread those that cannot be read.
func (r *run) lasting(ctx context.Context) (lasting map[string]bool, unread []string, err error) {
	infos, unread, err := r.backups(ctx)
	if err != nil {
		return nil, nil, err
	}
	lasting, err = expire.ReadContinuous(ctx, r.repo, r.o.Policy, infos, nil, r.o.Now())
	return lasting, unread, err
}

// point is how far to recover: to the end of the archive, if no time was given. Of
// a backup that was named, and that the policy keeps without the WAL after it, to
// its own end: that is what was promised of it.
func (r *run) point(ctx context.Context, label string) (restore.Point, error) {
	if !r.o.Time.IsZero() {
		return restore.Point{Kind: restore.AtTime, Time: r.o.Time}, nil
	}
	if label != r.o.Pick || r.o.RandomTime || r.o.Policy.Check() != nil {
		return restore.Point{}, nil
	}
	lasting, unread, err := r.lasting(ctx)
	if err != nil || lasting[label] || slices.Contains(unread, label) {
		return restore.Point{}, err
	}
	return restore.Point{Kind: restore.Immediate}, nil
}

// newest is the newest backup that a recovery to a time could begin from.
func (r *run) newest(ctx context.Context, labels []string) (string, error) {
	if r.o.Time.IsZero() {
		return labels[len(labels)-1], nil
	}
	for _, label := range slices.Backward(labels) {
		info, err := r.repo.Info(ctx, label)
		if err != nil {
			return "", err
		}
		if !info.StopTime.After(r.o.Time) {
			return label, nil
		}
	}
	return "", &restore.UnreachableError{Point: restore.Point{Kind: restore.AtTime, Time: r.o.Time}, Reason: "it lies before the oldest backup"}
}

func (r *run) planFor(ctx context.Context, label string, point restore.Point) (*restore.Plan, error) {
	t := restore.Target{
		DataDir: r.stage.dataDir(), Confine: r.stage.tablespaces(), Backup: label, Point: point, Owner: r.o.Owner, AllWAL: true,
		// The WAL lies in pg_wal: the archive has nothing more.
		FetchCommand: []string{"/bin/false"},
	}
	if point.Kind != restore.ToEnd {
		t.Action = restore.Promote
	}
	in, err := restore.Load(ctx, r.repo, t, restore.Options{
		Observe: func(e restore.Progress) { r.o.observe(evidence.PhasePlan, e.Done, e.Total) },
		Listed:  func(system postgres.SystemID) { r.disaster(ctx, system) },
	})
	if err != nil {
		return nil, err
	}
	if err := in.Unread[label]; err != nil {
		return nil, &restore.BackupError{Label: label, Reason: "its description cannot be used", Err: err}
	}
	return restore.NewPlan(in, t)
}

// disaster is the assumed moment: the archive has just been listed, and what
// comes later is lost. The primary is asked for its clock and its position.
func (r *run) disaster(ctx context.Context, system postgres.SystemID) {
	r.listed = r.o.Now()
	r.primary = nil
	if r.o.Conn == "" {
		r.doc.RPO.Reason = "no connection to the primary is configured"
		return
	}
	actx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	state, err := wal.AskServer(actx, r.o.Conn, "")
	middle := r.listed.Add(r.o.Now().Sub(r.listed) / 2) // when it answered, about
	switch {
	case err != nil:
		r.doc.RPO.Reason = probe.OneLine("the primary could not be asked: " + err.Error())
	case state.System != system:
		r.doc.RPO.Reason = fmt.Sprintf("the server that was asked is another one: system %s, not %s", state.System, system)
	case state.Standby:
		r.doc.RPO.Reason = "the server that was asked is a standby"
	default:
		r.primary, r.doc.RPO.Reason = &state, ""
		skew := round(middle.Sub(state.Now).Seconds())
		r.doc.RPO.Skew = &skew
	}
}

// randomPoint picks a time between the backup and the newest commit, both
// excluded: recovery to a time stops only at a later commit.
func randomPoint(p *restore.Plan) (restore.Point, error) {
	span := p.NewestTime.Sub(p.ConsistentTime)
	if p.NewestTime.IsZero() || span < 2*time.Microsecond {
		return restore.Point{}, errors.New("there is no commit after the backup, and so no time to pick")
	}
	at := p.ConsistentTime.Add(time.Duration(rand.Int64N(int64(span))))
	return restore.Point{Kind: restore.AtTime, Time: at.Truncate(time.Microsecond)}, nil
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
	infos, _, err := r.backups(ctx)
	if err != nil || len(infos) == 0 {
		return
	}
	tested := map[string]time.Time{}
	if history, err := evidence.History(ctx, r.repo.Store(), r.doc.Repository, time.Time{}); err == nil {
		for _, e := range history {
			if e.Err == nil && e.Doc.TrustedBy(r.trusted()) {
				noteTested(tested, &e.Doc.Drill)
			}
		}
	}
	noteTested(tested, &r.doc)
	c := &evidence.Coverage{}
	for _, info := range slices.Backward(infos) {
		c.Backups = append(c.Backups, evidence.Covered{Label: info.Label, Taken: info.StopTime.UTC(), Tested: tested[info.Label]})
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

// backups are what is known of those that exist, and the labels of those of which
// nothing is, because they cannot be believed or read.
func (r *run) backups(ctx context.Context) (infos []repo.Info, unread []string, err error) {
	all, err := r.repo.LoadBackups(ctx)
	for _, b := range all {
		if b.Err != nil {
			unread = append(unread, b.Label)
			continue
		}
		infos = append(infos, b.Info)
	}
	return infos, unread, err
}
