package evidence_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

func newRecorder(level evidence.Level) *evidence.Recorder {
	return evidence.Begin(evidence.Opening{
		Marker: repo.Marker{Repository: strings.Repeat("ab", 16), Cluster: "shop"}, Program: "test", Level: level, Target: "end",
		Now: time.Now,
	})
}

// A clean-up that takes longer than it may costs the evidence nothing: what comes after
// it has its own time, also when the drill's own is over, and the document says what was
// left.
func TestRecorderSlowCleanUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r := newRecorder(evidence.Standard)
	cancel() // the drill was stopped
	r.Within(ctx, 10*time.Millisecond, func(ctx context.Context) {
		<-ctx.Done() // a tree without an end
		r.Drill.Cleanup.Detail = context.Cause(ctx).Error()
	})
	r.Conclude(evidence.Ending{Failure: "it was stopped", Left: "the staging directory"})
	asked := false
	r.Within(ctx, time.Minute, func(ctx context.Context) { asked = ctx.Err() == nil })
	store := mem.New()
	doc, err := r.Store(ctx, store, newKey(t))
	if err != nil || !asked {
		t.Fatalf("stored: %v; the step before it had time: %t", err, asked)
	}
	found, err := evidence.History(t.Context(), store, doc.Drill.Repository, time.Time{}, nil)
	if err != nil || len(found) != 1 || found[0].Err != nil {
		t.Fatalf("the evidence is not there: %v %v", found, err)
	}
	d := found[0].Doc.Drill
	if want := "the staging directory was not removed: it did not end within 10ms"; d.Verdict != evidence.Failed || len(d.Reasons) == 0 || d.Reasons[0] != want {
		t.Errorf("%s, %q; want failed, %q", d.Verdict, d.Reasons, want)
	}
}

func TestRecorderConclude(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		end     evidence.Ending
		checks  []evidence.Check
		done    bool
		verdict evidence.Verdict
		reason  string
	}{
		{"all passed", evidence.Ending{Proven: true, Took: 1}, []evidence.Check{{Required: true, Verdict: evidence.Passed}}, true, evidence.Passed, ""},
		{"an error that proves", evidence.Ending{Failure: "a gap", Proves: true}, nil, true, evidence.Failed, "a gap"},
		{"an error that does not", evidence.Ending{Failure: "no disk"}, nil, true, evidence.Unknown, "check not proven: the drill got to its end: no disk"},
		{"not removed", evidence.Ending{Left: "the copy"}, []evidence.Check{{Required: true, Verdict: evidence.Passed}}, false, evidence.Failed, "the copy was not removed: "},
		{"gone back", evidence.Ending{Faults: []string{"gone back"}, Failure: "a gap", Proves: true}, nil, true, evidence.Failed, "gone back"},
		{"a plan that failed, with an objective", evidence.Ending{RPO: time.Minute, Failure: "a gap", Proves: true}, nil, true, evidence.Failed, "a gap"},
		{"an objective that nothing was measured for", evidence.Ending{RPO: time.Minute, Proven: true}, []evidence.Check{{Required: true, Verdict: evidence.Passed}}, true, evidence.Unknown, "RPO not proven"},
	} {
		r := newRecorder(evidence.Standard)
		r.Drill.Cleanup.Done, r.Drill.Checks = c.done, c.checks
		r.Conclude(c.end)
		if d := r.Drill; d.Verdict != c.verdict || c.reason != "" && (len(d.Reasons) == 0 || d.Reasons[0] != c.reason) {
			t.Errorf("%s: %s %q", c.name, d.Verdict, d.Reasons)
		} else if why := "the drill ended before the loss could be measured"; (d.RPO.Reason == why) != (c.end.RPO > 0 && c.end.Failure != "") {
			t.Errorf("%s: the loss is not known, %q", c.name, d.RPO.Reason)
		}
	}
}

// A phase is noted also when it fails, and evidence that cannot be stored is there.
func TestRecorderKeepsWhatFails(t *testing.T) {
	t.Parallel()
	r := newRecorder(evidence.Standard)
	boom := errors.New("boom")
	if err := r.Phase(evidence.PhasePlan, func(p *evidence.Phase) error { p.Bytes = 7; return boom }); !errors.Is(err, boom) {
		t.Errorf("the phase ended with %v", err)
	}
	if p := r.Drill.Phases; len(p) != 1 || p[0].Bytes != 7 {
		t.Errorf("phases %+v", p)
	}
	r.Drill.Notes = []string{"AGE-SECRET-KEY-1" + strings.Repeat("Q", 58)}
	r.Conclude(evidence.Ending{})
	store := mem.New()
	doc, err := r.Store(t.Context(), store, newKey(t))
	if !errors.Is(err, evidence.ErrSecret) || doc == nil || doc.Drill.ID != r.Drill.ID {
		t.Errorf("%v, %v; want the document and %v", doc, err, evidence.ErrSecret)
	}
	if ids, err := evidence.List(t.Context(), store, time.Time{}); err != nil || len(ids) > 0 {
		t.Errorf("a secret lies in the store: %v %v", ids, err)
	}
}
