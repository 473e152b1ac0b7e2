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

// ReadContinuous is Continuous for who has not looked at the archives: it looks at
// those of the backups' systems, unless there is no policy. Which packs are missing
// it does not know.
func ReadContinuous(ctx context.Context, r *repo.Repo, p Policy, backups []repo.Info, look Look, now time.Time) (map[string]bool, error) {
	uses, indexes := Uses{}, map[postgres.SystemID]*wal.Index{}
	for _, b := range backups {
		if p.Check() != nil || indexes[b.System] != nil {
			continue
		}
		ix, err := look.at(ctx, r, b.System, b.SegSize, uses)
		if err != nil {
			return nil, err
		}
		indexes[b.System] = ix
	}
	var known []*Backup
	for _, b := range backups {
		known = append(known, &Backup{Info: b, Broken: LacksWAL(indexes[b.System], b)})
	}
	return Continuous(p, known, uses, ArchivedAncestry(indexes), now), nil
}

// Look says how an archive is looked at. The zero value reads all headers.
type Look struct {
	// Headers says how those of a system are read, and what is known of them; nil: all
	// are read. What a listing alone says decides nothing: anybody can have put it there.
	Headers func(postgres.SystemID) wal.HeaderCheck
	// Learn gives an index what the host knows and the archive does not tell without an
	// identity; may be nil.
	Learn func(context.Context, *wal.Index) error
}

// at is the index of a system's archive. uses gets when the WAL in it was stored, but
// for what is not what it is called. size is that of its segments, 0 if not known.
func (l Look) at(ctx context.Context, r *repo.Repo, id postgres.SystemID, size postgres.SegmentSize, uses Uses) (*wal.Index, error) {
	var check wal.HeaderCheck
	if l.Headers != nil {
		check = l.Headers(id)
	}
	var listed []storage.Info
	ix, err := wal.LoadChecked(ctx, r, id, func(o storage.Info) { listed = append(listed, o) }, check)
	if err == nil && ix.Headers().Why != nil && !errors.Is(ix.Headers().Why, storage.ErrDenied) {
		err = ix.Headers().Why
	}
	if err != nil {
		return nil, fmt.Errorf("look at the archive of system %s: %w", id, err)
	}
	bad := map[string]bool{}
	for _, b := range ix.Bad() {
		bad[b.Key] = true
	}
	for _, o := range listed {
		if !bad[o.Key] {
			uses.Note(id, o)
		}
	}
	ix.LearnSegmentSize(size)
	if l.Learn != nil {
		if err := l.Learn(ctx, ix); err != nil {
			return nil, fmt.Errorf("look at the archive of system %s: %w", id, err)
		}
	}
	return ix, nil
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
