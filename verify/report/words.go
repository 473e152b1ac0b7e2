package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// clean makes one harmless line of a text from evidence: control characters,
// which a terminal obeys, and marks that turn the direction of writing, which
// make a line look like another one, become U+FFFD; line feeds and tabs spaces.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r', r == '\u2028', r == '\u2029':
			return ' '
		case repo.Steers(r), r == '\uFFFE', r == '\uFFFF':
			return '\uFFFD'
		}
		return r
	}, s))
}

// verdictOf is v, and unknown where v is none of the three.
func verdictOf(v evidence.Verdict) evidence.Verdict {
	if v == evidence.Passed || v == evidence.Failed {
		return v
	}
	return evidence.Unknown
}

// meaning says what the verdict on a drill means for the reader.
func meaning(d *evidence.Drill) string {
	switch {
	case verdictOf(d.Verdict) == evidence.Passed && d.Failover != nil:
		return "another zone took over, and what was promised holds"
	case verdictOf(d.Verdict) == evidence.Failed:
		return "what was promised does not hold"
	case verdictOf(d.Verdict) == evidence.Unknown:
		return "not proven either way: do not count on it"
	case !Restores(d.Level):
		return "what a restore needs is there; nothing was restored"
	}
	if d.RDS != nil {
		return "the copy was restored, and what was promised holds"
	}
	return "the backup was restored, and what was promised holds"
}

// levelWords names what was done.
func levelWords(l evidence.Level) string {
	if l == evidence.FailoverLevel {
		return "failover"
	}
	return string(l) + " drill"
}

// objectiveWords says whether an objective was met.
func objectiveWords(objective *float64, v evidence.Verdict) string {
	switch {
	case objective == nil:
		return "no objective"
	case v == evidence.Passed:
		return "met"
	case v == evidence.Failed:
		return "MISSED"
	}
	return "not proven"
}

func achievedRTO(r evidence.RTO) string {
	if r.Achieved == nil {
		return "not reached"
	}
	return evidence.Seconds(*r.Achieved)
}

// shortLoss is RPO.Loss in few letters, for a column.
func shortLoss(r evidence.RPO) string {
	switch {
	case r.Zero:
		return "nothing"
	case r.Upper != nil:
		return "up to " + evidence.Seconds(*r.Upper)
	case r.Lower != nil:
		return "at least " + evidence.Seconds(*r.Lower)
	}
	return "unknown"
}

func basisWords(basis string) string {
	switch basis {
	case "primary":
		return "measured against the primary"
	case "host":
		return "measured by this host's clock, not the primary's"
	case "archive":
		return "measured against the archive, not the primary"
	}
	return "not measured"
}

func size(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

// rate is bytes a second for people, empty where there is none.
func rate(bytes int64, seconds float64) string {
	if bytes <= 0 || seconds <= 0 {
		return ""
	}
	return size(int64(float64(bytes)/seconds)) + "/s"
}

// replayRate is WAL replayed a second: over both phases that replay.
func replayRate(d *evidence.Drill) string {
	var bytes int64
	var seconds float64
	for _, p := range d.Phases {
		if p.Name == evidence.PhaseConsistent || p.Name == evidence.PhaseReplay {
			bytes, seconds = bytes+p.Bytes, seconds+p.Seconds
		}
	}
	return rate(bytes, seconds)
}

func utc(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02 15:04:05") + " UTC"
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

// ago is a span of time for people, never negative.
func ago(from, to time.Time) string { return evidence.Seconds(max(0, to.Sub(from).Seconds())) }

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

func thousands(n int64) string { return humanize.Comma(n) }

// postgresVersion writes server_version_num: 150006 is 15.6.
func postgresVersion(n int) string {
	if n < 100000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d.%d", n/10000, n%10000)
}

// targetWords says where recovery was to end.
func targetWords(t evidence.Target) string {
	s := "the end of the archive"
	if t.Kind == "snapshot" {
		s = "the moment of the snapshot"
	}
	if t.Kind == "immediate" {
		s = "the end of the backup itself"
	}
	if t.Kind == "time" {
		s = utc(t.Time)
		if t.Random {
			s += ", chosen by chance"
		}
	}
	if t.Timeline > 0 {
		s += fmt.Sprintf(", timeline %d", t.Timeline)
	}
	return s
}

// pickedWords says how the backup was chosen.
func pickedWords(picked string) string {
	switch picked {
	case "latest":
		return "the latest"
	case "random":
		return "chosen by chance"
	}
	return "chosen " + clean(picked)
}

// wrap breaks s into lines of at most width letters, at spaces where it can.
func wrap(s string, width int) []string {
	var lines []string
	line := []rune{}
	for _, word := range strings.Fields(s) {
		w := []rune(word)
		if len(line) > 0 && len(line)+1+len(w) > width {
			lines, line = append(lines, string(line)), nil
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		for line = append(line, w...); len(line) > width; line = line[width:] {
			lines = append(lines, string(line[:width]))
		}
	}
	if len(line) > 0 {
		lines = append(lines, string(line))
	}
	return lines
}
