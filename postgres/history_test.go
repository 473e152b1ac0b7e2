package postgres_test

import (
	"errors"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

func TestHistory(t *testing.T) {
	h, err := postgres.ParseHistory(5, []byte("# made by hand\n\n1\t0/3000000\tno recovery target specified\r\n"+
		"  2 0/5000028 before 2024-05-01 10:00:00+00\n4\t1/00000000"))
	if err != nil {
		t.Fatal(err)
	}
	want := "1\t0/3000000\tno recovery target specified\n2\t0/5000028\tbefore 2024-05-01 10:00:00+00\n4\t1/0\t\n"
	if got := string(h.Marshal()); got != want {
		t.Errorf("marshalled:\n%s\nwant:\n%s", got, want)
	}
	at := map[postgres.LSN]postgres.Timeline{
		0: 1, 0x2FFFFFF: 1, 0x3000000: 2, 0x5000027: 2, 0x5000028: 4, 0xFFFFFFFF: 4, 0x100000000: 5, postgres.EndOfTime: 5,
	}
	for lsn, tl := range at {
		if got := h.TimelineAt(lsn); got != tl {
			t.Errorf("the byte at %s is on timeline %d, want %d", lsn, got, tl)
		}
	}
	points := []struct {
		tl   postgres.Timeline
		lsn  postgres.LSN
		want bool
	}{
		{1, 0x1000000, true}, {1, 0x3000000, true}, {1, 0x3000001, false},
		{2, 0x2FFFFFF, false}, {2, 0x3000000, true}, {2, 0x5000028, true}, {2, 0x5000029, false},
		{3, 0x4000000, false}, {4, 0x100000000, true}, {5, 0xFFFFFFFF, false}, {5, 0x200000000, true}, {6, 0x200000000, false},
	}
	for _, p := range points {
		if got := h.Contains(p.tl, p.lsn); got != p.want {
			t.Errorf("Contains(%d, %s) = %v", p.tl, p.lsn, got)
		}
	}
	if s, ok := h.Span(4); !ok || s.Begin != 0x5000028 || s.End != 0x100000000 {
		t.Errorf("the span of timeline 4: %+v, %v", s, ok)
	}
}

func TestHistoryOfFirstTimeline(t *testing.T) {
	h := postgres.History{Timeline: 1}
	if !h.Contains(1, 0x1000000) || h.TimelineAt(0x1000000) != 1 || len(h.Path()) != 1 {
		t.Errorf("timeline 1 without a history file: %+v", h.Path())
	}
}

func TestHistoryRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"no timeline":          "x\t0/1\tno\n",
		"timeline zero":        "0\t0/1\tno\n",
		"no switch point":      "1\n",
		"bad switch point":     "1\t0-1\tno\n",
		"descending":           "2\t0/1\tno\n1\t0/2\tno\n",
		"twice":                "1\t0/1\tno\n1\t0/2\tno\n",
		"itself":               "3\t0/1\tno\n",
		"above itself":         "4\t0/1\tno\n",
		"switch points reject": "1\t0/2\tno\n2\t0/1\tno\n",
		"too large":            "4294967297\t0/1\tno\n",
	} {
		if h, err := postgres.ParseHistory(3, []byte(data)); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
}
