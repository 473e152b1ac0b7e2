package check_test

import (
	"slices"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/check"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
)

const day = 24 * time.Hour

// A backup has all its WAL, and a restore of it is refused all the same: on the
// newer timeline, which goes on, the segment is missing in which that began.
func TestGapBeforeTheStopOnTheWayToTheNewest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.wal(1, 3, 5)
	s.put(waltest.Name(t, "00000002.history"), []byte("1\t0/400080\tx\n"))
	s.wal(2, 5, 7)
	label, _ := s.backup(2*day, 3, 1) // it stops in segment 4
	s.now = s.now.Add(time.Hour)      // the gap is not waited for
	res := s.run(check.Options{})
	want := []string{"wal-gap " + repo.WALKey(system, waltest.Name(t, "000000020000000000000004"))}
	if got := found(res); !slices.Equal(got, want) || res.Backups[0].OK || !slices.Contains(res.Findings[0].Backups, label) {
		t.Errorf("%v, backups %+v", got, res.Backups)
	}
	s.wal(2, 4, 4)
	if res := s.run(check.Options{}); len(res.Findings) != 0 || !res.Backups[0].OK {
		t.Errorf("without the gap: %v", found(res))
	}
}

// WAL between start and stop is missing, and another timeline, which left
// before, has a segment of that number.
func TestSegmentOfAnotherTimelineIsNoHelp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.wal(1, 3, 3)
	s.put(waltest.Name(t, "00000002.history"), []byte("1\t0/300000\tx\n"))
	s.wal(2, 3, 6)
	s.backup(2*day, 3, 1)
	want := []string{"wal-missing " + repo.WALKey(system, waltest.Name(t, "000000010000000000000004"))}
	if got := found(s.run(check.Options{})); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// The window of the policy begins with the newest backup before it that is
// restorable. With one that is not, it begins with the one before, as for an expiry:
// a gap after that one is wanted filled.
func TestGapBeforeADamagedBackup(t *testing.T) {
	t.Parallel()
	gap := "wal-gap " + repo.WALKey(system, waltest.Name(t, "000000010000000000000007"))
	segment := repo.WALKey(system, waltest.Name(t, "00000001000000000000000B"))
	for what, remove := range map[string]func(pack string) string{
		"nothing": func(string) string { return "" },
		"a pack":  func(pack string) string { return pack },
		"WAL":     func(string) string { return segment },
	} {
		s := newSite(t)
		s.wal(1, 3, 6)
		s.wal(1, 8, 24)
		first, _ := s.backup(10*day, 3, 1)
		_, packs := s.backup(6*day, 10, 1)
		s.backup(day, 20, 1)
		if key := remove(packs[0]); key != "" {
			s.check(s.store.Delete(t.Context(), key))
		}
		s.now = s.now.Add(time.Hour)
		o := check.Options{Policy: expire.Policy{Window: 5 * day}}
		res := s.run(o)
		if got := slices.Contains(found(res), gap); got != (what != "nothing") {
			t.Errorf("%s is missing: the gap is found %v, of %v", what, got, found(res))
		}
		if what == "nothing" && len(res.Findings) > 0 {
			t.Errorf("%v", found(res))
		}
		for _, f := range res.Findings {
			if f.Code == check.WALGap && !slices.Contains(f.Backups, first) {
				t.Errorf("%s is missing: %+v", what, f)
			}
		}
	}
}
