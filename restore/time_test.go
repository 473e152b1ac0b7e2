package restore

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ in, want, zone string }{
		{"2026-01-31T01:00:00Z", "2026-01-31T01:00:00Z", "UTC"},
		{"2026-01-31T01:00:00.123456789+05:30", "2026-01-30T19:30:00.123456Z", "UTC+05:30"},
		{"2026-01-31 02:00:00", "2026-01-31T01:00:00Z", "the local zone (CET, UTC+01:00)"},
		{"2026-07-31 02:00", "2026-07-31T00:00:00Z", "the local zone (CEST, UTC+02:00)"},
		{"2026-07-31", "2026-07-30T22:00:00Z", "the local zone (CEST, UTC+02:00)"},
		{"2026-07-31 UTC", "2026-07-31T00:00:00Z", "UTC"},
		{"2026-01-31 02:00:00.5+01", "2026-01-31T01:00:00.5Z", "UTC+01:00"},
		{"2026-01-31 02:00:00 America/New_York", "2026-01-31T07:00:00Z", "America/New_York"},
		{" 2026-01-31 2:00:00 -0330 ", "2026-01-31T05:30:00Z", "UTC-03:30"},
	} {
		got, zone, err := ParseTime(c.in, berlin)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if s := got.UTC().Format(time.RFC3339Nano); s != c.want || zone != c.zone {
			t.Errorf("%q is %s in %s, want %s in %s", c.in, s, zone, c.want, c.zone)
		}
	}
	for _, in := range []string{
		"", "yesterday", "2026-02-30 00:00:00", "2026-01-31 25:00:00", "2026-01-31 02:00:00 CET", "2026-01-31 02:00:00 Mars/Base",
		"2026-01-31 02:00:00 +16:00",
		"2026-03-29 02:30:00", // never shown: clocks are put forward
		"2026-10-25 02:30:00", // shown twice: clocks are put back
		"31.01.2026 02:00:00",
	} {
		if got, _, err := ParseTime(in, berlin); err == nil {
			t.Errorf("%q was read as %s", in, got)
		}
	}
}
