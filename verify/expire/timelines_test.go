package expire_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
)

// After a restore to an earlier point nothing but its history file says from which
// backup the new timeline came, while that has none of its own.
func TestRunKeepsWhatLeadsToANewTimeline(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var labels []string
	for i, ago := range []float64{20, 10, 3} {
		labels = append(labels, w.backup(ago, []int{100, 110, 130}[i], ""))
	}
	w.at(1, func() {
		history := fmt.Sprintf("1\t%s\tx\n", postgres.LSN(115*seg)) // past the second backup, and before the third
		_, err := w.repo.CreateEnvelope(t.Context(), repo.WALKey(system, postgres.WALName{Kind: postgres.WALHistory, Timeline: 2}), repo.KindWAL,
			strings.NewReader(history), int64(len(history)))
		w.check(err)
		w.wal(2, 115, 117)
	})
	p := expire.Policy{KeepLast: 1}
	var infos []repo.Info
	for _, l := range labels {
		info, err := w.repo.Info(t.Context(), l)
		w.check(err)
		infos = append(infos, info)
	}
	wanted, err := expire.ReadContinuous(t.Context(), w.repo, p, infos, expire.Look{}, w.now)
	if want := map[string]bool{labels[0]: false, labels[1]: true, labels[2]: true}; err != nil || !maps.Equal(wanted, want) {
		t.Errorf("WAL to the end is wanted of %v, %v", wanted, err)
	}
	_, err = w.expire(w.store, p, false)
	w.check(err)
	if got := w.labels(); !slices.Equal(got, labels[1:]) {
		t.Errorf("%v are left, not %v", got, labels[1:])
	}
	w.sound("after it", p)
}

// The WAL of a backup may lie on a newer timeline, which came from its own or did not:
// nothing tells. The backup stays, with the WAL that it would need.
func TestRunInDoubt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	doubted := w.backup(20, 100, "")
	w.backup(3, 120, "")
	key := func(tl postgres.Timeline) string {
		n, err := postgres.ParseWALName(postgres.Segment{Timeline: tl, No: 101, Size: seg}.Name())
		w.check(err)
		return repo.WALKey(system, n)
	}
	w.check(w.store.Delete(t.Context(), key(1)))
	w.at(19, func() { w.wal(2, 101, 103) })
	res, err := w.expire(w.store, expire.Policy{KeepLast: 1}, false)
	w.check(err)
	if d := res.Plan.Decisions[1]; !slices.Contains(w.labels(), doubted) || !slices.Equal(d.Why, []string{"it is not known whether its WAL is archived"}) {
		t.Errorf("%v are left, %q", w.labels(), d.Why)
	}
	if _, err := w.store.Stat(t.Context(), key(2)); err != nil || res.WAL.Objects == 0 {
		t.Errorf("what it would need: %v; %d objects went", err, res.WAL.Objects)
	}
}

// A backup that lacks WAL begins no window: what is wanted is what an expiry keeps.
func TestContinuousFromBeforeADamagedBackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var infos []repo.Info
	for i, ago := range []float64{20, 10, 3} {
		info, err := w.repo.Info(t.Context(), w.backup(ago, 100+10*i, ""))
		w.check(err)
		infos = append(infos, info)
	}
	n, err := postgres.ParseWALName(postgres.Segment{Timeline: 1, No: 111, Size: seg}.Name())
	w.check(err)
	w.check(w.store.Delete(t.Context(), repo.WALKey(system, n)))
	p := expire.Policy{Window: 5 * day}
	wanted, err := expire.ReadContinuous(t.Context(), w.repo, p, infos, expire.Look{}, w.now)
	w.check(err)
	res, err := w.expire(w.store, p, true)
	w.check(err)
	for _, d := range res.Plan.Decisions {
		if l := d.Info.Label; wanted[l] != d.Whole {
			t.Errorf("%s: WAL to the end is wanted: %v, kept: %v", l, wanted[l], d.Whole)
		}
	}
	if !wanted[infos[0].Label] {
		t.Error("the window does not begin with the oldest backup")
	}
}
