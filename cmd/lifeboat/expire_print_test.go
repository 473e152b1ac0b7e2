package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// What was to go and did not, because the store failed, is not told as gone; and
// what can be restored after it is not told before it is known.
func TestExpireReportTellsWhatWasDone(t *testing.T) {
	decision := func(label string, keep bool) *expire.Decision {
		return &expire.Decision{Backup: &expire.Backup{Info: repo.Info{Label: label}}, Keep: keep, Why: []string{"keep_last 1"}}
	}
	res := &expire.Result{Dropped: []string{"gone"}, Before: map[postgres.SystemID]wal.Standing{1: {}},
		Plan: &expire.Plan{Policy: expire.Policy{KeepLast: 1}, Decisions: []*expire.Decision{decision("stays", true), decision("left", false), decision("gone", false)}}}
	report := newExpireReport(res, false, storage.ErrUnavailable)
	var text bytes.Buffer
	report.write(&text)
	if report.Removed.Backups != 1 || report.Error == "" || !strings.Contains(text.String(), "removed: 1 backup,") || strings.Contains(text.String(), "after") {
		t.Errorf("%+v\n%s", report, text.String())
	}
	for label, verb := range map[string]string{"stays": " keep ", "left": " to remove ", "gone": " remove "} {
		for line := range strings.Lines(text.String()) {
			if strings.HasPrefix(line, label) && !strings.Contains(line, verb) {
				t.Errorf("not%s: %s", verb, line)
			}
		}
	}
	raw, err := json.Marshal(report)
	if err != nil || strings.Contains(string(raw), `"after"`) || !strings.Contains(string(raw), `"error"`) {
		t.Errorf("%v %s", err, raw)
	}
	res.After = map[postgres.SystemID]wal.Standing{}
	raw, err = json.Marshal(newExpireReport(res, false, nil))
	if err != nil || !strings.Contains(string(raw), `"after":[]`) || strings.Contains(string(raw), `"error"`) {
		t.Errorf("%v %s", err, raw)
	}
}

// A backup of which it is not known whether its WAL is archived stays, and the plan
// says why. It is not told as one that cannot be restored, which is not known either.
func TestExpireReportTellsOfADoubt(t *testing.T) {
	now := time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)
	taken := func(label string, days int) *expire.Backup {
		return &expire.Backup{Packs: repo.PackSet{0}, Info: repo.Info{Label: label, System: 1, Timeline: 1, SegSize: 1 << 20, StopTime: now.AddDate(0, 0, -days)}}
	}
	doubted, broken := taken("doubted", 9), taken("broken", 8)
	doubted.Broken = &wal.BackupGapError{Missing: "000000010000000000000004", Doubt: wal.ErrNoHistory}
	broken.Broken = &wal.BackupGapError{Missing: "000000010000000000000005"}
	plan, err := expire.NewPlan(expire.Input{Now: now, Policy: expire.Policy{KeepLast: 1}, Backups: []*expire.Backup{doubted, broken, taken("whole", 1)}})
	if err != nil {
		t.Fatal(err)
	}
	report := newExpireReport(&expire.Result{Plan: plan, Dropped: []string{"broken"}}, true, nil)
	var text bytes.Buffer
	report.write(&text)
	for label, want := range map[string]string{
		"doubted": " keep +it is not known whether its WAL is archived$",
		"broken":  " remove +no rule keeps it .cannot be restored: segment 000000010000000000000005 is not archived",
	} {
		if !regexp.MustCompile("(?m)^" + label + ".*" + want).MatchString(text.String()) {
			t.Errorf("%s: not %q:\n%s", label, want, text.String())
		}
	}
	if !slices.Equal(report.Broken, []string{"broken"}) {
		t.Errorf("%v are told as not restorable", report.Broken)
	}
}
