package wal

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// text is a standing in short: windows as from-to@timeline:backups, gaps as
// first-last:backups, and useless backups.
func (s Standing) text() string {
	var out []string
	for _, w := range s.Windows {
		out = append(out, fmt.Sprintf("%d-%d@%s:%s", w.Begin/mib, w.Reach.End/mib, w.Path.Timeline, strings.Join(w.Backups, "+")))
	}
	for _, g := range s.Gaps {
		out = append(out, fmt.Sprintf("gap %s/%d-%s/%d:%s", g.First.Timeline, g.First.No, g.Last.Timeline, g.Last.No, strings.Join(g.NeededBy, "+")))
	}
	for _, u := range s.Useless {
		out = append(out, "useless "+u.Label)
	}
	return strings.Join(out, ", ")
}

func TestStanding(t *testing.T) {
	t.Parallel()
	type timelines = map[postgres.Timeline][]uint64
	forked := map[postgres.Timeline]string{2: "1\t0/780000\tx\n"}
	join := func(runs ...[]uint64) []uint64 { return slices.Concat(runs...) }
	tests := map[string]struct {
		segments  timelines
		histories map[postgres.Timeline]string
		backups   string // label, timeline, start and stop in MiB
		want      string
	}{
		"whole":                    {timelines{1: run(1, 9)}, nil, "a 1 2 3, b 1 5 6", "3-10@1:a+b"},
		"no backup":                {timelines{1: {1, 2, 5}}, nil, "", "gap 1/3-1/4:"},
		"before the oldest backup": {timelines{1: join(run(1, 2), run(4, 9))}, nil, "a 1 5 6", "6-10@1:a, gap 1/3-1/3:"},
		"between two backups":      {timelines{1: join(run(1, 4), run(7, 9))}, nil, "a 1 2 3, b 1 8 8", "3-5@1:a, 8-10@1:b, gap 1/5-1/6:a"},
		"for both":                 {timelines{1: join(run(1, 4), run(7, 9))}, nil, "a 1 2 3, b 1 3 4", "3-5@1:a+b, gap 1/5-1/6:a+b"},
		"two gaps":                 {timelines{1: {1, 2, 4, 6}}, nil, "a 1 1 2", "2-3@1:a, gap 1/3-1/3:a, gap 1/5-1/5:a"},
		"in the backup itself":     {timelines{1: join(run(1, 3), run(5, 9))}, nil, "a 1 3 5", "gap 1/4-1/4:a, useless a"},
		"at the backup's start":    {timelines{1: join(run(1, 2), run(5, 9))}, nil, "old 1 1 2, a 1 4 5", "2-3@1:old, gap 1/3-1/4:old+a, useless a"},
		"the end of the backup":    {timelines{1: run(1, 3)}, nil, "a 1 3 5", "gap 1/4-1/4:a, useless a"},
		"nothing archived":         {nil, nil, "a 1 3 5", "gap 1/3-1/3:a, useless a"},
		"failover":                 {timelines{1: run(1, 7), 2: run(7, 9)}, forked, "a 1 2 3, b 2 8 8", "3-10@2:a+b"},
		"an old primary goes on":   {timelines{1: join(run(1, 7), run(10, 12)), 2: run(7, 9)}, forked, "a 1 2 3", "3-10@2:a, gap 1/8-1/9:"},
		"a backup of the old one":  {timelines{1: join(run(1, 9), run(11, 12)), 2: run(7, 9)}, forked, "a 1 2 3, b 1 8 9", "3-10@2:a, 9-10@1:b, gap 1/10-1/10:b"},
		"across a switch":          {timelines{1: run(1, 4), 2: run(8, 9)}, forked, "a 1 2 3", "3-5@2:a, gap 1/5-2/7:a"},
		"after a switch":           {timelines{1: run(1, 7), 2: {7, 9}}, forked, "a 1 2 3", "3-8@2:a, gap 2/8-2/8:a"},
		"no history file":          {timelines{1: run(1, 7), 2: run(7, 9)}, nil, "a 1 2 3", "useless a"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ix := newIndex(t, test.segments, test.histories)
			if len(test.segments) == 0 {
				ix.size = 0
			}
			var backups []repo.Info
			for text := range strings.SplitSeq(test.backups, ", ") {
				b := repo.Info{SegSize: 1 << 20}
				if n, _ := fmt.Sscan(text, &b.Label, &b.Timeline, &b.StartLSN, &b.StopLSN); n == 4 {
					b.StartLSN, b.StopLSN = b.StartLSN*mib, b.StopLSN*mib
					backups = append(backups, b)
				}
			}
			slices.Reverse(backups) // their order does not matter
			if got := ix.Standing(backups).text(); got != test.want {
				t.Errorf("have %s\nwant %s", got, test.want)
			}
		})
	}
}

// A gap that begins within a segment: its slices do not reach its end.
func TestStandingSlices(t *testing.T) {
	t.Parallel()
	ix := newIndex(t, map[postgres.Timeline][]uint64{1: {1, 3}}, nil)
	seg := postgres.Segment{Timeline: 1, No: 2, Size: 1 << 20}
	entry := ix.timelines[1]
	entry.slices = map[string][]slice{seg.Name(): {{0, 4096, 10}}}
	entry.numbers = nil
	ix.number()
	s := ix.Standing([]repo.Info{{Label: "a", Timeline: 1, StartLSN: mib, StopLSN: mib + 40}})
	if len(s.Gaps) != 1 || s.Gaps[0].First != seg || s.Gaps[0].Last != seg || s.Gaps[0].Held != 2*mib+4096 || s.Gaps[0].Next != 3*mib {
		t.Errorf("gaps: %+v", s.Gaps)
	}
	if len(s.Windows) != 1 || s.Windows[0].Reach.End != 2*mib+4096 {
		t.Errorf("windows: %+v", s.Windows)
	}
}

func TestExposure(t *testing.T) {
	t.Parallel()
	now := time.Unix(1800000000, 0)
	newest := Commit{Time: now.Add(-40 * time.Second)}
	ahead := &AheadError{1001, 1000}
	tests := []struct {
		standby   bool
		archived  postgres.LSN
		newest    Commit
		heartbeat time.Duration
		want      Exposure
	}{
		{false, 1000, newest, 0, Exposure{Known: true}},
		{false, 1001, newest, 0, Exposure{Ahead: ahead}},  // the server was put back
		{false, 1000, Commit{}, 0, Exposure{Known: true}}, // proven without any commit time
		{false, 900, newest, 0, Exposure{100, 0, 40 * time.Second, true, nil}},
		{false, 900, newest, 30 * time.Second, Exposure{100, 10 * time.Second, 40 * time.Second, true, nil}},
		{false, 900, newest, time.Minute, Exposure{100, 0, 40 * time.Second, true, nil}},
		{false, 900, Commit{}, 0, Exposure{Bytes: 100}},
		{false, 900, Commit{Time: now.Add(time.Second)}, 0, Exposure{Bytes: 100, Known: true}}, // clocks differ
		{true, 1000, newest, 0, Exposure{0, 0, 40 * time.Second, true, nil}},                   // its primary may be further on
		{true, 1100, Commit{}, 0, Exposure{}},
	}
	for _, test := range tests {
		s := ServerState{Standby: test.standby, Flushed: 1000, Now: now}
		if got := s.Exposure(test.archived, test.newest, test.heartbeat); !reflect.DeepEqual(got, test.want) {
			t.Errorf("standby %t, archived to %s, newest %v, heartbeat %s: %+v, want %+v", test.standby, test.archived, test.newest.Time, test.heartbeat, got, test.want)
		}
	}
}
