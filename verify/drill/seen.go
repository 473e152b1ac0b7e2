package drill

import (
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// mostLines is how many lines a check may say of the fence.
const mostLines = 100

// clean refuses what no check can have seen, and makes its texts fit for a report.
func (s *seen) clean() error {
	switch s.Verdict {
	case evidence.Passed, evidence.Failed, evidence.Unknown:
	default:
		return errBadAnswer
	}
	if len(s.Proven) > mostLines || len(s.Missing) > mostLines {
		return errBadAnswer
	}
	s.Detail = probe.OneLine(s.Detail)
	for _, lines := range [][]string{s.Proven, s.Missing} {
		for i := range lines {
			lines[i] = probe.OneLine(lines[i])
		}
	}
	return nil
}

// clean takes out what no log can have said.
func (r *recovery) clean() {
	for _, t := range []*time.Time{&r.Consistent, &r.Replayed, &r.Ended} {
		if y := t.Year(); y < 2000 || y > 9999 {
			*t = time.Time{}
		}
	}
	r.Why = probe.OneLine(r.Why)
	if f := r.Failed; f != nil {
		f.Text, f.Hint = probe.OneLine(f.Text), probe.OneLine(f.Hint)
		if f.Code < 0 || f.Code > 255 {
			f.Code = 0
		}
	}
}
