package rds_test

import (
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// The whole: a snapshot of a real server, a copy of it restored, real SQL, real
// figures, and nothing left.
func TestDrillFromSnapshot(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{SQL: "create table orders as select generate_series(1, 100) id"})
	beat := s.beat(t)
	s.take(t)
	s.SQL(t, home, "orders-prod", "insert into orders values (101)") // after the snapshot: it must not come back
	later := s.beat(t)
	want := "100"
	d, err := s.drill(t, func(o *rds.DrillOptions) {
		o.Level = evidence.Deep
		o.Source.Checks = []probe.Check{{Name: "orders", Required: true, SQL: "select count(*) from orders", Expect: &want}}
	})
	passed(t, d, err)
	if d.RPO.Basis != "primary" || d.RPO.Commit == nil || !d.RPO.Commit.Equal(beat) {
		t.Errorf("the newest heartbeat in the copy is %v by %s (%s), want %s", d.RPO.Commit, d.RPO.Basis, d.RPO.Reason, beat)
	}
	if lost := later.Sub(beat).Seconds(); d.RPO.Upper == nil || *d.RPO.Upper < lost || *d.RPO.Upper > lost+30 {
		t.Errorf("up to %v s would be lost; at least %v were", d.RPO.Upper, lost)
	}
	r := d.RDS
	if r.Available == nil || r.Checked == nil || r.Hydrated == nil || !(0 < *r.Available && *r.Available < *r.Checked && *r.Checked < *r.Hydrated) || r.HydratedBytes < 1<<20 {
		t.Errorf("available %v, checked %v, hydrated %v after %d bytes", r.Available, r.Checked, r.Hydrated, r.HydratedBytes)
	}
	if d.RTO.Achieved == nil || *d.RTO.Achieved != *r.Checked || d.RTO.Costliest == evidence.PhaseHydrate {
		t.Errorf("the RTO is %v, most of it %s", d.RTO.Achieved, d.RTO.Costliest)
	}
	var differs []string
	for _, x := range r.Differences {
		if differs = append(differs, x.Name); !x.Asked {
			t.Errorf("it was not asked for: %+v", x)
		}
	}
	if !slices.Equal(differs, []string{"class", "subnet group", "security groups", "backup retention"}) {
		t.Errorf("the copy differs in %v", differs)
	}
	var required, more []string // what is not required fails no drill
	for _, c := range d.Checks {
		if c.Required {
			required = append(required, c.Name)
		} else {
			more = append(more, c.Name)
		}
	}
	if !slices.Equal(required, []string{"server opens", "isolation", "catalogue", "orders", "amcheck", "every block read"}) || !slices.Equal(more, []string{"configuration", "checksums"}) {
		t.Errorf("required are %q, and not %q", required, more)
	}
	if !d.Cleanup.Done || !slices.Equal(s.Names(home), []string{"orders-prod"}) {
		t.Errorf("clean-up %+v, there is %v", d.Cleanup, s.Names(home))
	}
	call := s.Calls("RestoreDBInstanceFromDBSnapshot")[0].Form
	for name, value := range map[string]string{"DBSubnetGroupName": "staging", "VpcSecurityGroupIds.VpcSecurityGroupId.1": "sg-staging", "DBParameterGroupName": "orders", "OptionGroupName": "default:postgres-15",
		"PubliclyAccessible": "false", "DeletionProtection": "false", "DBInstanceClass": "db.t4g.medium", "BackupRetentionPeriod": "0"} {
		if call[name] != value {
			t.Errorf("RDS was asked with %s %q, want %q", name, call[name], value)
		}
	}
	if gone := s.Calls("DeleteDBInstance"); len(gone) != 1 || gone[0].Form["SkipFinalSnapshot"] != "true" || gone[0].Form["DeleteAutomatedBackups"] != "true" {
		t.Errorf("deletes: %+v", gone)
	}
}
