package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// checkWAL follows the WAL of each system: from start to stop of each backup,
// and from there to the end where the policy wants it.
func (w *work) checkWAL(ctx context.Context) error {
	w.options.Observe(Progress{Phase: "wal"})
	systems, err := w.repo.Systems(ctx)
	if err != nil {
		return err
	}
	for _, id := range systems {
		w.indexes[id] = nil
	}
	for _, b := range w.backups {
		w.indexes[b.System] = nil
	}
	var before string
	for o := range w.list.List(ctx, repo.ArchivePrefix) {
		switch key, beside, ours := w.repo.ArchiveKey(o.Key); {
		case !ours:
			w.result.Unknown = append(w.result.Unknown, o.Key)
		case beside && before == key: // what lies beside is read in its place
			w.result.Unknown = append(w.result.Unknown, key)
		default:
			before = key
		}
		directory, _, _ := strings.Cut(o.Key[len(repo.ArchivePrefix):], "/")
		if id, err := postgres.ParseSystemID(directory); err != nil || !hasKey(w.indexes, id) {
			w.result.Unknown = append(w.result.Unknown, o.Key)
		}
	}
	for id := range w.indexes {
		if w.indexes[id], err = w.loadIndex(ctx, id); err != nil {
			return err
		}
	}
	// Only now: what the policy wants depends on all systems.
	for id := range w.indexes {
		if err := w.checkSystem(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func hasKey[K comparable, V any](m map[K]V, k K) bool { _, ok := m[k]; return ok }

func (w *work) checkSystem(ctx context.Context, id postgres.SystemID) error {
	ix := w.indexes[id]
	for _, d := range w.hidden {
		if d.system == id {
			w.damagedWAL(d.archiveObject, d.err)
		}
	}
	var own, lasting []repo.Info
	for _, b := range w.backups {
		if b.System == id {
			own = append(own, b.Info)
		}
	}
	for _, b := range own {
		if err := ix.LacksWAL(b); err != nil {
			w.lacks(id, b, err)
		}
		if w.listedOnly[id] && ix.UncheckedIn(wal.Path{Timeline: b.Timeline, Spans: postgres.History{Timeline: b.Timeline}.Path()}, b.StartLSN, b.StopLSN) > 0 {
			w.unprovenOf(b.Label, "backup %s: WAL that it needs is listed, not checked", b.Label)
		}
	}
	wanted := expire.Continuous(w.options.Policy, w.known(), w.uses, expire.ArchivedAncestry(w.indexes), w.result.Began)
	for _, b := range own {
		if wanted[b.Label] {
			lasting = append(lasting, b)
		}
	}
	return w.follow(ctx, ix, lasting)
}

// known is what an expiry would know of the backups before anything is read.
func (w *work) known() []*expire.Backup {
	var all []*expire.Backup
	for _, b := range w.backups {
		e := &expire.Backup{Info: b.Info, Broken: expire.LacksWAL(w.indexes[b.System], b.Info)}
		for _, f := range w.bad.findings {
			if slices.Contains(f.Backups, b.Label) {
				e.Broken = errors.New(f.Problem)
			}
		}
		all = append(all, e)
	}
	return all
}

// damage is an object of the archive that was found damaged on the way.
type damage struct {
	archiveObject
	err error
}

// noteBad takes what is not what it is called out of the listing, so that nothing
// counts on it, and notes what was only listed. History files are told of below.
func (w *work) noteBad(ix *wal.Index) {
	gone := map[string]bool{}
	for _, b := range ix.Bad() {
		gone[b.Key] = true
		if b.Name.Kind != postgres.WALHistory {
			w.hidden = append(w.hidden, damage{archiveObject{system: ix.System(), key: b.Key}, b.Err})
		}
	}
	w.list.hide(gone)
	n := ix.Headers()
	if n.Unchecked == 0 {
		return
	}
	why := "they were not read"
	if n.Why != nil {
		why = n.Why.Error()
	}
	w.unproven("%d objects of the archive of system %s are listed, not checked: %s", n.Unchecked, ix.System(), why)
	w.listedOnly[ix.System()] = true
}

// loadIndex reads the index of a system, and the histories in it.
func (w *work) loadIndex(ctx context.Context, id postgres.SystemID) (*wal.Index, error) {
	headers := w.options.Headers(id)
	headers.Observe = func(done, total int) { w.options.Observe(Progress{"headers", int64(done), int64(total)}) }
	ix, err := wal.LoadChecked(ctx, w.repo, id, func(o storage.Info) { w.noteUse(id, o) }, headers)
	if err != nil {
		return nil, fmt.Errorf("check the archive of system %s: %w", id, err)
	}
	if why := ix.Headers().Why; why != nil && !errors.Is(why, storage.ErrDenied) {
		return nil, fmt.Errorf("read the headers of the archive of system %s: %w", id, why)
	}
	w.noteBad(ix)
	for _, b := range w.backups {
		if b.System == id {
			ix.LearnSegmentSize(b.SegSize)
		}
	}
	if err := w.options.Learn(ctx, ix); err != nil && !repo.AboutObject(err) {
		return nil, err
	}
	for _, tl := range ix.Timelines() {
		_, err := ix.History(tl)
		key := repo.WALKey(id, postgres.WALName{Kind: postgres.WALHistory, Timeline: tl})
		switch {
		case err == nil:
			_, used := ix.Newest(tl)
			if tl > 1 && used && !ix.HasHistory(tl) {
				w.find(HistoryDamaged, key, errors.New("it is missing, and WAL of its timeline is archived")).Points = "restores to the latest moment are refused; others may be"
			}
		case errors.Is(err, repo.ErrNoIdentity), errors.Is(err, repo.ErrWrongIdentity):
			w.unproven("the way to timeline %s of system %s is not known, because its history file cannot be opened: %v", tl, id, err)
		case errors.Is(err, postgres.ErrFormat) || repo.AboutObject(err):
			w.find(HistoryDamaged, key, err).Points = "those on timeline " + tl.String() + " and its descendants"
		default:
			return nil, err
		}
	}
	return ix, nil
}

func (w *work) noteUse(id postgres.SystemID, o storage.Info) {
	if !w.uses.Note(id, o) {
		w.result.Unknown = append(w.result.Unknown, o.Key)
	}
}

func (w *work) lacks(id postgres.SystemID, b repo.Info, err error) {
	gap, ok := errors.AsType[*wal.BackupGapError](err)
	if ok && gap.Doubt != nil {
		w.unprovenOf(b.Label, "backup %s: %v", b.Label, err)
		return
	}
	object := repo.SystemWALPrefix(id)
	if ok {
		name, _ := postgres.ParseWALName(gap.Missing)
		object = repo.WALKey(id, name)
	}
	w.mu.Lock()
	for _, f := range w.result.Findings {
		if f.Code == WALMissing && f.Object == object {
			f.spoil(b.Label)
			w.mu.Unlock()
			return
		}
	}
	w.mu.Unlock()
	w.find(WALMissing, object, err, b.Label).Points = "none can be restored from these backups"
}

// settle is how long a gap before WAL that was stored just now is waited for:
// segments are pushed several at a time.
const (
	settle    = 15 * time.Second
	settleNew = 2 * time.Minute
)

// follow finds the gaps after the stop of the backups.
func (w *work) follow(ctx context.Context, ix *wal.Index, backups []repo.Info) error {
	s := ix.Standing(backups)
	byLabel := map[string]repo.Info{}
	for _, b := range backups {
		byLabel[b.Label] = b
	}
	for _, u := range s.Useless {
		if _, lacks := errors.AsType[*wal.BackupGapError](u.Err); lacks {
			continue // told already, or below as a gap
		}
		if errors.Is(u.Err, repo.ErrNoIdentity) || errors.Is(u.Err, repo.ErrWrongIdentity) {
			w.unprovenOf(u.Label, "backup %s: the way from it is not known: %v", u.Label, u.Err)
		}
	}
	for _, g := range s.Gaps {
		if len(g.NeededBy) == 0 || g.Bad != nil || told(ix, g, byLabel) {
			continue // what bears the name of a segment and is not it is a finding of its own
		}
		filled, err := w.filled(ctx, ix, g)
		if err != nil {
			return err
		}
		if !filled {
			w.gap(ix, g)
		}
	}
	return nil
}

// told says whether every backup that needs the gap filled lacks WAL before its
// stop, which is a finding of its own. One that has all that on its own timeline,
// and not on the way to the newest, lacks none by itself.
func told(ix *wal.Index, g wal.Gap, backups map[string]repo.Info) bool {
	return !slices.ContainsFunc(g.NeededBy, func(label string) bool {
		b := backups[label]
		return b.StopLSN <= g.First.Start() || ix.LacksWAL(b) == nil
	})
}

func (w *work) gap(ix *wal.Index, g wal.Gap) {
	name, _ := postgres.ParseWALName(g.First.Name())
	problem := fmt.Sprintf("%d segments are missing, from %s to %s", g.Segments(), g.First.Name(), g.Last.Name())
	if g.Segments() == 1 {
		problem = "segment " + g.First.Name() + " is missing"
	}
	f := w.find(WALGap, repo.WALKey(ix.System(), name), errors.New(problem), g.NeededBy...)
	f.from, f.to = max(g.Held, g.First.Start()), g.Next
	f.Points = fmt.Sprintf("all after %s, from these backups", f.from)
}

// filled says whether what looked like a gap has come in since the listing.
func (w *work) filled(ctx context.Context, ix *wal.Index, g wal.Gap) (bool, error) {
	newest := w.uses[expire.Place{System: ix.System(), Timeline: g.Last.Timeline}]
	deadline, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		missing := false
		for no := g.First.No; no <= g.Last.No && !missing; no++ {
			seg := postgres.Segment{Timeline: g.First.Timeline, No: no, Size: g.First.Size}
			name, err := postgres.ParseWALName(seg.Name())
			if err != nil {
				return false, err
			}
			_, err = w.list.Store.Stat(ctx, repo.WALKey(ix.System(), name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, fmt.Errorf("look for %s: %w", name, err)
			}
			missing = err != nil
		}
		if !missing || w.result.Began.Sub(newest) > settleNew {
			return !missing, nil
		}
		pause, stop := context.WithTimeout(deadline, time.Second)
		<-pause.Done()
		stop()
		if deadline.Err() != nil {
			return false, ctx.Err()
		}
	}
}
