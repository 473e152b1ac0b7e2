package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// write prints the report for people: what can be restored first, since that
// is what they come for at night.
func (r *walStatusReport) write(w io.Writer) {
	for _, g := range r.Gone {
		_, _ = fmt.Fprintf(w, "The repository has gone back: %s\n\n", oneLine(g.String()))
	}
	for i, s := range r.Systems {
		if i > 0 {
			_, _ = fmt.Fprintln(w)
		}
		s.write(w)
	}
	for _, u := range r.Unreadable {
		_, _ = fmt.Fprintf(w, "\nBackup %s cannot be read: %s\n", u.Backup, u.Reason)
	}
}

func (s *systemReport) write(w io.Writer) {
	_, _ = fmt.Fprintf(w, "System %s\n", s.System)
	s.writeWindows(w)
	s.writeNewest(w)
	s.writeExposure(w)
	s.writeHeaders(w)
	s.writeArchived(w)
	s.writeGaps(w)
	for i, n := range s.Notes {
		if i == 0 {
			_, _ = fmt.Fprintln(w)
		}
		_, _ = fmt.Fprintf(w, "Note: %s\n", n)
	}
}

func (s *systemReport) writeWindows(w io.Writer) {
	_, _ = fmt.Fprintln(w, "\nCan be restored, as far as the WAL goes (\"lifeboat verify\" looks at the packs)")
	if len(s.Windows) == 0 {
		text := "nothing"
		if slices.ContainsFunc(s.Unusable, unusableReport.unjudged) {
			text = "unknown"
		}
		_, _ = fmt.Fprintf(w, "  %s\n", text)
	}
	for _, x := range s.Windows {
		_, _ = fmt.Fprintf(w, "  %s,\n    from backup %s\n", x.text(), labelsText(x.Backups))
	}
	for _, u := range s.Unusable {
		_, _ = fmt.Fprintf(w, "  not from backup %s: %s\n", u.Backup, u.Reason)
	}
}

func (s *systemReport) writeNewest(w io.Writer) {
	_, _ = fmt.Fprintln(w, "\nNewest commit in the archive")
	if s.Newest.Time == nil {
		_, _ = fmt.Fprintf(w, "  unknown: %s\n", s.Newest.Unknown)
		return
	}
	_, _ = fmt.Fprintf(w, "  %s, at %s\n", utc(*s.Newest.Time), s.Newest.LSN)
}

func (s *systemReport) writeExposure(w io.Writer) {
	e := s.Exposure
	_, _ = fmt.Fprintln(w, "\nWould be lost if the server died now")
	if e.Bytes == nil {
		_, _ = fmt.Fprintf(w, "  unknown: %s\n", e.Unknown)
		return
	}
	text := sizeText(*e.Bytes) + " of WAL"
	if e.Standby {
		text = "at least " + text + " (the server is a standby, its primary may be further on)"
	}
	switch {
	case len(s.Windows) == 0:
		text = "everything, as far as is known; the archive lacks " + text
	case e.Most == nil:
		text += "; of how much time is unknown: " + e.Unknown
	case *e.Most == 0 && *e.Bytes == 0 && !e.Standby:
		text = "nothing: all that the server has on disk is archived"
	case *e.Least > 0:
		text += fmt.Sprintf(", and the commits of the last %s to %s", seconds(*e.Least), seconds(*e.Most))
	default:
		text += fmt.Sprintf(", and the commits of the last %s at most", seconds(*e.Most))
	}
	_, _ = fmt.Fprintf(w, "  %s\n  the server is at %s on timeline %s, the archive at %s\n", text, e.Server, e.Timeline, e.Archived)
}

// seconds rounds up: a little is not nothing.
func seconds(s float64) string {
	return span(time.Duration(math.Ceil(s*10)) * 100 * time.Millisecond)
}

// writeHeaders says how much of the archive was looked at.
func (s *systemReport) writeHeaders(w io.Writer) {
	h := s.Headers
	_, _ = fmt.Fprintf(w, "\nChecked WAL headers\n  %d of %s, %d of them now\n", h.Checked, plural(h.Objects, "object"), h.Read)
	if h.Unchecked > 0 {
		_, _ = fmt.Fprintf(w, "  %s listed, not checked: %s\n", plural(h.Unchecked, "object"), h.Why)
	}
	for _, b := range h.Objs {
		_, _ = fmt.Fprintf(w, "  NOT WHAT IT IS CALLED: %s\n", b.Problem)
	}
	if n := h.Bad - len(h.Objs); n > 0 {
		_, _ = fmt.Fprintf(w, "  and %d more\n", n)
	}
}

func (s *systemReport) writeArchived(w io.Writer) {
	_, _ = fmt.Fprintln(w, "\nArchived WAL")
	if len(s.Timelines) == 0 {
		_, _ = fmt.Fprintln(w, "  none")
		return
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tab, "  TIMELINE\tFROM\tTO\tSEGMENTS\tFIRST\tLAST")
	for _, t := range s.Timelines {
		for _, r := range t.Ranges {
			last := r.Last
			if r.InSlices {
				last += " (in slices)"
			}
			_, _ = fmt.Fprintf(tab, "  %s\t%s\t%s\t%d\t%s\t%s\n", t.Timeline, r.Begin, r.End, r.Segments, r.First, last)
		}
		if len(t.Ranges) == 0 {
			_, _ = fmt.Fprintf(tab, "  %s\tnone\n", t.Timeline)
		}
	}
	_ = tab.Flush()
	for _, t := range s.Timelines {
		switch {
		case t.Unknown != "":
			_, _ = fmt.Fprintf(w, "  from where timeline %s comes is unknown: %s\n", t.Timeline, t.Unknown)
		case t.Parent != 0:
			_, _ = fmt.Fprintf(w, "  timeline %s left timeline %s at %s: %s\n", t.Timeline, t.Parent, t.Switch, t.Reason)
		}
	}
}

func (s *systemReport) writeGaps(w io.Writer) {
	_, _ = fmt.Fprintln(w, "\nGaps")
	if len(s.Gaps) == 0 {
		_, _ = fmt.Fprintln(w, "  none")
	}
	for _, g := range s.Gaps {
		_, _ = fmt.Fprintf(w, "  %s\n    %s\n", g.text(), g.meaning())
	}
}

// text says what is missing, and what is on both sides.
func (g gapReport) text() string {
	text := g.First + " is missing"
	if g.Problem != "" {
		text = g.First + " is not what it is called"
	} else if g.Segments > 1 {
		text = fmt.Sprintf("%s to %s, %d segments, are missing", g.First, g.Last, g.Segments)
	}
	text += fmt.Sprintf(": archived up to %s", g.Held)
	if g.Next == 0 {
		return text + ", and no further"
	}
	return text + fmt.Sprintf(" and again from %s on", g.Next)
}

func (g gapReport) meaning() string {
	switch g.State {
	case gapLoss:
		return "LOSS: backup " + labelsText(g.NeededBy) + " cannot be recovered past it"
	case gapPending:
		return "not archived yet: the server has it and keeps it until it is"
	}
	return "no backup needs it"
}
