package rds_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

func TestSnapshotAndCopies(t *testing.T) {
	s := newSite(t, rdstest.Options{PageSize: 1}, rdstest.Source{NoServer: true, Encrypted: true})
	var states []string
	s.wait.Observe = func(p rds.Progress) {
		if line := p.What + " " + p.State; !slices.Contains(states, line) {
			states = append(states, line)
		}
	}
	first := s.take(t, s.source.DR...)
	if !first.Verified || first.Resumed || len(first.Copies) != 1 || first.Copies[0].Snapshot.KMSKey != key || !first.Copies[0].Snapshot.Encrypted {
		t.Errorf("taken: %+v", first)
	}
	if first.Copies[0].Snapshot.Tags[rds.TagWait] == "" || len(s.Calls("AddTagsToResource")) != 2 {
		t.Errorf("copy and snapshot were not tagged as verified: %+v", s.Calls("AddTagsToResource"))
	}
	if len(states) < 2 || !strings.Contains(strings.Join(states, "\n"), "copy in eu-west-1 creating") {
		t.Errorf("what was shown: %q", states)
	}
	create := s.Calls("CreateDBSnapshot")[0]
	if create.Region != home || create.Form["Tags.Tag.1.Key"] != "lifeboat" || create.Form["Tags.Tag.1.Value"] != "snapshot" {
		t.Errorf("the request: %+v", create)
	}
	if c := s.Calls("CopyDBSnapshot")[0]; c.Region != away || !strings.HasPrefix(c.Form["SourceDBSnapshotIdentifier"], "arn:aws:rds:"+home) || c.Form["KmsKeyId"] != key || c.Form["OptionGroupName"] != s.source.DR[0].Staging.OptionGroup {
		t.Errorf("the copy was asked for by %+v", c)
	}
	time.Sleep(time.Second) // attempts have seconds in their names, and order by them
	if second := s.take(t, s.source.DR...); second.Resumed || second.Snapshot.ID == first.Snapshot.ID {
		t.Errorf("a finished snapshot was taken up: %+v", second)
	}
	status, err := rds.Look(context.Background(), s.cloud.RDS, s.source, time.Now())
	if err != nil || status.Regions[0].Ours != 2 || status.Regions[1].Ours != 2 || !status.Regions[1].Key {
		t.Errorf("status %+v, %v", status, err)
	}
}

// With the home region away, the copies elsewhere are told.
func TestStatusWithoutHome(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	s.take(t, s.source.DR...)
	down := func(region string) (rds.API, error) {
		if region == home {
			return nil, &rds.Error{Action: "rds:DescribeDBInstances", Message: "no answer", Err: rds.ErrUnavailable}
		}
		return s.cloud.RDS(region)
	}
	status, err := rds.Look(context.Background(), down, s.source, time.Now())
	if !errors.Is(err, rds.ErrUnavailable) || status.Err == nil || status.Regions[0].Err == nil || status.Regions[1].Err != nil || status.Regions[1].Newest == nil || status.Regions[1].Ours != 1 {
		t.Errorf("%+v, %v", status, err)
	}
}

// Without a key nothing is begun, here or there.
func TestNoKeyNoSnapshot(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true, Encrypted: true})
	_, err := s.snapshot(t, func(o *rds.SnapshotOptions) { o.CopyTo = []rds.Region{{Name: "us-east-1"}} })
	if _, ok := errors.AsType[*rds.NoKeyError](err); !ok || len(s.Calls("CreateDBSnapshot"))+len(s.Calls("CopyDBSnapshot")) > 0 {
		t.Errorf("%v after %+v", err, s.Calls(""))
	}
}

// Interrupted at any point, the next run takes up what is there.
func TestSnapshotIsTakenUp(t *testing.T) {
	s := newSite(t, rdstest.Options{Snapshot: 300 * time.Millisecond, Copy: 300 * time.Millisecond}, rdstest.Source{NoServer: true, Encrypted: true})
	for _, when := range []string{"snapshot", "copy in"} {
		ctx, cancel := context.WithCancel(context.Background())
		w := s.wait
		w.Observe = func(p rds.Progress) {
			if strings.HasPrefix(p.What, when) {
				cancel()
			}
		}
		taken, err := rds.TakeSnapshot(ctx, s.cloud.RDS, rds.SnapshotOptions{Source: s.source, CopyTo: s.source.DR, Attempt: rds.Attempt(evidence.NewID(time.Now())), Waiting: w})
		if !errors.Is(err, context.Canceled) || taken == nil {
			t.Fatalf("interrupted at the %s: %v", when, err)
		}
		cancel()
	}
	taken := s.take(t, s.source.DR...)
	if !taken.Resumed || !taken.Verified || !taken.Copies[0].Resumed {
		t.Errorf("it was not taken up: %+v", taken)
	}
	if n, m := len(s.Calls("CreateDBSnapshot")), len(s.Calls("CopyDBSnapshot")); n != 1 || m != 1 {
		t.Errorf("%d snapshots and %d copies were asked for", n, m)
	}
	if here, there := s.SnapshotNames(home), s.SnapshotNames(away); len(here) != 1 || len(there) != 1 {
		t.Errorf("there is %v and %v", here, there)
	}
}

// RDS that is busy is waited for; answers that get lost make nothing twice.
func TestThrottledAndLost(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	s.Inject("", "Throttling", 3)
	s.LoseAnswer("CreateDBSnapshot")
	s.LoseAnswer("CopyDBSnapshot")
	taken := s.take(t, s.source.DR...)
	if !taken.Verified || len(s.SnapshotNames(home)) != 1 || len(s.SnapshotNames(away)) != 1 {
		t.Errorf("%+v; %v, %v", taken, s.SnapshotNames(home), s.SnapshotNames(away))
	}
	// More throttling than the SDK has patience for, once we look again and again.
	throttled := false
	taken, err := s.snapshot(t, func(o *rds.SnapshotOptions) {
		o.Waiting.Observe = func(rds.Progress) {
			if !throttled {
				throttled = true
				s.Inject("DescribeDBSnapshots", "Throttling", 10)
			}
		}
	})
	refused := 0
	for _, c := range s.Calls("DescribeDBSnapshots") {
		if c.Code == "Throttling" {
			refused++
		}
	}
	if err != nil || !taken.Verified || refused != 10 {
		t.Errorf("after %d refusals: %+v, %v", refused, taken, err)
	}
}

func TestQuotas(t *testing.T) {
	s := newSite(t, rdstest.Options{Copy: 200 * time.Millisecond, MostCopies: 1}, rdstest.Source{NoServer: true})
	s.Quota(1)
	s.take(t)
	_, err := s.snapshot(t, nil)
	if !errors.Is(err, rds.ErrQuota) {
		t.Errorf("a quota that does not free itself: %v", err)
	}
	// One that does: another copy is under way.
	s.Quota(10)
	taken := s.take(t)
	api, err := s.cloud.RDS(away)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.CopySnapshot(context.Background(), rds.Copy{Of: taken.Snapshot, From: home, ID: "somebody-elses", KMSKey: key}); err != nil {
		t.Fatal(err)
	}
	s.Inject("CopyDBSnapshot", "SnapshotQuotaExceeded", 2)
	if got := s.take(t, s.source.DR...); len(got.Copies) != 1 {
		t.Errorf("%+v", got)
	}
	if calls := s.Calls("CopyDBSnapshot"); len(calls) != 4 {
		t.Errorf("%d calls", len(calls))
	}
}

// A copy that waits in line tells no progress, and is none the worse for it.
func TestQueuedCopies(t *testing.T) {
	s := newSite(t, rdstest.Options{Snapshot: 10 * time.Millisecond, Copy: 300 * time.Millisecond, MostCopies: 1}, rdstest.Source{NoServer: true})
	taken := s.take(t)
	api, err := s.cloud.RDS(away)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"first", "second"} {
		if _, err := api.CopySnapshot(context.Background(), rds.Copy{Of: taken.Snapshot, From: home, ID: id, KMSKey: key}); err != nil {
			t.Fatal(err)
		}
	}
	queued := false
	s.wait.Observe = func(p rds.Progress) { queued = queued || p.What == "copy in "+away && p.Percent < 0 }
	if got := s.take(t, s.source.DR...); !queued || !got.Verified {
		t.Errorf("queued %v, %+v", queued, got)
	}
}

func TestWaitHasALimit(t *testing.T) {
	s := newSite(t, rdstest.Options{Snapshot: 400 * time.Millisecond}, rdstest.Source{NoServer: true})
	_, err := s.snapshot(t, func(o *rds.SnapshotOptions) { o.Waiting.Limit = 50 * time.Millisecond })
	if late, ok := errors.AsType[*rds.WaitError](err); !ok || late.State != "creating" {
		t.Errorf("%v", err)
	}
	if taken := s.take(t); !taken.Resumed {
		t.Errorf("it was not taken up: %+v", taken)
	}
}

// A copy that fails is an error; the next run makes it again, of the same snapshot.
func TestFailedCopy(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	s.FailCopies(1)
	_, err := s.snapshot(t, func(o *rds.SnapshotOptions) { o.CopyTo = s.source.DR })
	if f, ok := errors.AsType[*rds.FailedError](err); !ok || f.State != "failed" {
		t.Errorf("%v", err)
	}
	if again := s.take(t, s.source.DR...); !again.Resumed || !again.Verified || again.Copies[0].Resumed || len(s.SnapshotNames(home)) != 1 || len(s.SnapshotNames(away)) != 1 {
		t.Errorf("%+v", again)
	}
}

// One that yesterday's run did not finish is not taken for today's.
func TestSnapshotOfYesterday(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	s.FailCopies(1)
	first, err := s.snapshot(t, func(o *rds.SnapshotOptions) { o.CopyTo = s.source.DR })
	if err == nil {
		t.Fatal("the copy did not fail")
	}
	// The timer fires up to 15 minutes earlier than the day before.
	tomorrow := func() time.Time { return time.Now().Add(23*time.Hour + 45*time.Minute) }
	second, err := s.snapshot(t, func(o *rds.SnapshotOptions) {
		o.CopyTo, o.Waiting.Now, o.Attempt = s.source.DR, tomorrow, rds.Attempt(evidence.NewID(tomorrow()))
	})
	if err != nil || second.Resumed || second.Snapshot.ID == first.Snapshot.ID {
		t.Errorf("%+v, %v", second, err)
	}
}

// What is not what it should be is told, and not called verified.
func TestVerification(t *testing.T) {
	for name, change := range map[string]func(s *site, id string){
		"engine": func(s *site, id string) {
			s.ChangeSnapshot(t, away, id, func(_, _, _, engine *string, _ *[]types.Tag) { *engine = "mysql" })
		},
		"another's": func(s *site, id string) {
			s.ChangeSnapshot(t, away, id, func(_, _, _, _ *string, tags *[]types.Tag) { *tags = nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
			ctx, cancel := context.WithCancel(context.Background())
			w, id := s.wait, ""
			w.Observe = func(p rds.Progress) {
				if p.What == "copy in "+away {
					cancel()
				}
			}
			taken, err := rds.TakeSnapshot(ctx, s.cloud.RDS, rds.SnapshotOptions{Source: s.source, CopyTo: s.source.DR, Attempt: rds.Attempt(evidence.NewID(time.Now())), Waiting: w})
			if err == nil {
				t.Fatal("it was not interrupted")
			}
			id = taken.Snapshot.ID
			time.Sleep(300 * time.Millisecond) // until the copy is finished: it would overwrite the state
			change(s, id)
			got, err := s.snapshot(t, func(o *rds.SnapshotOptions) { o.CopyTo = s.source.DR })
			if err == nil || got != nil && got.Verified {
				t.Errorf("it passes for verified: %+v, %v", got, err)
			}
		})
	}
}
