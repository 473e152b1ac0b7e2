package check_test

import (
	"slices"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

const day = 24 * time.Hour

// A backup has all its WAL, and a restore of it is refused all the same: on the
// newer timeline, which goes on, the segment is missing in which that began.
func TestGapBeforeTheStopOnTheWayToTheNewest(t *testing.T) {
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
