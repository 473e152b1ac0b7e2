package rds_test

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// everyKind makes half a MiB or more of each kind of relation: a table and what is long in
// it, a view that is stored, an index, sequences, a large object.
const everyKind = `create table orders as select generate_series(1, 100) id;
	create table more as select i, i::text as t from generate_series(1, 30000) i; create index on more (i, t);
	create materialized view stored as select * from more;
	create table long (t text); alter table long alter t set storage external; insert into long select string_agg(md5(i::text), '') from generate_series(1, 50000) i;
	select lo_from_bytea(0, string_agg(decode(md5(i::text), 'hex'), '')) from generate_series(1, 40000) i;
	do $$ begin for i in 1..80 loop execute 'create sequence s' || i; end loop; end $$`

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The whole: a snapshot of a real server, a copy of it restored, real SQL, real
// figures, and nothing left.
func TestDrillFromSnapshot(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{SQL: everyKind})
	beat := s.beat(t)
	blocks := s.SQL(t, home, "orders-prod", "select sum(pg_relation_size(oid)) from pg_class where relpersistence = 'p'")
	s.SQL(t, home, "orders-prod", "create database other template postgres")
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
	// It was lost at the moment that was assumed before anything was restored.
	if at := d.RPO.Disaster; at == nil || at.After(d.Started.Add(time.Duration(d.Phases[1].Start*1e9))) || math.Abs(at.Sub(beat).Seconds()-*d.RPO.Upper) > 1e-5 {
		t.Errorf("lost at %v of %+v, and up to %v s", at, d.Phases, *d.RPO.Upper)
	}
	r := d.RDS
	if r.Available == nil || r.Checked == nil || r.Hydrated == nil || !(0 < *r.Available && *r.Available < *r.Checked && *r.Checked < *r.Hydrated) || r.HydratedBytes < 2*number(t, blocks) {
		t.Errorf("available %v, checked %v, hydrated %v after %d bytes of twice %s", r.Available, r.Checked, r.Hydrated, r.HydratedBytes, blocks)
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
	if c := checkOf(d, "amcheck"); !regexp.MustCompile(`^[1-9][0-9]{2} indexes of 2 databases`).MatchString(c.Detail) {
		t.Errorf("amcheck: %s", c.Detail)
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
