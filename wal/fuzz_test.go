package wal

import (
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// The names in a listing are anybody's: whatever they are, an index of them
// answers, and never with a segment that was not listed.
func FuzzIndex(f *testing.F) {
	f.Add("00000001/000000010000000000000001\n00000001/000000010000000000000003\n00000002/00000002.history", "1\t0/280000\tx\n", uint64(1<<20), uint32(1))
	f.Add("00000001/000000010000000000000001\n00000002/000000020000000000000001", "1\t0/180000\tx\n", uint64(1<<20+40), uint32(1))
	f.Add("FFFFFFFF/FFFFFFFFFFFFFFFF00000FFF", "", ^uint64(0), ^uint32(0))
	f.Add("00000001/00000001FFFFFFFF00000FFF\n00000001/00000001FFFFFFFF00000FFE", "", ^uint64(0)-(1<<20), uint32(1))
	f.Add("../../etc/passwd\n\n/\n00000001/", "", uint64(0), uint32(0))
	f.Fuzz(func(t *testing.T, names, history string, lsn uint64, tl uint32) {
		ix := &Index{system: testSystem, size: 1 << 20, timelines: map[postgres.Timeline]*timeline{}}
		listed := map[string]bool{}
		for name := range strings.SplitSeq(names, "\n") {
			if whole, _ := ix.note(name, 1); whole {
				listed[name[strings.IndexByte(name, '/')+1:]] = true
			}
		}
		ix.number()
		for id, entry := range ix.timelines {
			if entry.hasHistory {
				entry.history, entry.historyErr = postgres.ParseHistory(id, []byte(history))
			}
			for _, r := range ix.Ranges(id) {
				if r.Begin >= r.End && r.End != 0 { // 0 is past the last LSN of all
					t.Fatalf("range %v", r)
				}
			}
		}
		for _, target := range []TimelineTarget{LatestTimeline, CurrentTimeline, TimelineID(2)} {
			p, err := ix.Path(target, postgres.Timeline(tl), postgres.LSN(lsn))
			if err != nil {
				continue
			}
			r := ix.Reach(p, postgres.LSN(lsn))
			if r.End < postgres.LSN(lsn) && r.End != 0 || ix.Has(r.Missing) && !r.Strays {
				t.Fatalf("reach %+v from %s over %v", r, postgres.LSN(lsn), p.Spans)
			}
			n := 0
			for seg, ok := range ix.Segments(p, postgres.LSN(lsn), postgres.EndOfTime) {
				if ok && !listed[seg.Name()] {
					t.Fatalf("%s was not listed", seg)
				}
				if n++; n > 100 {
					break
				}
			}
		}
	})
}

func FuzzParseTimelineTarget(f *testing.F) {
	for _, s := range []string{"latest", "current", "1", "0x10", "4294967295", "", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := ParseTimelineTarget(s)
		if err != nil {
			return
		}
		if again, err := ParseTimelineTarget(target.String()); err != nil || again != target {
			t.Errorf("%q: %v, then %v %v", s, target, again, err)
		}
	})
}
