package expire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// branch is a timeline as it was in use: it left its parent at a position, and
// wrote WAL from one moment to another, 100 segments a day.
type branch struct {
	history postgres.History
	from    postgres.LSN
	began   time.Time
	ended   time.Time
}

func (b *branch) at(t time.Time) postgres.LSN {
	return b.from + postgres.LSN(float64(t.Sub(b.began))/float64(day)*100*segSize)
}

func ago(days float64) time.Time { return now.Add(-time.Duration(days * float64(day))) }

// leave makes a timeline that leaves another where that was at a moment, and is
// in use from a later one on.
func (b *branch) leave(tl postgres.Timeline, where, began, ended time.Time) *branch {
	h := postgres.History{Timeline: tl, Entries: slices.Clone(b.history.Entries)}
	h.Entries = append(h.Entries, postgres.HistoryEntry{Timeline: b.history.Timeline, Switch: b.at(where)})
	return &branch{h, b.at(where), began, ended}
}

// backup is one that ended on the timeline at a moment.
func (b *branch) backup(t time.Time) *Backup {
	out := at(float64(now.Sub(t))/float64(day), b.history.Timeline, uint64(b.at(t))/segSize)
	out.Info.StopLSN = b.at(t)
	out.Info.StartLSN = out.Info.StopLSN - segSize
	return out
}

func ancestry(branches []*branch) Ancestry {
	return func(p Place) (postgres.History, bool) {
		for _, b := range branches {
			if b.history.Timeline == p.Timeline {
				return b.history, true
			}
		}
		return postgres.History{}, false
	}
}

// A restore to an earlier point: the newest backup before the window is of the
// timeline that was left, and past the point. The one that the new timeline came
// from stays until the new one's own first backup is older than the window.
func TestWindowAfterARestoreToAnEarlierPoint(t *testing.T) {
	t.Parallel()
	one := &branch{postgres.History{Timeline: 1}, 1000 * segSize, ago(20), ago(3.5)}
	two := one.leave(2, ago(6), ago(3), now)
	came, past, damagedOne := one.backup(ago(10)), one.backup(ago(4)), with(two.backup(ago(2.5)), damaged)
	backups := []*Backup{one.backup(ago(15)), came, past, damagedOne, two.backup(ago(2)), two.backup(ago(1))}
	for window, want := range map[float64][]*Backup{
		3.3: {came, past, damagedOne, backups[4], backups[5]},
		1.5: {backups[4], backups[5]},
		0:   {backups[5]},
	} {
		for _, b := range backups {
			b.LeadsTo = 0
		}
		in := input(Policy{KeepLast: 1, Window: time.Duration(window * float64(day))}, backups...)
		in.markLeading(ancestry([]*branch{one, two}))
		p, err := NewPlan(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range p.Decisions {
			if d.Keep != slices.Contains(want, d.Backup) {
				t.Errorf("window %v: %s keep %v\n%s", window, d.Info.Label, d.Keep, describe(p))
			}
		}
	}
	// Without the way to timeline 2 none of those before its first backup may go.
	in := input(Policy{KeepLast: 1, Window: 3 * day}, backups...)
	in.markLeading(func(Place) (postgres.History, bool) { return postgres.History{}, false })
	for _, b := range backups[:3] {
		if b.LeadsTo != 2 {
			t.Errorf("%s may go, and it is not known whether it leads to timeline 2", b.Info.Label)
		}
	}
}

// A timeline that has WAL and no backup, as after a failover.
func TestLeadsToATimelineWithoutBackups(t *testing.T) {
	t.Parallel()
	one := &branch{postgres.History{Timeline: 1}, 1000 * segSize, ago(20), ago(1)}
	two := one.leave(2, ago(6), ago(1), now)
	backups := []*Backup{one.backup(ago(10)), one.backup(ago(8)), with(one.backup(ago(7)), damaged), one.backup(ago(3))}
	for name, c := range map[string]struct {
		used time.Time
		tree []*branch
		want []*Backup
	}{
		"in use":            {now, []*branch{one, two}, backups[1:2]},
		"over for long":     {ago(5), []*branch{one, two}, nil},
		"of unknown origin": {now, nil, backups},
	} {
		for _, b := range backups {
			b.LeadsTo = 0
		}
		in := input(Policy{KeepLast: 1}, backups...)
		in.Uses[Place{1, 2}] = c.used
		in.markLeading(ancestry(c.tree))
		for _, b := range backups {
			if (b.LeadsTo == 2) != slices.Contains(c.want, b) {
				t.Errorf("%s: %s leads to timeline %s", name, b.Info.Label, b.LeadsTo)
			}
		}
	}
}

// Every moment of the window that could be restored before can be after, on
// each timeline for itself, however they left each other.
func TestWindowOfEachTimeline(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	led := 0
	for range 3000 {
		tree, backups := randomTree(r)
		in := input(Policy{KeepLast: r.IntN(3), Window: time.Duration(1+r.IntN(15)) * day}, backups...)
		for _, b := range tree {
			in.Uses[Place{1, b.history.Timeline}] = b.ended
		}
		in.markLeading(ancestry(tree))
		p, err := NewPlan(in)
		if errors.Is(err, ErrNoneRestorable) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range tree {
			if at, lost := b.lost(p, backups, now.Add(-in.Policy.Window)); lost {
				var branches strings.Builder
				for _, b := range tree {
					fmt.Fprintf(&branches, "%+v\n", *b)
				}
				t.Fatalf("the moment %s of timeline %s goes\npolicy %+v\n%s%s", at, b.history.Timeline, in.Policy, describe(p), branches.String())
			}
		}
		if slices.ContainsFunc(backups, func(b *Backup) bool { return b.LeadsTo != 0 }) {
			led++
		}
	}
	if led < 100 {
		t.Errorf("a backup led to another timeline in %d cases only", led)
	}
}

// lost is a moment of the window that a backup restored on the timeline before,
// and none that the plan keeps, together with its WAL, does.
func (b *branch) lost(p *Plan, backups []*Backup, begin time.Time) (time.Time, bool) {
	moments := []time.Time{begin, b.began, b.ended, now}
	for _, x := range backups {
		moments = append(moments, x.time(), x.time().Add(-time.Minute))
	}
	for _, m := range moments {
		if m.Before(begin) || m.Before(b.began) || m.After(b.ended) {
			continue
		}
		serves := func(x *Backup) bool {
			return x.restorable() && b.history.Contains(x.Info.Timeline, x.Info.StopLSN) && !x.time().After(m)
		}
		kept := func(d *Decision) bool { return d.Keep && d.Whole && serves(d.Backup) }
		if slices.ContainsFunc(backups, serves) && !slices.ContainsFunc(p.Decisions, kept) {
			return m, true
		}
	}
	return time.Time{}, false
}

// randomTree is a cluster that had failovers, restores to earlier points, and
// clones that were in use beside it.
func randomTree(r *rand.Rand) (tree []*branch, backups []*Backup) {
	between := func(a, b time.Time) time.Time {
		return a.Add(time.Duration(r.Float64() * float64(b.Sub(a)))).Truncate(time.Second)
	}
	tree = append(tree, &branch{postgres.History{Timeline: 1}, 1000 * segSize, ago(20), now})
	for tl := postgres.Timeline(2); int(tl) <= 1+r.IntN(4); tl++ {
		parent := tree[r.IntN(len(tree))]
		left := between(parent.began, parent.ended)
		began := left
		if r.IntN(3) > 0 { // a restore to an earlier point, and not a failover
			began = between(left, now)
		}
		tree = append(tree, parent.leave(tl, left, began, now))
		if r.IntN(3) > 0 && began.Before(parent.ended) {
			parent.ended = began
		}
	}
	for _, b := range tree {
		for range r.IntN(6) {
			x := b.backup(between(b.began, b.ended))
			if r.IntN(5) == 0 {
				damaged(x)
			}
			backups = append(backups, x)
		}
	}
	return tree, backups
}
