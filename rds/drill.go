package rds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// Where a drill restores from, beside the identifier of a snapshot.
const (
	FromLatest     = "latest"      // the newest snapshot in the region
	FromLatestTime = "latest-time" // the automated backups, as far as they go
)

const (
	fromSnapshot = "snapshot"
	fromTime     = "time"
)

// DrillOptions says what a drill does.
type DrillOptions struct {
	Source  Source
	Sources []Source // all of them: none is ever deleted
	Region  string   // "" is the source's own
	From    string   // FromLatest, FromLatestTime or a snapshot
	Time    time.Time
	Class   string // "" is that of staging, else the source's
	Level   evidence.Level

	// Connect is how to log in to a database of RDS.
	Connect func(d *Database, region string) (probe.Conn, error)

	// Left are earlier drills that are not proven to have left nothing here.
	Left []Left

	Timeout time.Duration // for the drill without its clean-up; 0 is what the source's TTL leaves
	CleanUp time.Duration // for the clean-up; 0 is one hour
	Asking  time.Duration // for one request to make something; 0 is one minute
	Waiting Waiting
	Program string
	By      evidence.Performer
	Key     repo.SigningKey
	Now     func() time.Time
	Began   time.Time // zero is now
	Phase   func(name string)
}

// Left is a drill that could not prove that what it restored is gone.
type Left struct{ ID, Attempt string }

// Origin is what is restored from: a snapshot, a time, or the latest one. Evidence has
// the same words.
func (o DrillOptions) Origin() string {
	switch {
	case !o.Time.IsZero():
		return fromTime
	case o.From == FromLatestTime:
		return FromLatestTime
	}
	return fromSnapshot
}

// DrillResult is what became of a drill.
type DrillResult struct {
	Document *evidence.Document // stored, but for an error
	Err      error              // why it got no further
}

// How long what comes after a drill may take, each for itself; storing the evidence has
// its own time beside them.
const (
	cleanUpLimit = time.Hour       // to delete what it made
	reapLimit    = 5 * time.Minute // to have what crashed ones left deleted, and again to see it gone
)

// Drill restores a source into staging, checks and measures it, deletes it and
// stores the evidence; the caller holds the lease. The error is about the evidence
// alone. Whatever happens, what was restored is deleted; when that fails too, the
// evidence says so, and a reaper removes it when its time to live is over. With an
// error the document is there all the same, and is not stored.
func Drill(ctx context.Context, regions Regions, r *repo.Repo, o DrillOptions) (*DrillResult, error) {
	d := &drill{o: o, regions: regions, repo: r}
	d.begin()
	limit, late := o.limit()
	work, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	err := d.perform(work)
	if err != nil && work.Err() != nil {
		err = context.Cause(work)
	}
	d.Within(ctx, reapLimit, d.sweep)
	d.Within(ctx, cmp.Or(o.CleanUp, cleanUpLimit), d.cleanUp)
	d.Within(ctx, reapLimit, d.noteReaped)
	d.conclude(err)
	doc, stored := d.Store(ctx, r.Store(), o.Key)
	return &DrillResult{Document: doc, Err: err}, stored
}

// limit is how long the drill may take, and what it says when it takes longer. It
// ends before its time to live does: a reaper looks at the tags, and not at who is
// still at work.
func (o DrillOptions) limit() (time.Duration, error) {
	ttl := o.Source.ttl()
	most := ttl - ttl/8
	if o.Timeout > 0 && o.Timeout <= most {
		return o.Timeout, fmt.Errorf("the drill did not end within %s", o.Timeout)
	}
	return most, fmt.Errorf("the drill did not end within %s: after %s, its ttl, what it restored may be removed", most, ttl)
}

// drill is one drill under way.
type drill struct {
	o       DrillOptions
	regions Regions
	repo    *repo.Repo
	*evidence.Recorder
	doc *evidence.Drill // the recorder's

	api     API // of the region that is restored in
	region  Region
	source  *Database // nil: it could not be looked at
	request Restore
	want    Snapshot // what is restored from; zero for a point in time
	taken   time.Time
	protect protected
	asked   bool      // RDS was asked to restore: there may be something to delete
	unsure  bool      // it gave no answer: that may come late
	copy    *Database // as it was when it was available
	conn    probe.Conn

	reaped []Expired // what crashed attempts had left

	disaster time.Time // the assumed moment
	alive    time.Time // newest heartbeat on the source; zero: not known
	took     float64
	proven   bool
}

func (d *drill) begin() {
	s := d.o.Source
	d.Recorder = evidence.Begin(evidence.Opening{
		Marker: d.repo.Marker(), Program: d.o.Program, Level: d.o.Level, By: d.o.By, Target: "snapshot", Now: d.o.Now, Began: d.o.Began, Phase: d.o.Phase,
	})
	d.doc = &d.Drill
	d.doc.RDS = &evidence.RDS{Source: s.Name, Kind: string(s.Kind), Identifier: s.ID, Region: s.Region, From: d.o.Origin(), Attempt: Attempt(d.doc.ID)}
}

// perform is the drill, step by step.
func (d *drill) perform(ctx context.Context) error {
	if err := d.phase(evidence.PhasePlan, func() error { return d.plan(ctx) }); err != nil {
		return err
	}
	if err := d.restore(ctx); err != nil {
		return err
	}
	if err := d.phase(evidence.PhaseChecks, func() error { return d.check(ctx) }); err != nil {
		return err
	}
	d.measureLoss(ctx)
	if d.o.Level != evidence.Deep {
		return nil
	}
	return d.phase(evidence.PhaseHydrate, func() error { return d.readAll(ctx) })
}

// phase does a part of the work and notes how long it took.
func (d *drill) phase(name string, work func() error) error {
	return d.Phase(name, func(*evidence.Phase) error { return work() })
}

func (d *drill) now() *float64 { s := d.Since(); return &s }

// askedWithin is how long one request to make something may take, with the tries
// that are made below us.
const askedWithin = time.Minute

// ask has RDS make something. Once asked, it is heard to its end: a request that is
// cut off may be carried out after the clean-up has looked. One without an answer is
// asked again, and the clean-up looks longer for what may have come of it.
func (d *drill) ask(ctx context.Context, what string, request func(context.Context) error) error {
	return d.o.Waiting.again(ctx, what, func() error {
		limit := cmp.Or(d.o.Asking, askedWithin)
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		err := request(asking)
		if err != nil && asking.Err() != nil {
			err = &Error{Action: what, Message: fmt.Sprintf("no answer within %s", limit), Err: ErrUnavailable}
		}
		if errors.Is(err, ErrExists) { // an earlier try, whose answer was lost: the name is this attempt's
			err = nil
		}
		d.unsure = err != nil && (d.unsure || errors.Is(err, ErrUnavailable))
		return err
	})
}

// restore has RDS make the copy and waits for it.
func (d *drill) restore(ctx context.Context) error {
	err := d.phase(evidence.PhaseRestore, func() error {
		d.asked = true
		err := d.ask(ctx, "restore", func(ctx context.Context) error {
			_, err := d.api.Restore(ctx, d.request)
			return err
		})
		if err != nil {
			return fmt.Errorf("restore into %s: %w", d.request.ID, err)
		}
		d.copy, err = d.o.Waiting.database(ctx, d.api, d.o.Source.Kind, d.request.ID)
		return err
	})
	if err == nil && d.o.Source.Kind == Cluster {
		err = d.phase(evidence.PhaseInstance, func() error { return d.addInstance(ctx) })
	}
	if err != nil {
		return err
	}
	d.doc.RDS.Available = d.now()
	d.doc.RDS.Staging, d.doc.RDS.Class = d.copy.ID, d.copy.Class
	return nil
}

// addInstance gives a restored Aurora cluster a server: it has none, and until
// then nobody can connect.
func (d *drill) addInstance(ctx context.Context) error {
	r := d.request
	r.ID = memberName(d.doc.RDS.Attempt)
	err := d.ask(ctx, "instance", func(ctx context.Context) error {
		_, err := d.api.AddInstance(ctx, r, d.request.ID)
		return err
	})
	if err != nil {
		return fmt.Errorf("make instance %s: %w", r.ID, err)
	}
	member, err := d.o.Waiting.database(ctx, d.api, Instance, r.ID)
	if err != nil {
		return err
	}
	cluster, err := d.o.Waiting.database(ctx, d.api, Cluster, d.request.ID)
	if err != nil {
		return err
	}
	d.copy = cluster.with(member)
	return nil
}

// with adds to a cluster what only its instances have.
func (d *Database) with(member *Database) *Database {
	d.Class, d.Public, d.Zone = member.Class, member.Public, member.Zone
	d.ParameterGroup += ", " + member.ParameterGroup
	return d
}

// conclude comes to the verdict.
func (d *drill) conclude(err error) {
	e := evidence.Ending{Left: "what was restored", RPO: d.o.Source.RPO, RTO: d.o.Source.RTO, Took: d.took, Proven: d.proven}
	if err != nil {
		e.Failure, e.Proves = probe.OneLine(err.Error()), provesFailure(err)
	}
	d.Conclude(e)
}

// provesFailure says whether an error proves that a recovery would have failed.
// The others say only that this drill could not find out.
func provesFailure(err error) bool {
	state, failed := errors.AsType[*FailedError](err)
	_, none := errors.AsType[*NoSnapshotError](err)
	_, engine := errors.AsType[*EngineError](err)
	_, mismatch := errors.AsType[*MismatchError](err)
	failed = failed && state.State != deleting // somebody deletes it
	return slices.Contains([]bool{failed, none, engine, mismatch}, true) && !errors.Is(err, context.Canceled)
}
