package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

type junitSuite struct {
	XMLName   xml.Name    `xml:"testsuite"`
	Name      string      `xml:"name,attr"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Errors    int         `xml:"errors,attr"`
	Skipped   int         `xml:"skipped,attr"`
	Time      string      `xml:"time,attr"`
	Timestamp string      `xml:"timestamp,attr"`
	Hostname  string      `xml:"hostname,attr"`
	Cases     []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr,omitempty"`
	Failure *junitOutcome `xml:"failure,omitempty"`
	Error   *junitOutcome `xml:"error,omitempty"`
	Skipped *junitOutcome `xml:"skipped,omitempty"`
}

type junitOutcome struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes a drill as one suite of tests, for CI: the drill itself, its
// objectives, the clean-up and each check. Failed is a failure; unknown is an
// error, since what is not proven must not be green. What is only advisory and
// did not pass is skipped, with the reason.
func JUnit(w io.Writer, d *evidence.Drill) error {
	s := junitSuite{
		Name:      "lifeboat drill " + clean(d.Cluster),
		Time:      fmt.Sprintf("%.3f", d.Ended.Sub(d.Started).Seconds()),
		Timestamp: d.Started.UTC().Format("2006-01-02T15:04:05"), // the schema knows no zone
		Hostname:  clean(d.By.Host),
	}
	s.add(junitCase{Class: "lifeboat.drill", Name: clean(string(d.Level)) + " drill", Time: s.Time}, verdictOf(d.Verdict), true, strings.Join(d.Reasons, "\n"))
	if d.RPO.Objective != nil {
		s.add(junitCase{Class: "lifeboat.objective", Name: "RPO"}, verdictOf(d.RPO.Verdict), true,
			fmt.Sprintf("achieved: %s; objective: %s", d.RPO.Loss(), evidence.Seconds(*d.RPO.Objective)))
	}
	if d.RTO.Objective != nil {
		s.add(junitCase{Class: "lifeboat.objective", Name: "RTO"}, verdictOf(d.RTO.Verdict), true,
			fmt.Sprintf("achieved: %s; objective: %s", achievedRTO(d.RTO), evidence.Seconds(*d.RTO.Objective)))
	}
	cleaned := evidence.Passed
	if !d.Cleanup.Done {
		cleaned = evidence.Unknown
	}
	s.add(junitCase{Class: "lifeboat.drill", Name: "clean-up"}, cleaned, d.Cleanup.Kept == "", cleanupWords(d))
	for _, c := range d.Checks {
		class := "lifeboat.check.advisory"
		if c.Required {
			class = "lifeboat.check.required"
		}
		s.add(junitCase{Class: class, Name: clean(c.Name), Time: fmt.Sprintf("%.3f", c.Seconds)}, verdictOf(c.Verdict), c.Required, c.Detail)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// add counts a case by its verdict. The text may have more than one line.
func (s *junitSuite) add(c junitCase, v evidence.Verdict, required bool, text string) {
	var lines []string
	for l := range strings.Lines(text) {
		lines = append(lines, clean(l))
	}
	if len(lines) == 0 {
		lines = []string{string(v)}
	}
	outcome := &junitOutcome{Message: lines[0], Text: strings.Join(lines, "\n")}
	s.Tests++
	switch {
	case v == evidence.Passed:
	case !required:
		if v == evidence.Failed {
			outcome.Message = "failed, advisory: " + outcome.Message
		}
		c.Skipped = outcome
		s.Skipped++
	case v == evidence.Failed:
		c.Failure = outcome
		s.Failures++
	default:
		outcome.Message = "unknown: " + outcome.Message
		c.Error = outcome
		s.Errors++
	}
	s.Cases = append(s.Cases, c)
}
