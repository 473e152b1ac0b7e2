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

// pick chooses the backup. A broken newest one is not replaced.
func (r *restorer) pick(ctx context.Context) (string, error) {
	labels, err := r.repo.Backups(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case len(labels) == 0:
		return "", restore.ErrNoBackup
	case r.want.Pick == Latest || r.want.Pick == "":
		return r.newest(ctx, labels)
	case r.want.Pick == Random:
		return r.random(ctx, labels)
	case !slices.Contains(labels, r.want.Pick):
		return "", &MissingBackupError{r.want.Pick}
	}
	return r.want.Pick, nil
}

// random is any backup from which the policy wants all WAL to the end: expire
// takes it away after the others, and a drill to the end could only fail there.
func (r *restorer) random(ctx context.Context, labels []string) (string, error) {
	if r.want.Policy.Check() != nil { // there is none
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
func (r *restorer) lasting(ctx context.Context) (lasting map[string]bool, unread []string, err error) {
	infos, unread, err := r.backups(ctx)
	if err != nil {
		return nil, nil, err
	}
	lasting, err = expire.ReadContinuous(ctx, r.repo, r.want.Policy, infos, expire.Look{}, r.now())
	return lasting, unread, err
}

// point is how far to recover: to the end of the archive, if no time was given. Of
// a backup that was named, and that the policy keeps without the WAL after it, to
// its own end: that is what was promised of it.
func (r *restorer) point(ctx context.Context, label string) (restore.Point, error) {
	if !r.want.Time.IsZero() {
		return restore.Point{Kind: restore.AtTime, Time: r.want.Time}, nil
	}
	if label != r.want.Pick || r.want.RandomTime || r.want.Policy.Check() != nil {
		return restore.Point{}, nil
	}
	lasting, unread, err := r.lasting(ctx)
	if err != nil || lasting[label] || slices.Contains(unread, label) {
		return restore.Point{}, err
	}
	return restore.Point{Kind: restore.Immediate}, nil
}

// newest is the newest backup that a recovery to a time could begin from.
func (r *restorer) newest(ctx context.Context, labels []string) (string, error) {
	if r.want.Time.IsZero() {
		return labels[len(labels)-1], nil
	}
	for _, label := range slices.Backward(labels) {
		info, err := r.repo.Info(ctx, label)
		if err != nil {
			return "", err
		}
		if !info.StopTime.After(r.want.Time) {
			return label, nil
		}
	}
	return "", &restore.UnreachableError{Point: restore.Point{Kind: restore.AtTime, Time: r.want.Time}, Reason: "it lies before the oldest backup"}
}

func (r *restorer) planFor(ctx context.Context, label string, point restore.Point) (*restore.Plan, error) {
	t := restore.Target{
		DataDir: r.want.DataDir, Confine: r.want.Tablespaces, Backup: label, Point: point, Owner: r.want.Owner, AllWAL: true,
		// The WAL lies in pg_wal: the archive has nothing more.
		FetchCommand: []string{"/bin/false"},
	}
	if point.Kind != restore.ToEnd {
		t.Action = restore.Promote
	}
	in, err := restore.Load(ctx, r.repo, t, restore.Options{
		Observe: func(e restore.Progress) { r.observe(evidence.PhasePlan, e.Done, e.Total) },
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
func (r *restorer) disaster(ctx context.Context, system postgres.SystemID) {
	r.listed = r.now()
	r.primary = nil
	if r.want.Conn == "" {
		r.reason = "no connection to the primary is configured"
		return
	}
	actx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	state, err := wal.AskServer(actx, r.want.Conn, "")
	middle := r.listed.Add(r.now().Sub(r.listed) / 2) // when it answered, about
	switch {
	case err != nil:
		r.reason = probe.OneLine("the primary could not be asked: " + err.Error())
	case state.System != system:
		r.reason = fmt.Sprintf("the server that was asked is another one: system %s, not %s", state.System, system)
	case state.Standby:
		r.reason = "the server that was asked is a standby"
	default:
		r.primary, r.reason = &state, ""
		skew := evidence.Round(middle.Sub(state.Now).Seconds())
		r.skew = &skew
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

// backups are what is known of those that exist, and the labels of those of which
// nothing is, because they cannot be believed or read.
func (r *restorer) backups(ctx context.Context) (infos []repo.Info, unread []string, err error) {
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
