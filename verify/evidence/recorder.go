package evidence

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// Recorder puts the evidence of one drill together, of whatever kind it is: Begin, Phase
// for each part of the work, Within for what comes after it, Conclude, Store. It is for
// one goroutine.
type Recorder struct {
	Drill Drill // what is known so far
	now   func() time.Time
	began time.Time
	phase func(name string)
}

// Opening is what is known of a drill when it begins.
type Opening struct {
	Marker  repo.Marker // of the repository
	Program string
	Level   Level
	By      Performer
	Target  string // its kind
	Now     func() time.Time
	Began   time.Time         // from when on times count; zero is now
	Phase   func(name string) // is told of each phase that begins; may be nil
}

// Begin begins the evidence of a drill on this host. No loss is measured yet.
func Begin(o Opening) *Recorder {
	r := &Recorder{now: o.Now, began: o.Began, phase: o.Phase}
	if r.began.IsZero() {
		r.began = o.Now()
	}
	r.Drill = Drill{
		Schema: Schema, ID: NewID(r.began), Repository: o.Marker.Repository, Cluster: o.Marker.Cluster,
		Program: o.Program, Started: r.began.UTC().Truncate(time.Microsecond), Level: o.Level, By: o.By,
		Host:   Host{System: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU()},
		Target: Target{Kind: o.Target}, RPO: RPO{Basis: "none"},
		Phases: []Phase{}, Checks: []Check{},
	}
	return r
}

// Began is when the drill began.
func (r *Recorder) Began() time.Time { return r.began }

// Since is how many seconds ago the drill began.
func (r *Recorder) Since() float64 { return Round(r.now().Sub(r.began).Seconds()) }

// Round keeps microseconds of a length of time in seconds: more was not measured.
func Round(seconds float64) float64 { return math.Round(seconds*1e6) / 1e6 }

// Phase does a part of the work and notes how long it took, also when it fails; work
// may note in p how much it moved.
func (r *Recorder) Phase(name string, work func(p *Phase) error) error {
	if r.phase != nil {
		r.phase(name)
	}
	p := Phase{Name: name, Start: r.Since()}
	err := work(&p)
	p.Seconds = Round(r.Since() - p.Start)
	r.Drill.Phases = append(r.Drill.Phases, p)
	return err
}

// Within does something that comes after the drill's work. It is not cut short by the
// end of ctx, and has a time of its own: one that is slow leaves the others theirs, and
// the evidence says so. work must heed its context.
func (r *Recorder) Within(ctx context.Context, limit time.Duration, work func(context.Context)) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("it did not end within %s", limit))
	defer cancel()
	work(ctx)
}

// Ending is how a drill has ended.
type Ending struct {
	Failure string   // why it got no further, in one line; "" when it got to its end
	Proves  bool     // that a recovery would have failed; else it is only not known
	Faults  []string // of what is not part of the drill, each a failure of it
	Left    string   // what was not removed, for people, where Cleanup says that something was not

	RPO, RTO time.Duration // objectives; 0 is none
	Took     float64       // seconds to the end of the required checks
	Proven   bool          // they have all passed
}

// Conclude comes to the verdict.
func (r *Recorder) Conclude(e Ending) {
	d := &r.Drill
	d.Ended = r.now().UTC().Truncate(time.Microsecond)
	faults := slices.Clone(e.Faults)
	switch {
	case e.Failure == "":
	case e.Proves:
		faults = append(faults, e.Failure)
	default:
		d.Checks = append(d.Checks, Check{Name: "the drill got to its end", Kind: "built-in", Required: true, Verdict: Unknown, Detail: e.Failure})
	}
	if !d.Cleanup.Done && d.Cleanup.Kept == "" {
		faults = append(faults, e.Left+" was not removed: "+d.Cleanup.Detail)
	}
	d.RTO.Objective = objective(e.RTO)
	if d.Target.Kind == "end" || d.Target.Kind == "snapshot" { // else the loss is not measured
		d.RPO.Objective = objective(e.RPO)
	}
	if rpo := &d.RPO; e.Failure != "" && rpo.Objective != nil && rpo.Upper == nil && rpo.Reason == "" {
		rpo.Reason = "the drill ended before the loss could be measured"
	}
	d.Measure(e.Took, e.Proven)
	d.Judge(faults...)
}

func objective(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}

// storing is how long storing the evidence may take.
const storing = 5 * time.Minute

// Store signs and stores the evidence, as Put does, also when ctx has ended. With an
// error the document is there all the same: it was measured, and says what is left.
func (r *Recorder) Store(ctx context.Context, store storage.Store, key repo.SigningKey) (doc *Document, err error) {
	r.Within(ctx, storing, func(ctx context.Context) { doc, err = Put(ctx, store, &r.Drill, key) })
	if err != nil {
		doc = &Document{Drill: r.Drill}
	}
	return doc, err
}
