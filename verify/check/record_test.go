package check_test

import (
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// Checks of every hour do not hide the weekly one that read every byte.
func TestSummariesGoBackToAFullRead(t *testing.T) {
	s := newSite(t)
	began := s.now.Add(-48 * time.Hour)
	for i := range 40 {
		at := began.Add(time.Duration(i) * time.Hour)
		res := &check.Result{Began: at, Ended: at.Add(time.Second)}
		s.check(check.Record(t.Context(), s.repo, res, check.Options{Read: i == 5 || i == 10}))
	}
	all, err := check.Summaries(t.Context(), s.repo)
	s.check(err)
	if oldest := all[len(all)-1]; len(all) != 30 || !oldest.Read || !oldest.Began.Equal(began.Add(10*time.Hour)) {
		t.Errorf("%d summaries, the oldest %+v", len(all), oldest)
	}
}
