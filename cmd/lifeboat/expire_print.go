package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// expireReport is the JSON document of an expiry.
type expireReport struct {
	Name    string          `json:"repository,omitempty"` // of several
	Error   string          `json:"error,omitempty"`      // why it did not get to its end
	DryRun  bool            `json:"dry_run"`
	Policy  string          `json:"policy"`
	Backups []expireBackup  `json:"backups"` // the newest first
	Windows []expireWindows `json:"windows"`
	Removed expireCounts    `json:"removed"` // in a dry run: what would be
	Locked  []expire.Locked `json:"locked,omitempty"`
	Left    []string        `json:"left,omitempty"`   // what stays although nothing needs it, and why
	Broken  []string        `json:"broken,omitempty"` // labels of backups that cannot be restored
}

type expireBackup struct {
	Label    string   `json:"label"`
	Finished string   `json:"finished,omitempty"`
	Stored   int64    `json:"stored_bytes"`
	Keep     bool     `json:"keep"`
	Removed  bool     `json:"removed"` // it is gone; in a dry run, it would be
	Why      []string `json:"why,omitempty"`
	Broken   string   `json:"broken,omitempty"` // why it cannot be restored
}

type expireCounts struct {
	Backups int          `json:"backups"`
	Packs   expire.Count `json:"packs"`
	WAL     expire.Count `json:"wal"`
	Blocks  expire.Count `json:"block_summaries"`
	Crashed expire.Count `json:"crashed_backups"`
	Bytes   int64        `json:"bytes"` // all of them
}

type expireWindows struct {
	System postgres.SystemID `json:"system"`
	Before []expireWindow    `json:"before"`
	After  []expireWindow    `json:"after,omitzero"` // not there when it did not get that far
}

type expireWindow struct {
	Timeline  postgres.Timeline `json:"timeline"`
	Begin     postgres.LSN      `json:"begin"`
	BeginTime string            `json:"begin_time"`
	End       postgres.LSN      `json:"end"`
	Backups   []string          `json:"backups"`
}

// newExpireReport tells what was done; err is what stopped it.
func newExpireReport(res *expire.Result, dry bool, err error) *expireReport {
	out := &expireReport{DryRun: dry, Policy: res.Plan.Policy.String(), Backups: []expireBackup{}, Windows: []expireWindows{}, Locked: res.Locked}
	if err != nil {
		out.Error = oneLine(err.Error())
	}
	for _, d := range res.Plan.Decisions {
		b := expireBackup{Label: d.Info.Label, Stored: d.Info.StoredBytes, Keep: d.Keep, Why: d.Why, Removed: slices.Contains(res.Dropped, d.Info.Label)}
		if d.Unread == nil {
			b.Finished = d.Info.StopTime.UTC().Format(timeForm)
		}
		if d.Broken != nil && !wal.InDoubt(d.Broken) {
			b.Broken = oneLine(d.Broken.Error())
			out.Broken = append(out.Broken, b.Label)
		}
		if b.Removed {
			out.Removed.Backups++
		}
		out.Backups = append(out.Backups, b)
	}
	for _, id := range slices.Sorted(maps.Keys(res.Before)) {
		w := expireWindows{System: id, Before: newExpireWindows(res.Before[id])}
		if res.After != nil {
			w.After = newExpireWindows(res.After[id])
		}
		out.Windows = append(out.Windows, w)
	}
	out.left(res.Plan)
	out.Removed.Packs, out.Removed.WAL, out.Removed.Blocks, out.Removed.Crashed = res.Packs, res.WAL, res.Blocks, res.Crashed
	out.Removed.Bytes = res.Backups.Bytes + res.Packs.Bytes + res.WAL.Bytes + res.Blocks.Bytes + res.Crashed.Bytes
	return out
}

func newExpireWindows(s wal.Standing) []expireWindow {
	out := []expireWindow{}
	for _, w := range s.Windows {
		out = append(out, expireWindow{w.Path.Timeline, w.Begin, w.BeginTime.UTC().Format(timeForm), w.Reach.End, w.Backups})
	}
	return out
}

// left notes what stays although no rule keeps it.
func (e *expireReport) left(p *expire.Plan) {
	if p.Unswept != "" {
		e.Left = append(e.Left, "packs that no backup names: "+oneLine(p.Unswept))
	}
	for _, w := range p.WAL {
		if w.All != "" {
			e.Left = append(e.Left, fmt.Sprintf("all WAL of system %s: %s", w.System, oneLine(w.All)))
		}
	}
}

func (e *expireReport) write(w io.Writer) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	say("policy: %s\n\n", e.Policy)
	e.writeBackups(w)
	for _, s := range e.Windows {
		say("\nrestorable of system %s\n", s.System)
		writeExpireWindows(w, "before", s.Before)
		if s.After != nil {
			writeExpireWindows(w, "after", s.After)
		}
	}
	verb := "removed"
	if e.DryRun {
		verb = "would be removed"
	}
	r := e.Removed
	say("\n%s: %s, %s of packs, of WAL %s, of block summaries %s, of backups that crashed %s; %s in all\n", verb,
		plural(r.Backups, "backup"), objectsText(r.Packs), objectsText(r.WAL), objectsText(r.Blocks), objectsText(r.Crashed), sizeText(r.Bytes))
	for _, l := range e.Left {
		say("stays: %s\n", l)
	}
	if n := len(e.Locked); n > 0 {
		last := slices.MaxFunc(e.Locked, func(a, b expire.Locked) int { return a.Until.Compare(b.Until) })
		say("stays: %s under Object Lock, the last until %s; a later run removes them\n", plural(n, "object"), last.Until.UTC().Format(time.DateOnly))
	}
}

func (e *expireReport) writeBackups(w io.Writer) {
	if len(e.Backups) == 0 {
		_, _ = fmt.Fprintln(w, "there are no backups")
		return
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tab, "BACKUP\tFINISHED (UTC)\tSTORED\t\tWHY")
	for _, b := range e.Backups {
		verb, why := "keep", strings.Join(b.Why, "; ")
		if !b.Keep {
			verb, why = "remove", "no rule keeps it"
		}
		if e.Error != "" && !b.Keep && !b.Removed {
			verb = "to remove"
		}
		if b.Broken != "" {
			why += " (cannot be restored: " + b.Broken + ")"
		}
		finished := strings.TrimSuffix(strings.Replace(b.Finished, "T", " ", 1), "Z")
		_, _ = fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\n", b.Label, finished, sizeText(b.Stored), verb, why)
	}
	_ = tab.Flush()
}

func writeExpireWindows(w io.Writer, when string, all []expireWindow) {
	if len(all) == 0 {
		_, _ = fmt.Fprintf(w, "  %-6s  nothing\n", when)
	}
	for _, x := range all {
		_, _ = fmt.Fprintf(w, "  %-6s  from %s (%s) to %s on timeline %s, with %s\n", when,
			strings.TrimSuffix(strings.Replace(x.BeginTime, "T", " ", 1), "Z"), x.Begin, x.End, x.Timeline, plural(len(x.Backups), "backup"))
	}
}

func objectsText(c expire.Count) string {
	if c.Objects == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%s (%s)", plural(c.Objects, "object"), sizeText(c.Bytes))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// verdict is an error when something is wrong that a person must look at.
func (e *expireReport) verdict() error {
	if len(e.Broken) == 0 {
		return nil
	}
	return failed(exitFailed, "%s cannot be restored, among them %s; what the policy does not keep is removed", plural(len(e.Broken), "backup"), e.Broken[0]).
		hinted("\"lifeboat verify\" tells what is wrong with each")
}
