package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// newIndex makes an index of segments of 1 MiB: the numbers on each timeline,
// and the lines of history files.
func newIndex(t testing.TB, segments map[postgres.Timeline][]uint64, histories map[postgres.Timeline]string) *Index {
	t.Helper()
	ix := &Index{system: testSystem, size: 1 << 20, timelines: map[postgres.Timeline]*timeline{}}
	for tl, numbers := range segments {
		for _, no := range numbers {
			seg := postgres.Segment{Timeline: tl, No: no, Size: ix.size}
			ix.note(tl.Hex()+"/"+seg.Name(), 1000)
		}
	}
	for tl, lines := range histories {
		ix.note(tl.Hex()+"/"+tl.HistoryName(), 100)
		entry := ix.timelines[tl]
		entry.history, entry.historyErr = postgres.ParseHistory(tl, []byte(lines))
	}
	ix.number()
	return ix
}

func run(first, last uint64) []uint64 {
	var out []uint64
	for n := first; n <= last; n++ {
		out = append(out, n)
	}
	return out
}

const mib = postgres.LSN(1 << 20)

func TestPath(t *testing.T) {
	t.Parallel()
	// 1 ─┬─ 2 ─── 4      3 left 1 before 2 did, 5 has no file of its own,
	//    └─ 3            6 left 2 after 4 did
	ix := newIndex(t, map[postgres.Timeline][]uint64{1: run(1, 9), 2: run(5, 9), 3: run(3, 4), 4: run(7, 8), 5: {9}}, map[postgres.Timeline]string{
		2: "1\t0/580000\tx\n",
		3: "1\t0/380000\tx\n",
		4: "1\t0/580000\tx\n2\t0/700000\tx\n",
		6: "1\t0/580000\tx\n2\t0/880000\tx\n",
	})
	span := func(tl postgres.Timeline, begin, end postgres.LSN) postgres.TimelineSpan {
		return postgres.TimelineSpan{Timeline: tl, Begin: begin, End: end}
	}
	tests := []struct {
		target  TimelineTarget
		tl      postgres.Timeline
		lsn     postgres.LSN
		want    []postgres.TimelineSpan
		skipped []postgres.Timeline
	}{
		{CurrentTimeline, 1, 2 * mib, []postgres.TimelineSpan{span(1, 0, postgres.EndOfTime)}, nil},
		{CurrentTimeline, 2, 6 * mib, []postgres.TimelineSpan{span(2, 0x580000, postgres.EndOfTime)}, nil},
		{LatestTimeline, 1, 2 * mib, []postgres.TimelineSpan{span(1, 0, 0x580000), span(2, 0x580000, 0x880000), span(6, 0x880000, postgres.EndOfTime)}, nil},
		{LatestTimeline, 1, 0x580000, []postgres.TimelineSpan{span(1, 0, 0x580000), span(2, 0x580000, 0x880000), span(6, 0x880000, postgres.EndOfTime)}, nil},
		{LatestTimeline, 2, 8 * mib, []postgres.TimelineSpan{span(2, 0x580000, 0x880000), span(6, 0x880000, postgres.EndOfTime)}, nil},
		{LatestTimeline, 5, 9 * mib, []postgres.TimelineSpan{span(5, 0, postgres.EndOfTime)}, []postgres.Timeline{6}},
		{TimelineID(1), 1, 6 * mib, []postgres.TimelineSpan{span(1, 0, postgres.EndOfTime)}, nil},
		{TimelineID(3), 1, 2 * mib, []postgres.TimelineSpan{span(1, 0, 0x380000), span(3, 0x380000, postgres.EndOfTime)}, nil},
		{TimelineID(4), 2, 6 * mib, []postgres.TimelineSpan{span(2, 0x580000, 0x700000), span(4, 0x700000, postgres.EndOfTime)}, nil},
		{TimelineID(2), 2, 0x880001, []postgres.TimelineSpan{span(2, 0x580000, postgres.EndOfTime)}, nil},
	}
	for _, test := range tests {
		p, err := ix.Path(test.target, test.tl, test.lsn)
		last := test.want[len(test.want)-1].Timeline
		if err != nil || !slices.Equal(p.Spans, test.want) || p.Timeline != last || !slices.Equal(p.Skipped, test.skipped) {
			t.Errorf("%s from %s on timeline %s: %v to %s, skipped %v, %v; want %v", test.target, test.lsn, test.tl, p.Spans, p.Timeline, p.Skipped, err, test.want)
		}
	}
	for _, test := range []struct {
		target postgres.Timeline
		tl     postgres.Timeline
		lsn    postgres.LSN
		left   postgres.LSN
	}{{2, 1, 6 * mib, 0x580000}, {3, 1, 4 * mib, 0x380000}, {4, 2, 8 * mib, 0x700000}, {3, 2, 6 * mib, 0}, {1, 2, 6 * mib, 0}, {4, 2, 0x57FFFF, 0x700000}} {
		_, err := ix.Path(TimelineID(test.target), test.tl, test.lsn)
		e, ok := errors.AsType[*NotAncestorError](err)
		if !ok || e.Left != test.left {
			t.Errorf("timeline %s from %s on %s: %v", test.target, test.lsn, test.tl, err)
		}
	}
	// Timeline 5 has WAL and no history: nobody knows whether these lead to it.
	for tl, lsn := range map[postgres.Timeline]postgres.LSN{1: 0x580001, 3: 4 * mib, 4: 8 * mib} {
		if p, err := ix.Path(LatestTimeline, tl, lsn); !errors.Is(err, ErrNoHistory) {
			t.Errorf("latest from %s on timeline %s: %v, %v", lsn, tl, p, err)
		}
	}
	if _, err := ix.Path(TimelineID(5), 1, mib); !errors.Is(err, ErrNoHistory) {
		t.Errorf("a target without history file: %v", err)
	}
	if _, err := ix.Path(TimelineID(9), 1, mib); !errors.Is(err, ErrNoHistory) {
		t.Errorf("a target that is not there: %v", err)
	}
}

func TestSegments(t *testing.T) {
	t.Parallel()
	histories := map[postgres.Timeline]string{2: "1\t0/580000\tx\n"}
	boundary := map[postgres.Timeline]string{2: "1\t0/600000\tx\n"}
	tests := []struct {
		name      string
		segments  map[postgres.Timeline][]uint64
		histories map[postgres.Timeline]string
		from, to  postgres.LSN
		want      string // segments as timeline/number, "!" for a missing one
		reach     Reach
	}{
		{"the newer timeline has the segment of the switch", map[postgres.Timeline][]uint64{1: run(3, 5), 2: run(5, 7)}, histories,
			3 * mib, 7 * mib, "1/3 1/4 2/5 2/6", Reach{End: 8 * mib, Missing: postgres.Segment{Timeline: 2, No: 8}}},
		{"only the older one has it", map[postgres.Timeline][]uint64{1: run(3, 9)}, histories,
			3 * mib, 0x580000, "1/3 1/4 1/5", Reach{End: 0x580000, Missing: postgres.Segment{Timeline: 2, No: 5}, Strays: true}},
		{"only the older one has it, and more is wanted", map[postgres.Timeline][]uint64{1: run(3, 9)}, histories,
			4 * mib, 6 * mib, "1/4 2/5!", Reach{End: 0x580000, Missing: postgres.Segment{Timeline: 2, No: 5}, Strays: true}},
		{"only the older one has it, and the newer goes on", map[postgres.Timeline][]uint64{1: run(3, 9), 2: run(6, 7)}, histories,
			4 * mib, 0x580000, "1/4 2/5!", Reach{End: 5 * mib, Missing: postgres.Segment{Timeline: 2, No: 5}, Gap: true}},
		{"nobody has it", map[postgres.Timeline][]uint64{1: run(3, 4)}, histories,
			4 * mib, 6 * mib, "1/4 2/5!", Reach{End: 5 * mib, Missing: postgres.Segment{Timeline: 2, No: 5}}},
		{"a switch between two segments", map[postgres.Timeline][]uint64{1: run(3, 9), 2: run(6, 7)}, boundary,
			5 * mib, 7 * mib, "1/5 2/6", Reach{End: 8 * mib, Missing: postgres.Segment{Timeline: 2, No: 8}}},
		{"a switch between two segments, the newer not begun", map[postgres.Timeline][]uint64{1: run(3, 9)}, boundary,
			5 * mib, 7 * mib, "1/5 2/6!", Reach{End: 6 * mib, Missing: postgres.Segment{Timeline: 2, No: 6}, Strays: true}},
		{"a gap before the switch", map[postgres.Timeline][]uint64{1: {3, 5}, 2: run(5, 7)}, histories,
			3 * mib, 6 * mib, "1/3 1/4! 2/5", Reach{End: 4 * mib, Missing: postgres.Segment{Timeline: 1, No: 4}, Gap: true}},
		{"a gap after the switch", map[postgres.Timeline][]uint64{1: run(3, 9), 2: {5, 7}}, histories,
			5 * mib, 8 * mib, "2/5 2/6! 2/7", Reach{End: 6 * mib, Missing: postgres.Segment{Timeline: 2, No: 6}, Gap: true}},
		{"what the older one wrote later does not count", map[postgres.Timeline][]uint64{1: run(3, 9), 2: {5}}, histories,
			5 * mib, 7 * mib, "2/5 2/6!", Reach{End: 6 * mib, Missing: postgres.Segment{Timeline: 2, No: 6}}},
		{"nothing is there", nil, histories, 3 * mib, 4 * mib, "1/3!", Reach{End: 3 * mib, Missing: postgres.Segment{Timeline: 1, No: 3}}},
		{"nothing is wanted", nil, histories, 3 * mib, 3 * mib, "", Reach{End: 3 * mib, Missing: postgres.Segment{Timeline: 1, No: 3}}},
		{"up to the start of a segment", map[postgres.Timeline][]uint64{1: run(3, 4)}, histories,
			3 * mib, 4 * mib, "1/3", Reach{End: 5 * mib, Missing: postgres.Segment{Timeline: 2, No: 5}}},
		{"up to a byte past it", map[postgres.Timeline][]uint64{1: run(3, 3)}, histories,
			3*mib + 5, 4*mib + 1, "1/3 1/4!", Reach{End: 4 * mib, Missing: postgres.Segment{Timeline: 1, No: 4}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ix := newIndex(t, test.segments, test.histories)
			p, err := ix.Path(LatestTimeline, 1, 3*mib)
			if err != nil {
				t.Fatal(err)
			}
			got, missing := "", ""
			for seg, ok := range ix.Segments(p, test.from, test.to) {
				mark := ""
				if !ok {
					mark = "!"
				}
				if !ok && missing == "" {
					missing = seg.Name()
				}
				got += fmt.Sprintf(" %s/%d%s", seg.Timeline, seg.No, mark)
			}
			if got != " "+test.want && got != test.want {
				t.Errorf("segments%s, want %s", got, test.want)
			}
			if seg, any := ix.Missing(p, test.from, test.to); any != (missing != "") || any && seg.Name() != missing {
				t.Errorf("missing %s %t, want %q", seg, any, missing)
			}
			test.reach.Missing.Size = ix.size
			if r := ix.Reach(p, test.from); r != test.reach {
				t.Errorf("reach %+v, want %+v", r, test.reach)
			}
		})
	}
}

// askLikePostgres reads along a path as PostgreSQL does (XLogFileReadAnyTLI
// and the page reader around it), with Fetch's answers, and returns how far it
// gets and whether it is stopped by a gap.
func askLikePostgres(ix *Index, p Path, from postgres.LSN) (end postgres.LSN, gap, strays bool) {
	end = from
	var current postgres.Timeline
	for no := uint64(from) / uint64(ix.size); ; no++ {
		seg := postgres.Segment{No: no, Size: ix.size}
		found := postgres.TimelineSpan{}
		for _, s := range slices.Backward(p.Spans) {
			if uint64(s.Begin)/uint64(ix.size) > no {
				continue
			}
			if s.Timeline < current {
				break
			}
			seg.Timeline = s.Timeline
			if ix.Has(seg) {
				found = s
				break
			}
			if newest, any := ix.Newest(s.Timeline); any && newest.No > no {
				return end, true, false
			}
		}
		if found.Timeline == 0 || found.End <= seg.Start() {
			return end, false, found.Timeline != 0
		}
		current, end = found.Timeline, max(end, min(found.End, seg.End()))
		if found.End < seg.End() {
			return end, false, true
		}
	}
}

func TestReachIsWherePostgresGets(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	gaps := 0
	for range 20000 {
		segments := map[postgres.Timeline][]uint64{}
		var lines string
		at := 2 * mib
		histories := map[postgres.Timeline]string{}
		for tl := postgres.Timeline(1); tl <= 4; tl++ {
			if tl > 1 {
				histories[tl] = lines
			}
			first := uint64(at / mib)
			for no := first; no < first+5; no++ {
				if rnd.IntN(4) > 0 {
					segments[tl] = append(segments[tl], no)
				}
			}
			at += postgres.LSN(rnd.IntN(5)) * mib / 2
			lines += fmt.Sprintf("%d\t%s\tx\n", tl, at)
		}
		ix := newIndex(t, segments, histories)
		p, err := ix.Path(LatestTimeline, 1, 2*mib)
		if err != nil {
			t.Fatal(err)
		}
		end, gap, strays := askLikePostgres(ix, p, 2*mib)
		r := ix.Reach(p, 2*mib)
		if r.End != end || gap && !r.Gap || strays != r.Strays {
			t.Fatalf("path %v, segments %v: PostgreSQL gets to %s (gap %t, strays %t), we say %+v", p.Spans, segments, end, gap, strays, r)
		}
		if gap {
			gaps++
		}
	}
	if gaps < 100 {
		t.Errorf("only %d gaps: the test tests nothing", gaps)
	}
}

func TestParseTimelineTarget(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]TimelineTarget{"latest": LatestTimeline, "current": CurrentTimeline, "7": TimelineID(7), "0x0A": TimelineID(10)} {
		if got, err := ParseTimelineTarget(in); err != nil || got != want {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "-1", "newest", "Latest", "007", "4294967296"} {
		if got, err := ParseTimelineTarget(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	if s := LatestTimeline.String() + CurrentTimeline.String() + TimelineID(12).String(); s != "latestcurrent12" {
		t.Error(s)
	}
}
