package restore

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// timeForm is how times are shown; a zone follows it.
const timeForm = "2006-01-02 15:04:05.999999"

// timePattern takes apart RFC 3339 and the ISO forms that PostgreSQL reads and
// writes: a date, perhaps a blank or T, hours and minutes, seconds and their
// fraction, perhaps a zone. A date alone is its midnight.
var timePattern = regexp.MustCompile(
	`^(\d{4}-\d{2}-\d{2})(?:(?:[Tt]| +)(\d{1,2}:\d{2})(?::(\d{2})(?:\.(\d+))?)?)? *([A-Za-z][A-Za-z0-9_/+-]*|[+-]\d{1,2}(?::?\d{2})?)?$`)

// ParseTime reads a point in time, in RFC 3339 or one of PostgreSQL's ISO
// forms: "2026-01-31 02:00:00", with an offset ("+01", "+01:00", "+0100"),
// "Z", "UTC" or the name of a zone ("Europe/Berlin") behind it. Without any of
// them it is read in local. zone says, for people, which zone it was read in.
//
// PostgreSQL keeps microseconds; what is finer is cut off. A time that a clock
// shows twice or never, when it is put back or forward, is an error, and so is
// an abbreviation such as CET, which PostgreSQL reads by a table of its own.
func ParseTime(s string, local *time.Location) (t time.Time, zone string, err error) {
	m := timePattern.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return time.Time{}, "", &TargetError{fmt.Sprintf("%q is not a time such as 2026-01-31 02:00:00+01 or 2026-01-31T01:00:00Z", s)}
	}
	loc, zone, err := parseZone(m[5], local)
	if err != nil {
		return time.Time{}, "", &TargetError{fmt.Sprintf("%q: %v", s, err)}
	}
	clock := cmp.Or(m[2], "00:00") + ":" + cmp.Or(m[3], "00")
	t, err = time.ParseInLocation("2006-01-02 15:04:05", m[1]+" "+clock, loc)
	if err != nil {
		return time.Time{}, "", &TargetError{fmt.Sprintf("%q is not a time: a figure is out of range", s)}
	}
	if err := checkOnce(t, m[1]+" "+clock, loc); err != nil {
		return time.Time{}, "", &TargetError{fmt.Sprintf("%q: %v", s, err)}
	}
	if f := m[4]; f != "" {
		us, _ := strconv.Atoi((f + "000000")[:6])
		t = t.Add(time.Duration(us) * time.Microsecond)
	}
	if zone == "" {
		name, _ := t.Zone()
		zone = fmt.Sprintf("the local zone (%s, UTC%s)", name, t.Format("-07:00"))
	}
	return t, zone, nil
}

// parseZone reads what follows the time; an empty zone name means the local one.
func parseZone(s string, local *time.Location) (*time.Location, string, error) {
	switch {
	case s == "":
		return local, "", nil
	case strings.EqualFold(s, "z"), strings.EqualFold(s, "utc"), strings.EqualFold(s, "gmt"):
		return time.UTC, "UTC", nil
	case s[0] == '+' || s[0] == '-':
		digits := strings.ReplaceAll(s[1:], ":", "")
		if len(digits) <= 2 {
			digits += "00"
		}
		n, _ := strconv.Atoi(digits)
		hours, minutes := n/100, n%100
		if hours > 15 || minutes > 59 { // MAX_TZDISP_HOUR in utils/datetime.h
			return nil, "", fmt.Errorf("no zone has the offset %s", s)
		}
		seconds := (hours*60 + minutes) * 60
		if s[0] == '-' {
			seconds = -seconds
		}
		name := fmt.Sprintf("UTC%c%02d:%02d", s[0], hours, minutes)
		return time.FixedZone(name, seconds), name, nil
	case !strings.Contains(s, "/"):
		return nil, "", fmt.Errorf("%s is ambiguous; write the offset (+01:00), UTC, or a name such as Europe/Berlin", s)
	}
	loc, err := time.LoadLocation(s)
	if err != nil {
		return nil, "", fmt.Errorf("there is no time zone %s", s)
	}
	return loc, s, nil
}

// checkOnce makes sure that a wall clock in loc shows a time exactly once.
func checkOnce(t time.Time, wall string, loc *time.Location) error {
	const form = "2006-01-02 15:04:05"
	if want := strings.Replace(wall, " ", " 0", 1); t.Format(form) != wall && t.Format(form) != want {
		return fmt.Errorf("clocks in %s did not show it: they were put forward; write the offset, as in +01:00", loc)
	}
	_, offset := t.Zone()
	for _, d := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		_, other := t.Add(d).Zone()
		if other == offset {
			continue
		}
		twin := t.Add(time.Duration(offset-other) * time.Second)
		if _, o := twin.Zone(); o == other && !twin.Equal(t) {
			return fmt.Errorf("clocks in %s showed it twice: they were put back; write the offset, as in +01:00", loc)
		}
	}
	return nil
}
