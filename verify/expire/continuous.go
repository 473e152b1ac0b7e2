package expire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// Continuous says of which backups the policy wants all WAL up to the end of
// the archive: a gap after another one is no loss. Without a policy it is all
// of them, and what the archives tell is not asked for. Backups of all systems
// are to be given, since they count together, with Broken where that is known: the
// window begins before a backup that cannot be restored.
func Continuous(p Policy, backups []*Backup, uses Uses, ancestry Ancestry, now time.Time) map[string]bool {
	out := map[string]bool{}
	if p.Check() != nil {
		for _, b := range backups {
			out[b.Info.Label] = true
		}
		return out
	}
	in := Input{Now: now, Policy: p, Uses: uses, Backups: backups}
	in.markLeading(ancestry)
	for _, d := range retain(in) {
		out[d.Info.Label] = d.Whole
	}
	return out
}

// ReadContinuous is Continuous for who has not looked at the archives: it lists
// those of the backups' systems, unless there is no policy. Which packs are missing
// it does not know. learn gives an index
// what the host knows; it may be nil.
func ReadContinuous(ctx context.Context, r *repo.Repo, p Policy, backups []repo.Info, learn func(context.Context, *wal.Index) error, now time.Time) (map[string]bool, error) {
	uses, indexes := Uses{}, map[postgres.SystemID]*wal.Index{}
	for _, b := range backups {
		if p.Check() != nil || indexes[b.System] != nil {
			continue
		}
		ix, err := wal.LoadIndexSeeing(ctx, r, b.System, func(o storage.Info) { uses.Note(b.System, o) })
		if err == nil {
			ix.LearnSegmentSize(b.SegSize)
		}
		if err == nil && learn != nil {
			err = learn(ctx, ix)
		}
		if err != nil {
			return nil, fmt.Errorf("look at the archive of system %s: %w", b.System, err)
		}
		indexes[b.System] = ix
	}
	var known []*Backup
	for _, b := range backups {
		known = append(known, &Backup{Info: b, Broken: LacksWAL(indexes[b.System], b)})
	}
	return Continuous(p, known, uses, ArchivedAncestry(indexes), now), nil
}

// LacksWAL is why a backup is not restorable for want of WAL, nil without an index.
// A doubt is none, for the reason that ArchivedAncestry gives.
func LacksWAL(ix *wal.Index, b repo.Info) error {
	if ix == nil {
		return nil
	}
	err := ix.LacksWAL(b)
	if gap, ok := errors.AsType[*wal.BackupGapError](err); ok && gap.Doubt != nil {
		return nil
	}
	return err
}

// ArchivedAncestry is what the archives tell. Where that cannot be known it makes
// nothing of it: who looks for gaps would find those that an expiry made that knew
// more. An expiry itself must keep what it does not know.
func ArchivedAncestry(indexes map[postgres.SystemID]*wal.Index) Ancestry {
	return func(p Place) (postgres.History, bool) {
		h, err := indexes[p.System].History(p.Timeline)
		if err != nil {
			h = postgres.History{Timeline: p.Timeline}
		}
		return h, true
	}
}

// Uses is when the newest WAL of each timeline was stored, by the store's clock.
type Uses map[Place]time.Time

// Note takes an object of the archive of a system. False for what is none of its
// files.
func (u Uses) Note(id postgres.SystemID, o storage.Info) bool {
	name, ok := repo.ParseWALKey(id, o.Key)
	p := Place{id, name.Timeline}
	if ok && name.Kind != postgres.WALHistory && o.ModTime.After(u[p]) {
		u[p] = o.ModTime
	}
	return ok
}
