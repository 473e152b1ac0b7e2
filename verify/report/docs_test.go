package report_test

import (
	"bytes"
	"os"
	"regexp"
	"testing"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// docs/report.md names each metric that there is, and no other.
func TestDocsMetrics(t *testing.T) {
	page, err := os.ReadFile("../../docs/report.md")
	if err != nil {
		t.Fatal(err)
	}
	all := season(3, passed)
	for _, l := range []evidence.Level{evidence.Deep, evidence.Quick} {
		d := failed(began.AddDate(0, 0, -30))
		d.Level = l
		one := 1.0
		d.RDS = &evidence.RDS{Available: &one, Hydrated: &one, Exposure: &one}
		d.Failover = &evidence.Failover{DowntimeLower: &one, DowntimeUpper: &one}
		all = append([]*evidence.Drill{d}, all...)
		all[0].ID = idOf(began.AddDate(0, 0, -30-len(all)))
	}
	out := written(t, history(t, all...).Prometheus)
	name := regexp.MustCompile(`\blifeboat_[a-z_]+\b`)
	for _, n := range name.FindAll(out, -1) {
		if !bytes.Contains(page, append(append([]byte("`"), n...), '`')) {
			t.Errorf("docs/report.md has no line for %s", n)
		}
	}
	for _, n := range name.FindAll(page, -1) {
		if !regexp.MustCompile(`\b` + string(n) + `\b`).Match(out) {
			t.Errorf("docs/report.md names %s, which there is not", n)
		}
	}
}
