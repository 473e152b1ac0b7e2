package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
)

func writeBackups(w io.Writer, infos []repo.Info, list []listedBackup, now time.Time) {
	if len(infos) == 0 {
		_, _ = fmt.Fprintln(w, "no backups yet; \"lifeboat backup\" takes one")
		return
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tab, "LABEL\tFINISHED (UTC)\tSIZE\tSTORED\tCHANGED\tBY\tCHECKED\tDRILLED\tREACHES")
	for i, info := range infos {
		b := list[i]
		if b.Error != "" {
			_, _ = fmt.Fprintf(tab, "%s\tunreadable\t-\t-\t-\t-\t%s\t%s\t-\n", info.Label, b.checkedText(now), agoText(b.Drilled, now))
			continue
		}
		_, _ = fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", info.Label, info.StopTime.UTC().Format("2006-01-02 15:04"),
			sizeText(info.RawBytes), sizeText(info.StoredBytes), changedText(info), changesText(info.Changes), b.checkedText(now), agoText(b.Drilled, now), b.reachText())
	}
	_ = tab.Flush()
	bare := 0
	for i, info := range infos {
		writeRemarks(w, info, list[i])
		if !info.Checksums && list[i].Error == "" {
			bare++
		}
	}
	if bare > 0 {
		_, _ = fmt.Fprintf(w, "%s of a cluster without page checksums: damage in the database is not noticed\n", plural(bare, "backup"))
	}
}

// writeRemarks prints what few backups have and a person must see.
func writeRemarks(w io.Writer, info repo.Info, b listedBackup) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if b.Error != "" {
		say("%s: it cannot be read: %s", info.Label, b.Error)
	}
	if info.BadCount > 0 {
		say("%s: %d bad pages, which were damaged in the database", info.Label, info.BadCount)
	}
	switch {
	case b.PinBad != "":
		say("%s: its pin cannot be read, so it is kept: %s", info.Label, b.PinBad)
	case b.Pin != nil && b.Pin.Until == "":
		say("%s: pinned by %s%s", info.Label, b.Pin.By, colon(b.Pin.Reason))
	case b.Pin != nil:
		say("%s: pinned until %.10s by %s%s", info.Label, b.Pin.Until, b.Pin.By, colon(b.Pin.Reason))
	}
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + oneLine(s)
}

func changedText(i repo.Info) string {
	if i.Changes == "" { // of a version that did not note it
		return sizeText(i.RawBytes)
	}
	return sizeText(i.ChangedBytes)
}

func changesText(changes string) string {
	switch changes {
	case "", repo.ChangesFull:
		return "full"
	case repo.ChangesWALSummaries:
		return "summaries"
	}
	return changes
}

func (b listedBackup) checkedText(now time.Time) string {
	switch c := b.Checked; {
	case c == nil:
		return "-"
	case !c.OK:
		return "DAMAGED"
	case c.Read:
		return agoText(c.At, now) + ", read"
	default:
		return agoText(c.At, now)
	}
}

// agoText says how long ago something was, in one unit.
func agoText(at string, now time.Time) string {
	t, err := time.Parse(timeForm, at)
	if err != nil {
		return "-"
	}
	switch d := now.Sub(t); {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", d/time.Hour)
	default:
		return fmt.Sprintf("%dd ago", d/(24*time.Hour))
	}
}

func (b listedBackup) reachText() string {
	if b.Unchecked > 0 {
		b.Unchecked = 0
		return b.reachText() + " (listed, not checked)"
	}
	switch b.Reaches {
	case "end":
		return "to the end"
	case "gap":
		return "to " + b.To.String()
	case "itself":
		return "itself"
	case "nothing":
		return "NOTHING"
	}
	return "unknown"
}
