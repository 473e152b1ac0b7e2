package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

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
