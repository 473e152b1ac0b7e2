package report

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// levels are all there are: what bounds the label of that name.
var levels = []evidence.Level{evidence.Quick, evidence.Standard, evidence.Deep, evidence.FailoverLevel}

// phases are all there are.
var phases = []string{
	evidence.PhasePlan, evidence.PhaseFiles, evidence.PhaseWAL, evidence.PhaseTables, evidence.PhaseConsistent,
	evidence.PhaseReplay, evidence.PhaseAccepting, evidence.PhaseChecks,
	evidence.PhaseRestore, evidence.PhaseInstance, evidence.PhaseHydrate, evidence.PhaseFailover,
}

// maxCheckName bounds a label that comes from configuration.
const maxCheckName = 100

// metrics collects samples under the name they belong to: the format wants all
// of a name together, and a series once.
type metrics struct {
	families []*family
	byName   map[string]*family
}

type family struct {
	name, help string
	samples    []string
	seen       map[string]bool
}

func (m *metrics) add(name, help string, value float64, labels ...string) {
	f := m.byName[name]
	if f == nil {
		f = &family{name: "lifeboat_" + name, help: help, seen: map[string]bool{}}
		m.families, m.byName[name] = append(m.families, f), f
	}
	var b strings.Builder
	for i := 0; i+1 < len(labels); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(labels[i] + `="` + labelEscapes.Replace(clean(labels[i+1])) + `"`)
	}
	if series := b.String(); !f.seen[series] {
		f.seen[series] = true
		f.samples = append(f.samples, f.name+"{"+series+"} "+strconv.FormatFloat(value, 'f', -1, 64))
	}
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// Prometheus writes metrics in the text format, for the textfile collector of
// node_exporter. Give it the whole history: what lies before Since is not seen.
//
// A file stands still while time goes on, so there are no ages in it but times:
// the rule that alerts subtracts them from time() (docs/report.md).
// restore_last_passed_timestamp_seconds is 0 when no restore was ever proven, so
// that this rule fires then too; everything else that is not known is left out.
// Labels are bounded: cluster, level, phase, verdict, the names of the checks of
// the newest drill of each level, and on RDS the source: each is a database of its
// own, and the drill of one proves nothing of another.
func (h *History) Prometheus(w io.Writer) error {
	m := &metrics{byName: map[string]*family{}}
	h.addCluster(m)
	for _, s := range h.sources() {
		for _, l := range levels {
			h.addLevel(m, s, l)
		}
	}
	var b strings.Builder
	for _, f := range m.families {
		b.WriteString("# HELP " + f.name + " " + f.help + "\n# TYPE " + f.name + " gauge\n")
		b.WriteString(strings.Join(f.samples, "\n") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (h *History) addCluster(m *metrics) {
	for _, s := range h.sources() {
		last := 0.0
		for _, d := range h.Drills {
			if sourceOf(&d.Drill) == s && d.Drill.Verdict == evidence.Passed && Restores(d.Drill.Level) {
				last = unix(d.Drill.Ended)
			}
		}
		m.add("restore_last_passed_timestamp_seconds", "End of the newest standard or deep drill that passed, 0 when none ever did.", last, h.labels(s)...)
	}
	c := h.labels("")
	m.add("evidence_unusable", "Documents of drills that cannot be used: damaged, changed or not signed by a trusted key.", float64(len(h.Unusable)), c...)
	m.add("evidence_chain_breaks", "Places where the chain of documents does not hold.", float64(len(h.Breaks)), c...)
	m.add("drill_staging_left", "Drills of which what they restored is not proven gone.", float64(len(h.StagingLeft())), c...)
	if cover, _ := h.Coverage(); cover != nil {
		m.add("backups", "Backups in the repository when the newest drill looked.", float64(len(cover.Backups)), c...)
		m.add("backups_never_tested", "Backups among them that no drill ever passed with.", float64(len(NeverTested(cover))), c...)
		if !cover.From.IsZero() {
			m.add("recoverable_from_timestamp_seconds", "Begin of the window that could be restored then.", unix(cover.From), c...)
			m.add("recoverable_to_timestamp_seconds", "End of the window that could be restored then.", unix(cover.To), c...)
		}
	}
}

// sourceOf is the database on RDS that a drill or failover was of; "" is the cluster
// whose backups lie in the repository.
func sourceOf(d *evidence.Drill) string {
	switch {
	case d.RDS != nil:
		return d.RDS.Source
	case d.Failover != nil:
		return d.Failover.Source
	}
	return ""
}

// sources are those that drills have been of. Without any drill it is the cluster,
// so that there is something to alert on.
func (h *History) sources() []string {
	var out []string
	for _, d := range h.Drills {
		out = append(out, sourceOf(&d.Drill))
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) == 0 {
		return []string{""}
	}
	return out
}

func (h *History) labels(source string) []string {
	l := []string{"cluster", h.Cluster}
	if source != "" {
		l = append(l, "source", source)
	}
	return l
}

func (h *History) addLevel(m *metrics, source string, level evidence.Level) {
	var newest, passed *evidence.Drill
	for _, doc := range h.Drills {
		if d := &doc.Drill; d.Level == level && sourceOf(d) == source {
			newest = d
			if d.Verdict == evidence.Passed {
				passed = d
			}
		}
	}
	if newest == nil {
		return
	}
	l := add(h.labels(source), "level", string(level))
	for _, v := range []evidence.Verdict{evidence.Passed, evidence.Failed, evidence.Unknown} {
		m.add("drill_verdict", "1 for the verdict of the newest drill, 0 for the others.", truth(verdictOf(newest.Verdict) == v), add(l, "verdict", string(v))...)
	}
	m.add("drill_last_timestamp_seconds", "End of the newest drill.", unix(newest.Ended), l...)
	if passed != nil {
		m.add("drill_last_passed_timestamp_seconds", "End of the newest drill that passed.", unix(passed.Ended), l...)
	}
	addObjectives(m, newest, l)
	addWork(m, newest, l)
	addChecks(m, newest, l)
}

func addObjectives(m *metrics, d *evidence.Drill, l []string) {
	optional := func(name, help string, v *float64) {
		if v != nil {
			m.add(name, help, *v, l...)
		}
	}
	optional("drill_rpo_upper_seconds", "At most this would have been lost, by the newest drill.", d.RPO.Upper)
	optional("drill_rpo_lower_seconds", "At least this would have been lost, by the newest drill.", d.RPO.Lower)
	optional("drill_rpo_objective_seconds", "RPO objective of the newest drill.", d.RPO.Objective)
	m.add("drill_rpo_zero", "1 when the newest drill proved that nothing would have been lost.", truth(d.RPO.Zero), l...)
	optional("drill_rto_seconds", "RTO that the newest drill achieved.", d.RTO.Achieved)
	optional("drill_rto_objective_seconds", "RTO objective of the newest drill.", d.RTO.Objective)
	met := func(name string, v evidence.Verdict) {
		if v != "" {
			m.add(name, "1 when the newest drill met the objective, 0 when it missed it or that is unknown.", truth(v == evidence.Passed), l...)
		}
	}
	met("drill_rpo_objective_met", d.RPO.Verdict)
	met("drill_rto_objective_met", d.RTO.Verdict)
}

func addWork(m *metrics, d *evidence.Drill, l []string) {
	for _, name := range phases {
		seconds, ran := 0.0, false
		for _, p := range d.Phases {
			if p.Name == name {
				seconds, ran = seconds+p.Seconds, true
			}
		}
		if ran {
			m.add("drill_phase_seconds", "Length of a phase of the newest drill.", seconds, add(l, "phase", name)...)
		}
	}
	if d.Backup != nil {
		m.add("drill_backup_bytes", "Size of the backup that the newest drill used.", float64(d.Backup.Bytes), l...)
		m.add("drill_backup_taken_timestamp_seconds", "When that backup was taken.", unix(d.Backup.Taken), l...)
	}
	if d.WAL != nil {
		m.add("drill_wal_bytes", "WAL that the newest drill replayed.", float64(d.WAL.Bytes), l...)
	}
	addRDS(m, d, l)
	if d.Fence != nil {
		m.add("drill_fence_missing", "Parts of the fence that the newest drill could not prove.", float64(len(d.Fence.Missing)), l...)
	}
	m.add("drill_cleanup_done", "1 when what the newest drill restored is proven gone.", truth(d.Cleanup.Done), l...)
}

// addRDS is what a drill on RDS, or a failover, measured beside the rest.
func addRDS(m *metrics, d *evidence.Drill, l []string) {
	optional := func(name, help string, v *float64) {
		if v != nil {
			m.add(name, help, *v, l...)
		}
	}
	if r := d.RDS; r != nil {
		optional("drill_rds_available_seconds", "Until RDS called the copy available.", r.Available)
		optional("drill_rds_hydrated_seconds", "Until every block of the copy had been read once.", r.Hydrated)
		optional("drill_rds_exposure_seconds", "How long ago the latest restorable time was.", r.Exposure)
	}
	if f := d.Failover; f != nil {
		optional("failover_downtime_upper_seconds", "At most this long no write succeeded.", f.DowntimeUpper)
		optional("failover_downtime_lower_seconds", "At least this long no write succeeded.", f.DowntimeLower)
	}
}

func addChecks(m *metrics, d *evidence.Drill, l []string) {
	type kind struct {
		required bool
		verdict  evidence.Verdict
	}
	n := map[kind]int{}
	worst := map[string]bool{}
	for _, c := range d.Checks {
		n[kind{c.Required, verdictOf(c.Verdict)}]++
		name := checkLabel(c.Name)
		before, seen := worst[name]
		worst[name] = c.Verdict == evidence.Passed && (before || !seen)
	}
	for _, required := range []bool{true, false} {
		for _, v := range []evidence.Verdict{evidence.Passed, evidence.Failed, evidence.Unknown} {
			m.add("drill_checks", "Checks of the newest drill.", float64(n[kind{required, v}]), add(l, "required", strconv.FormatBool(required), "verdict", string(v))...)
		}
	}
	for _, c := range d.Checks { // a name that comes twice is one series
		name := checkLabel(c.Name)
		m.add("drill_check_passed", "1 when a check of the newest drill passed, 0 when it failed or is unknown.", truth(worst[name]), add(l, "check", name)...)
	}
}

func checkLabel(name string) string {
	r := []rune(clean(name))
	return string(r[:min(len(r), maxCheckName)])
}

// add appends to a copy.
func add(labels []string, more ...string) []string {
	return append(append([]string{}, labels...), more...)
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
