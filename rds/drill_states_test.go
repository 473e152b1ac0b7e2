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

// That something is being deleted does not prove that it is gone: neither the copy,
// nor what an earlier drill left.
func TestGoneIsNotProven(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	s.take(t)
	s.leftover(t, home, nights[0], "2025-02-01T00:00:00Z", false)
	blind := false
	d, _ := s.drill(t, func(o *rds.DrillOptions) {
		o.Waiting.Observe = func(p rds.Progress) {
			if p.State == "deleting" && !blind {
				blind = true
				s.Inject("DescribeDBInstances", "AccessDenied", 1<<20)
			}
		}
	})
	if !blind || d.Verdict != evidence.Failed || d.Cleanup.Done || !strings.HasPrefix(d.Cleanup.Detail, "prove that instance "+rds.DrillPrefix) || len(d.Cleanup.Older) > 0 {
		t.Errorf("%s, clean-up %+v", d.Verdict, d.Cleanup)
	}
	if notes := strings.Join(d.Notes, "; "); !strings.Contains(notes, "what an earlier drill left is being deleted") {
		t.Errorf("notes %q", notes)
	}
}

// A snapshot that is named is held to the source before anything is restored.
func TestNamedSnapshots(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	id := s.take(t).Snapshot.ID
	named := func(o *rds.DrillOptions) { o.From = id }
	for _, c := range []struct {
		name   string
		change func(status, kind, source, engine *string, tags *[]types.Tag)
		drill  func(*rds.DrillOptions)
		want   evidence.Verdict
		reason string
	}{
		{"of another source", func(_, _, source, _ *string, _ *[]types.Tag) { *source = "bank-prod" }, named, evidence.Failed, "source is bank-prod; it should be orders-prod"},
		{"of another engine", func(_, _, source, engine *string, _ *[]types.Tag) { *source, *engine = "orders-prod", "mysql" }, named, evidence.Failed, "has engine mysql"},
		{"in the making", func(status, _, _, engine *string, _ *[]types.Tag) { *status, *engine = "copying", "postgres" }, named, evidence.Unknown, "is copying; it must be available"},
		{"backups of elsewhere", nil, func(o *rds.DrillOptions) { o.From, o.Region = rds.FromLatestTime, away }, evidence.Unknown, "has no region " + away},
	} {
		if c.change != nil {
			s.ChangeSnapshot(t, home, id, c.change)
		}
		d, _ := s.drill(t, c.drill)
		if reasons := strings.Join(d.Reasons, "; "); d.Verdict != c.want || !strings.Contains(reasons, c.reason) {
			t.Errorf("%s: %s: %s", c.name, d.Verdict, reasons)
		}
	}
	if n := len(s.Calls("RestoreDBInstanceFromDBSnapshot")); n > 0 {
		t.Errorf("%d were restored", n)
	}
}

// Where to and as what it is restored: by the flag, else the set-up of that region,
// else as the source is.
func TestWhereToAndAsWhat(t *testing.T) {
	s := newSite(t, rdstest.Options{Create: time.Millisecond, Delete: time.Millisecond}, rdstest.Source{NoServer: true})
	s.source.DR = slices.Clone(s.source.DR)
	there := &s.source.DR[0].Staging
	there.SubnetGroup, there.SecurityGroups, there.ParameterGroup, there.OptionGroup, there.Class = "there", []string{"sg-there"}, "group-there", "option-there", "db.there"
	s.take(t, s.source.DR...)
	for _, c := range []struct {
		drill                                                  func(*rds.DrillOptions)
		region, subnets, security, group, option, class, token string
	}{
		{func(*rds.DrillOptions) {}, home, "staging", "sg-staging", "orders", "default:postgres-15", "db.t4g.medium", "false"},
		{func(o *rds.DrillOptions) { o.Region = away }, away, "there", "sg-there", "group-there", "option-there", "db.there", "false"},
		{func(o *rds.DrillOptions) { o.Region, o.Class = away, "db.flag" }, away, "there", "sg-there", "group-there", "option-there", "db.flag", "false"},
		{func(o *rds.DrillOptions) { o.Source.Staging.Class, o.Source.Login.IAM = "", true }, home, "staging", "sg-staging", "orders", "default:postgres-15", "db.r6g.large", "true"},
	} {
		s.drill(t, c.drill)
		calls := s.Calls("RestoreDBInstanceFromDBSnapshot")
		call := calls[len(calls)-1]
		for name, want := range map[string]string{"DBSubnetGroupName": c.subnets, "VpcSecurityGroupIds.VpcSecurityGroupId.1": c.security, "DBParameterGroupName": c.group, "OptionGroupName": c.option, "DBInstanceClass": c.class, "EnableIAMDatabaseAuthentication": c.token} {
			if call.Region != c.region || call.Form[name] != want {
				t.Errorf("%s in %s: %s, want %s in %s", name, call.Region, call.Form[name], want, c.region)
			}
		}
	}
}

// The day that snapshots are for: the source is not there any more.
func TestDrillOfASourceThatIsGone(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{})
	beat := s.beat(t)
	s.take(t)
	api, err := s.cloud.RDS(home)
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Delete(context.Background(), rds.Instance, "orders-prod", false); err != nil {
		t.Fatal(err)
	}
	for !errors.Is(err, rds.ErrNotFound) {
		if _, err = api.Database(context.Background(), rds.Instance, "orders-prod"); err != nil && !errors.Is(err, rds.ErrNotFound) {
			t.Fatal(err)
		}
	}
	d, err := s.drill(t, nil)
	passed(t, d, err)
	if c := checkOf(d, "configuration"); c.Verdict != evidence.Unknown || !slices.Contains(d.Notes, "the source is not there any more") || len(s.Names(home)) > 0 {
		t.Errorf("%+v, notes %q, there is %v", c, d.Notes, s.Names(home))
	}
	if d.RPO.Basis != "host" || d.RPO.Commit == nil || !d.RPO.Commit.Equal(beat) || d.RPO.Upper == nil {
		t.Errorf("RPO %+v", d.RPO)
	}
}
