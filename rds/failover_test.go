package rds_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/aws"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

func (s *site) failover(t *testing.T, change func(*rds.FailoverOptions)) (*rds.FailoverPlan, *evidence.Drill, error) {
	t.Helper()
	o := rds.FailoverOptions{Source: s.source, Connect: s.connect, Lookup: aws.Resolver(s.DNS), Waiting: s.wait, Key: s.key, Now: time.Now, Interval: 50 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	plan, err := rds.PlanFailover(context.Background(), s.cloud.RDS, o)
	if err != nil {
		return nil, nil, err
	}
	r, err := rds.Failover(context.Background(), s.cloud.RDS, s.repo, o, plan)
	if err != nil {
		t.Fatal(err)
	}
	return plan, &r.Document.Drill, r.Err
}

// The server really stops, and comes back at another address: what is measured is
// held to what was seen from outside.
func TestFailover(t *testing.T) {
	for _, cluster := range []bool{false, true} {
		s := newSiteIn(t, rdstest.Options{Failover: 2 * time.Second}, rdstest.Source{MultiAZ: true, Cluster: cluster})
		plan, d, err := s.failover(t, func(o *rds.FailoverOptions) { o.Source.RTO = time.Minute })
		passed(t, d, err)
		f := d.Failover
		if plan.Zone != "eu-central-1a" || !strings.HasPrefix(plan.Target, "eu-central-1b") || f.ZoneBefore != plan.Zone || f.ZoneAfter != "eu-central-1b" {
			t.Errorf("plan %+v, %s to %s", plan, f.ZoneBefore, f.ZoneAfter)
		}
		// Between stop and start the fake waits 2 s.
		if f.DowntimeLower == nil || *f.DowntimeLower < 0.5 || *f.DowntimeUpper < *f.DowntimeLower || *f.DowntimeUpper > 60 || f.Failures == 0 || *d.RTO.Achieved != *f.DowntimeUpper || d.RTO.Verdict != evidence.Passed {
			t.Errorf("downtime %v to %v, %d of %d failed, RTO %v", f.DowntimeLower, f.DowntimeUpper, f.Failures, f.Probes, d.RTO.Achieved)
		}
		if !slices.Equal(f.Addresses, []string{"127.0.0.1", "127.0.0.2"}) || len(f.Events) != 2 {
			t.Errorf("addresses %v, events %v", f.Addresses, f.Events)
		}
		if d.Level != evidence.FailoverLevel {
			t.Errorf("level %s", d.Level)
		}
	}
}

// What a failover interrupts is counted, or not known.
func TestFailoverPlanCountsSessions(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{MultiAZ: true})
	o := rds.FailoverOptions{Source: s.source, Connect: s.connect, Waiting: s.wait, Now: time.Now}
	for sql, want := range map[string]bool{"grant pg_monitor to master": true, "revoke pg_monitor from master": false} {
		s.SQL(t, home, "orders-prod", sql)
		plan, err := rds.PlanFailover(context.Background(), s.cloud.RDS, o)
		if err != nil {
			t.Fatal(err)
		}
		if known := plan.Sessions >= 0 && plan.Writing >= 0; known != want {
			t.Errorf("%s: %d sessions, %d writing", sql, plan.Sessions, plan.Writing)
		}
	}
}

func TestFailoversThatCannotBe(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{})
	if _, _, err := s.failover(t, nil); !as[*rds.StandbyError](err) {
		t.Errorf("without a standby: %v", err)
	}
	s.SetStatus(t, home, "orders-prod", "modifying")
	if _, _, err := s.failover(t, nil); !as[*rds.StateError](err) {
		t.Errorf("while it is modified: %v", err)
	}
	if len(s.Calls("RebootDBInstance")) > 0 {
		t.Error("it was rebooted")
	}
	alone := newSiteIn(t, rdstest.Options{}, rdstest.Source{Cluster: true, NoServer: true})
	if _, _, err := alone.failover(t, nil); !as[*rds.StandbyError](err) {
		t.Errorf("a cluster of one instance: %v", err)
	}
}

// A restart in the same zone is no failover, and a drill that says so is failed.
func TestFailoverInTheSameZone(t *testing.T) {
	s := newSite(t, rdstest.Options{Stay: true}, rdstest.Source{MultiAZ: true})
	_, d, err := s.failover(t, func(o *rds.FailoverOptions) { o.Limit = 2 * time.Second })
	if !as[*rds.WaitError](err) || d.Verdict != evidence.Failed || !strings.Contains(d.Reasons[0], "it is still eu-central-1a") || d.RTO.Achieved != nil {
		t.Errorf("%s: %v; %v", d.Verdict, d.Reasons, err)
	}
}

// Of a cluster the writer moves, to the reader that the plan has named: one in another
// zone, if there is one.
func TestFailoverOfClusters(t *testing.T) {
	for name, c := range map[string]struct {
		third  bool
		target string
		same   bool
	}{"a reader in the same zone": {false, "eu-central-1a (orders-prod-2)", true}, "one elsewhere too": {true, "eu-central-1c (orders-prod-3)", false}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, rdstest.Options{}, rdstest.Source{MultiAZ: true, Cluster: true, SameZone: true, Third: c.third})
			plan, d, err := s.failover(t, func(o *rds.FailoverOptions) { o.Limit = time.Minute })
			passed(t, d, err)
			if check := checkOf(d, "writer changed"); plan.Target != c.target || plan.SameZone != c.same || check.Detail != "eu-central-1a (orders-prod-1) to "+c.target {
				t.Errorf("plan %+v; %s", plan, check.Detail)
			}
			if told := strings.Contains(strings.Join(d.Notes, "; "), "that a zone can be lost was not tried"); told != c.same {
				t.Errorf("notes %q", d.Notes)
			}
		})
	}
}

// A failover that RDS refuses is none.
func TestFailoverThatDoesNotHappen(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{MultiAZ: true})
	s.Inject("RebootDBInstance", "AccessDenied", 1)
	_, d, err := s.failover(t, nil)
	if !errors.Is(err, rds.ErrDenied) || d.Verdict != evidence.Unknown || d.RTO.Achieved != nil {
		t.Errorf("%s, %v, RTO %v", d.Verdict, err, d.RTO.Achieved)
	}
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// RDS has failed over by itself since the plan was made: that is not taken for the
// failover that was asked for, and none is begun.
func TestFailoverBeforeTheFailover(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{MultiAZ: true})
	o := rds.FailoverOptions{Source: s.source, Connect: s.connect, Lookup: aws.Resolver(s.DNS), Waiting: s.wait, Key: s.key, Now: time.Now, Interval: 50 * time.Millisecond, Limit: 20 * time.Second}
	plan, err := rds.PlanFailover(context.Background(), s.cloud.RDS, o)
	if err != nil {
		t.Fatal(err)
	}
	s.failover(t, nil) // as if by itself
	before := len(s.Calls("RebootDBInstance"))
	r, err := rds.Failover(context.Background(), s.cloud.RDS, s.repo, o, plan)
	if err != nil {
		t.Fatal(err)
	}
	if r.Err == nil || !strings.Contains(r.Err.Error(), "another server has taken over") || r.Document.Drill.Verdict == evidence.Passed || len(s.Calls("RebootDBInstance")) != before || before != 1 {
		t.Errorf("%s, %v; %d calls, then %d", r.Document.Drill.Verdict, r.Err, before, len(s.Calls("RebootDBInstance")))
	}
}

// Without a write that succeeds before, nothing that follows would be the failover's:
// none is begun.
func TestFailoverWithoutWrites(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{MultiAZ: true})
	var seconds atomic.Int64 // that went by: one for each look at the clock
	o := rds.FailoverOptions{Source: s.source, Connect: s.connect, Lookup: aws.Resolver(s.DNS), Waiting: s.wait, Key: s.key, Interval: 10 * time.Millisecond,
		Now: func() time.Time { return time.Unix(1800000000+seconds.Add(1), 0) }}
	plan, err := rds.PlanFailover(context.Background(), s.cloud.RDS, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Connect = func(d *rds.Database, region string) (probe.Conn, error) {
		c, err := s.connect(d, region)
		c.Password = func(context.Context) (string, error) { return "wrong", nil }
		return c, err
	}
	r, err := rds.Failover(context.Background(), s.cloud.RDS, s.repo, o, plan)
	if err != nil {
		t.Fatal(err)
	}
	if d := &r.Document.Drill; r.Err == nil || !strings.Contains(r.Err.Error(), "no write succeeds before the failover, and nothing was begun") || d.Verdict != evidence.Unknown || d.Failover.DowntimeUpper != nil || len(s.Calls("RebootDBInstance")) > 0 {
		t.Errorf("%s, %v; %d calls", d.Verdict, r.Err, len(s.Calls("RebootDBInstance")))
	}
}
