package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// Text writes the history for a terminal: one line a drill, newest last, then
// what they say together. paint may be nil.
func (h *History) Text(w io.Writer, paint Paint) error {
	t := &textWriter{w: w, paint: paint}
	t.historyHead(h)
	t.historyRows(h)
	t.heading("Objectives")
	t.item("  RPO  ", h.rpoSummary())
	t.item("  RTO  ", h.rtoSummary())
	t.heading("What is proven")
	t.proven(h)
	t.evidenceState(h)
	return t.err
}

func (t *textWriter) historyHead(h *History) {
	n := h.counts()
	t.item("", fmt.Sprintf("%s of cluster %s%s: %d passed, %d failed, %d unknown",
		count(len(h.Drills), "drill", "drills"), h.Cluster, h.sinceWords(), n[evidence.Passed], n[evidence.Failed], n[evidence.Unknown]))
}

func (h *History) sinceWords() string {
	if h.Since.IsZero() {
		return ""
	}
	return " since " + utc(h.Since)
}

func (t *textWriter) historyRows(h *History) {
	if len(h.Drills) == 0 {
		return
	}
	t.line("\n  %-25s %-9s %-8s %-18s %s", "DRILL", "LEVEL", "VERDICT", "RPO", "RTO")
	for _, doc := range h.Drills {
		d := &doc.Drill
		v := verdictOf(d.Verdict)
		t.line("  %-25s %s %s %-18s %s", d.ID, pad(clean(string(d.Level)), 9), t.colour(pad(string(v), 8), colourOf(v)), shortLoss(d.RPO), achievedRTO(d.RTO))
		if len(d.Reasons) > 0 {
			t.item("    ", d.Reasons[0]+more(len(d.Reasons)-1))
		}
	}
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}

// rpoSummary says how often the objective was met, and the newest and worst loss.
func (h *History) rpoSummary() string {
	var seen []*float64
	met, asked := 0, 0
	var objective *float64
	drills := h.recoveries()
	for _, d := range drills {
		r := d.Drill.RPO
		seen = append(seen, r.Upper)
		met, asked, objective = tally(met, asked, objective, r.Objective, r.Verdict)
	}
	newest := "unknown"
	if n := len(drills); n > 0 {
		newest = drills[n-1].Drill.RPO.Loss()
	}
	return summary(met, asked, objective) + "newest " + newest + ", worst known " + worst(seen, "up to ")
}

// rtoSummary says how often the objective was met, and the newest and longest time.
func (h *History) rtoSummary() string {
	var seen []*float64
	met, asked := 0, 0
	var objective *float64
	drills := h.recoveries()
	for _, d := range drills {
		r := d.Drill.RTO
		seen = append(seen, r.Achieved)
		met, asked, objective = tally(met, asked, objective, r.Objective, r.Verdict)
	}
	newest := "unknown"
	if n := len(drills); n > 0 {
		newest = achievedRTO(drills[n-1].Drill.RTO)
	}
	return summary(met, asked, objective) + "newest " + newest + ", longest " + worst(seen, "")
}

// recoveries are the drills without failovers, which measure the time without a
// write and nothing of a recovery.
func (h *History) recoveries() []*evidence.Document {
	return slices.DeleteFunc(slices.Clone(h.Drills), func(d *evidence.Document) bool { return d.Drill.Failover != nil })
}

func tally(met, asked int, objective, own *float64, v evidence.Verdict) (int, int, *float64) {
	if own == nil {
		return met, asked, objective
	}
	if v == evidence.Passed {
		met++
	}
	return met, asked + 1, own
}

func summary(met, asked int, objective *float64) string {
	if objective == nil {
		return "no objective; "
	}
	return fmt.Sprintf("objective %s, met in %d of %d; ", evidence.Seconds(*objective), met, asked)
}

func worst(seen []*float64, prefix string) string {
	var known []float64
	for _, s := range seen {
		if s != nil {
			known = append(known, *s)
		}
	}
	if len(known) == 0 {
		return "unknown"
	}
	return prefix + evidence.Seconds(slices.Max(known))
}

// lastPassedWords is the most important line of a history.
func (h *History) lastPassedWords() string {
	if d := h.LastPassed(); d != nil {
		return fmt.Sprintf("%s ago: %s drill %s", ago(d.Drill.Ended, h.Made), clean(string(d.Drill.Level)), d.Drill.ID)
	}
	if h.Since.IsZero() {
		return "never"
	}
	return "not" + h.sinceWords()
}

func (t *textWriter) proven(h *History) {
	sgr := ""
	if h.LastPassed() == nil {
		sgr = red
	}
	t.painted("  last passed restore  ", t.colourIf("  last passed restore  ", sgr), h.lastPassedWords())
	if c, when := h.Coverage(); c != nil {
		t.item("  backups              ", coverageWords(c)+", as of "+utc(when))
		if never := labels(NeverTested(c), 5); never != "" {
			t.item("  never tested         ", never)
		}
	}
	if left := h.StagingLeft(); len(left) > 0 {
		t.painted("  staging left behind  ", t.colour("  staging left behind  ", yellow), "by "+strings.Join(left, ", "))
	}
}

func (t *textWriter) colourIf(s, sgr string) string {
	if sgr == "" {
		return s
	}
	return t.colour(s, sgr)
}

// labels names the first n backups.
func labels(backups []evidence.Covered, n int) string {
	var out []string
	for _, b := range backups[:min(n, len(backups))] {
		out = append(out, clean(b.Label))
	}
	return strings.Join(out, ", ") + more(len(backups)-n)
}

func (t *textWriter) evidenceState(h *History) {
	t.heading("Evidence")
	switch {
	case len(h.Drills)+len(h.Unusable) == 0:
		t.line("  there is none")
	case len(h.Breaks)+len(h.Unusable) == 0:
		t.line("  all documents can be used, and the chain holds")
	}
	for _, u := range h.Unusable {
		t.painted("  UNUSABLE ", t.colour("  UNUSABLE ", red), u.ID+": "+u.Reason)
	}
	for _, b := range h.Breaks {
		t.painted("  BREAK    ", t.colour("  BREAK    ", red), b.ID+": "+b.Reason)
	}
	if !h.Trusted && len(h.Drills) > 0 {
		t.item("  ", "Nobody said which keys to trust: the signatures hold, whose they are was not asked.")
	}
}
