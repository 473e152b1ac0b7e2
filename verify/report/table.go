package report

import (
	"encoding/csv"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// Row is one drill of a history in brief. What was not measured is left out.
type Row struct {
	ID      string           `json:"id"`
	Started time.Time        `json:"started"`
	Ended   time.Time        `json:"ended"`
	Level   evidence.Level   `json:"level"`
	Verdict evidence.Verdict `json:"verdict"`
	Reasons []string         `json:"reasons,omitempty"`

	Backup      string    `json:"backup,omitempty"`
	BackupTaken time.Time `json:"backup_taken,omitzero"`
	Target      string    `json:"target"`

	RPOLower     *float64         `json:"rpo_lower_seconds,omitempty"`
	RPOUpper     *float64         `json:"rpo_upper_seconds,omitempty"`
	RPOZero      bool             `json:"rpo_zero"`
	RPOBasis     string           `json:"rpo_basis,omitempty"`
	RPOObjective *float64         `json:"rpo_objective_seconds,omitempty"`
	RPOVerdict   evidence.Verdict `json:"rpo_verdict,omitempty"`
	RTO          *float64         `json:"rto_seconds,omitempty"`
	RTOObjective *float64         `json:"rto_objective_seconds,omitempty"`
	RTOVerdict   evidence.Verdict `json:"rto_verdict,omitempty"`
	Costliest    string           `json:"costliest_phase,omitempty"`

	ChecksPassed int    `json:"checks_passed"`
	Checks       int    `json:"checks"`
	FenceMissing int    `json:"fence_missing"`
	CleanupDone  bool   `json:"cleanup_done"`
	By           string `json:"by"` // user@host
	Program      string `json:"program"`
	Key          string `json:"key"`    // that signed it
	SHA256       string `json:"sha256"` // of the document
}

func row(doc *evidence.Document) Row {
	d := &doc.Drill
	r := Row{
		ID: d.ID, Started: d.Started.UTC(), Ended: d.Ended.UTC(), Level: d.Level, Verdict: verdictOf(d.Verdict), Reasons: d.Reasons, Target: d.Target.Kind,
		RPOLower: d.RPO.Lower, RPOUpper: d.RPO.Upper, RPOZero: d.RPO.Zero, RPOBasis: d.RPO.Basis, RPOObjective: d.RPO.Objective, RPOVerdict: d.RPO.Verdict,
		RTO: d.RTO.Achieved, RTOObjective: d.RTO.Objective, RTOVerdict: d.RTO.Verdict, Costliest: d.RTO.Costliest,
		Checks: len(d.Checks), CleanupDone: d.Cleanup.Done, By: d.By.User + "@" + d.By.Host, Program: d.Program,
		Key: doc.Key.String(), SHA256: doc.SHA256,
	}
	if d.Backup != nil {
		r.Backup, r.BackupTaken = d.Backup.Label, d.Backup.Taken.UTC()
	}
	if d.Fence != nil {
		r.FenceMissing = len(d.Fence.Missing)
	}
	for _, c := range d.Checks {
		if c.Verdict == evidence.Passed {
			r.ChecksPassed++
		}
	}
	return r
}

// Summary is the history for machines: docs/json.md.
type Summary struct {
	Cluster     string             `json:"cluster"`
	Made        time.Time          `json:"made"`
	Since       time.Time          `json:"since,omitzero"`
	LastPassed  *Row               `json:"last_passed"` // newest standard or deep drill that passed; null: none
	LastAge     *float64           `json:"last_passed_age_seconds"`
	Drills      []Row              `json:"drills"` // oldest first
	NeverTested []evidence.Covered `json:"never_tested"`
	WindowFrom  time.Time          `json:"window_from,omitzero"`
	WindowTo    time.Time          `json:"window_to,omitzero"`
	StagingLeft []string           `json:"staging_left"`
	Unusable    []Unusable         `json:"unusable"`
	Breaks      []Unusable         `json:"chain_breaks"`
	KeysTrusted bool               `json:"keys_trusted"`
}

// Summary makes the document. Lists are never null.
func (h *History) Summary() Summary {
	s := Summary{
		Cluster: h.Cluster, Made: h.Made, Since: h.Since, Drills: []Row{}, StagingLeft: append([]string{}, h.StagingLeft()...),
		Unusable: append([]Unusable{}, h.Unusable...), Breaks: []Unusable{}, KeysTrusted: h.Trusted,
	}
	for _, d := range h.Drills {
		s.Drills = append(s.Drills, row(d))
	}
	if d := h.LastPassed(); d != nil {
		r, age := row(d), max(0, h.Made.Sub(d.Drill.Ended).Seconds())
		s.LastPassed, s.LastAge = &r, &age
	}
	c, _ := h.Coverage()
	s.NeverTested = append([]evidence.Covered{}, NeverTested(c)...)
	if c != nil {
		s.WindowFrom, s.WindowTo = c.From, c.To
	}
	for _, b := range h.Breaks {
		s.Breaks = append(s.Breaks, Unusable{ID: b.ID, Reason: b.Reason})
	}
	return s
}

var csvHeader = []string{
	"id", "started", "ended", "level", "verdict", "reasons", "backup", "backup_taken", "target",
	"rpo_lower_seconds", "rpo_upper_seconds", "rpo_zero", "rpo_basis", "rpo_objective_seconds", "rpo_verdict",
	"rto_seconds", "rto_objective_seconds", "rto_verdict", "costliest_phase",
	"checks_passed", "checks", "fence_missing", "cleanup_done", "by", "program", "key", "sha256",
}

// CSV writes one line a drill, oldest first, under a line of names. A text that
// a spreadsheet would take for a formula gets an apostrophe in front.
func (h *History) CSV(w io.Writer) error {
	out := csv.NewWriter(w)
	_ = out.Write(csvHeader) // its error comes again from Error
	for _, d := range h.Drills {
		_ = out.Write(row(d).cells())
	}
	out.Flush()
	return out.Error()
}

func (r Row) cells() []string {
	cells := []string{
		r.ID, stamp(r.Started), stamp(r.Ended), string(r.Level), string(r.Verdict), strings.Join(r.Reasons, " / "), r.Backup, stamp(r.BackupTaken), r.Target,
		number(r.RPOLower), number(r.RPOUpper), strconv.FormatBool(r.RPOZero), r.RPOBasis, number(r.RPOObjective), string(r.RPOVerdict),
		number(r.RTO), number(r.RTOObjective), string(r.RTOVerdict), r.Costliest,
		strconv.Itoa(r.ChecksPassed), strconv.Itoa(r.Checks), strconv.Itoa(r.FenceMissing), strconv.FormatBool(r.CleanupDone), r.By, r.Program, r.Key, r.SHA256,
	}
	for i := range cells {
		cells[i] = cell(cells[i])
	}
	return cells
}

// cell takes from a text what makes a spreadsheet compute it: OWASP's list of
// first characters, and their full-width forms that some programs take as well.
func cell(s string) string {
	s = clean(s)
	if r := []rune(s); len(r) > 0 && slices.Contains([]rune("=+-@|%＝＋－＠"), r[0]) {
		return "'" + s
	}
	return s
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func number(f *float64) string {
	if f == nil {
		return ""
	}
	return strconv.FormatFloat(*f, 'f', -1, 64)
}
