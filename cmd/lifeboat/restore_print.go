package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/restore"
)

// showPlan prints the plan before anything is written: to stdout, or to stderr
// when stdout is kept for the JSON document. A dry run is about nothing else.
func (r *restoration) showPlan(p *restore.Plan) error {
	switch {
	case r.quiet && (r.json || !r.dryRun):
		return nil
	case r.json:
		var b strings.Builder
		r.writePlan(&b, p)
		r.line(strings.TrimRight(b.String(), "\n"))
		return nil
	}
	return r.result(nil, func(w io.Writer) { r.writePlan(w, p) })
}

// writePlan prints a plan for people.
func (r *restoration) writePlan(out io.Writer, p *restore.Plan) {
	_, _ = fmt.Fprintln(out, "Plan")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("backup", "%s, consistent from %s (%s), PostgreSQL %s", p.Label, utc(p.ConsistentTime), p.ConsistentLSN,
		postgres.ServerVersion(p.Backup.PGVersion))
	row("into", "%s%s", p.DataDir, ownerText(p.Owner))
	for _, t := range p.Tablespaces {
		if !t.InPlace {
			row("tablespace", "%d: %s", t.OID, movedText(t))
		}
	}
	for _, t := range p.NewTablespaces {
		row("tablespace", "%d: %s, made by the WAL at %s", t.OID, t.Path, t.LSN)
	}
	row("target", "%s", r.targetText(p))
	row("timeline", "%s", pathText(p.Path))
	row("WAL", "%s to %s: %d segments, %s to %s, %s to fetch", p.WAL.Begin, p.WAL.End, p.WAL.Segments, p.WAL.First, p.WAL.Last,
		sizeText(p.WAL.Bytes))
	row("recovers to", "%s, %s", p.StopLSN, commitText(p.StopTime))
	if !p.NewestTime.IsZero() {
		row("newest", "the newest commit in the archive is of %s", utc(p.NewestTime))
	}
	row("fetch", "%s of packs", sizeText(p.FetchBytes))
	row("write", "%s in %d files", sizeText(p.WriteBytes), p.Files)
	for _, d := range p.Disks {
		row("disk", "%s: %s needed, %s free", strings.Join(d.Paths, ", "), sizeText(d.Need), sizeText(d.Free))
	}
	for _, n := range p.Notes {
		row("note", "%s", n)
	}
	_ = w.Flush()
}

func (r *restoration) targetText(p *restore.Plan) string {
	s := p.Point.String()
	if r.zone != "" {
		s += ", read in " + r.zone
	}
	if p.Action != "" {
		s += ", then " + string(p.Action)
	}
	return s
}

func ownerText(o *restore.Owner) string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf(", owner %s:%s", o.User, o.Group)
}

func movedText(t restore.Tablespace) string {
	if t.From == t.To {
		return t.To + ", where it was"
	}
	return t.From + " moves to " + t.To
}

func pathText(spans []restore.Span) string {
	var b strings.Builder
	for i, s := range spans {
		if i > 0 {
			fmt.Fprintf(&b, ", from %s on ", s.Begin)
		}
		fmt.Fprintf(&b, "%d", s.Timeline)
	}
	return b.String()
}

func commitText(t time.Time) string {
	if t.IsZero() {
		return "with no commit after the backup"
	}
	return "the commit of " + utc(t)
}

func utc(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999") + " UTC" }

// writeDone prints what was done and what comes next.
func (r *restoration) writeDone(w io.Writer, report *restoreReport) {
	p := report.Plan
	_, _ = fmt.Fprintf(w, "\nRestored %s into %s in %s.\n", p.Label, p.DataDir, span(time.Duration(report.Seconds*float64(time.Second))))
	if report.Server == nil {
		_, _ = fmt.Fprintf(w, "Start PostgreSQL %d on it: it fetches WAL from the archive and recovers to %s.\n",
			postgres.ServerVersion(p.Backup.PGVersion).Major(), p.Point)
		return
	}
	report.Server.write(w)
}
