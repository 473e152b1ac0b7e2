package rds_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// Points in time, by WAL that is replayed: as far as the backups go, which stands
// still here, and to before a mistake.
func TestDrillToTime(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{Backups: true, SQL: "create table orders as select generate_series(1, 10) id"})
	count := func(want string) func(*rds.DrillOptions) {
		return func(o *rds.DrillOptions) {
			o.From = rds.FromLatestTime
			o.Source.Checks = []probe.Check{{Name: "orders", Required: true, SQL: "select count(*) from orders", Expect: &want}}
		}
	}
	beat := s.beat(t)
	before := beat.Add(2 * time.Millisecond) // RDS is asked in whole milliseconds
	time.Sleep(time.Until(before.Add(time.Millisecond)))
	s.SQL(t, home, "orders-prod", "delete from orders") // the mistake
	restorable := s.Advance(t, home, "orders-prod")
	lost := s.beat(t)

	d, err := s.drill(t, count("0"))
	passed(t, d, err)
	if d.RPO.Commit == nil || !d.RPO.Commit.Equal(beat) || *d.RPO.Upper < lost.Sub(beat).Seconds() {
		t.Errorf("RPO %+v; the heartbeat of %s came back, that of %s did not", d.RPO, beat, lost)
	}
	if x := d.RDS; x.Restorable == nil || !x.Restorable.Equal(restorable.Truncate(time.Millisecond)) || x.Exposure == nil || math.Abs(*x.Exposure-d.Started.Sub(restorable).Seconds()) > 0.01 {
		t.Errorf("exposure %v to %v, want %s", x.Exposure, x.Restorable, restorable)
	}
	d, err = s.drill(t, func(o *rds.DrillOptions) { count("10")(o); o.Time, o.Source.RPO = before, time.Second })
	passed(t, d, err)
	if d.RPO.Upper != nil || d.RPO.Objective != nil || d.RPO.Reason != "recovery was to a point in time" || d.Target.Kind != "time" {
		t.Errorf("RPO of a point in time: %+v", d.RPO)
	}
	d, err = s.drill(t, func(o *rds.DrillOptions) { o.Time = restorable.Add(time.Second) })
	if _, ok := errors.AsType[*rds.TimeError](err); !ok || d.Verdict != evidence.Unknown || len(s.Calls("RestoreDBInstanceToPointInTime")) != 2 {
		t.Errorf("a time that cannot be restored yet: %s, %v", d.Verdict, err)
	}
	if names := s.Names(home); !slices.Equal(names, []string{"orders-prod"}) {
		t.Errorf("left: %v", names)
	}
}

// Aurora: the cluster, then its instance, both counted; both are gone after.
func TestDrillOfAurora(t *testing.T) {
	s := newSite(t, rdstest.Options{Create: 200 * time.Millisecond}, rdstest.Source{Cluster: true, MultiAZ: true})
	s.beat(t)
	s.take(t)
	d, err := s.drill(t, func(o *rds.DrillOptions) { o.Level = evidence.Deep })
	passed(t, d, err)
	var seconds []float64
	for _, p := range d.Phases {
		if p.Name == evidence.PhaseRestore || p.Name == evidence.PhaseInstance {
			seconds = append(seconds, p.Seconds)
		}
	}
	if len(seconds) != 2 || min(seconds[0], seconds[1]) < 0.2 || *d.RDS.Available < seconds[0]+seconds[1] {
		t.Errorf("phases %+v, available after %v", d.Phases, *d.RDS.Available)
	}
	if got := s.Names(home); len(got) != 3 {
		t.Errorf("left: %v", got)
	}
	if c := s.Calls("CreateDBInstance"); len(c) != 1 || c[0].Form["PubliclyAccessible"] != "false" || c[0].Form["DBParameterGroupName"] != "orders-instance" {
		t.Errorf("the instance was asked for with %+v", c)
	}
	var order []string
	for _, c := range s.Calls("") {
		if strings.HasPrefix(c.Action, "Delete") && c.Code == "" {
			order = append(order, c.Action)
		}
	}
	if !slices.Equal(order, []string{"DeleteDBInstance", "DeleteDBCluster"}) {
		t.Errorf("deleted: %v", order)
	}
}

// Whatever goes wrong, nothing of it stays, and it is told as what it is.
func TestDrillsThatFail(t *testing.T) {
	s := newSite(t, rdstest.Options{Create: 50 * time.Millisecond, Delete: 20 * time.Millisecond}, rdstest.Source{})
	s.beat(t)
	s.take(t)
	no := "no"
	for _, c := range []struct {
		name    string
		prepare func()
		change  func(*rds.DrillOptions)
		want    evidence.Verdict
		reason  string
	}{
		{"a check fails", nil, func(o *rds.DrillOptions) {
			o.Source.Checks = []probe.Check{{Name: "mine", Required: true, SQL: "select 'yes'", Expect: &no}}
		}, evidence.Failed, "check failed: mine"},
		{"the objective is missed", nil, func(o *rds.DrillOptions) { o.Source.RTO = time.Millisecond }, evidence.Failed, "RTO objective missed"},
		{"no such snapshot", nil, func(o *rds.DrillOptions) { o.From = "lifeboat-none" }, evidence.Failed, "there is no snapshot lifeboat-none"},
		{"nothing in that region", nil, func(o *rds.DrillOptions) { o.Region = away }, evidence.Failed, "no snapshot in eu-west-1"},
		{"the password is wrong", nil, func(o *rds.DrillOptions) {
			o.Connect = func(d *rds.Database, region string) (probe.Conn, error) {
				c, err := s.connect(d, region)
				c.Password = func(context.Context) (string, error) { return "wrong", nil }
				return c, err
			}
		}, evidence.Failed, "password authentication failed"},
		{"a right is missing", func() { s.Inject("RestoreDBInstanceFromDBSnapshot", "AccessDenied", 1) }, nil, evidence.Unknown, "rds:RestoreDBInstanceFromDBSnapshot"},
		{"a group is missing", func() { s.Without(home, "subgrp", "nowhere") }, func(o *rds.DrillOptions) { o.Source.Staging.SubnetGroup = "nowhere" }, evidence.Unknown, "DBSubnetGroupNotFoundFault"},
		{"the token has run out", func() { s.Inject("DescribeDBSnapshots", "ExpiredToken", 1) }, nil, evidence.Unknown, "ExpiredToken"},
		{"the answer is lost", func() { s.LoseAnswer("RestoreDBInstanceFromDBSnapshot") }, nil, evidence.Passed, ""},
		{"staging is not set up", nil, func(o *rds.DrillOptions) { o.Source.Staging.SecurityGroups = nil }, evidence.Unknown, "security_groups missing"},
		{"its time to live is short", nil, func(o *rds.DrillOptions) { o.Source.TTL = 80 * time.Millisecond; o.Timeout = time.Hour }, evidence.Unknown, "did not end within 70ms: after 80ms, its ttl"},
		{"it takes too long", nil, func(o *rds.DrillOptions) { o.Timeout = 60 * time.Millisecond }, evidence.Unknown, "did not end within"},
	} {
		s.Heal()
		if c.prepare != nil {
			c.prepare()
		}
		d, _ := s.drill(t, c.change)
		if reasons := strings.Join(d.Reasons, "; "); d.Verdict != c.want || !strings.Contains(reasons, c.reason) {
			t.Errorf("%s: %s: %s; want %s: %s", c.name, d.Verdict, reasons, c.want, c.reason)
		}
		// There is a figure only once all that is required has passed.
		if proven := c.want == evidence.Passed || c.name == "the objective is missed"; (d.RDS.Checked != nil) != proven || (d.RTO.Achieved != nil) != proven {
			t.Errorf("%s: checked after %v, RTO %v", c.name, d.RDS.Checked, d.RTO.Achieved)
		}
		if !d.Cleanup.Done || !slices.Equal(s.Names(home), []string{"orders-prod"}) {
			t.Errorf("%s: clean-up %+v, there is %v", c.name, d.Cleanup, s.Names(home))
		}
	}
}

// An interrupted drill deletes what it made; one that cannot delete says so.
func TestDrillIsInterrupted(t *testing.T) {
	s := newSite(t, rdstest.Options{Create: 200 * time.Millisecond}, rdstest.Source{NoServer: true})
	s.take(t)
	ctx, cancel := context.WithCancel(context.Background())
	d, err := s.drillIn(t, ctx, func(o *rds.DrillOptions) {
		o.Waiting.Observe = func(rds.Progress) { cancel() }
	})
	if !errors.Is(err, context.Canceled) || d.Verdict != evidence.Unknown || !d.Cleanup.Done || len(s.Names(home)) != 1 {
		t.Errorf("interrupted: %s, %v, clean-up %+v, there is %v", d.Verdict, err, d.Cleanup, s.Names(home))
	}
	s.Inject("DeleteDBInstance", "AccessDenied", 1)
	d, _ = s.drill(t, nil)
	if d.Verdict != evidence.Failed || d.Cleanup.Done || !strings.Contains(d.Cleanup.Detail, "rds:DeleteDBInstance") || len(s.Names(home)) != 2 {
		t.Errorf("not deleted: %s, clean-up %+v, there is %v", d.Verdict, d.Cleanup, s.Names(home))
	}
	// The document may have got a later name, so that it stands behind the one before.
	left := ""
	for _, name := range s.Names(home) {
		if attempt, ok := strings.CutPrefix(name, "lifeboat-drill-"); ok {
			left = strings.ToUpper(attempt[:16]) + attempt[16:]
		}
	}
	// Not before its time to live is over.
	if _, err := s.drill(t, func(o *rds.DrillOptions) { o.From = "none" }); err == nil || len(s.Names(home)) != 2 {
		t.Errorf("reaped too early, or not asked: %v, %v", s.Names(home), err)
	}
	later := func() time.Time { return time.Now().Add(25 * time.Hour) }
	gone, err := rds.Expire(context.Background(), s.cloud.RDS, rds.ExpireOptions{Source: s.source, Sources: []rds.Source{s.source}, DryRun: true, Waiting: rds.Waiting{Now: later}})
	if err != nil || len(gone) != 1 || gone[0].Gone || len(s.Names(home)) != 2 {
		t.Errorf("a dry run: %+v, %v, %v", gone, err, s.Names(home))
	}
	// What is there is not told to be gone.
	earlier := []rds.Left{{ID: "20250131T020000Z-1a2b3c4d", Attempt: "20250131t020000z-1a2b3c4d"}, {ID: left, Attempt: rds.Attempt(left)}}
	if d, _ = s.drill(t, func(o *rds.DrillOptions) { o.From, o.Left = "none", earlier }); !slices.Equal(d.Cleanup.Older, []string{earlier[0].ID}) {
		t.Errorf("proven gone: %v", d.Cleanup.Older)
	}
	d, _ = s.drill(t, func(o *rds.DrillOptions) { o.From = "none"; o.Waiting.Now = later })
	if !slices.Contains(d.Cleanup.Older, left) || len(s.Names(home)) != 1 {
		t.Errorf("%v was cleaned up, want %s; there is %v", d.Cleanup.Older, left, s.Names(home))
	}
}

// A clean-up that does not end leaves evidence that says so.
func TestSlowCleanUp(t *testing.T) {
	s := newSite(t, rdstest.Options{Create: 30 * time.Second}, rdstest.Source{NoServer: true})
	s.take(t)
	d, _ := s.drill(t, func(o *rds.DrillOptions) { o.Timeout, o.CleanUp = 5*time.Second, 100*time.Millisecond })
	if d.Cleanup.Done || !strings.Contains(d.Cleanup.Detail, rds.DrillPrefix) || d.Verdict != evidence.Failed {
		t.Errorf("%s, clean-up %+v", d.Verdict, d.Cleanup)
	}
	if ids, err := evidence.List(context.Background(), s.repo.Store(), time.Time{}); err != nil || len(ids) != 1 {
		t.Errorf("stored: %v, %v", ids, err)
	}
}

// The reaper leaves alone what somebody made to look like ours.
func TestReaperAndExpiry(t *testing.T) {
	s := newSite(t, rdstest.Options{Delete: 10 * time.Millisecond}, rdstest.Source{NoServer: true})
	attempt := "20250131t020000z-1a2b3c4d"
	tags := map[string]string{rds.TagKind: "drill", rds.TagAttempt: attempt, rds.TagUntil: "2025-02-01T00:00:00Z"}
	for _, id := range []string{"orders-other", "lifeboat-drill-mine", rds.DrillPrefix + attempt} {
		s.Add(t, rdstest.Source{ID: id, NoServer: true})
		s.Tag(t, home, id, tags)
	}
	s.Tag(t, home, "orders-prod", tags)
	now := s.take(t)
	w := s.wait
	gone, err := rds.Expire(context.Background(), s.cloud.RDS, rds.ExpireOptions{Source: s.source, Sources: []rds.Source{s.source}, Waiting: w})
	if err != nil || len(gone) != 1 || gone[0].ID != rds.DrillPrefix+attempt {
		t.Errorf("%+v, %v", gone, err)
	}
	if len(s.SnapshotNames(home)) != 1 || s.SnapshotNames(home)[0] != now.Snapshot.ID {
		t.Errorf("snapshots: %v", s.SnapshotNames(home))
	}
	// Retention: of three, two are kept, and the copies by the same rule.
	s.source.Keep = 2
	var ids []string
	for range 2 {
		time.Sleep(time.Second) // attempts order by seconds
		ids = append(ids, s.take(t, s.source.DR...).Snapshot.ID)
	}
	if gone, err = rds.Expire(context.Background(), s.cloud.RDS, rds.ExpireOptions{Source: s.source, Sources: []rds.Source{s.source}, Waiting: w}); err != nil || len(gone) != 1 {
		t.Errorf("%+v, %v", gone, err)
	}
	if !slices.Equal(s.SnapshotNames(home), ids) || !slices.Equal(s.SnapshotNames(away), ids) {
		t.Errorf("kept: %v, %v; want %v", s.SnapshotNames(home), s.SnapshotNames(away), ids)
	}
	// A region that does not answer stops deleting at home.
	s.source.Keep = 1
	s.Inject("DescribeDBSnapshots", "AccessDenied", 2)
	if gone, err = rds.Expire(context.Background(), s.cloud.RDS, rds.ExpireOptions{Source: s.source, Sources: []rds.Source{s.source}, Waiting: w}); !errors.Is(err, rds.ErrDenied) || len(gone) != 0 || len(s.SnapshotNames(home)) != 2 {
		t.Errorf("%+v, %v, %v", gone, err, s.SnapshotNames(home))
	}
}

// One leftover that cannot be removed does not keep the others.
func TestReaperGoesOn(t *testing.T) {
	s := newSite(t, rdstest.Options{Delete: 10 * time.Millisecond}, rdstest.Source{NoServer: true})
	for _, attempt := range []string{"20250131t020000z-1a2b3c4d", "20250131t030000z-1a2b3c4d"} {
		s.Add(t, rdstest.Source{ID: rds.DrillPrefix + attempt, NoServer: true})
		s.Tag(t, home, rds.DrillPrefix+attempt, map[string]string{rds.TagKind: "drill", rds.TagAttempt: attempt, rds.TagUntil: "2025-02-01T00:00:00Z"})
	}
	s.Inject("DeleteDBInstance", "AccessDenied", 1)
	gone, err := rds.Expire(context.Background(), s.cloud.RDS, rds.ExpireOptions{Source: s.source, Sources: []rds.Source{s.source}, Waiting: s.wait})
	if !errors.Is(err, rds.ErrDenied) || len(gone) != 2 || gone[0].Gone || !gone[1].Gone {
		t.Errorf("%+v, %v", gone, err)
	}
}

// A newer snapshot that cannot be restored is passed over, and that is told.
func TestUnfinishedSnapshotIsTold(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	first := s.take(t).Snapshot.ID
	second := s.take(t).Snapshot.ID // RDS tells when, by more than seconds
	s.ChangeSnapshot(t, home, second, func(status, _, _, _ *string, _ *[]types.Tag) { *status = "copying" })
	d, _ := s.drill(t, nil)
	if d.RDS.Snapshot != first || !strings.Contains(strings.Join(d.Notes, "; "), "snapshot "+second+" is newer and was passed over: it is copying") {
		t.Errorf("restored %s, notes %q", d.RDS.Snapshot, d.Notes)
	}
}

// Without rights to look at production nothing is made, since nothing of it could
// be deleted.
func TestNothingIsMadeBlindly(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	s.take(t)
	s.Inject("DescribeDBInstances", "AccessDenied", 1)
	d, _ := s.drill(t, nil)
	if d.Verdict != evidence.Unknown || len(s.Calls("RestoreDBInstanceFromDBSnapshot")) > 0 || !d.Cleanup.Done {
		t.Errorf("%s, %+v", d.Verdict, d.Cleanup)
	}
}

// The password from Secrets Manager, and what of it is missing.
func TestLogins(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{})
	s.Secret("rds/orders", `{"username":"master","password":"`+rdstest.Password+`"}`)
	api, err := s.cloud.RDS(home)
	if err != nil {
		t.Fatal(err)
	}
	d, err := api.Database(context.Background(), rds.Instance, "orders-prod")
	if err != nil {
		t.Fatal(err)
	}
	open := func(l rds.Login) error {
		dialer := s.dialer()
		dialer.Login = l
		c, err := dialer.Connect(d, home)
		if err == nil {
			_, err = c.Value(context.Background(), "", "select 1")
		}
		return err
	}
	if err := open(rds.Login{Role: "master", Secret: "rds/orders", CAFile: s.CA}); err != nil {
		t.Error(err)
	}
	if err := open(rds.Login{Role: "master", Secret: "rds/none", CAFile: s.CA}); !errors.Is(err, rds.ErrNotFound) || !strings.Contains(err.Error(), "secretsmanager:GetSecretValue") {
		t.Errorf("%v", err)
	}
	for code, want := range map[string]error{"AccessDeniedException": rds.ErrDenied, "ThrottlingException": rds.ErrThrottled, "ExpiredTokenException": rds.ErrCredentials,
		"UnrecognizedClientException": rds.ErrCredentials, "InternalServiceError": rds.ErrUnavailable} {
		s.Inject("GetSecretValue", code, 1)
		if err := open(rds.Login{Role: "master", Secret: "rds/orders", CAFile: s.CA}); !errors.Is(err, want) || !strings.Contains(err.Error(), code) {
			t.Errorf("%s came to %v, want %v", code, err, want)
		}
	}
	if err := open(rds.Login{Role: "master", PasswordEnv: "NONE"}); err == nil || !strings.Contains(err.Error(), "NONE") {
		t.Errorf("%v", err)
	}
}
