package rds_test

import (
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// A copy that RDS could not restore proves that a recovery fails, at once; it is
// deleted all the same.
func TestRestoreThatFails(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true}) // without data nothing starts
	s.take(t)
	d, err := s.drill(t, nil)
	if !as[*rds.FailedError](err) || d.Verdict != evidence.Failed || !strings.Contains(d.Reasons[0], " is failed") || d.RTO.Achieved != nil {
		t.Errorf("%s: %v, %v", d.Verdict, d.Reasons, err)
	}
	if !d.Cleanup.Done || len(s.Names(home)) != 1 {
		t.Errorf("clean-up %+v, there is %v", d.Cleanup, s.Names(home))
	}
}
