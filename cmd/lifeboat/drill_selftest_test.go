package main

import (
	"encoding/json"
	"testing"
)

// The selftest catches everything; as a program of its own, so that the fence is
// the real one.
func TestDrillSelftest(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := runProgram(t, t.TempDir(), nil, "drill", "selftest", "--json")
	var r selftestReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if code != 0 || r.Missed != 0 || r.Caught != len(r.Outcomes) || r.Caught < 17 {
		t.Errorf("exit code %d: %d caught, %d missed\n%s", code, r.Caught, r.Missed, stderr)
	}
	for _, o := range r.Outcomes {
		if !o.Caught {
			t.Errorf("%s: %s", o.Broken, o.By)
		}
	}
}
