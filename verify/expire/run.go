package expire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// LeaseName is the lease under which backups are removed and pinned.
const LeaseName = repo.ExpireLease

// Options say how to expire.
type Options struct {
	Policy Policy
	DryRun bool // decide and count, and remove nothing; no lease is taken
	Jobs   int  // objects that are removed at a time; 0 is 16

	Claim repo.Claim // of the lease
	Now   func() time.Time

	Look    Look              // at the archives
	Observe func(Event)       // may be nil
	Warn    func(text string) // may be nil
}

// Event is one step done.
type Event struct {
	Read    string // the manifest of this backup was read
	Removed string // this object was removed
}

// Count is how many objects, and their bytes in the store.
type Count struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (c *Count) add(bytes int64) { c.Objects++; c.Bytes += bytes }

// Locked is an object that the store keeps until a time.
type Locked struct {
	Key   string    `json:"object"`
	Until time.Time `json:"until"`
}

// Result is what was decided and what was done. With an error it says how far
// that got.
type Result struct {
	Plan *Plan

	// Windows of each system before and after; After is nil when it did not get that
	// far.
	Before, After map[postgres.SystemID]wal.Standing

	Dropped []string // labels of the backups that are gone, or in a dry run would be
	Backups Count    // their own objects: manifests, infos and what else lies beside them
	Packs   Count
	WAL     Count
	Blocks  Count
	Crashed Count // what backups left that never were committed
	Locked  []Locked
}

// DeniedError says that the store does not let this host remove anything.
type DeniedError struct {
	Key string
	Err error
}

func (e *DeniedError) Error() string { return fmt.Sprintf("remove %s: %v", e.Key, e.Err) }

// Unwrap gives the store's error.
func (e *DeniedError) Unwrap() error { return e.Err }

// ClockError says that the clock here and that of the store differ so much that
// ages mean nothing.
type ClockError struct{ Here, Store time.Time }

func (e *ClockError) Error() string {
	return fmt.Sprintf("the clock of this host says %s and that of the store %s: by which of them is a backup old?",
		e.Here.UTC().Format(time.RFC3339), e.Store.UTC().Format(time.RFC3339))
}

// Run removes what the policy does not keep. *repo.LeasedError when another host
// does it; ErrNoPolicy; ErrNoneRestorable, *ClockError and *DeniedError when
// nothing was removed for that reason. After any other error some of what was
// to go is gone, every kept backup is restorable, and the next run goes on.
//
// Objects that the store keeps for a time are no error: they are in the result,
// and go with a later run.
func Run(ctx context.Context, r *repo.Repo, o Options) (*Result, error) {
	o = o.filled()
	if err := o.Policy.Check(); err != nil {
		return nil, err
	}
	if !o.DryRun {
		held, release, err := r.HoldLease(ctx, LeaseName, o.Claim, o.Now, func(err error) {
			o.Warn(err.Error())
		})
		if err != nil {
			return nil, err
		}
		defer release()
		ctx = held
		if err := checkClock(ctx, r, o.Now()); err != nil {
			return nil, err
		}
	}
	s, err := load(ctx, r, o)
	if err != nil {
		return nil, err
	}
	plan, err := NewPlan(s.Input)
	res := &Result{Plan: plan}
	if err != nil {
		return res, err
	}
	w := &work{ctx: ctx, repo: r, options: o, scene: s, result: res}
	if err := w.run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return res, err
	}
	return res, nil
}

func (o Options) filled() Options {
	if o.Jobs <= 0 {
		o.Jobs = 16
	}
	if o.Observe == nil {
		o.Observe = func(Event) {}
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	return o
}

// checkClock compares the clock with that of the store: a host that is a year ahead
// would find all backups old.
func checkClock(ctx context.Context, r *repo.Repo, now time.Time) error {
	there, err := r.StoreTime(ctx, LeaseName)
	if err != nil {
		return err
	}
	if now.Sub(there).Abs() > skew {
		return &ClockError{now, there}
	}
	return nil
}

// storeTime is by which time a lease is judged: a dry run writes nothing, and takes its
// own clock for the store's.
func storeTime(o Options, now time.Time) time.Time {
	if o.DryRun {
		return now
	}
	return time.Time{}
}

// standing is what can be restored, by system.
func (s *scene) standing(backups []repo.Info, index func(postgres.SystemID) *wal.Index) map[postgres.SystemID]wal.Standing {
	out := map[postgres.SystemID]wal.Standing{}
	for id := range s.indexes {
		var own []repo.Info
		for _, b := range backups {
			if b.System == id {
				own = append(own, b)
			}
		}
		out[id] = index(id).Standing(own)
	}
	return out
}

// gone says whether the store says that there is no such object.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
