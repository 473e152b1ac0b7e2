package report

import (
	"fmt"
	"strings"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// rdsFacts are what a drill on Amazon RDS, or a failover, rests on; nil for
// drills of other clusters.
func rdsFacts(d *evidence.Drill) []fact {
	var out []fact
	add := func(name, format string, args ...any) {
		out = append(out, fact{name, clean(fmt.Sprintf(format, args...))})
	}
	switch {
	case d.Failover != nil:
		failoverFacts(d.Failover, add)
	case d.RDS != nil:
		copyFacts(d, add)
	}
	return out
}

func copyFacts(d *evidence.Drill, add func(name, format string, args ...any)) {
	r := d.RDS
	add("Source", "%s: %s %s, %s", r.Source, r.Kind, r.Identifier, r.Engine)
	switch {
	case d.Backup == nil:
		add("Restored", "nothing: there was nothing to restore from")
	case r.Snapshot != "":
		add("Snapshot", "%s, taken %s, %s before the drill", r.Snapshot, utc(d.Backup.Taken), ago(d.Backup.Taken, d.Started))
	default:
		add("Restored", "from the automated backups, to %s", utc(d.Backup.Taken))
	}
	if r.Staging != "" {
		add("Staging", "%s in %s, %s", r.Staging, r.Region, r.Class)
	}
	for _, t := range []struct {
		name, what string
		at         *float64
	}{
		{"Available", "RDS called it available", r.Available},
		{"Checked", "the required checks had passed", r.Checked},
		{"Hydrated", "every block had been read once (" + size(r.HydratedBytes) + ")", r.Hydrated},
	} {
		if t.at != nil {
			add(t.name, "%s: %s", evidence.Seconds(*t.at), t.what)
		} else {
			add(t.name, "not measured")
		}
	}
	if r.Restorable != nil && r.Exposure != nil {
		add("Exposure", "%s: RDS could restore to %s at the latest", evidence.Seconds(*r.Exposure), utc(*r.Restorable))
	} else {
		add("Exposure", "unknown: RDS names no latest restorable time")
	}
	if d.RPO.Commit != nil {
		add("Newest", "heartbeat in the copy is of %s", utc(*d.RPO.Commit))
	}
	for _, x := range r.Differences {
		why := "NOT asked for"
		if x.Asked {
			why = "as asked for"
		}
		add("Differs", "%s: %s, the source has %s (%s)", x.Name, orNone(x.Restored), orNone(x.Source), why)
	}
}

func failoverFacts(f *evidence.Failover, add func(name, format string, args ...any)) {
	add("Source", "%s: %s %s in %s", f.Source, f.Kind, f.Identifier, f.Region)
	add("Zone", "%s before, %s after", f.ZoneBefore, orNone(f.ZoneAfter))
	add("Writes", "%d tried, one each %s, of which %d failed", f.Probes, evidence.Seconds(f.Interval), f.Failures)
	if f.DowntimeLower != nil && f.DowntimeUpper != nil {
		add("Downtime", "%s to %s without a write", evidence.Seconds(*f.DowntimeLower), evidence.Seconds(*f.DowntimeUpper))
	} else {
		add("Downtime", "unknown")
	}
	if len(f.Addresses) > 0 {
		add("DNS", "%s led to %s", f.Host, strings.Join(f.Addresses, ", then "))
	}
	for _, e := range f.Events {
		add("Event", "%s", e)
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// rds writes the facts as a section of the text.
func (t *textWriter) rds(d *evidence.Drill, facts []fact) {
	title := "Restored"
	if d.Failover != nil {
		title = "Failed over"
	}
	t.heading(title)
	for _, f := range facts {
		t.item("  "+pad(strings.ToLower(f.Name), 11), f.Value)
	}
}
