package rds

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Policy is an IAM policy.
type Policy struct {
	Role      string      `json:"-"`
	Why       string      `json:"-"`
	Version   string      `json:"Version"`
	Statement []Statement `json:"Statement"`
}

// Statement is one rule of it.
type Statement struct {
	Sid       string                       `json:"Sid"`
	Effect    string                       `json:"Effect"`
	Action    []string                     `json:"Action"`
	Resource  []string                     `json:"Resource"`
	Condition map[string]map[string]string `json:"Condition,omitempty"`
}

// Policies are the least rights for these sources, by role: what a timer that takes
// snapshots needs, what a drill needs, and what an on-call person needs for a
// failover, which neither of the others may do. account is the number of the AWS
// account, or "*".
func Policies(sources []Source, account string) []Policy {
	p := policies{account: account}
	for _, s := range sources {
		p.add(s)
	}
	read := p.statement("Read", "Allow", nil, "rds:DescribeDBInstances", "rds:DescribeDBClusters", "rds:DescribeDBSnapshots", "rds:DescribeDBClusterSnapshots", "rds:ListTagsForResource")
	read.Resource = []string{"*"}
	keep := p.statement("NeverDeleteSources", "Deny", p.sources, "rds:DeleteDBInstance", "rds:DeleteDBCluster")
	return []Policy{
		p.snapshots(read, keep),
		p.drills(read, keep),
		p.failovers(read),
	}
}

// policies gathers what the sources name.
type policies struct {
	account                            string
	sources, owned, keys               []string
	staging, groups, secrets, connects []string
	memberGroups                       []string // of the instances of clusters
}

func (p *policies) arn(region, kind, name string) string {
	return fmt.Sprintf("arn:aws:rds:%s:%s:%s:%s", region, p.account, kind, name)
}

func snapshotKind(k Kind) string {
	if k == Cluster {
		return "cluster-snapshot"
	}
	return "snapshot"
}

func (p *policies) add(s Source) {
	kind := "db"
	if s.Kind == Cluster {
		kind = "cluster"
	}
	p.sources = append(p.sources, p.arn(s.Region, kind, s.ID))
	if s.KMSKey != "" {
		p.keys = append(p.keys, s.KMSKey)
	}
	for _, region := range s.regions() {
		r, _ := s.In(region)
		p.owned = append(p.owned, p.arn(region, snapshotKind(s.Kind), Prefix+strings.ToLower(s.Name)+"-*"))
		if r.KMSKey != "" {
			p.keys = append(p.keys, r.KMSKey)
		}
		p.staging = append(p.staging, p.arn(region, "db", DrillPrefix+"*"))
		if s.Kind == Cluster {
			p.staging = append(p.staging, p.arn(region, "cluster", DrillPrefix+"*"))
		}
		g := r.Staging
		for _, x := range [][2]string{{"subgrp", g.SubnetGroup}, {"pg", g.ParameterGroup}, {"cluster-pg", g.ClusterParameterGroup}, {"og", g.OptionGroup}} {
			if x[1] == "" {
				continue
			}
			p.groups = append(p.groups, p.arn(region, x[0], x[1]))
			if s.Kind == Cluster && (x[0] == "subgrp" || x[0] == "pg") {
				p.memberGroups = append(p.memberGroups, p.arn(region, x[0], x[1]))
			}
		}
	}
	if strings.HasPrefix(s.Login.Secret, "arn:") {
		p.secrets = append(p.secrets, s.Login.Secret)
	} else if s.Login.Secret != "" {
		p.secrets = append(p.secrets, fmt.Sprintf("arn:aws:secretsmanager:*:%s:secret:%s-*", p.account, s.Login.Secret))
	}
	if s.Login.IAM {
		p.connects = append(p.connects, fmt.Sprintf("arn:aws:rds-db:*:%s:dbuser:*/%s", p.account, s.Login.Role))
	}
}

func (p *policies) statement(sid, effect string, resources []string, actions ...string) Statement {
	resources = slices.Compact(slices.Sorted(slices.Values(resources)))
	return Statement{Sid: sid, Effect: effect, Action: actions, Resource: resources}
}

func (p *policies) policy(role, why string, statements ...Statement) Policy {
	// A statement about nothing is refused by IAM.
	statements = slices.DeleteFunc(statements, func(s Statement) bool { return len(s.Resource) == 0 })
	return Policy{Role: role, Why: why, Version: "2012-10-17", Statement: statements}
}

func (p *policies) snapshots(read, keep Statement) Policy {
	take := p.statement("TakeAndCopy", "Allow", append(slices.Clone(p.sources), p.owned...),
		"rds:CreateDBSnapshot", "rds:CreateDBClusterSnapshot", "rds:CopyDBSnapshot", "rds:CopyDBClusterSnapshot")
	tag := p.statement("TagOwnSnapshots", "Allow", p.owned, "rds:AddTagsToResource")
	expire := p.statement("ExpireOwnSnapshots", "Allow", p.owned, "rds:DeleteDBSnapshot", "rds:DeleteDBClusterSnapshot")
	expire.Condition = map[string]map[string]string{"StringEquals": {"aws:ResourceTag/" + TagKind: tagSnapshot}}
	return p.policy("snapshots", "rds status, rds snapshot, rds expire: for the timer", append([]Statement{read, take, tag, expire, p.reap(), keep}, p.useKeys()...)...)
}

// useKeys is what copies into a region, and restores there, need of the keys: only
// what RDS does with them, and grants to nobody but it ("AWS KMS key management" in
// the user guide of RDS).
func (p *policies) useKeys() []Statement {
	use := p.statement("UseKeysByRDS", "Allow", p.keys, "kms:DescribeKey", "kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo")
	use.Condition = map[string]map[string]string{"StringLike": {"kms:ViaService": "rds.*.amazonaws.com"}}
	grant := p.statement("LetRDSUseKeys", "Allow", p.keys, "kms:CreateGrant")
	grant.Condition = map[string]map[string]string{"Bool": {"kms:GrantIsForAWSResource": "true"}, "StringLike": {"kms:ViaService": "rds.*.amazonaws.com"}}
	return []Statement{use, grant}
}

// reap is the right to delete what drills made, and nothing else.
func (p *policies) reap() Statement {
	s := p.statement("DeleteWhatDrillsMade", "Allow", p.staging, "rds:DeleteDBInstance", "rds:DeleteDBCluster", "rds:DeleteDBInstanceAutomatedBackup")
	s.Condition = map[string]map[string]string{"StringEquals": {"aws:ResourceTag/" + TagKind: tagDrill}}
	return s
}

func (p *policies) drills(read, keep Statement) Policy {
	from := p.statement("RestoreFrom", "Allow", slices.Concat(p.sources, p.anySnapshots(), p.groups),
		"rds:RestoreDBInstanceFromDBSnapshot", "rds:RestoreDBInstanceToPointInTime", "rds:RestoreDBClusterFromSnapshot", "rds:RestoreDBClusterToPointInTime")
	into := p.statement("RestoreInto", "Allow", p.staging, append(slices.Clone(from.Action), "rds:CreateDBInstance")...)
	into.Condition = map[string]map[string]string{"StringEquals": {"aws:RequestTag/" + TagKind: tagDrill}}
	// An instance is added to what was restored, never to a source: that is not named.
	add := p.statement("AddInstanceWith", "Allow", p.memberGroups, "rds:CreateDBInstance")
	tag := p.statement("TagWhatIsRestored", "Allow", p.staging, "rds:AddTagsToResource")
	tag.Condition = into.Condition
	secret := p.statement("ReadPasswords", "Allow", p.secrets, "secretsmanager:GetSecretValue")
	connect := p.statement("LogIn", "Allow", p.connects, "rds-db:connect")
	return p.policy("drills", "rds status, rds drill, rds heartbeat: for the drill host", append([]Statement{read, from, into, add, tag, p.reap(), secret, connect, keep}, p.useKeys()...)...)
}

// anySnapshots are those that a drill may restore from: automated ones too.
func (p *policies) anySnapshots() []string {
	out := slices.Clone(p.owned)
	for _, s := range p.sources {
		parts := strings.Split(s, ":")
		kind := "snapshot"
		if parts[5] == "cluster" {
			kind = "cluster-snapshot"
		}
		out = append(out, p.arn(parts[3], kind, "rds:"+parts[6]+"-*"))
	}
	return out
}

func (p *policies) failovers(read Statement) Policy {
	act := p.statement("Failover", "Allow", p.sources, "rds:RebootDBInstance", "rds:FailoverDBCluster")
	events := p.statement("ReadEvents", "Allow", []string{"*"}, "rds:DescribeEvents")
	secret := p.statement("ReadPasswords", "Allow", p.secrets, "secretsmanager:GetSecretValue")
	connect := p.statement("LogIn", "Allow", p.connects, "rds-db:connect")
	return p.policy("failover", "rds failover: for on-call people, and for no timer", read, events, act, secret, connect)
}

// JSON is the policy as IAM takes it.
func (p Policy) JSON() []byte {
	out, _ := json.MarshalIndent(p, "", "  ")
	return out
}
