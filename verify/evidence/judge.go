package evidence

import (
	"fmt"
	"slices"
	"strings"
)

// Judge sets the verdict and the reasons from checks, objectives and phases. It
// is failed when a required check or an objective failed, passed when all of
// them passed and there was at least one check, unknown in every other case.
// Faults are failures of the drill itself, such as a WAL gap: the drill failed
// when there is one.
func (d *Drill) Judge(faults ...string) {
	failed, unknown := slices.Clone(faults), []string{}
	required := 0
	for _, c := range d.Checks {
		if !c.Required {
			continue
		}
		required++
		switch line := c.Name + suffixed(c.Detail); c.Verdict {
		case Passed:
		case Failed:
			failed = append(failed, "check failed: "+line)
		default:
			unknown = append(unknown, "check not proven: "+line)
		}
	}
	switch d.RPO.Verdict {
	case Failed:
		failed = append(failed, fmt.Sprintf("RPO objective missed: %s would have been lost, %s are allowed", d.RPO.Loss(), Seconds(*d.RPO.Objective)))
	case Unknown:
		unknown = append(unknown, "RPO not proven"+suffixed(d.RPO.Reason))
	}
	switch d.RTO.Verdict {
	case Failed:
		failed = append(failed, fmt.Sprintf("RTO objective missed: %s, %s are allowed; most of it, %s, went into %s",
			Seconds(*d.RTO.Achieved), Seconds(*d.RTO.Objective), Seconds(d.phase(d.RTO.Costliest).Seconds), PhaseWords(d.RTO.Costliest)))
	case Unknown:
		unknown = append(unknown, "RTO not measured")
	}
	d.Reasons = append(failed, unknown...)
	switch {
	case len(failed) > 0:
		d.Verdict = Failed
	case len(unknown) > 0 || required == 0:
		d.Verdict = Unknown
	default:
		d.Verdict = Passed
	}
	if d.Verdict == Unknown && len(d.Reasons) == 0 {
		d.Reasons = []string{"nothing was checked"}
	}
}

// Measure sets the achieved RTO, the costliest phase, and the verdicts on both
// objectives from what was measured. done says that the drill got to the end of
// its required checks and they passed; without it there is no achieved RTO.
func (d *Drill) Measure(total float64, done bool) {
	d.RTO.Costliest = ""
	for _, p := range d.Phases {
		if done && p.Start >= total { // it came after
			continue
		}
		if d.RTO.Costliest == "" || p.Seconds > d.phase(d.RTO.Costliest).Seconds {
			d.RTO.Costliest = p.Name
		}
	}
	d.RTO.Achieved = nil
	if done {
		d.RTO.Achieved = &total
	}
	d.RTO.Verdict = meets(d.RTO.Achieved, d.RTO.Objective)
	d.RPO.Verdict = meets(d.RPO.Upper, d.RPO.Objective)
	// What is certainly too much fails even where the upper bound is not known.
	if d.RPO.Verdict == Unknown && meets(d.RPO.Lower, d.RPO.Objective) == Failed {
		d.RPO.Verdict = Failed
	}
}

// Loss says for people what would have been lost.
func (r RPO) Loss() string {
	switch {
	case r.Zero:
		return "nothing"
	case r.Upper == nil && r.Lower == nil:
		return "an unknown amount"
	case r.Upper == nil:
		return "at least " + Seconds(*r.Lower)
	case r.Lower == nil || *r.Lower == 0:
		return "up to " + Seconds(*r.Upper)
	}
	return Seconds(*r.Lower) + " to " + Seconds(*r.Upper)
}

func meets(achieved, objective *float64) Verdict {
	switch {
	case objective == nil:
		return ""
	case achieved == nil:
		return Unknown
	case *achieved <= *objective:
		return Passed
	}
	return Failed
}

func (d *Drill) phase(name string) Phase {
	for _, p := range d.Phases {
		if p.Name == name {
			return p
		}
	}
	return Phase{}
}

func suffixed(detail string) string {
	if detail == "" {
		return ""
	}
	return ": " + detail
}

// PhaseWords says what a phase is, for people.
func PhaseWords(name string) string {
	switch name {
	case PhasePlan:
		return "planning"
	case PhaseFiles:
		return "restoring the files"
	case PhaseWAL:
		return "fetching the WAL"
	case PhaseTables:
		return "comparing the tables with the backup's"
	case PhaseConsistent:
		return "recovery to the end of the backup"
	case PhaseReplay:
		return "recovery to the end"
	case PhaseAccepting:
		return "opening the server"
	case PhaseChecks:
		return "the checks"
	case PhaseRestore:
		return "the restore by RDS"
	case PhaseInstance:
		return "making the instance"
	case PhaseHydrate:
		return "reading every block"
	case PhaseFailover:
		return "the failover"
	}
	return name
}

// Seconds writes a length of time for people: "0.42 s", "12.3 s", "4 min 2 s",
// "3 h 5 min", "2 d 4 h".
func Seconds(s float64) string {
	n := int64(s + 0.5)
	switch {
	case s < 10:
		return fmt.Sprintf("%.2f s", s)
	case s < 60:
		return fmt.Sprintf("%.1f s", s)
	case n < 3600:
		return pair(n/60, "min", n%60, "s")
	case n < 86400:
		return pair(n/3600, "h", n%3600/60, "min")
	}
	return pair(n/86400, "d", n%86400/3600, "h")
}

func pair(a int64, unit string, b int64, smaller string) string {
	s := fmt.Sprintf("%d %s", a, unit)
	if b > 0 {
		s += fmt.Sprintf(" %d %s", b, smaller)
	}
	return strings.TrimSpace(s)
}
