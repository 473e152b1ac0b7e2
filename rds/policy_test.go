package rds_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
)

const account = "123456789012"

func arn(region, kind, id string) string {
	if strings.HasPrefix(id, "arn:") {
		return id
	}
	return "arn:aws:rds:" + region + ":" + account + ":" + kind + ":" + id
}

// matches says whether a pattern of IAM covers a name.
func matches(pattern, name string) bool {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(name)
}

// access is one thing that a call does to one resource.
type access struct {
	action, resource string
	request, has     map[string]string // the tags of the call, and those of the resource
}

// allows says whether a policy lets it through.
func allows(p rds.Policy, a access) bool {
	found := false
	for _, s := range p.Statement {
		if !slices.Contains(s.Action, a.action) || !slices.ContainsFunc(s.Resource, func(r string) bool { return matches(r, a.resource) }) || !a.meets(s.Condition) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		found = true
	}
	return found
}

func (a access) meets(conditions map[string]map[string]string) bool {
	for operator, all := range conditions {
		for key, want := range all {
			tags, name := a.request, strings.TrimPrefix(key, "aws:RequestTag/")
			if own, ok := strings.CutPrefix(key, "aws:ResourceTag/"); ok {
				tags, name = a.has, own
			}
			if operator != "StringEquals" || tags[name] != want {
				return false
			}
		}
	}
	return true
}

// resourceKinds are the parameters that name a resource on which a call needs the
// right: "Actions, resources, and condition keys for Amazon RDS" of Amazon's
// service authorization reference.
var resourceKinds = map[string]string{
	"DBInstanceIdentifier": "db", "TargetDBInstanceIdentifier": "db", "SourceDBInstanceIdentifier": "db",
	"DBClusterIdentifier": "cluster", "SourceDBClusterIdentifier": "cluster",
	"DBSnapshotIdentifier": "snapshot", "SourceDBSnapshotIdentifier": "snapshot", "TargetDBSnapshotIdentifier": "snapshot",
	"DBClusterSnapshotIdentifier": "cluster-snapshot", "SnapshotIdentifier": "cluster-snapshot",
	"SourceDBClusterSnapshotIdentifier": "cluster-snapshot", "TargetDBClusterSnapshotIdentifier": "cluster-snapshot",
	"DBSubnetGroupName": "subgrp", "DBParameterGroupName": "pg", "DBClusterParameterGroupName": "cluster-pg", "OptionGroupName": "og",
}

// made are the parameters that name what a call makes, and so tags.
var made = map[string]string{
	"CreateDBSnapshot": "DBSnapshotIdentifier", "CreateDBClusterSnapshot": "DBClusterSnapshotIdentifier",
	"CopyDBSnapshot": "TargetDBSnapshotIdentifier", "CopyDBClusterSnapshot": "TargetDBClusterSnapshotIdentifier",
	"RestoreDBInstanceFromDBSnapshot": "DBInstanceIdentifier", "RestoreDBInstanceToPointInTime": "TargetDBInstanceIdentifier",
	"RestoreDBClusterFromSnapshot": "DBClusterIdentifier", "RestoreDBClusterToPointInTime": "DBClusterIdentifier",
	"CreateDBInstance": "DBInstanceIdentifier",
}

// tagged keeps the tags of what calls have made.
type tagged map[string]map[string]string

// accesses are what a call needs rights for.
func (t tagged) accesses(c rdstest.Call) []access {
	request := map[string]string{}
	for n := 1; c.Form[fmt.Sprintf("Tags.Tag.%d.Key", n)] != ""; n++ {
		request[c.Form[fmt.Sprintf("Tags.Tag.%d.Key", n)]] = c.Form[fmt.Sprintf("Tags.Tag.%d.Value", n)]
	}
	var out []access
	need := func(action, resource string) {
		out = append(out, access{"rds:" + action, resource, request, t[resource]})
	}
	for name, kind := range resourceKinds {
		// Neither names a resource: the option group of a copy, and the instance that
		// takes over, which belongs to the cluster.
		if c.Action == "FailoverDBCluster" && kind == "db" {
			continue
		}
		if v := c.Form[name]; v != "" && !(strings.HasPrefix(c.Action, "Copy") && kind == "og") {
			need(c.Action, arn(c.Region, kind, v))
		}
	}
	if v := c.Form["ResourceName"]; v != "" {
		need(c.Action, v)
	}
	if name := made[c.Action]; name != "" {
		target := arn(c.Region, resourceKinds[name], c.Form[name])
		if len(request) > 0 { // to tag what is made takes the right to tag
			need("AddTagsToResource", target)
		}
		if c.Code == "" {
			t[target] = request
		}
	}
	if len(out) == 0 {
		need(c.Action, "*")
	}
	return out
}

// What the commands really call is what the policies allow, and production is
// beyond all of them but for its failover.
func TestPoliciesCoverTheCalls(t *testing.T) {
	for _, cluster := range []bool{false, true} {
		t.Run(fmt.Sprintf("cluster %t", cluster), func(t *testing.T) {
			s := newSite(t, rdstest.Options{}, rdstest.Source{Encrypted: true, MultiAZ: true, Backups: true, Cluster: cluster})
			roles := map[string]rds.Policy{}
			for _, p := range rds.Policies([]rds.Source{s.source}, account) {
				roles[p.Role] = p
				if !json.Valid(p.JSON()) {
					t.Errorf("%s is no JSON", p.Role)
				}
			}
			tags := tagged{}
			seen := 0
			covered := func(role string, wanted ...string) {
				t.Helper()
				calls := s.Calls("")
				actions := map[string]bool{}
				for _, c := range calls[seen:] {
					actions[c.Action] = true
					for _, a := range tags.accesses(c) {
						if !allows(roles[role], a) {
							t.Errorf("role %s: %+v is not allowed", role, a)
						}
					}
				}
				for _, w := range wanted {
					if !actions[w] {
						t.Errorf("role %s: %s was never called, but %v", role, w, slices.Sorted(maps.Keys(actions)))
					}
				}
				seen = len(calls)
			}
			s.beat(t)
			s.take(t, s.source.DR...)
			s.take(t)
			s.source.Keep = 1
			if _, err := rds.Expire(context.Background(), s.cloud.RDS, rds.ExpireOptions{Source: s.source, Sources: []rds.Source{s.source}, Waiting: s.wait}); err != nil {
				t.Fatal(err)
			}
			names := map[bool][]string{false: {"CreateDBSnapshot", "CopyDBSnapshot", "DeleteDBSnapshot"}, true: {"CreateDBClusterSnapshot", "CopyDBClusterSnapshot", "DeleteDBClusterSnapshot"}}
			covered("snapshots", names[cluster]...)
			s.Advance(t, home, "orders-prod")
			for _, change := range []func(*rds.DrillOptions){
				nil,
				func(o *rds.DrillOptions) { o.Region = away },
				func(o *rds.DrillOptions) { o.From = rds.FromLatestTime },
			} {
				d, err := s.drill(t, change)
				passed(t, d, err)
			}
			names = map[bool][]string{false: {"RestoreDBInstanceFromDBSnapshot", "RestoreDBInstanceToPointInTime", "DeleteDBInstance"}, true: {"RestoreDBClusterFromSnapshot", "RestoreDBClusterToPointInTime", "CreateDBInstance", "DeleteDBInstance", "DeleteDBCluster"}}
			covered("drills", names[cluster]...)
			if _, d, err := s.failover(t, nil); err != nil {
				t.Fatal(d.Reasons, err)
			}
			covered("failover", map[bool]string{false: "RebootDBInstance", true: "FailoverDBCluster"}[cluster])
			productionIsBeyond(t, s, roles, tags)
		})
	}
}

// productionIsBeyond holds that no role can delete or change production, whatever
// tags it carries, nor anything restored that lacks ours.
func productionIsBeyond(t *testing.T, s *site, roles map[string]rds.Policy, tags tagged) {
	t.Helper()
	kind, reboot := "db", "rds:RebootDBInstance"
	if s.source.Kind == rds.Cluster {
		kind, reboot = "cluster", "rds:FailoverDBCluster"
	}
	ours := map[string]string{rds.TagKind: "drill"}
	for role, p := range roles {
		for _, action := range []string{"rds:DeleteDBInstance", "rds:DeleteDBCluster", "rds:ModifyDBInstance", "rds:ModifyDBCluster"} {
			if allows(p, access{action, arn(home, kind, "orders-prod"), ours, ours}) {
				t.Errorf("role %s may %s production", role, action)
			}
			if allows(p, access{action, arn(home, kind, rds.DrillPrefix+"20260131t020000z-01234567"), ours, nil}) {
				t.Errorf("role %s may %s something that is not tagged", role, action)
			}
		}
		for _, action := range []string{"rds:DeleteDBSnapshot", "rds:DeleteDBClusterSnapshot"} {
			for resource := range tags {
				if strings.Contains(resource, "snapshot:") && allows(p, access{action, resource, nil, nil}) {
					t.Errorf("role %s may %s a snapshot that is not tagged", role, action)
				}
			}
		}
		if allows(p, access{"rds:CreateDBInstance", arn(home, kind, "orders-prod"), ours, nil}) {
			t.Errorf("role %s may add an instance to production", role)
		}
		if allows(p, access{reboot, arn(home, kind, "orders-prod"), nil, nil}) != (role == "failover") {
			t.Errorf("role %s and a failover of production", role)
		}
	}
}

// Keys are used by RDS alone, and granted to nobody else.
func TestPoliciesOfKeys(t *testing.T) {
	source := rds.Source{Name: "orders", Kind: rds.Instance, ID: "orders-prod", Region: home, KMSKey: "arn:aws:kms:eu-central-1:123456789012:key/own", DR: []rds.Region{{Name: away, KMSKey: key}}}
	for _, p := range rds.Policies([]rds.Source{source}, account) {
		found := 0
		for _, s := range p.Statement {
			if !slices.ContainsFunc(s.Action, func(a string) bool { return strings.HasPrefix(a, "kms:") }) {
				continue
			}
			found++
			if s.Condition["StringLike"]["kms:ViaService"] != "rds.*.amazonaws.com" || !slices.Equal(s.Resource, []string{source.KMSKey, key}) {
				t.Errorf("role %s: %+v", p.Role, s)
			}
			if slices.Contains(s.Action, "kms:CreateGrant") && s.Condition["Bool"]["kms:GrantIsForAWSResource"] != "true" {
				t.Errorf("role %s may grant the key to anybody: %+v", p.Role, s)
			}
		}
		if want := map[string]int{"failover": 0, "snapshots": 2, "drills": 2}[p.Role]; found != want {
			t.Errorf("role %s: %d statements about keys, want %d", p.Role, found, want)
		}
	}
}
