package expire

import (
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Place is a timeline of a system.
type Place struct {
	System   postgres.SystemID
	Timeline postgres.Timeline
}

// line is a history of its own, the newest backup first.
type line struct {
	backups []*Decision

	// over says that it has not been in use for so long that the WAL after its
	// backups is not wanted any more. They stay as the rules say, and restore to
	// their own ends; else one segment that came late would hold all WAL for ever.
	over bool
}

// overAge is how long a line must not have been in use to be over, where no
// window says from when on moments are wanted.
const overAge = 30 * 24 * time.Hour

func (in Input) overSince() time.Time {
	if in.Policy.Window == 0 {
		return in.Now.Add(-overAge)
	}
	return in.Now.Add(-max(in.Policy.Window, Age))
}

// lines puts the backups of timelines together that followed one another, and
// keeps those apart that were in use at the same time: a clone that was
// promoted by mistake must not push out the backups of the true primary, and
// the backups from before a failover or an upgrade are not to stay for ever.
// A timeline is in use from its first backup to its last one, or to the time
// when its newest WAL was stored, whichever is later. Only times count, never
// the numbers of timelines: those begin again with a new system.
//
// all is sorted, newest first, and so is each line. Backups that cannot be read
// are in none. Lines are over that ended before a time, but not the last of all.
func lines(all []*Decision, uses Uses, overSince time.Time) []line {
	type use struct {
		Place
		from, to time.Time
	}
	found := map[Place]*use{}
	var order []*use
	for _, d := range slices.Backward(all) {
		if d.Unread != nil {
			continue
		}
		p := Place{d.Info.System, d.Info.Timeline}
		u := found[p]
		if u == nil {
			u = &use{Place: p, from: d.time(), to: uses[p]}
			found[p] = u
			order = append(order, u)
		}
		if d.time().After(u.to) {
			u.to = d.time()
		}
	}
	// Each goes on the line that ended last before it began.
	var ends []time.Time
	on := map[Place]int{}
	for _, u := range order { // ascending by from
		best := -1
		for i, end := range ends {
			if end.Before(u.from) && (best < 0 || end.After(ends[best])) {
				best = i
			}
		}
		if best < 0 {
			ends = append(ends, time.Time{})
			best = len(ends) - 1
		}
		ends[best] = u.to
		on[u.Place] = best
	}
	out := make([]line, len(ends))
	for i, end := range ends {
		out[i].over = end.Before(overSince) && end.Before(slices.MaxFunc(ends, time.Time.Compare))
	}
	for _, d := range all {
		if d.Unread == nil {
			i := on[Place{d.Info.System, d.Info.Timeline}]
			out[i].backups = append(out[i].backups, d)
		}
	}
	return out
}
