package wal

import (
	"errors"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// The same number on another timeline is other WAL, unless that left the
// backup's own after the backup ended.
func TestLacksWAL(t *testing.T) {
	t.Parallel()
	after := map[postgres.Timeline]string{2: "1\t0/580000\tx\n"}
	before := map[postgres.Timeline]string{2: "1\t0/380000\tx\n"}
	b := repo.Info{Timeline: 1, SegSize: 1 << 20, StartLSN: 3*mib + 40, StopLSN: 5*mib + 80}
	for name, c := range map[string]struct {
		segments  map[postgres.Timeline][]uint64
		histories map[postgres.Timeline]string
		lacks     string
	}{
		"its own has all":                      {map[postgres.Timeline][]uint64{1: run(3, 5)}, nil, ""},
		"the last is on the newer one":         {map[postgres.Timeline][]uint64{1: run(3, 4), 2: run(5, 7)}, after, ""},
		"the newer one left before the backup": {map[postgres.Timeline][]uint64{1: run(3, 4), 2: run(3, 7)}, before, "000000010000000000000005"},
		"nobody has it":                        {map[postgres.Timeline][]uint64{1: {3, 5}, 2: {5}}, after, "000000010000000000000004"},
	} {
		err := newIndex(t, c.segments, c.histories).LacksWAL(b)
		gap, lacks := errors.AsType[*BackupGapError](err)
		if lacks != (c.lacks != "") || lacks && (gap.Missing != c.lacks || gap.Doubt != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without the history file, or its content, it is not known, and that is said.
	ix := newIndex(t, map[postgres.Timeline][]uint64{1: {3, 5}, 2: run(3, 7)}, nil)
	if gap, ok := errors.AsType[*BackupGapError](ix.LacksWAL(b)); !ok || gap.Missing != "000000010000000000000004" || !errors.Is(gap.Doubt, ErrNoHistory) {
		t.Errorf("a history file that is not there: %v", gap)
	}
	ix = newIndex(t, map[postgres.Timeline][]uint64{1: run(3, 4), 2: run(5, 7)}, after)
	ix.timelines[2].historyErr = repo.ErrNoIdentity
	if gap, ok := errors.AsType[*BackupGapError](ix.LacksWAL(b)); !ok || !errors.Is(gap.Doubt, repo.ErrNoIdentity) {
		t.Errorf("a history that cannot be read: %v", gap)
	}
}
