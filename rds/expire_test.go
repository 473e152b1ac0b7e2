package rds_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
)

// nights are attempts of old, in their order.
var nights = []string{"20250131t020000z-1a2b3c4d", "20250201t020000z-1a2b3c4d", "20250202t020000z-1a2b3c4d"}

// takeNights takes a snapshot for each of the nights, and copies it.
func (s *site) takeNights(t *testing.T) (ids []string) {
	t.Helper()
	for _, attempt := range nights {
		taken, err := s.snapshot(t, func(o *rds.SnapshotOptions) { o.Attempt, o.CopyTo = attempt, s.source.DR })
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, taken.Snapshot.ID)
	}
	return ids
}

// leftover puts what a crashed drill has left into a region.
func (s *site) leftover(t *testing.T, region, attempt, until string, cluster bool) string {
	t.Helper()
	id := rds.DrillPrefix + attempt
	tags := map[string]string{rds.TagKind: "drill", rds.TagAttempt: attempt}
	if until != "" {
		tags[rds.TagUntil] = until
	}
	s.Add(t, rdstest.Source{Region: region, ID: id, NoServer: true, Cluster: cluster})
	s.Tag(t, region, id, tags)
	if cluster {
		s.Tag(t, region, id+"-1", tags)
	}
	return id
}

func (s *site) expire(dry bool, regions rds.Regions) ([]rds.Expired, error) {
	return rds.Expire(context.Background(), regions, rds.ExpireOptions{Source: s.source, Sources: []rds.Source{s.source}, DryRun: dry, Waiting: s.wait})
}

// In every region by the same rules; a dry run tells the same and deletes nothing.
func TestExpireInAllRegions(t *testing.T) {
	s := newSite(t, rdstest.Options{Snapshot: time.Millisecond, Copy: time.Millisecond, Delete: time.Millisecond}, rdstest.Source{NoServer: true})
	ids := s.takeNights(t)
	over := s.leftover(t, away, nights[0], "2025-02-01T00:00:00Z", true)
	s.leftover(t, away, nights[1], "2999-01-01T00:00:00Z", false)
	s.leftover(t, home, nights[2], "", false) // until when is not known
	s.source.Keep = 1
	want := []string{home + ids[1], home + ids[0], away + ids[1], away + ids[0], away + over + "-1", away + over}
	for _, dry := range []bool{true, false} {
		gone, err := s.expire(dry, s.cloud.RDS)
		var got []string
		for _, e := range gone {
			if got = append(got, e.Region+e.ID); e.Gone == dry {
				t.Errorf("dry run %t: %+v", dry, e)
			}
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("dry run %t: %v, %v; want %v", dry, got, err, want)
		}
		if calls := s.Calls("DeleteDBSnapshot"); dry && len(calls)+len(s.Calls("DeleteDBCluster"))+len(s.Calls("DeleteDBInstance")) > 0 {
			t.Errorf("a dry run has deleted: %+v", calls)
		}
	}
	if !slices.Equal(s.SnapshotNames(home), ids[2:]) || !slices.Equal(s.SnapshotNames(away), ids[2:]) {
		t.Errorf("kept: %v, %v", s.SnapshotNames(home), s.SnapshotNames(away))
	}
}

// While a copy is being made of a snapshot, and while a region does not say whether
// one is, the snapshot stays.
func TestExpireKeepsWhatIsCopied(t *testing.T) {
	s := newSite(t, rdstest.Options{Snapshot: time.Millisecond, Copy: time.Millisecond}, rdstest.Source{NoServer: true})
	ids := s.takeNights(t)
	over := s.leftover(t, home, nights[0], "2025-02-01T00:00:00Z", false)
	s.source.Keep = 1
	gone, err := s.expire(false, func(region string) (rds.API, error) {
		if region == away {
			return nil, &rds.Error{Action: "rds:DescribeDBSnapshots", Message: "no answer", Err: rds.ErrUnavailable}
		}
		return s.cloud.RDS(region)
	})
	if !errors.Is(err, rds.ErrUnavailable) || len(gone) != 1 || gone[0].ID != over || !gone[0].Gone || len(s.SnapshotNames(home)) != 3 {
		t.Errorf("with a region away: %+v, %v; there is %v", gone, err, s.SnapshotNames(home))
	}
	s.ChangeSnapshot(t, away, ids[0], func(status, _, _, _ *string, _ *[]types.Tag) { *status = "copying" })
	if _, err := s.expire(false, s.cloud.RDS); err != nil || !slices.Equal(s.SnapshotNames(home), []string{ids[0], ids[2]}) || !slices.Equal(s.SnapshotNames(away), []string{ids[0], ids[2]}) {
		t.Errorf("%v; kept %v, %v", err, s.SnapshotNames(home), s.SnapshotNames(away))
	}
}
