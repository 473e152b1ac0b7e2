package main

import (
	"testing"
	"time"
)

// What is proven to be lost is held against the objective; what may be lost is not.
func TestWALStatusObjective(t *testing.T) {
	least, most := 90.0, 100.0
	for name, c := range map[string]struct {
		rpo      time.Duration
		exposure exposureReport
		windows  int
		code     exitCode
	}{
		"missed":             {time.Minute, exposureReport{Least: &least, Most: &most}, 1, exitMissed},
		"met":                {2 * time.Minute, exposureReport{Least: &least, Most: &most}, 1, 0},
		"not proven":         {time.Minute, exposureReport{Most: &most}, 1, 0},
		"no objective":       {0, exposureReport{Least: &least, Most: &most}, 1, 0},
		"nothing to restore": {2 * time.Minute, exposureReport{}, 0, exitFailed},
	} {
		r := walStatusReport{rpo: c.rpo, Systems: []systemReport{{Exposure: c.exposure, Windows: make([]windowReport, c.windows)}}}
		err := r.verdict()
		if code, _ := classify(err); err == nil && c.code != 0 || err != nil && code != c.code {
			t.Errorf("%s: %v, want code %d", name, err, c.code)
		}
	}
}
