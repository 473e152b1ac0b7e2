package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

var update = flag.Bool("update", false, "write the golden files again")

func samples() map[string]*evidence.Drill {
	return map[string]*evidence.Drill{"passed": passed(began), "failed": failed(began), "unknown": unknown(began), "first": first(began), "hostile": evil(began)}
}

func golden(t *testing.T, name string, have []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, have, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Errorf("%s is not what it was; go test ./verify/report -update writes it again\nhave:\n%s\nwant:\n%s", path, have, want)
	}
}

func written(t *testing.T, write func(w io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sgr is what a terminal may be told here: colours.
var sgr = regexp.MustCompile(`\x1b\[[0-9;]*m`)

func TestText(t *testing.T) {
	for name, d := range samples() {
		plain := written(t, func(w io.Writer) error { return report.Text(w, d, nil) })
		golden(t, name+".txt", plain)
		checkText(t, name, plain)
		painted := written(t, func(w io.Writer) error {
			return report.Text(w, d, func(s, colour string) string { return "\x1b[" + colour + "m" + s + "\x1b[0m" })
		})
		if !bytes.Contains(painted, []byte("\x1b[")) || !bytes.Equal(sgr.ReplaceAll(painted, nil), plain) {
			t.Errorf("%s: with colours it is another text:\n%s", name, painted)
		}
	}
}

func checkText(t *testing.T, name string, text []byte) {
	t.Helper()
	for l := range strings.Lines(string(text)) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > 80 {
			t.Errorf("%s: a line of %d columns: %s", name, n, l)
		}
		for _, r := range strings.TrimSuffix(l, "\n") {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%s: %q reaches the terminal", name, r)
			}
		}
	}
}

func TestHistoryText(t *testing.T) {
	key := newKey(t)
	entries := chain(t, key, season(9, failed)...)
	entries[2] = evidence.Entry{ID: entries[2].ID, Err: evidence.ErrSignature}
	for name, h := range map[string]*report.History{
		"history":       report.NewHistory("shop", entries, []repo.PublicKey{key.Public()}, began.AddDate(0, 0, -90), began.Add(time.Hour)),
		"history_empty": report.NewHistory("shop", nil, nil, time.Time{}, began),
		"history_evil":  history(t, passed(began.AddDate(0, 0, -1)), evil(began)),
	} {
		text := written(t, func(w io.Writer) error { return h.Text(w, nil) })
		golden(t, name+".txt", text)
		checkText(t, name, text)
	}
}

// What another key signed is evidence of nothing.
func TestOnlyTrustedCount(t *testing.T) {
	mine, other := newKey(t), newKey(t)
	h := report.NewHistory("shop", chain(t, other, passed(began)), []repo.PublicKey{mine.Public()}, time.Time{}, began.Add(time.Hour))
	if h.LastPassed() != nil || len(h.Drills) != 0 || len(h.Unusable) != 1 {
		t.Errorf("a drill that somebody else signed counts: %+v", h)
	}
	quick := passed(began)
	quick.Level = evidence.Quick
	if h := history(t, quick); h.LastPassed() != nil {
		t.Error("a quick drill counts as a restore")
	}
}

func TestStagingLeft(t *testing.T) {
	a, b, c := passed(began), passed(began.Add(time.Hour)), passed(began.Add(2*time.Hour))
	a.Cleanup.Done, b.Cleanup.Done = false, false
	c.Cleanup.Older = []string{a.ID}
	if left := history(t, a, b, c).StagingLeft(); len(left) != 1 || left[0] != b.ID {
		t.Errorf("left: %v", left)
	}
}

func TestMissed(t *testing.T) {
	const week = 7 * 24 * time.Hour
	at := func(days int, make func(time.Time) *evidence.Drill) *evidence.Drill {
		return make(began.AddDate(0, 0, days))
	}
	quick := func(when time.Time) *evidence.Drill { d := passed(when); d.Level = evidence.Quick; return d }
	for name, c := range map[string]struct {
		drills []*evidence.Drill
		days   int
		every  time.Duration
		missed []int // day at which a span begins
		ran    int   // in the first that was missed
		gap    int   // days
	}{
		"each week":            {[]*evidence.Drill{at(0, passed), at(8, passed), at(20, passed)}, 21, week, nil, 0, 12},
		"nothing":              {nil, 21, week, []int{0, 7, 14}, 0, 21},
		"at the border":        {[]*evidence.Drill{at(7, passed)}, 14, week, []int{0}, 0, 7},
		"failed":               {[]*evidence.Drill{at(1, failed), at(2, unknown), at(8, passed)}, 14, week, []int{0}, 2, 8},
		"failed, then passed":  {[]*evidence.Drill{at(1, failed), at(2, passed)}, 7, week, nil, 0, 5},
		"quick is no restore":  {[]*evidence.Drill{at(1, quick)}, 7, week, []int{0}, 0, 7},
		"not over yet":         {[]*evidence.Drill{at(1, passed)}, 13, week, nil, 0, 12},
		"outside":              {[]*evidence.Drill{at(-1, passed), at(7, passed)}, 7, week, []int{0}, 0, 7},
		"shorter than a span":  {nil, 3, week, nil, 0, 3},
		"no interval is given": {nil, 21, 0, nil, 0, 21},
	} {
		h := history(t, c.drills...)
		to := began.AddDate(0, 0, c.days)
		missed := report.Missed(h.Drills, began, to, c.every)
		var have []int
		for _, m := range missed {
			have = append(have, int(m.From.Sub(began)/(24*time.Hour)))
		}
		if len(have) != len(c.missed) {
			t.Errorf("%s: missed at the days %v, want %v", name, have, c.missed)
			continue
		}
		for i := range have {
			if have[i] != c.missed[i] {
				t.Errorf("%s: missed at the days %v, want %v", name, have, c.missed)
			}
		}
		if len(missed) > 0 && len(missed[0].Ran) != c.ran {
			t.Errorf("%s: in the first %v ran", name, missed[0].Ran)
		}
		if gap := report.LongestGap(h.Drills, began, to); gap != time.Duration(c.gap)*24*time.Hour {
			t.Errorf("%s: the longest gap is %s", name, gap)
		}
	}
}

func TestJUnit(t *testing.T) {
	for name, d := range samples() {
		out := written(t, func(w io.Writer) error { return report.JUnit(w, d) })
		golden(t, name+".xml", out)
		var suite struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Errors   int `xml:"errors,attr"`
			Cases    []struct {
				Name    string    `xml:"name,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		}
		if err := xml.Unmarshal(out, &suite); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if suite.Tests != len(suite.Cases) || len(suite.Cases) < 2 {
			t.Errorf("%s: %d cases, it says %d", name, len(suite.Cases), suite.Tests)
		}
		if green := suite.Failures+suite.Errors == 0; green != (d.Verdict == evidence.Passed) {
			t.Errorf("%s: green is %v, the verdict %s", name, green, d.Verdict)
		}
	}
}

func TestPrometheus(t *testing.T) {
	twice := passed(began.Add(time.Minute))
	twice.Checks[1].Name = twice.Checks[0].Name
	twice.Checks[1].Verdict = evidence.Failed
	for name, h := range map[string]*report.History{
		"history": history(t, first(began.AddDate(0, 0, -3)), passed(began.AddDate(0, 0, -2)), failed(began)),
		"never":   report.NewHistory("shop", nil, nil, time.Time{}, began),
		"hostile": report.NewHistory(hostile, chain(t, newKey(t), evil(began), twice), nil, time.Time{}, began),
	} {
		out := written(t, h.Prometheus)
		golden(t, name+".prom", out)
		if !bytes.Contains(out, []byte("\nlifeboat_restore_last_passed_timestamp_seconds{")) {
			t.Errorf("%s: what the alert needs is missing", name)
		}
		checkMetrics(t, name, string(out))
	}
}

// What one source on RDS has proven hides nothing of another.
func TestPrometheusOfSources(t *testing.T) {
	of := func(source string, d *evidence.Drill) *evidence.Drill {
		d.RDS = &evidence.RDS{Source: source}
		return d
	}
	switched := passed(began)
	switched.Level, switched.Failover = evidence.FailoverLevel, &evidence.Failover{Source: "bank", DowntimeUpper: new(float64)}
	h := history(t, of("bank", failed(began.AddDate(0, 0, -2))), of("shop", passed(began.AddDate(0, 0, -1))), switched)
	out := string(written(t, h.Prometheus))
	checkMetrics(t, "sources", out)
	for _, want := range []string{
		`lifeboat_restore_last_passed_timestamp_seconds{cluster="shop",source="bank"} 0`,
		`lifeboat_drill_verdict{cluster="shop",source="bank",level="standard",verdict="failed"} 1`,
		`lifeboat_drill_verdict{cluster="shop",source="shop",level="standard",verdict="passed"} 1`,
		`lifeboat_failover_downtime_upper_seconds{cluster="shop",source="bank",level="failover"} 0`,
	} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("%s is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out, `last_passed_timestamp_seconds{cluster="shop"}`) {
		t.Errorf("a cluster that no drill was of has a metric:\n%s", out)
	}
}

// exposition is a line of Prometheus's text format 0.0.4, as far as it is used
// here: https://prometheus.io/docs/instrumenting/exposition_formats/.
var exposition = regexp.MustCompile(`^(# HELP [a-z_]+ ([^\\\n]|\\[\\n])*|# TYPE [a-z_]+ (gauge|counter)|` +
	`[a-z_]+\{[a-z]+="([^"\\\n]|\\["\\n])*"(,[a-z]+="([^"\\\n]|\\["\\n])*")*\} -?[0-9][0-9.e+-]*)\n$`)

// checkMetrics holds the output to what the parser does not: a series once, all
// of a name together with a help text, known labels only.
func checkMetrics(t *testing.T, name, out string) {
	t.Helper()
	if !utf8.ValidString(out) {
		t.Errorf("%s: not UTF-8", name)
	}
	series, done, now := map[string]bool{}, map[string]bool{}, ""
	label := regexp.MustCompile(`[{,]([a-z]+)="`)
	for l := range strings.Lines(out) {
		if !exposition.MatchString(l) {
			t.Errorf("%s: no line of Prometheus's text format: %q", name, l)
		}
		metric, _, _ := strings.Cut(l, "{")
		if help, ok := strings.CutPrefix(l, "# HELP "); ok {
			metric, _, _ = strings.Cut(help, " ")
			if done[metric] {
				t.Errorf("%s: %s comes twice", name, metric)
			}
			now, done[metric] = metric, true
			continue
		}
		if strings.HasPrefix(l, "#") {
			continue
		}
		key := l[:strings.LastIndex(l, " ")]
		if metric != now || series[key] {
			t.Errorf("%s: %s below %s, seen before: %v", name, l, now, series[key])
		}
		series[key] = true
		for _, m := range label.FindAllStringSubmatch(l, -1) {
			if !strings.Contains(" cluster source level verdict phase required check ", " "+m[1]+" ") {
				t.Errorf("%s: the label %s", name, m[1])
			}
		}
	}
}

func TestCSV(t *testing.T) {
	quick := first(began.AddDate(0, 0, -3))
	quick.By.User = "=HYPERLINK(1)"
	quick.Reasons = []string{"-1+1"}
	quick.Program = "\t@SUM(1)"
	h := history(t, quick, passed(began.AddDate(0, 0, -2)), evil(began))
	out := written(t, h.CSV)
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	for _, r := range rows {
		for _, c := range r {
			if c != "" && strings.ContainsAny(c[:1], "=+-@\t\r") {
				t.Errorf("a spreadsheet would compute %q", c)
			}
		}
	}
	// Keys and hashes differ from run to run.
	for i := range rows[1:] {
		rows[i+1][len(rows[0])-1], rows[i+1][len(rows[0])-2] = "sum", "key"
	}
	golden(t, "history.csv", written(t, func(w io.Writer) error { return csv.NewWriter(w).WriteAll(rows) }))
}

func TestSummary(t *testing.T) {
	s := history(t, passed(began.AddDate(0, 0, -2)), failed(began)).Summary()
	if s.LastPassed == nil || *s.LastAge != (49*time.Hour-254*time.Second).Seconds() || len(s.NeverTested) != 1 || len(s.StagingLeft) != 1 || !s.KeysTrusted {
		t.Errorf("the summary is %+v", s)
	}
	empty := report.NewHistory("shop", nil, nil, time.Time{}, began).Summary()
	if empty.Drills == nil || empty.Unusable == nil || empty.Breaks == nil || empty.StagingLeft == nil || empty.NeverTested == nil {
		t.Errorf("a list is null: %+v", empty)
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lifeboat.prom")
	for _, text := range []string{"one", "another"} {
		if err := report.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		have, err := os.ReadFile(path)
		if err != nil || string(have) != text {
			t.Errorf("it holds %q: %v", have, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the mode is %v: %v", info.Mode(), err)
	}
	blocked := filepath.Join(filepath.Dir(path), "directory")
	if err := os.MkdirAll(filepath.Join(blocked, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := report.WriteFile(blocked, nil); err == nil {
		t.Error("a directory was replaced")
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 2 {
		t.Errorf("something was left: %v", left)
	}
	if err := report.WriteFile(filepath.Join(path, "below"), nil); err == nil || errors.Is(err, os.ErrExist) {
		t.Errorf("below a file: %v", err)
	}
}
