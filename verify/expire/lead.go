package expire

import (
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Ancestry is the history of a timeline, and false where it cannot be known.
type Ancestry func(Place) (postgres.History, bool)

// markLeading finds timelines with moments that only a backup of an ancestor
// restores, as after a failover or a restore to an earlier point: those on which
// no backup was taken yet, and those whose first one is younger than the
// beginning of the window. The backup that leads there must stay, though newer
// ones lie on timelines that are over, or on its own past the point where the
// new one left it.
func (in Input) markLeading(ancestry Ancestry) {
	first, last := in.firsts(), map[postgres.SystemID]time.Time{}
	places := map[Place]bool{}
	for p := range first {
		places[p] = true
	}
	for p, at := range in.Uses {
		places[p] = true
		if at.After(last[p.System]) {
			last[p.System] = at
		}
	}
	recent := in.Now.Add(-max(Age, in.Policy.Window))
	for p := range places {
		own, used := first[p], in.Uses[p]
		switch {
		case own != nil && (in.Policy.Window == 0 || !own.time().After(in.Now.Add(-in.Policy.Window))):
			continue // no moment is wanted that is older than its own first backup
		case own == nil && used.Before(recent) && used.Before(last[p.System]):
			continue // it is over
		}
		in.lead(p, own, ancestry)
	}
}

// firsts are the oldest backups of each timeline that can be restored.
func (in Input) firsts() map[Place]*Backup {
	out := map[Place]*Backup{}
	for _, b := range in.Backups {
		if !b.restorable() {
			continue
		}
		p := Place{b.Info.System, b.Info.Timeline}
		if f := out[p]; f == nil || newestFirst(f, b) < 0 {
			out[p] = b
		}
	}
	return out
}

// lead marks the newest backup from which recovery reaches a timeline, and all
// of the system when that cannot be told. own is the timeline's first backup,
// before which it is to lead there; nil: it has none.
func (in Input) lead(p Place, own *Backup, ancestry Ancestry) {
	h, known := ancestry(p)
	var newest *Backup
	for _, b := range in.Backups {
		switch {
		case b.Unread != nil || b.Info.System != p.System:
		case own != nil && (b.Info.Timeline == p.Timeline || newestFirst(b, own) < 0):
		case !known:
			b.LeadsTo = p.Timeline
		case b.restorable() && h.Contains(b.Info.Timeline, b.Info.StopLSN) && (newest == nil || newestFirst(b, newest) < 0):
			newest = b
		}
	}
	if newest != nil {
		newest.LeadsTo = p.Timeline
	}
}
