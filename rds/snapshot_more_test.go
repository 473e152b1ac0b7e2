package rds_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
)

// A snapshot that is not what its source is is told, is not called verified, and is
// not copied.
func TestSnapshotIsHeldToItsSource(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	changed := false
	taken, err := s.snapshot(t, func(o *rds.SnapshotOptions) {
		o.CopyTo = s.source.DR
		o.Waiting.Observe = func(rds.Progress) {
			if !changed {
				changed = true
				s.ChangeSnapshot(t, home, s.SnapshotNames(home)[0], func(_, _, _, engine *string, _ *[]types.Tag) { *engine = "mysql" })
			}
		}
	})
	if m, ok := errors.AsType[*rds.MismatchError](err); !ok || m.Field != "engine" || taken.Verified || len(s.Calls("CopyDBSnapshot"))+len(s.Calls("AddTagsToResource")) > 0 {
		t.Errorf("%+v, %v", taken, err)
	}
}

// A quota of copies that nothing will free is told at once, and not waited for.
func TestQuotaOfCopies(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	s.Inject("CopyDBSnapshot", "SnapshotQuotaExceeded", 1)
	_, err := s.snapshot(t, func(o *rds.SnapshotOptions) { o.CopyTo = s.source.DR })
	if !errors.Is(err, rds.ErrQuota) || len(s.SnapshotNames(away)) > 0 {
		t.Errorf("%v after %d calls", err, len(s.Calls("CopyDBSnapshot")))
	}
}

// The tag that says that all was verified is worth more than one try.
func TestThrottledAtTheEnd(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	s.Inject("AddTagsToResource", "Throttling", 10) // the SDK tries 4 times
	if taken := s.take(t); !taken.Verified || len(s.Calls("AddTagsToResource")) != 11 {
		t.Errorf("%+v after %d calls", taken, len(s.Calls("AddTagsToResource")))
	}
}

// What has the name already is ours only if it carries our tags.
func TestSnapshotOfAnotherThatHasTheName(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	first := s.take(t).Snapshot
	s.ChangeSnapshot(t, home, first.ID, func(_, _, _, _ *string, tags *[]types.Tag) { *tags = nil })
	taken, err := s.snapshot(t, func(o *rds.SnapshotOptions) { o.Attempt = first.Tags[rds.TagAttempt] })
	if _, ok := errors.AsType[*rds.RefusedError](err); !ok || taken != nil {
		t.Errorf("%+v, %v", taken, err)
	}
}
