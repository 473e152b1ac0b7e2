package expire

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// Backup is a committed backup and what is known of it.
type Backup struct {
	Info repo.Info
	Pin  *repo.PinState // nil: none

	// Unread is why it is not known what the backup is; then only the label of
	// Info counts.
	Unread error
	// Broken is why the backup cannot be restored: its manifest does not open, a
	// pack is missing, or WAL between its start and stop. nil: it can.
	Broken error
	// Packs are those that it refers to, by their place in the list of packs;
	// nil when the manifest does not open.
	Packs repo.PackSet
	// AdoptedBy is the label of a running backup that takes over its packs.
	AdoptedBy string
	// LeadsTo is a timeline with moments that are older than its first backup, to
	// which this one is the newest that leads; 0: none.
	LeadsTo postgres.Timeline
}

// time is what retention goes by. Of a backup that cannot be read it is the
// time in the label.
func (b *Backup) time() time.Time {
	if b.Unread != nil {
		t, _ := repo.LabelTime(b.Info.Label)
		return t
	}
	return b.Info.StopTime.UTC()
}

func (b *Backup) restorable() bool { return b.Unread == nil && b.Broken == nil }

func newestFirst(a, b *Backup) int {
	return cmp.Or(b.time().Compare(a.time()), cmp.Compare(b.Info.Label, a.Info.Label))
}

// Decision is what becomes of a backup, and why.
type Decision struct {
	*Backup
	Keep bool
	Why  []string // at least one when it is kept

	// Whole says that the WAL after the backup stays too, from its start to the
	// end. Of others that are kept only the WAL from start to stop has to.
	Whole bool
}

func (d *Decision) keep(whole bool, format string, args ...any) {
	d.Keep, d.Whole = true, d.Whole || whole
	d.Why = append(d.Why, fmt.Sprintf(format, args...))
}

// retain decides about each backup, the newest first.
func retain(in Input) []*Decision {
	var all []*Decision
	for _, b := range in.Backups {
		all = append(all, &Decision{Backup: b})
	}
	slices.SortFunc(all, func(a, b *Decision) int { return newestFirst(a.Backup, b.Backup) })
	for _, l := range lines(all, in.Uses, in.overSince()) {
		keepNewest(l)
		keepWindow(l, in.Policy.Window, in.Now)
		for _, rule := range in.Policy.counts() {
			keepCounted(l, rule, in.Policy.Window == 0)
		}
	}
	for _, d := range all {
		keepAnyway(d, in.Now)
	}
	return all
}

// keepAnyway keeps what no policy may remove.
func keepAnyway(d *Decision, now time.Time) {
	if p := d.Pin; p != nil && (p.Err != nil || p.Holds(now)) {
		switch {
		case p.Err != nil:
			d.keep(false, "its pin cannot be read: %v", p.Err)
		case p.Until.IsZero():
			d.keep(false, "pinned%s", reason(p.Reason))
		default:
			d.keep(false, "pinned until %s%s", p.Until.UTC().Format(time.DateOnly), reason(p.Reason))
		}
	}
	if d.AdoptedBy != "" {
		d.keep(false, "backup %s, which runs, takes over its packs", d.AdoptedBy)
	}
	if d.LeadsTo != 0 {
		d.keep(true, "the newest backup that leads to timeline %s", d.LeadsTo)
	}
	if wal.InDoubt(d.Broken) {
		d.keep(false, "it is not known whether its WAL is archived")
	}
	if d.Unread != nil {
		d.keep(true, "it cannot be read, so it is not known what it is")
	}
}

func reason(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// keepNewest keeps the newest backup of a line that is found restorable, and
// the damaged ones after it: none is the last that somebody could make use of.
func keepNewest(l line) {
	for _, d := range l.backups {
		if d.restorable() {
			d.keep(!l.over, "the newest that is restorable")
			return
		}
		d.keep(!l.over, "not found restorable, and newer than any that is")
	}
}

// keepWindow keeps the backups from which the moments of the window are
// restored: all within it, and the newest before it.
func keepWindow(l line, window time.Duration, now time.Time) {
	if window == 0 || l.over {
		return
	}
	begin := now.Add(-window)
	for _, d := range l.backups {
		if d.time().After(begin) {
			d.keep(true, "within the window of %s", days(window))
			continue
		}
		if !d.restorable() {
			d.keep(false, "not found restorable, and newer than the backup with which the window begins")
			continue
		}
		d.keep(true, "the window of %s begins with it", days(window))
		return
	}
}

// keepCounted keeps the newest of each bucket, for as many buckets as the rule
// says. A backup that is known not to be restorable fills no bucket: three
// broken ones must not push out the last three good ones.
func keepCounted(l line, rule count, whole bool) {
	last, left := "", rule.n
	for _, d := range l.backups {
		if left == 0 {
			return
		}
		if !d.restorable() {
			if rule.bucket == nil && d.Unread == nil {
				d.keep(false, "damaged: it does not count for %s, and is newer than one that does", rule.name)
			}
			continue
		}
		key := d.Info.Label
		if rule.bucket != nil {
			key = rule.bucket(d.time())
		}
		if key == last {
			continue
		}
		last = key
		left--
		if rule.bucket == nil {
			d.keep(whole && !l.over, "%s %d", rule.name, rule.n)
		} else {
			d.keep(whole && !l.over, "%s %d: the newest of %s", rule.name, rule.n, key)
		}
	}
}
