package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

const (
	// locksAtOnce makes so many round trips one, as for the headers of WAL.
	locksAtOnce = 48

	// lockSlack is by how much a retention may end before the time that is counted
	// from the store's time of the object: who wrote counted by its own clock. S3
	// refuses requests of hosts whose clock is off by more than 15 minutes, and a
	// request takes some time.
	lockSlack = time.Hour
)

// Locks say until when the store must keep the objects: for as long as the
// configuration asks, or the store's own rule for new objects, whichever is longer.
type Locks struct {
	Mode  string // storage.Governance, storage.Compliance; "" when nothing is asked for
	Days  int    // from when the store has had an object
	Known *KnownLocks
}

// LockResult is what is known of the locks.
type LockResult struct {
	Mode string `json:"mode"` // that objects must have; "" when neither the configuration nor the store's rule asks for any
	Days int    `json:"days"`

	Objects int `json:"objects"`     // that must be kept now, at least in part of the days
	Kept    int `json:"kept"`        // of them, those that are
	Asked   int `json:"asked_now"`   // of which the store was asked by this run; the others were known
	Unknown int `json:"not_checked"` // of which the store did not say it
	Over    int `json:"over"`        // objects beside, that were stored longer ago
}

// lockRun is the check of all locks.
type lockRun struct {
	*work
	mode string
	days int

	mu      sync.Mutex
	missing []string
	short   []string
	first   string // why the first of short is
	refused error
	done    int
}

// locked says whether objects of the kind must be kept: those that a restore, or the
// belief in it, rests on. Leases and notes of what was checked come and go.
func locked(key string) bool {
	for _, prefix := range []string{repo.BackupsPrefix, repo.PacksPrefix, repo.ArchivePrefix, "keys/", "drills/"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// checkLocks asks the store until when it keeps the objects, of which this host does
// not know it yet.
func (w *work) checkLocks(ctx context.Context) error {
	run := &lockRun{work: w, mode: w.options.Locks.Mode, days: w.options.Locks.Days}
	rule, err := storage.RetentionRuleOf(ctx, w.list.Store)
	switch {
	case errors.Is(err, storage.ErrDenied):
		w.unproven("whether the bucket has a rule for Object Lock is not known: %v", err)
		w.result.LocksRefused = true
	case err != nil:
		return err
	case rule.Mode != "":
		run.days = max(run.days, rule.Days)
		if run.mode != storage.Compliance {
			run.mode = rule.Mode
		}
	}
	w.result.Locks.Mode, w.result.Locks.Days = run.mode, run.days
	if run.mode == "" {
		return nil
	}
	if w.options.Locks.Known == nil {
		w.options.Locks.Known = NewKnownLocks()
	}
	if err := run.askAll(ctx, run.pick()); err != nil {
		return err
	}
	run.conclude()
	return ctx.Err()
}

// pick returns the objects of which the store is to be asked.
func (run *lockRun) pick() (todo []storage.Info) {
	began := run.result.Began
	take := func(o storage.Info) {
		if !o.ModTime.AddDate(0, 0, run.days).After(began) {
			run.result.Locks.Over++
			return
		}
		run.result.Locks.Objects++
		if r, ok := run.options.Locks.Known.holds(o, began); ok {
			run.judge(o, r)
			return
		}
		todo = append(todo, o)
	}
	for _, p := range run.list.packs {
		take(storage.Info{Key: p.Key(), Size: p.Size, ModTime: time.Unix(0, p.Nano)})
	}
	for _, o := range run.list.objects {
		if locked(o.Key) {
			take(o)
		}
	}
	return todo
}

// askAll asks many at once. What the store refuses once it is not asked again: it
// would refuse the rest as well.
func (run *lockRun) askAll(ctx context.Context, todo []storage.Info) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(locksAtOnce)
	for _, o := range todo {
		g.Go(func() error {
			if run.isRefused() {
				return nil
			}
			r, err := storage.RetentionOf(gctx, run.list.Store, o.Key)
			return run.note(o, r, err, len(todo))
		})
	}
	return g.Wait()
}

func (run *lockRun) isRefused() bool {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.refused != nil
}

func (run *lockRun) note(o storage.Info, r storage.Retention, err error, total int) error {
	run.mu.Lock()
	defer run.mu.Unlock()
	locks := &run.result.Locks
	switch {
	case errors.Is(err, fs.ErrNotExist):
		locks.Objects-- // it was removed since the listing
	case errors.Is(err, storage.ErrDenied):
		run.refused = err
		return nil
	case err != nil:
		return err
	default:
		locks.Asked++
		run.options.Locks.Known.add(o, r)
		run.judge(o, r)
	}
	run.done++
	run.options.Observe(Progress{"locks", int64(run.done), int64(total)})
	return nil
}

// judge compares a retention with the one that the object must have.
func (run *lockRun) judge(o storage.Info, r storage.Retention) {
	wanted := o.ModTime.AddDate(0, 0, run.days)
	why := ""
	switch {
	case r.Mode == "":
		run.missing = append(run.missing, o.Key)
		return
	case r.Until.Before(wanted.Add(-lockSlack)):
		why = fmt.Sprintf("is kept until %s, and %d days after it was stored are %s", moment(r.Until), run.days, moment(wanted))
	case run.mode == storage.Compliance && r.Mode != storage.Compliance:
		why = fmt.Sprintf("is kept in the mode %s, not %s", r.Mode, run.mode)
	default:
		run.result.Locks.Kept++
		return
	}
	if len(run.short) == 0 || o.Key < slices.Min(run.short) {
		run.first = why
	}
	run.short = append(run.short, o.Key)
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// conclude makes one finding of all objects with the same fault.
func (run *lockRun) conclude() {
	locks := &run.result.Locks
	run.findAll(LockMissing, run.missing, "nothing keeps it from being removed")
	run.findAll(LockShort, run.short, run.first)
	locks.Unknown = locks.Objects - locks.Kept - len(run.missing) - len(run.short)
	if locks.Unknown > 0 {
		run.unproven("until when the store keeps %d of %d objects is not known: %v", locks.Unknown, locks.Objects, run.refused)
		run.result.LocksRefused = true
	}
}

func (run *lockRun) findAll(c Code, keys []string, why string) {
	if len(keys) == 0 {
		return
	}
	slices.Sort(keys)
	if n := len(keys) - 1; n > 0 {
		why = fmt.Sprintf("%s; so it is with %d more of %d objects that Object Lock should keep", why, n, run.result.Locks.Objects)
	}
	f := run.find(c, keys[0], errors.New(why))
	f.Objects, f.ObjectCount = slices.Clone(keys[:min(len(keys), MaxFiles)]), len(keys)
	f.Points = "none: they restore, as long as nobody removes them"
}
