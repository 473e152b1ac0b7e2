package rds_test

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
)

// matches says whether a pattern of IAM covers a name.
func matches(pattern, name string) bool {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(name)
}

// allows says whether a policy lets a call on a resource through, conditions aside.
func allows(p rds.Policy, action, resource string) bool {
	found := false
	for _, s := range p.Statement {
		if !slices.Contains(s.Action, action) || !slices.ContainsFunc(s.Resource, func(r string) bool { return matches(r, resource) }) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		found = true
	}
	return found
}

// What the commands really call is what the policies allow, and production is
// beyond all of them but for its failover.
func TestPoliciesCoverTheCalls(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{Encrypted: true, MultiAZ: true})
	const account = "123456789012"
	roles := map[string]rds.Policy{}
	for _, p := range rds.Policies([]rds.Source{s.source}, account) {
		roles[p.Role] = p
		if !json.Valid(p.JSON()) {
			t.Errorf("%s is no JSON", p.Role)
		}
	}
	arn := func(region, kind, id string) string {
		return "arn:aws:rds:" + region + ":" + account + ":" + kind + ":" + id
	}
	seen := 0
	covered := func(role string) {
		t.Helper()
		calls := s.Calls("")
		for _, c := range calls[seen:] {
			var resources []string
			for name, kind := range map[string]string{"DBInstanceIdentifier": "db", "TargetDBInstanceIdentifier": "db", "DBSnapshotIdentifier": "snapshot", "TargetDBSnapshotIdentifier": "snapshot", "DBSubnetGroupName": "subgrp", "DBParameterGroupName": "pg", "OptionGroupName": "og"} {
				if v := c.Form[name]; v != "" && !(c.Action == "CopyDBSnapshot" && kind == "og") {
					resources = append(resources, arn(c.Region, kind, v))
				}
			}
			if v := c.Form["ResourceName"]; v != "" {
				resources = append(resources, v)
			}
			if len(resources) == 0 {
				resources = []string{"*"}
			}
			for _, r := range resources {
				if !allows(roles[role], "rds:"+c.Action, r) {
					t.Errorf("role %s: rds:%s on %s is not allowed", role, c.Action, r)
				}
			}
		}
		if len(calls) == seen {
			t.Errorf("role %s: nothing was called", role)
		}
		seen = len(calls)
	}
	s.beat(t)
	s.take(t, s.source.DR...)
	if _, err := rds.Expire(context.Background(), s.cloud.RDS, rds.ExpireOptions{Source: s.source, Sources: []rds.Source{s.source}, Waiting: s.wait}); err != nil {
		t.Fatal(err)
	}
	covered("snapshots")
	d, err := s.drill(t, nil)
	passed(t, d, err)
	d, err = s.drill(t, func(o *rds.DrillOptions) { o.Region = away })
	passed(t, d, err)
	covered("drills")
	if _, d, err := s.failover(t, nil); err != nil {
		t.Fatal(d.Reasons, err)
	}
	covered("failover")
	production := arn(home, "db", "orders-prod")
	for role, p := range roles {
		for _, action := range []string{"rds:DeleteDBInstance", "rds:DeleteDBCluster", "rds:ModifyDBInstance"} {
			if allows(p, action, production) {
				t.Errorf("role %s may %s production", role, action)
			}
		}
		if allows(p, "rds:RebootDBInstance", production) != (role == "failover") {
			t.Errorf("role %s and a reboot of production", role)
		}
	}
}
