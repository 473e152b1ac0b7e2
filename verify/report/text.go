package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// Paint colours a text for a terminal; sgr is the parameter of the escape
// sequence, such as "31" for red.
type Paint func(text, sgr string) string

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
)

const (
	textWidth = 80
	barWidth  = 16
)

// textWriter writes lines of at most textWidth columns. The error is that of
// the first write that failed.
type textWriter struct {
	w     io.Writer
	paint Paint
	err   error
}

func (t *textWriter) line(format string, args ...any) {
	if t.err == nil {
		_, t.err = io.WriteString(t.w, strings.TrimRight(fmt.Sprintf(format, args...), " ")+"\n")
	}
}

// item writes a text behind a head, and its further lines below its first.
func (t *textWriter) item(head, s string) { t.painted(head, head, s) }

// painted is item with a head whose colours take no room.
func (t *textWriter) painted(head, coloured, s string) {
	indent := len([]rune(head))
	lines := wrap(clean(s), textWidth-indent)
	if len(lines) == 0 {
		t.line("%s", coloured)
	}
	for i, l := range lines {
		if i == 0 {
			t.line("%s%s", coloured, l)
		} else {
			t.line("%s%s", strings.Repeat(" ", indent), l)
		}
	}
}

func (t *textWriter) colour(s, sgr string) string {
	if t.paint == nil {
		return s
	}
	return t.paint(s, sgr)
}

func (t *textWriter) heading(s string) { t.line("\n%s", t.colour(s, bold)) }

func colourOf(v evidence.Verdict) string {
	return map[evidence.Verdict]string{evidence.Passed: green, evidence.Failed: red, evidence.Unknown: yellow}[verdictOf(v)]
}

// Text writes a drill for a terminal of 80 columns: the verdict and its reasons
// first, then RPO and RTO, and below it what they rest on. paint may be nil.
func Text(w io.Writer, d *evidence.Drill, paint Paint) error {
	t := &textWriter{w: w, paint: paint}
	t.verdict(d)
	t.objectives(d)
	t.restored(d)
	t.phases(d)
	t.checks(d)
	if d.Failover == nil {
		t.fence(d.Fence)
	}
	t.rest(d)
	return t.err
}

func (t *textWriter) verdict(d *evidence.Drill) {
	v := verdictOf(d.Verdict)
	head := strings.ToUpper(string(v)) + "  "
	t.painted(head, t.colour(strings.TrimSpace(head), colourOf(v)+";1")+"  ",
		fmt.Sprintf("%s of cluster %s, %s", levelWords(d.Level), d.Cluster, utc(d.Started)))
	t.item(strings.Repeat(" ", len(head)), meaning(d))
	for _, r := range d.Reasons {
		t.painted("  - ", t.colour("  - ", colourOf(v)), r)
	}
}

func (t *textWriter) objectives(d *evidence.Drill) {
	t.line("")
	if d.Failover != nil {
		t.objective("RTO", achievedRTO(d.RTO)+" at most without a write", d.RTO.Objective, d.RTO.Verdict)
		return
	}
	t.objective("RPO", d.RPO.Loss()+" would be lost", d.RPO.Objective, d.RPO.Verdict)
	reached := achievedRTO(d.RTO)
	if d.RTO.Achieved != nil {
		reached += " until the required checks passed"
	}
	t.objective("RTO", reached, d.RTO.Objective, d.RTO.Verdict)
	note := basisWords(d.RPO.Basis)
	if d.RPO.Reason != "" {
		note += ": " + d.RPO.Reason
	}
	t.item(strings.Repeat(" ", 21), "the RPO was "+note)
}

// objective writes whether it was met, then what was achieved.
func (t *textWriter) objective(name, achieved string, objective *float64, v evidence.Verdict) {
	words, sgr := objectiveWords(objective, v), ""
	if objective != nil {
		achieved += ", objective " + evidence.Seconds(*objective)
		sgr = colourOf(v)
	}
	head := "  " + name + "  " + pad(words, 14)
	t.painted(head, "  "+t.colour(name, bold)+"  "+t.colourIf(pad(words, 14), sgr), achieved)
}

func (t *textWriter) restored(d *evidence.Drill) {
	if own := rdsFacts(d); own != nil {
		t.rds(d, own)
		return
	}
	t.heading("Restored")
	b := d.Backup
	if b == nil {
		t.line("  nothing: no backup could be chosen")
		return
	}
	t.item("  backup   ", fmt.Sprintf("%s, %s", b.Label, pickedWords(b.Picked)))
	t.item("           ", fmt.Sprintf("taken %s, %s before the drill, from %s", utc(b.Taken), ago(b.Taken, d.Started), b.Host))
	t.item("           ", fmt.Sprintf("%s in %s files, PostgreSQL %s; %s fetched", size(b.Bytes), thousands(b.Files), postgresVersion(b.PostgreSQL), size(b.Fetched)))
	t.item("  target   ", targetWords(d.Target))
	if d.WAL != nil {
		s := fmt.Sprintf("%s in %s segments, %s to %s", size(d.WAL.Bytes), thousands(d.WAL.Segments), d.WAL.Begin, d.WAL.End)
		if r := replayRate(d); r != "" {
			s += ", replayed at " + r
		}
		t.item("  WAL      ", s)
	}
	if d.RPO.Commit != nil {
		t.item("  newest   ", "commit of "+utc(*d.RPO.Commit)+", by the primary's clock")
	}
}

func (t *textWriter) phases(d *evidence.Drill) {
	if len(d.Phases) == 0 {
		return
	}
	t.heading("Phases")
	for _, p := range d.Phases {
		moved := ""
		if p.Bytes > 0 {
			moved = size(p.Bytes)
		}
		t.line("  %s %10s %9s %11s  %s", pad(phaseName(p.Name), 25), evidence.Seconds(p.Seconds), moved, rate(p.Bytes, p.Seconds), bar(p, total(d)))
	}
}

// phaseName is short enough for a column.
func phaseName(name string) string {
	switch name {
	case evidence.PhaseTables:
		return "comparing the tables"
	case evidence.PhaseConsistent:
		return "recovery to consistency"
	case evidence.PhaseReplay:
		return "recovery to the target"
	}
	return evidence.PhaseWords(clean(name))
}

// total is the time from the start of the drill to the end of its last phase.
func total(d *evidence.Drill) float64 {
	end := 0.0
	for _, p := range d.Phases {
		end = max(end, p.Start+p.Seconds)
	}
	return end
}

// bar draws when a phase was, on the line of the whole drill.
func bar(p evidence.Phase, total float64) string {
	if total <= 0 {
		return ""
	}
	at := min(barWidth-1, int(max(0, p.Start)/total*barWidth))
	n := min(barWidth-at, max(1, int(p.Seconds/total*barWidth+0.5)))
	return strings.Repeat(".", at) + strings.Repeat("=", n) + strings.Repeat(".", barWidth-at-n)
}

// pad fills or cuts s to n columns.
func pad(s string, n int) string {
	r := []rune(s)
	if len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s + strings.Repeat(" ", n-len(r))
}

func (t *textWriter) checks(d *evidence.Drill) {
	passed := 0
	for _, c := range d.Checks {
		if c.Verdict == evidence.Passed {
			passed++
		}
	}
	t.heading(fmt.Sprintf("Checks: %d of %d passed", passed, len(d.Checks)))
	for _, c := range worstFirst(d.Checks) {
		v := verdictOf(c.Verdict)
		s := c.Name
		if !c.Required {
			s += " (advisory)"
		}
		if c.Detail != "" {
			s += ": " + c.Detail
		}
		word := pad(string(v), 8)
		if v != evidence.Passed {
			word = strings.ToUpper(word)
		}
		t.painted("  "+word+" ", "  "+t.colour(word, colourOf(v))+" ", s)
	}
}

// worstFirst puts what did not pass before what did, and required before
// advisory; else the order stays.
func worstFirst(checks []evidence.Check) []evidence.Check {
	var out [4][]evidence.Check
	for _, c := range checks {
		i := 0
		if verdictOf(c.Verdict) == evidence.Passed {
			i = 2
		}
		if !c.Required {
			i++
		}
		out[i] = append(out[i], c)
	}
	return append(append(append(out[0], out[1]...), out[2]...), out[3]...)
}

func (t *textWriter) fence(f *evidence.Fence) {
	t.heading("Fence")
	if f == nil {
		t.line("  no server was started")
		return
	}
	t.item("  network    ", f.Network)
	t.item("  files      ", f.Files)
	t.item("  account    ", f.User)
	blocked, reached, unknown := f.Ways()
	switch {
	case len(f.Tried) == 0:
		t.item("  tried      ", "nothing: how far the server is isolated is not known")
	default:
		t.item("  tried      ", fmt.Sprintf("%d ways out: %d blocked, %d reached what they should not, %d not known", len(f.Tried), blocked, reached, unknown))
	}
	for _, a := range f.Tried {
		switch a.Outcome {
		case "blocked":
		case "reached":
			t.painted("  REACHED    ", "  "+t.colour("REACHED", yellow)+"    ", a.What)
		default:
			t.item("  not known  ", a.What)
		}
	}
	for _, l := range f.Layers {
		if !l.Held {
			t.item("  without    ", l.Name+suffix(l.Reason))
		}
	}
	for _, m := range f.Missing {
		t.painted("  MISSING    ", "  "+t.colour("MISSING", yellow)+"    ", m)
	}
	if len(f.Proven) > 0 {
		t.item("  proven     ", strings.Join(f.Proven, "; "))
	}
	if len(f.Left) > 0 {
		t.item("  left out   ", strings.Join(f.Left, ", "))
	}
}

func (t *textWriter) rest(d *evidence.Drill) {
	t.line("")
	t.item("Clean-up  ", cleanupWords(d))
	if len(d.Cleanup.Older) > 0 {
		t.item("          ", "also cleaned up, after crashed drills: "+strings.Join(d.Cleanup.Older, ", "))
	}
	if c := d.Coverage; c != nil {
		t.item("Backups   ", coverageWords(c))
	}
	t.item("By        ", fmt.Sprintf("%s on %s, %s", d.By.User, d.By.Host, d.Program))
	t.item("Evidence  ", d.ID)
	for _, n := range d.Notes {
		t.item("Note      ", n)
	}
}

// cleanupWords says what became of what was restored.
func cleanupWords(d *evidence.Drill) string {
	c, what := d.Cleanup, "the staging directory"
	switch {
	case d.Failover != nil:
		return "nothing was made that would have to go"
	case d.RDS != nil:
		what = "what was restored on RDS"
	}
	s := "NOT PROVEN: " + what + " may still be there"
	switch {
	case c.Done:
		s = what + " is proven gone"
	case c.Kept != "":
		s = "kept, data of the cluster lies in " + clean(c.Kept)
	}
	if c.Detail != "" {
		s += ": " + clean(c.Detail)
	}
	return s
}

func coverageWords(c *evidence.Coverage) string {
	s := fmt.Sprintf("%s, %d never tested", count(len(c.Backups), "in the repository", "in the repository"), len(NeverTested(c)))
	if !c.From.IsZero() {
		s += fmt.Sprintf("; WAL is archived for any time from %s to %s", utc(c.From), utc(c.To))
	}
	return s
}

func suffix(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
