package drill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/fence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// Result is what became of a drill.
type Result struct {
	Document *evidence.Document // as it lies in the repository
	Err      error              // why the drill got no further; nil when it got to its end
	Kept     *Kept              // with Options.Keep
}

// Kept says how to reach a server that was left running.
type Kept struct {
	Conn      string // libpq
	DataDir   string
	Directory string
	PGCtl     string
	Account   string // that runs it, when it is not ours
}

// Run does one drill and stores its evidence; the caller holds the lease. The
// error is about the evidence alone: what the drill came to, failures
// included, is in the result.
//
// Whatever happens, the staging directory is removed, unless it is to be kept;
// when that fails too the evidence says so. A cancelled context ends the drill
// and is no reason to leave anything.
func Run(ctx context.Context, r *repo.Repo, restorer *Restorer, o Options) (*Result, error) {
	restorer.observe = func(p Progress) { o.observe(p.Phase, p.Done, p.Total) }
	d := &run{o: o, repo: r, restorer: restorer, result: &Result{}}
	d.begin()
	work := ctx
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		work, cancel = context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("the drill did not end within %s", o.Timeout))
		defer cancel()
	}
	err := inStaging(d.perform(work))
	if err != nil && work.Err() != nil {
		err = context.Cause(work)
	}
	d.result.Err = err

	// What was begun is cleaned up, and what was seen is stored, whatever has ended.
	d.record.Within(ctx, cleanUpLimit, func(ctx context.Context) { d.cleanUp(ctx, err) })
	d.conclude(err)
	d.record.Within(ctx, coverageLimit, d.coverage)
	d.result.Document, err = d.record.Store(ctx, r.Store(), o.Key)
	return d.result, err
}

// run is one drill under way.
type run struct {
	o      Options
	repo   *repo.Repo
	record *evidence.Recorder
	doc    *evidence.Drill // the record's
	result *Result

	stage    *stage
	listed   time.Time        // when the archive had been listed, by our clock
	primary  *wal.ServerState // nil: not asked, or it did not answer
	plan     *restore.Plan
	install  server.Install
	restorer *Restorer
	helper   *process // nil: there is none
	pid      int      // of the server, by the helper's word
	recovery recovery // what the server left behind of it
	covered  []listedBackup
	raised   raised       // the fence
	tried    tried        // ways out of it
	unfenced string       // why there is no fence; "" with one
	untried  string       // why no way out of the fence was tried
	paused   postgres.LSN // where recovery was paused to compare tables; 0 when it was not
	socket   string       // directory of the server's socket
	door     string       // directory of the socket that programs connect to
	sockets  string       // directory of both, where they are not in the staging directory
	missing  []string     // libraries that are not installed here

	proven bool // all required checks passed
	took   float64
}

func (r *run) begin() {
	r.record = evidence.Begin(evidence.Opening{
		Marker: r.repo.Marker(), Program: r.o.Program, Level: r.o.Level, By: r.o.By, Target: "end", Now: r.o.Now, Began: r.o.Began,
		Phase: func(name string) { r.o.observe(name, 0, 0) },
	})
	r.doc = &r.record.Drill
	r.doc.Host.MemoryBytes = totalMemory()
}

// perform is the drill, step by step.
func (r *run) perform(ctx context.Context) error {
	if r.o.Adopt {
		if err := adoptOrphans(); err != nil {
			return err
		}
	}
	if err := r.makeStage(ctx); err != nil {
		return err
	}
	if r.o.Level != evidence.Quick {
		if err := r.startHelper(); err != nil {
			return err
		}
	}
	if err := r.makePlan(ctx); err != nil {
		return err
	}
	if r.o.Level == evidence.Quick {
		r.quickChecks()
		return nil
	}
	if err := r.preflight(ctx); err != nil {
		return err
	}
	if err := r.restoreFiles(ctx); err != nil {
		return err
	}
	watched, stop := r.watchDisk(ctx)
	defer stop()
	if err := r.serve(watched); err != nil {
		if full, ok := errors.AsType[*FullError](context.Cause(watched)); ok {
			return full
		}
		return err
	}
	return nil
}

// serve has to do with the restored server.
func (r *run) serve(ctx context.Context) error {
	if err := r.recover(ctx); err != nil {
		return err
	}
	r.measureLoss(ctx)
	return r.check(ctx)
}

func (r *run) makeStage(ctx context.Context) error {
	fence.SweepCgroups()
	older, err := Sweep(ctx, r.o.Staging)
	r.doc.Cleanup.Older = older
	if err != nil {
		return err
	}
	r.stage, err = makeStage(r.o.Staging, marker{Drill: r.doc.ID, Repository: r.doc.Repository, Host: r.o.By.Host, Began: r.record.Began().UTC()})
	return err
}

// restoreFiles restores the backup and the WAL. Meanwhile the fence is tried: the server
// starts when both have ended.
func (r *run) restoreFiles(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tried := r.tryFence(ctx)
	err := r.fetch(ctx)
	if err != nil {
		cancel() // the helper ends, and what it tries with it
	}
	if e := tried(); err == nil {
		err = e
	}
	return err
}

// fetch restores the backup, and then the WAL: the server will have no network to
// fetch it by.
func (r *run) fetch(ctx context.Context) error {
	err := r.record.Phase(evidence.PhaseFiles, func(p *evidence.Phase) error {
		p.Bytes, p.Fetched = r.plan.WriteBytes, r.plan.FetchBytes
		return r.restorer.call(ctx, doFiles, nil, &written{})
	})
	if err != nil {
		return err
	}
	return r.record.Phase(evidence.PhaseWAL, func(p *evidence.Phase) (err error) {
		p.Fetched = r.plan.WAL.Bytes
		var w written
		err = r.restorer.call(ctx, doWAL, nil, &w)
		p.Bytes = w.Bytes
		return err
	})
}

// cleanUp stops the server and removes the directory, or keeps both.
func (r *run) cleanUp(ctx context.Context, err error) {
	ended := r.restorer.Close()
	if ended == nil {
		ended = r.endServer(err)
	}
	if r.stage == nil {
		r.doc.Cleanup.Done = true // nothing was made
		return
	}
	if r.result.Kept != nil {
		r.doc.Cleanup.Kept = r.stage.dir
		return
	}
	if ended != nil { // what still runs could put back what is removed
		r.doc.Cleanup.Detail = probe.OneLine(ended.Error())
		return
	}
	if e := r.stage.remove(ctx); e != nil {
		r.doc.Cleanup.Detail = probe.OneLine(e.Error())
		return
	}
	r.doc.Cleanup.Done = true
}

// endServer ends the server, unless it is to be kept and can be.
func (r *run) endServer(err error) error {
	if r.o.Keep && r.pid != 0 && !errors.Is(err, context.Canceled) {
		if r.stage.keep() == nil && r.helper.end(5*time.Second) == nil {
			r.result.Kept = r.keptServer()
			return nil
		}
	}
	return r.stopServer()
}

// How long what comes after the drill may take, each for itself. Storing the evidence
// has its own time beside them.
const (
	cleanUpLimit  = 15 * time.Minute // what is not removed then is left to the next drill
	coverageLimit = 5 * time.Minute
)

// conclude comes to the verdict.
func (r *run) conclude(err error) {
	e := evidence.Ending{Faults: r.o.GoneBack, Left: "the staging directory", Took: r.took, Proven: r.proven}
	if err != nil {
		e.Failure, e.Proves = probe.OneLine(err.Error()), provesFailure(err)
	}
	if r.o.Level != evidence.Quick {
		e.RPO, e.RTO = r.o.RPO, r.o.RTO
	}
	r.record.Conclude(e)
}
