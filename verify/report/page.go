package report

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

//go:embed page/*
var pageFiles embed.FS

const (
	maxRows    = 100 // of past drills on a page
	maxBackups = 50
)

// HTML writes one page about a drill and those before it: everything is in it,
// nothing is fetched and nothing runs. doc is the drill to show; nil is the
// newest of the history, and where there is none the page says so.
func (h *History) HTML(w io.Writer, doc *evidence.Document) error {
	if doc == nil {
		doc = h.Newest()
	}
	v := &pageView{History: h, Doc: doc, Charts: h.charts(), Last: capital(h.lastPassedWords())}
	if d := h.LastPassed(); d != nil {
		v.Last, v.LastDrill = ago(d.Drill.Ended, h.Made)+" ago", &d.Drill
	}
	for _, d := range slices.Backward(h.Drills) {
		if len(v.Past) < maxRows {
			v.Past = append(v.Past, &d.Drill)
		}
	}
	v.Older = len(h.Drills) - len(v.Past)
	title := "Restore drills of " + clean(h.Cluster)
	if doc != nil {
		v.drill(doc)
		title = fmt.Sprintf("%s: %s restore drill of %s, %s", strings.ToUpper(string(v.Verdict)), clean(string(v.D.Level)), clean(h.Cluster), minute(v.D.Started))
	}
	return render(w, "page.html", title, v)
}

// pageView is what the template needs, in words.
type pageView struct {
	History *History
	Doc     *evidence.Document
	D       *evidence.Drill

	Verdict      evidence.Verdict
	Meaning      string
	Figures      []figure
	Phases       []phaseRow
	PhaseSummary string
	Facts        []fact
	Checks       []evidence.Check
	ChecksPassed int
	Coverage     *evidence.Coverage
	Backups      []evidence.Covered
	MoreBackups  int
	Never        int
	Held         string // layers of the fence
	Ways         string // how many ways out led where
	Tried        []way  // the worst first
	Cleanup      string
	CleanupState evidence.Verdict
	Charts       []chart
	Past         []*evidence.Drill // newest first
	Older        int
	Last         string
	LastDrill    *evidence.Drill
}

// figure is one of the few numbers that count.
type figure struct {
	Name, Long, Value, Words string
	Objective                string
	State                    evidence.Verdict // empty: neither good nor bad
	Note                     string
}

type fact struct{ Name, Value string }

type phaseRow struct {
	Name, Seconds, Moved, Rate string
	X, W                       float64 // percent
	Costliest                  bool
}

func (v *pageView) drill(doc *evidence.Document) {
	d := &doc.Drill
	v.D, v.Verdict, v.Meaning = d, verdictOf(d.Verdict), meaning(d)
	v.Figures = figures(d)
	v.Phases, v.PhaseSummary = phaseRows(d), phaseSummary(d)
	v.Facts = facts(d)
	v.Checks = worstFirst(d.Checks)
	for _, c := range d.Checks {
		if c.Verdict == evidence.Passed {
			v.ChecksPassed++
		}
	}
	v.fence(d.Fence)
	v.Cleanup, v.CleanupState = cleanupWords(d), evidence.Unknown
	if d.Cleanup.Done {
		v.CleanupState = evidence.Passed
	}
	if c := d.Coverage; c != nil {
		v.Coverage, v.Never = c, len(NeverTested(c))
		v.Backups = c.Backups[:min(maxBackups, len(c.Backups))]
		v.MoreBackups = len(c.Backups) - len(v.Backups)
	}
}

// way is one way out of the fence that was tried.
type way struct {
	State      evidence.Verdict // that it stands for
	Word       string
	What       string
	Error, Out string // what the system said inside, and without the fence
}

// fence says what was tried and what holds.
func (v *pageView) fence(f *evidence.Fence) {
	if f == nil {
		return
	}
	var held []string
	for _, l := range f.Layers {
		if l.Held {
			held = append(held, clean(l.Name))
		}
	}
	v.Held = strings.Join(held, ", ")
	blocked, reached, unknown := f.Ways()
	if len(f.Tried) > 0 {
		v.Ways = fmt.Sprintf("%d blocked, %d reached, %d not proven", blocked, reached, unknown)
	}
	for _, word := range []struct {
		outcome, word string
		state         evidence.Verdict
	}{{"reached", "reached", evidence.Failed}, {"", "not proven", evidence.Unknown}, {"blocked", "blocked", evidence.Passed}} {
		for _, a := range f.Tried {
			known := a.Outcome == "reached" || a.Outcome == "blocked"
			if a.Outcome == word.outcome || word.outcome == "" && !known {
				v.Tried = append(v.Tried, way{State: word.state, Word: word.word, What: a.What, Error: a.Error, Out: a.Outside})
			}
		}
	}
}

func figures(d *evidence.Drill) []figure {
	rpo := figure{Name: "RPO", Long: "would have been lost", Value: capital(d.RPO.Loss()), Words: objectiveWords(d.RPO.Objective, d.RPO.Verdict), Note: basisWords(d.RPO.Basis)}
	if d.RPO.Reason != "" {
		rpo.Note += ": " + clean(d.RPO.Reason)
	}
	rpo.target(d.RPO.Objective, d.RPO.Verdict)
	rto := figure{Name: "RTO", Long: "until the required checks passed", Value: capital(achievedRTO(d.RTO)), Words: objectiveWords(d.RTO.Objective, d.RTO.Verdict)}
	if d.RTO.Costliest != "" {
		rto.Note = "most time went into " + evidence.PhaseWords(clean(d.RTO.Costliest))
	}
	rto.target(d.RTO.Objective, d.RTO.Verdict)
	if d.Failover != nil {
		rto.Long = "at most without a write"
		return []figure{rto}
	}
	return []figure{rpo, rto}
}

func (f *figure) target(objective *float64, v evidence.Verdict) {
	if objective != nil {
		f.Objective, f.State = evidence.Seconds(*objective), verdictOf(v)
	}
}

func phaseRows(d *evidence.Drill) []phaseRow {
	var rows []phaseRow
	all := total(d)
	for _, p := range d.Phases {
		r := phaseRow{Name: phaseName(p.Name), Seconds: evidence.Seconds(p.Seconds), Rate: rate(p.Bytes, p.Seconds), Costliest: p.Name == d.RTO.Costliest}
		if p.Bytes > 0 {
			r.Moved = size(p.Bytes)
		}
		if all > 0 {
			r.X = round(min(99.4, max(0, p.Start)/all*100))
			r.W = round(min(100-r.X, max(0.6, p.Seconds/all*100)))
		}
		rows = append(rows, r)
	}
	return rows
}

func phaseSummary(d *evidence.Drill) string {
	s := evidence.Seconds(total(d)) + " from the start to the end of the last phase"
	if d.RTO.Costliest != "" {
		s += "; most of it went into " + evidence.PhaseWords(clean(d.RTO.Costliest))
	}
	return s + "."
}

// facts are what the figures rest on.
func facts(d *evidence.Drill) []fact {
	if own := rdsFacts(d); own != nil {
		return own
	}
	var out []fact
	add := func(name, format string, args ...any) {
		out = append(out, fact{name, clean(fmt.Sprintf(format, args...))})
	}
	if b := d.Backup; b != nil {
		add("Backup", "%s, %s, taken %s (%s before the drill) from %s", b.Label, pickedWords(b.Picked), utc(b.Taken), ago(b.Taken, d.Started), b.Host)
		add("Restored", "%s in %s files, PostgreSQL %s; %s fetched", size(b.Bytes), thousands(b.Files), postgresVersion(b.PostgreSQL), size(b.Fetched))
	} else {
		add("Backup", "none could be chosen")
	}
	add("Recovery to", "%s", targetWords(d.Target))
	if d.WAL != nil {
		speed := ""
		if r := replayRate(d); r != "" {
			speed = ", replayed at " + r
		}
		add("WAL", "%s in %s segments, %s to %s%s", size(d.WAL.Bytes), thousands(d.WAL.Segments), d.WAL.Begin, d.WAL.End, speed)
	}
	if d.RPO.Disaster != nil {
		add("Assumed disaster", "%s", utc(*d.RPO.Disaster))
	}
	if d.RPO.Commit != nil {
		add("Newest commit that came back", "%s, by the primary's clock", utc(*d.RPO.Commit))
	}
	if d.RPO.LostBytes != nil {
		add("WAL that did not come back", "%s", size(*d.RPO.LostBytes))
	}
	if d.RPO.Skew != nil {
		add("Clock of the drill host", "%s", skewWords(*d.RPO.Skew))
	}
	return out
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// unbroken keeps a length of time on one line: "9 h 10 min to 9 h 12 min" may
// break before "9 h 12 min" only.
func unbroken(s string) string {
	parts := strings.Split(s, " to ")
	for i, p := range parts {
		if strings.ContainsAny(p, "0123456789") {
			parts[i] = strings.ReplaceAll(p, " ", "\u00a0")
		}
	}
	return strings.Join(parts, " to ")
}

// render writes a page of the set, with the style in it and a policy that lets
// nothing else in.
func render(w io.Writer, name, title string, data any) error {
	css, err := pageFiles.ReadFile("page/style.css")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(css)
	funcs := template.FuncMap{
		"unbroken": unbroken, "clean": clean, "utc": utc, "minute": minute, "day": day, "size": size, "verdict": verdictOf, "upper": strings.ToUpper,
		"shortLoss": shortLoss, "achievedRTO": achievedRTO, "seconds": evidence.Seconds, "add": func(a, b float64) float64 { return a + b },
		"str":   func(v any) string { return fmt.Sprint(v) },
		"title": func() string { return title },
		"style": func() template.CSS { return template.CSS(css) },
		"policy": func() string {
			return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
		},
	}
	t, err := template.New(name).Funcs(funcs).ParseFS(pageFiles, "page/*.html")
	if err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	return t.ExecuteTemplate(w, name, data)
}

// skewWords says by how far the drill host's clock is wrong, if the primary's is
// right.
func skewWords(s float64) string {
	switch {
	case s > 0:
		return evidence.Seconds(s) + " ahead of the primary's"
	case s < 0:
		return evidence.Seconds(-s) + " behind the primary's"
	}
	return "the same as the primary's"
}
