package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/fingerprint"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// RestoreArgument is the first argument of a process that has to call
// ServeRestorer.
const RestoreArgument = "drill-restore"

// What the restorer is asked, in this order.
const (
	doOpen    = "open"
	doBackups = "backups"
	doPlan    = "plan"
	doFiles   = "files"
	doWAL     = "wal"
	doTables  = "tables"
)

// Restorer is the process that holds the recovery identity: it plans, fetches,
// opens and writes, and has ended before the restored server starts. Go cannot
// reliably wipe memory; a process that is gone has none (docs/adr/018).
type Restorer struct {
	*process
	signers []repo.PublicKey
}

// opened is what the restorer has found.
type opened struct {
	Signers []string `json:"signers"` // who the holder of the identity believes
}

// StartRestorer starts cmd, which must come to ServeRestorer, and waits until it
// has opened the repository. The caller ends it with Close, or hands it to Run.
// An error of the repository is a *Failure.
func StartRestorer(ctx context.Context, cmd *exec.Cmd) (*Restorer, error) {
	p, err := startProcess("restorer", cmd, mostPlan, nil)
	if err != nil {
		return nil, err
	}
	r := &Restorer{process: p}
	var o opened
	if err := r.call(ctx, doOpen, nil, &o); err != nil {
		_ = r.kill()
		return nil, err
	}
	for _, s := range o.Signers {
		key, err := repo.ParsePublicKey(s)
		if err != nil {
			_ = r.kill()
			return nil, errBadAnswer
		}
		r.signers = append(r.signers, key)
	}
	return r, nil
}

// Signers are the anchors of trust that stand in the recovery key file and the
// configuration: who opens the repository without the identity trusts them.
func (r *Restorer) Signers() []repo.PublicKey { return r.signers }

// Close ends the process, and returns when it has ended.
func (r *Restorer) Close() error { return r.end(restorerEnds) }

// restorerEnds is how long a restorer may take to end when it is told to.
const restorerEnds = 5 * time.Second

// planRequest says what to plan.
type planRequest struct {
	Pick        string        `json:"pick"`
	Policy      expire.Policy `json:"policy"`
	Time        time.Time     `json:"time,omitzero"`
	RandomTime  bool          `json:"random_time,omitempty"`
	Owner       string        `json:"owner,omitempty"`
	Conn        string        `json:"conn,omitempty"`
	DataDir     string        `json:"data_dir"`
	Tablespaces string        `json:"tablespaces"`
}

// planned is the plan and what was seen on the way to it.
type planned struct {
	Plan    *restore.Plan    `json:"plan"`
	Backup  repo.Info        `json:"info"` // the plan's, which its own JSON leaves out
	LastLSN postgres.LSN     `json:"last_lsn"`
	Listed  time.Time        `json:"listed"`
	Primary *wal.ServerState `json:"primary,omitempty"`
	Reason  string           `json:"reason,omitempty"` // why the primary was not asked
	Skew    *float64         `json:"skew,omitempty"`   // seconds by which our clock is ahead of the primary's
}

// listedBackup is a backup of the repository.
type listedBackup struct {
	Label string    `json:"label"`
	Taken time.Time `json:"taken"`
}

// written is what a part of the restore has written.
type written struct {
	Bytes int64 `json:"bytes"`
}

// tablesRequest names the file for what the backup noted of its tables.
type tablesRequest struct {
	File string `json:"file"`
}

// tablesNoted says where recovery was when the tables were noted, or why there is
// nothing to compare with.
type tablesNoted struct {
	LSN postgres.LSN `json:"lsn,omitempty"`
	Why string       `json:"why,omitempty"`
}

// RestorerOptions says how a restorer works.
type RestorerOptions struct {
	Open    func(context.Context) (*repo.Repo, []repo.PublicKey, error) // with the identity; and the anchors
	Explain func(error) (hint string, code int)                         // for people; may be nil
	Jobs    func() int                                                  // workers; 0 is one a core; asked after Open
	Now     func() time.Time
}

// ServeRestorer is the restorer: it answers what stands on in, on out, until in
// ends.
func ServeRestorer(ctx context.Context, in io.Reader, out io.Writer, o RestorerOptions) error {
	r := &restorer{open: o.Open, jobs: o.Jobs, now: o.Now, w: &replies{out: out}}
	return serve(ctx, in, out, map[string]handler{
		doOpen: r.answerOpen, doBackups: r.answerBackups, doPlan: r.answerPlan,
		doFiles: r.answerFiles, doWAL: r.answerWAL, doTables: r.answerTables,
	}, func(err error) Failure {
		f := Failure{Text: inStaging(err).Error(), Proves: provesFailure(err)}
		if o.Explain != nil {
			f.Hint, f.Code = o.Explain(inStaging(err))
		}
		return f
	})
}

// restorer is the state of one.
type restorer struct {
	open func(context.Context) (*repo.Repo, []repo.PublicKey, error)
	jobs func() int
	now  func() time.Time
	w    *replies

	repo    *repo.Repo
	want    planRequest
	plan    *restore.Plan
	listed  time.Time
	primary *wal.ServerState
	reason  string
	skew    *float64
}

func (r *restorer) observe(phase string, done, total int64) {
	r.w.progress(Progress{phase, done, total})
}

func (r *restorer) answerOpen(ctx context.Context, _ json.RawMessage) (any, error) {
	opening, anchors, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	r.repo = opening
	var o opened
	for _, a := range anchors {
		o.Signers = append(o.Signers, a.String())
	}
	return o, nil
}

// answerBackups lists the backups that can be read. What keeps them from being
// listed keeps the plan from being made, and is reported there.
func (r *restorer) answerBackups(ctx context.Context, _ json.RawMessage) (any, error) {
	out := []listedBackup{}
	infos, _, err := r.backups(ctx)
	if err != nil {
		return out, nil
	}
	for _, info := range infos {
		out = append(out, listedBackup{info.Label, info.StopTime})
	}
	return out, nil
}

func (r *restorer) answerPlan(ctx context.Context, with json.RawMessage) (any, error) {
	if err := strictly(with, &r.want); err != nil {
		return nil, err
	}
	if err := r.makePlan(ctx); err != nil {
		return nil, err
	}
	return planned{Plan: r.plan, Backup: r.plan.Backup, LastLSN: r.plan.LastLSN, Listed: r.listed, Primary: r.primary, Reason: r.reason, Skew: r.skew}, nil
}

func (r *restorer) makePlan(ctx context.Context) error {
	label, err := r.pick(ctx)
	if err != nil {
		return err
	}
	point, err := r.point(ctx, label)
	if err != nil {
		return err
	}
	if r.plan, err = r.planFor(ctx, label, point); err != nil || !r.want.RandomTime {
		return err
	}
	if point, err = randomPoint(r.plan); err != nil {
		return err
	}
	r.plan, err = r.planFor(ctx, label, point)
	return err
}

// errNoPlan means that the questions come in a wrong order.
var errNoPlan = errors.New("there is no plan yet")

func (r *restorer) answerFiles(ctx context.Context, _ json.RawMessage) (any, error) {
	if r.plan == nil {
		return nil, errNoPlan
	}
	return written{r.plan.WriteBytes}, restore.Apply(ctx, r.repo, r.plan, r.options(evidence.PhaseFiles))
}

func (r *restorer) answerWAL(ctx context.Context, _ json.RawMessage) (any, error) {
	if r.plan == nil {
		return nil, errNoPlan
	}
	n, err := r.plan.PlaceWAL(ctx, r.repo, r.options(evidence.PhaseWAL))
	return written{n}, err
}

func (r *restorer) options(phase string) restore.Options {
	return restore.Options{Jobs: r.jobs(), Observe: func(e restore.Progress) { r.observe(phase, e.Done, e.Total) }}
}

// answerTables writes what the backup noted of its tables into a file, which the
// helper reads before it starts the server.
func (r *restorer) answerTables(ctx context.Context, with json.RawMessage) (any, error) {
	var to tablesRequest
	if err := strictly(with, &to); err != nil {
		return nil, err
	}
	if r.plan == nil {
		return nil, errNoPlan
	}
	raw, _, err := r.repo.ReadEnvelope(ctx, repo.FingerprintsKey(r.plan.Label), repo.KindFingerprints, maxFingerprints)
	if errors.Is(err, fs.ErrNotExist) {
		return tablesNoted{Why: "the backup noted nothing of its tables (fingerprints: true has it do so)"}, nil
	}
	if err != nil {
		return nil, err
	}
	if bytes.Count(raw, []byte("{")) > mostTables {
		return tablesNoted{Why: fmt.Sprintf("the backup noted more than %d tables", mostTables)}, nil
	}
	var set fingerprint.Set
	if err := json.Unmarshal(raw, &set); err != nil || set.Format != 1 {
		return tablesNoted{Why: "what the backup noted of its tables is of a form that this version does not know"}, nil
	}
	if set.LSN < r.plan.ConsistentLSN || set.LSN >= r.plan.StopLSN {
		return tablesNoted{Why: fmt.Sprintf("the tables were noted at %s, and recovery goes from %s to %s", set.LSN, r.plan.ConsistentLSN, r.plan.StopLSN)}, nil
	}
	return tablesNoted{LSN: set.LSN}, os.WriteFile(to.File, raw, 0o600)
}
