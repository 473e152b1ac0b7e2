package selftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/verify/drill"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// Scratch is the healthy repository and the server behind it. The server holds
// a table lifeboat_selftest (id bigint primary key, at timestamptz) with Rows
// rows, all of them written a day ago, that the backup and the WAL after it
// bring back.
type Scratch struct {
	Store storage.Store
	Keys  repo.Keys // that open and, for what is forged, sign
	Rows  int

	// Restorer is the command of the process that holds the identity of a drill of
	// the file repository below a directory, with the identity in a file.
	Restorer func(dir, identity string) (*exec.Cmd, error)
	Dir      string // where repositories with a breakage in them are written
	// Init makes a file repository in a directory that is not there yet.
	Init func(dir string) (storage.Store, error)

	// Change runs SQL on the server and waits until its WAL is archived.
	Change func(ctx context.Context, sql string) error
}

// Table is the table that the scratch server has, with the rows of Scratch.Rows.
func Table(rows int) string {
	return fmt.Sprintf(`create table lifeboat_selftest (id bigint primary key, at timestamptz not null);
		insert into lifeboat_selftest select i, now() - interval '1 day' from generate_series(1, %d) i`, rows)
}

// Outcome is what became of one breakage.
type Outcome struct {
	Broken  string           `json:"broken"`  // what was broken
	Caught  bool             `json:"caught"`  // the drill did not pass, for that reason
	By      string           `json:"by"`      // what it said
	Verdict evidence.Verdict `json:"verdict"` // of the drill
	Seconds float64          `json:"seconds"` // until the drill had ended
}

// breakage is one way to break a repository or a host.
type breakage struct {
	name  string
	level evidence.Level
	// apply changes the store or the options of the drill.
	apply func(ctx context.Context, b *bench) error
	// says is a part of a reason that the drill must give; for the healthy one
	// it is empty, and the drill must pass.
	says string
}

// bench is one repository about to be broken, and the drill that is to be run.
type bench struct {
	scratch Scratch
	store   *overlay
	keys    repo.Keys
	drill   drill.Options
	info    repo.Info // of the one backup
	written string    // directory of the repository with the breakage in it
}

// Run breaks, drills and looks, one breakage after another. base says how drills
// are run; its staging directory must be empty. Each outcome is reported as soon as
// it is known. The error is about the test itself, not about what it found.
func Run(ctx context.Context, s Scratch, base drill.Options, report func(Outcome)) ([]Outcome, error) {
	var all []Outcome
	for _, b := range breakages() {
		o, err := b.run(ctx, s, base)
		if err != nil {
			return all, fmt.Errorf("selftest, %s: %w", b.name, err)
		}
		all = append(all, o)
		report(o)
	}
	return all, nil
}

func (b breakage) run(ctx context.Context, s Scratch, base drill.Options) (Outcome, error) {
	w := &bench{scratch: s, store: newOverlay(s.Store), keys: s.Keys, drill: base}
	defer func() { _ = os.RemoveAll(w.written) }() // "" is nothing
	w.drill.Level, w.drill.Pick = evidence.Standard, drill.Latest
	if b.level != "" {
		w.drill.Level = b.level
	}
	var err error
	if w.info, err = w.backup(ctx); err != nil {
		return Outcome{}, err
	}
	if b.apply != nil {
		if err := b.apply(ctx, w); err != nil {
			return Outcome{}, err
		}
	}
	r, err := repo.Open(ctx, w.store, w.keys, "selftest")
	if err != nil {
		return Outcome{}, err
	}
	restorer, err := w.restorer(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer restorer.Close()
	began := base.Now()
	result, err := drill.Run(ctx, r, restorer, w.drill)
	if err != nil {
		return Outcome{}, err
	}
	if ctx.Err() != nil {
		return Outcome{}, context.Cause(ctx)
	}
	return b.judge(&result.Document.Drill, base.Now().Sub(began)), nil
}

// judge compares what the drill said with what it had to say.
func (b breakage) judge(d *evidence.Drill, took time.Duration) Outcome {
	o := Outcome{Broken: b.name, Verdict: d.Verdict, Seconds: took.Seconds(), By: strings.Join(d.Reasons, "; ")}
	if b.says == "" {
		o.Caught = d.Verdict == evidence.Passed && d.Cleanup.Done
		if o.Caught {
			o.By = fmt.Sprintf("%d checks passed", len(d.Checks))
		}
		return o
	}
	for _, reason := range d.Reasons {
		if d.Verdict != evidence.Passed && strings.Contains(reason, b.says) {
			o.Caught, o.By = d.Cleanup.Done, reason
			break
		}
	}
	if d.Verdict == evidence.Passed && d.WAL != nil {
		o.By = fmt.Sprintf("nothing: it passed, on timeline %d to %s", d.Target.Timeline, d.WAL.End)
	}
	if !d.Cleanup.Done {
		o.By = "the staging directory was not removed: " + d.Cleanup.Detail
	}
	return o
}

// restorer starts the process that holds the identity, on the repository as it is
// with the breakage in it: it lies in a directory, and the identity in a file.
func (w *bench) restorer(ctx context.Context) (*drill.Restorer, error) {
	dir, err := os.MkdirTemp(w.scratch.Dir, "broken-")
	if err != nil {
		return nil, err
	}
	w.written = dir
	if err := w.writeTo(ctx, filepath.Join(dir, "repository")); err != nil {
		return nil, fmt.Errorf("write the repository: %w", err)
	}
	key := repo.KeyFile{Cluster: w.keys.Cluster.Cluster, Repository: w.keys.Cluster.Repository, Identities: w.keys.Identities, Signers: w.keys.Cluster.Signers}
	identity := filepath.Join(dir, "recovery.key")
	if err := os.WriteFile(identity, key.Marshal("Of a selftest."), 0o600); err != nil {
		return nil, err
	}
	cmd, err := w.scratch.Restorer(filepath.Join(dir, "repository"), identity)
	if err != nil {
		return nil, err
	}
	return drill.StartRestorer(ctx, cmd)
}

// backup is what is known of the one backup.
func (w *bench) backup(ctx context.Context) (repo.Info, error) {
	r, err := repo.Open(ctx, w.store, w.keys, "selftest")
	if err != nil {
		return repo.Info{}, err
	}
	labels, err := r.Backups(ctx)
	if err != nil {
		return repo.Info{}, err
	}
	if len(labels) != 1 {
		return repo.Info{}, fmt.Errorf("the scratch repository holds %d backups, not one", len(labels))
	}
	return r.Info(ctx, labels[0])
}

// errNothing means that there was nothing to break.
var errNothing = errors.New("there is nothing to break")
