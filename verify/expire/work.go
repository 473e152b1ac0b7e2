package expire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// work carries a plan out.
type work struct {
	ctx     context.Context
	repo    *repo.Repo
	options Options
	scene   *scene
	result  *Result

	live    repo.PackSet    // packs that a committed backup names
	removed repo.PackSet    // packs that a backup named that this run removed
	adopted repo.PackSet    // packs that a running backup takes over
	dropped map[string]bool // labels of the backups that this run removed
	there   map[string]bool // labels of the backups that there are
	mu      sync.Mutex      // holds result together
}

// run is the order in which things go. Wherever it is stopped, what is left is
// whole backups and garbage that the next run finds again.
func (w *work) run() error {
	w.live, w.removed, w.adopted = w.scene.packs.NewSet(), w.scene.packs.NewSet(), w.scene.packs.NewSet()
	w.dropped, w.there = map[string]bool{}, map[string]bool{}
	for _, d := range w.result.Plan.Decisions {
		w.there[d.Info.Label] = true
	}
	w.windows(nil)

	// First the manifests: a backup without one does not exist.
	if err := w.removeManifests(); err != nil {
		return err
	}
	// Then a look at who runs: a backup has either seen that its base is gone, or
	// has said before that it adopts it.
	if err := w.lookAgain(); err != nil {
		return err
	}
	w.countLive()
	if err := w.removeDirs(); err != nil {
		return err
	}
	if err := w.removePacks(); err != nil {
		return err
	}
	if err := w.removeWAL(); err != nil {
		return err
	}
	if err := w.removeBlocks(); err != nil {
		return err
	}
	return w.removeCrashed()
}

func (w *work) removeManifests() error {
	plan := w.result.Plan
	locked := false
	for _, d := range plan.Going() {
		lock, err := w.removeManifest(d.Info.Label)
		if err != nil {
			return err
		}
		if lock != nil {
			d.keep(false, "the store keeps it until %s (Object Lock)", lock.Until.UTC().Format(time.DateOnly))
			plan.leavePacksOf(d)
			w.result.Locked = append(w.result.Locked, *lock)
			locked = true
			continue
		}
		w.dropped[d.Info.Label] = true
		w.result.Dropped = append(w.result.Dropped, d.Info.Label)
		delete(w.there, d.Info.Label)
		w.result.Backups.add(w.scene.sizes[d.Info.Label])
	}
	if locked {
		plan.decideWAL(w.scene.Input)
	}
	return nil
}

// removeManifest removes the manifest from each place. A lock on any keeps the backup.
func (w *work) removeManifest(label string) (*Locked, error) {
	for _, key := range repo.ManifestPlaces(label) {
		if until, err := w.remove(key); err != nil || !until.IsZero() {
			return &Locked{key, until}, err
		}
	}
	return nil, nil
}

// lookAgain lists the backups once more: what was committed meanwhile is live,
// and what is adopted by now is left.
func (w *work) lookAgain() error {
	if w.options.DryRun {
		return nil
	}
	directories, _, err := w.repo.Directories(w.ctx)
	if err != nil {
		return err
	}
	lease, err := w.repo.LookAtLease(w.ctx, repo.BackupLease, storeTime(w.options, w.scene.Now))
	if err != nil {
		return err
	}
	known := map[string]*Decision{}
	for _, d := range w.result.Plan.Decisions {
		known[d.Info.Label] = d
	}
	w.scene.directories = w.scene.directories[:0]
	for _, f := range directories {
		d := known[f.Label]
		if f.Committed {
			w.there[f.Label] = true
		}
		switch {
		case f.Committed && d == nil:
			err = w.committedMeanwhile(f.Label)
		case !f.Committed && !w.dropped[f.Label]:
			w.scene.directories = append(w.scene.directories, f)
			if lease.Held || w.scene.young(f) {
				w.scene.running[f.Label] = true
				err = w.protect(f, known)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// committedMeanwhile takes in a backup that is newer than the plan.
func (w *work) committedMeanwhile(label string) error {
	b, err := readBackup(w.ctx, w.repo, label, w.scene.packs)
	switch {
	case err != nil:
		return err
	case b == nil:
	case b.Packs == nil:
		w.leavePacks(fmt.Sprintf("the manifest of backup %s, which is new, cannot be read", label))
	default:
		w.live.Join(b.Packs)
	}
	return nil
}

// protect leaves the packs that a running backup takes over.
func (w *work) protect(f repo.Directory, known map[string]*Decision) error {
	bases, unknown, err := adopted(w.ctx, w.repo, f)
	if err != nil {
		return err
	}
	if unknown != "" {
		w.leavePacks(unknown)
	}
	for _, base := range bases {
		d := known[base]
		if d == nil || d.Packs == nil {
			w.leavePacks(fmt.Sprintf("backup %s, which may still run, takes over packs of %s, which is no backup any more", f.Label, base))
			continue
		}
		w.adopted.Join(d.Packs)
	}
	return nil
}

func (w *work) leavePacks(why string) {
	if w.result.Plan.Unswept == "" {
		w.result.Plan.Unswept = why
	}
}

func (w *work) countLive() {
	for _, d := range w.result.Plan.Decisions {
		switch {
		case d.Packs == nil:
		case d.Keep:
			w.live.Join(d.Packs)
		default:
			w.removed.Join(d.Packs)
		}
	}
}

// removeDirs removes what lies beside the manifests that are gone, and the
// pins of backups that there are no more.
func (w *work) removeDirs() error {
	var all []storage.Info
	for label := range w.dropped {
		for info, err := range w.repo.Store().List(w.ctx, repo.BackupsPrefix+label+"/") {
			if err != nil {
				return fmt.Errorf("list what lies beside backup %s: %w", label, err)
			}
			if !slices.Contains(repo.ManifestPlaces(label), info.Key) { // in a dry run they are there
				all = append(all, info)
			}
		}
	}
	for info, err := range w.repo.Store().List(w.ctx, repo.PinsPrefix) {
		if err != nil {
			return fmt.Errorf("list pins: %w", err)
		}
		label, _, _ := strings.Cut(strings.TrimPrefix(info.Key, repo.PinsPrefix), "/")
		if repo.CheckLabel(label) == nil && !w.there[label] {
			all = append(all, info)
		}
	}
	return w.removeAll(all, &w.result.Backups)
}

// removePacks removes the packs that no backup names. Those that a removed
// backup named go at once; others only when they are old, because a backup that
// runs has packs that nothing names yet.
func (w *work) removePacks() error {
	if w.result.Plan.Unswept != "" {
		return nil
	}
	young := w.result.Plan.Young.UnixNano()
	var all []storage.Info
	for i, p := range w.scene.packs {
		if w.live.Has(i) || w.adopted.Has(i) || !w.removed.Has(i) && p.Nano >= young {
			continue
		}
		all = append(all, storage.Info{Key: p.Key(), Size: p.Size})
	}
	return w.removeAll(all, &w.result.Packs)
}

func (w *work) removeWAL() error {
	gone := map[postgres.SystemID]map[postgres.Segment]bool{}
	var all []storage.Info
	for _, rule := range w.result.Plan.WAL {
		own := map[postgres.Segment]bool{}
		gone[rule.System] = own
		if rule.All != "" {
			continue
		}
		ix := w.scene.indexes[rule.System]
		for info, err := range w.repo.Store().List(w.ctx, repo.SystemWALPrefix(rule.System)) {
			if err != nil {
				return fmt.Errorf("list the archive of system %s: %w", rule.System, err)
			}
			// What lies beside a segment goes with it, whoever put it there.
			name, ok := repo.ParseWALKey(rule.System, repo.BesideWhat(info.Key))
			if !ok || name.Kind == postgres.WALHistory {
				continue // history files are small, and tell who descends from whom
			}
			seg, err := postgres.ParseSegment(name.Segment, rule.Size)
			if err != nil {
				continue // of another size: nothing that recovery would read
			}
			if slice := strings.Contains(info.Key, ".d/"); rule.keeps(seg.No, info.ModTime) &&
				!(slice && ix.HasWhole(seg) && info.ModTime.Before(rule.Young)) {
				continue // slices are left over where the segment is there as a whole
			}
			if name.Kind == postgres.WALSegment && !rule.keeps(seg.No, info.ModTime) {
				own[seg] = true
			}
			all = append(all, info)
		}
	}
	w.windows(gone)
	return w.removeAll(all, &w.result.WAL)
}

// windows notes what can be restored: before, when gone is nil, and after.
func (w *work) windows(gone map[postgres.SystemID]map[postgres.Segment]bool) {
	s := w.scene
	if gone == nil {
		var all []repo.Info
		for _, d := range w.result.Plan.Decisions {
			if d.Unread == nil {
				all = append(all, d.Info)
			}
		}
		w.result.Before = s.standing(all, func(id postgres.SystemID) *wal.Index { return s.indexes[id] })
		return
	}
	w.result.After = s.standing(w.result.Plan.Staying(), func(id postgres.SystemID) *wal.Index {
		return s.indexes[id].Without(func(seg postgres.Segment) bool { return gone[id][seg] })
	})
}

func (w *work) removeBlocks() error {
	var all []storage.Info
	for _, rule := range w.result.Plan.Blocks {
		prefix := repo.SummaryPrefix + rule.System.String() + "/"
		for info, err := range w.repo.Store().List(w.ctx, prefix) {
			if err != nil {
				return fmt.Errorf("list block summaries: %w", err)
			}
			_, rest, _ := strings.Cut(info.Key[len(prefix):], "/")
			if _, to, ok := repo.ParseBlocks(rest); ok && !rule.keeps(to, info.ModTime) {
				all = append(all, info)
			}
		}
	}
	return w.removeAll(all, &w.result.Blocks)
}

// checkAge is how long the records of checks are kept.
const checkAge = 400 * 24 * time.Hour

// removeCrashed removes the directories of backups that ended before they were
// committed, and records of checks that are older than a year.
func (w *work) removeCrashed() error {
	var all []storage.Info
	for info, err := range w.repo.Store().List(w.ctx, repo.ChecksPrefix) {
		if err != nil {
			return fmt.Errorf("list the records of checks: %w", err)
		}
		if _, began, _, ok := repo.ParseCheck(info.Key); ok && w.scene.Now.Sub(began) > checkAge {
			all = append(all, info)
		}
	}
	for _, f := range w.scene.directories {
		if !w.scene.running[f.Label] {
			all = append(all, f.Objects...)
		}
	}
	return w.removeAll(all, &w.result.Crashed)
}

// removeAll removes objects, several at a time, and counts them. It stops at
// the first failure.
func (w *work) removeAll(all []storage.Info, count *Count) error {
	g, ctx := errgroup.WithContext(w.ctx)
	g.SetLimit(w.options.Jobs)
	for _, info := range all {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			until, err := w.remove(info.Key)
			if err != nil {
				return err
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if !until.IsZero() {
				w.result.Locked = append(w.result.Locked, Locked{info.Key, until})
				return nil
			}
			count.add(info.Size)
			return nil
		})
	}
	err := g.Wait()
	slices.SortFunc(w.result.Locked, func(a, b Locked) int { return strings.Compare(a.Key, b.Key) })
	if err == nil {
		err = context.Cause(w.ctx)
	}
	return err
}

// remove removes one object, unless the store keeps it until a time. In a dry
// run it only asks.
func (w *work) remove(key string) (until time.Time, err error) {
	if err := context.Cause(w.ctx); err != nil {
		return until, err
	}
	store := w.repo.Store()
	until, err = storage.LockedUntil(w.ctx, store, key)
	switch {
	case gone(err):
		return time.Time{}, nil
	case err != nil:
		return until, fmt.Errorf("ask for the Object Lock of %s: %w", key, err)
	case until.After(w.scene.Now):
		return until, nil
	case w.options.DryRun:
		return time.Time{}, nil
	}
	err = store.Delete(w.ctx, key)
	if errors.Is(err, storage.ErrDenied) {
		return time.Time{}, &DeniedError{key, err}
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("remove %s: %w", key, err)
	}
	w.options.Observe(Event{Removed: key})
	return time.Time{}, nil
}
