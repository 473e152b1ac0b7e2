package postgres_test

import (
	"errors"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

const mib = 1 << 20

func TestSegmentNames(t *testing.T) {
	cases := []struct {
		lsn  postgres.LSN
		size postgres.SegmentSize
		name string
	}{
		{0x1000000, 16 * mib, "000000030000000000000001"},
		{0x1FFFFFF, 16 * mib, "000000030000000000000001"},
		{0xFFFFFFFF, 16 * mib, "0000000300000000000000FF"},
		{0x100000000, 16 * mib, "000000030000000100000000"},
		{0xFFFFFFFF, 1 * mib, "000000030000000000000FFF"},
		{0x100000000, 1 * mib, "000000030000000100000000"},
		{0xFFFFFFFF, 1024 * mib, "000000030000000000000003"},
		{0x140000000, 1024 * mib, "000000030000000100000001"},
		{1<<64 - 1, 16 * mib, "00000003FFFFFFFF000000FF"},
	}
	for _, c := range cases {
		s := postgres.SegmentAt(3, c.lsn, c.size)
		if s.Name() != c.name {
			t.Errorf("%s in segments of %d: %s, want %s", c.lsn, c.size, s.Name(), c.name)
		}
		back, err := postgres.ParseSegment(c.name, c.size)
		if err != nil || back != s {
			t.Errorf("ParseSegment(%s, %d) = %+v, %v; want %+v", c.name, c.size, back, err, s)
		}
		if s.Start() > c.lsn || s.End()-1 < c.lsn {
			t.Errorf("%s goes from %s to %s, without %s", s, s.Start(), s.End(), c.lsn)
		}
	}
}

func TestSegmentEdges(t *testing.T) {
	at := postgres.LSN(0x100000000)
	if got := postgres.SegmentEndingAt(1, at, 16*mib).Name(); got != "0000000100000000000000FF" {
		t.Errorf("the segment that ends at %s is %s", at, got)
	}
	if got := postgres.SegmentEndingAt(1, at+1, 16*mib).Name(); got != "000000010000000100000000" {
		t.Errorf("the segment that holds the byte before %s is %s", at+1, got)
	}
	last := postgres.SegmentEndingAt(1, at, 16*mib)
	if got := last.Next().Name(); got != "000000010000000100000000" {
		t.Errorf("%s is followed by %s", last, got)
	}
	if last.End() != last.Next().Start() {
		t.Errorf("%s ends at %s, the next starts at %s", last, last.End(), last.Next().Start())
	}
}

func TestSegmentSize(t *testing.T) {
	for s := postgres.SegmentSize(1); s > 0; s <<= 1 {
		if want := s >= 1*mib && s <= 1024*mib; s.Valid() != want {
			t.Errorf("%d: %v", s, s.Valid())
		}
	}
	for _, s := range []postgres.SegmentSize{0, -1, -16 * mib, 3 * mib, 16*mib + 1} {
		if s.Valid() {
			t.Errorf("%d counts as valid", s)
		}
	}
}

func TestParseSegmentRefuses(t *testing.T) {
	for _, name := range []string{
		"", "00000001000000000000000", "0000000100000000000000011", "00000001000000000000000a",
		"000000000000000000000001", "000000010000000000000100", "000000010000000000001000", "../../000000010000000000",
	} {
		if s, err := postgres.ParseSegment(name, 16*mib); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("ParseSegment(%q) = %+v, %v", name, s, err)
		}
	}
	if _, err := postgres.ParseSegment("000000010000000000000001", 3*mib); err == nil {
		t.Error("a segment size of 3 MiB was accepted")
	}
}

func TestParseWALName(t *testing.T) {
	good := map[string]postgres.WALName{
		"000000010000000000000001":                 {Kind: postgres.WALSegment, Timeline: 1, Segment: "000000010000000000000001"},
		"0000000A00000001000000FF":                 {Kind: postgres.WALSegment, Timeline: 10, Segment: "0000000A00000001000000FF"},
		"000000020000000000000003.partial":         {Kind: postgres.WALPartial, Timeline: 2, Segment: "000000020000000000000003"},
		"0000001F.history":                         {Kind: postgres.WALHistory, Timeline: 31},
		"000000010000000000000002.00000028.backup": {Kind: postgres.WALBackup, Timeline: 1, Segment: "000000010000000000000002", Offset: 0x28},
	}
	for name, want := range good {
		got, err := postgres.ParseWALName(name)
		if err != nil || got != want {
			t.Errorf("ParseWALName(%q) = %+v, %v; want %+v", name, got, err, want)
		}
		if got.String() != name {
			t.Errorf("%q became %q", name, got.String())
		}
	}
	for _, name := range []string{
		"", ".", "..", "/000000010000000000000001", "pg_wal/000000010000000000000001", "000000010000000000000001/",
		"000000010000000000000001.", "000000010000000000000001.part", "000000010000000000000001.partial.gz",
		"000000010000000000000001.00000028", "000000010000000000000001.0000028.backup",
		"000000010000000000000001.0000002g.backup", "000000010000000000000001.00000028.backup ",
		"00000001.HISTORY", "0000001.history", "000000001.history", "00000000.history", "0000000a.history",
		"000000000000000000000001", "00000001000000000000000a", "00000001000000000000\x0000001", "RECOVERYXLOG",
		"000000010000000000001000", ".history", "000000010000000000000001\n",
	} {
		if got, err := postgres.ParseWALName(name); !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("ParseWALName(%q) = %+v, %v; want an error", name, got, err)
		}
	}
	if got := postgres.BackupHistoryName(1, 0x2000028, 16*mib); got != "000000010000000000000002.00000028.backup" {
		t.Errorf("BackupHistoryName: %s", got)
	}
}
