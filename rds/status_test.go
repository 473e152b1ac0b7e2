package rds

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func (x *listed) Databases(_ context.Context, kind Kind) (out []Database, err error) {
	for _, d := range x.databases {
		if d.Kind == kind {
			out = append(out, *d)
		}
	}
	return out, nil
}

// What a status tells of a source and of each region: what can be restored, what is
// still being made, whose it is, and what drills have left.
func TestLook(t *testing.T) {
	now := attemptTime(own).Add(10 * time.Minute)
	taken := func(id string, minute int, status, attempt string) Snapshot {
		s := Snapshot{Kind: Instance, ID: id, Source: "orders-prod", Type: "manual", Status: status, Created: attemptTime(own).Add(time.Duration(minute) * time.Minute)}
		if attempt != "" {
			s.ID, s.Tags = snapshotName("orders", attempt), Tags{TagKind: tagSnapshot, TagSource: "orders", TagAttempt: attempt}
		}
		return s
	}
	left := func(kind Kind, id, source string) *Database {
		return &Database{Kind: kind, ID: id, Tags: Tags{TagKind: tagDrill, TagSource: source}}
	}
	apis := map[string]*listed{
		"here": {databases: []*Database{{Kind: Instance, ID: "orders-prod", Engine: "postgres", Restorable: now.Add(-5 * time.Minute)}, left(Instance, "a", "orders"), left(Instance, "b", "bank")},
			snapshots: []Snapshot{taken("", 2, available, own), taken("before-the-migration", 1, available, ""), taken("x", 3, "creating", ""), taken("y", 4, "failed", "")}},
		"there": {databases: []*Database{left(Cluster, "c", "orders")}},
	}
	s := Source{Name: "orders", Kind: Instance, ID: "orders-prod", Region: "here", DR: []Region{{Name: "there", KMSKey: "k"}, {Name: "away"}}}
	down := &Error{Action: "rds:X", Message: "no answer", Err: ErrUnavailable}
	look := func() (*Status, error) {
		return Look(context.Background(), func(region string) (API, error) {
			if api := apis[region]; api != nil {
				return api, nil
			}
			return nil, down
		}, s, now)
	}
	got, err := look()
	if !errors.Is(err, ErrUnavailable) || got.Database == nil || got.Err != nil || got.Exposure != 5*time.Minute || !got.Restorable.Equal(now.Add(-5*time.Minute)) {
		t.Errorf("%+v, %v", got, err)
	}
	here, there, away := got.Regions[0], got.Regions[1], got.Regions[2]
	if here.Count != 2 || here.Ours != 1 || here.Newest == nil || here.Newest.ID != snapshotName("orders", own) || here.Pending == nil || here.Pending.ID != "x" || here.Err != nil {
		t.Errorf("here: %+v", here)
	}
	if there.Newest != nil || there.Pending != nil || !there.Key || there.Err != nil || away.Key || !errors.Is(away.Err, ErrUnavailable) {
		t.Errorf("there: %+v; away: %+v", there, away)
	}
	if !slices.Equal(got.Leftovers, []string{"a in here", "c in there"}) {
		t.Errorf("left: %q", got.Leftovers)
	}
	// It was found once; now it is gone, which is no error, and no exposure of nothing.
	if got, _ = look(); got.Database != nil || got.Err != nil || got.Exposure >= 0 {
		t.Errorf("a source that is gone: %+v", got)
	}
	delete(apis, "here")
	if got, _ = look(); got.Database != nil || !errors.Is(got.Err, ErrUnavailable) {
		t.Errorf("a source that was not asked for: %+v", got)
	}
}
