package rds_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/rds"
)

// policySources are an instance whose password is a secret, and a cluster that is
// logged in to with tokens.
var policySources = []rds.Source{
	{Name: "orders", Kind: rds.Instance, ID: "orders-prod", Region: home, KMSKey: "arn:own", Login: rds.Login{Role: "drill", Secret: "rds/orders"},
		Staging: rds.Staging{SubnetGroup: "net", ParameterGroup: "pg", OptionGroup: "og"}, DR: []rds.Region{{Name: away, KMSKey: "arn:there", Staging: rds.Staging{SubnetGroup: "net-dr"}}}},
	{Name: "bank", Kind: rds.Cluster, ID: "bank-prod", Region: home, Login: rds.Login{Role: "drill", IAM: true}, Staging: rds.Staging{SubnetGroup: "net", ParameterGroup: "pg", ClusterParameterGroup: "cpg"}},
}

// statementLine is a statement in a line, with short words for what repeats.
func statementLine(s rds.Statement) string {
	line := fmt.Sprintf("%s %s: %s on %s", s.Effect, s.Sid, strings.Join(s.Action, " "), strings.Join(s.Resource, " "))
	if len(s.Condition) > 0 {
		line += fmt.Sprintf(" if %v", s.Condition)
	}
	return strings.NewReplacer("arn:aws:rds:"+home+":"+account+":", "home:", "arn:aws:rds:"+away+":"+account+":", "away:", "rds:Restore", "Restore").Replace(line)
}

// policyText is every right of every role: one that is missing stops a night's run,
// and one that is too wide is found by somebody else.
const policyText = `
snapshots
Allow Read: rds:DescribeDBInstances rds:DescribeDBClusters rds:DescribeDBSnapshots rds:DescribeDBClusterSnapshots rds:ListTagsForResource on *
Allow TakeAndCopy: rds:CreateDBSnapshot rds:CreateDBClusterSnapshot rds:CopyDBSnapshot rds:CopyDBClusterSnapshot on home:cluster-snapshot:lifeboat-bank-* home:cluster:bank-prod home:db:orders-prod home:snapshot:lifeboat-orders-* away:snapshot:lifeboat-orders-*
Allow TagOwnSnapshots: rds:AddTagsToResource on home:cluster-snapshot:lifeboat-bank-* home:snapshot:lifeboat-orders-* away:snapshot:lifeboat-orders-*
Allow ExpireOwnSnapshots: rds:DeleteDBSnapshot rds:DeleteDBClusterSnapshot on home:cluster-snapshot:lifeboat-bank-* home:snapshot:lifeboat-orders-* away:snapshot:lifeboat-orders-* if map[StringEquals:map[aws:ResourceTag/lifeboat:snapshot]]
Allow DeleteWhatDrillsMade: rds:DeleteDBInstance rds:DeleteDBCluster rds:DeleteDBInstanceAutomatedBackup on home:cluster:lifeboat-drill-* home:db:lifeboat-drill-* away:db:lifeboat-drill-* if map[StringEquals:map[aws:ResourceTag/lifeboat:drill]]
Deny NeverDeleteSources: rds:DeleteDBInstance rds:DeleteDBCluster on home:cluster:bank-prod home:db:orders-prod
Allow UseKeysByRDS: kms:DescribeKey kms:Decrypt kms:GenerateDataKey kms:GenerateDataKeyWithoutPlaintext kms:ReEncryptFrom kms:ReEncryptTo on arn:own arn:there if map[StringLike:map[kms:ViaService:rds.*.amazonaws.com]]
Allow LetRDSUseKeys: kms:CreateGrant on arn:own arn:there if map[Bool:map[kms:GrantIsForAWSResource:true] StringLike:map[kms:ViaService:rds.*.amazonaws.com]]
drills
Allow Read: rds:DescribeDBInstances rds:DescribeDBClusters rds:DescribeDBSnapshots rds:DescribeDBClusterSnapshots rds:ListTagsForResource on *
Allow RestoreFrom: RestoreDBInstanceFromDBSnapshot RestoreDBInstanceToPointInTime RestoreDBClusterFromSnapshot RestoreDBClusterToPointInTime on home:cluster-pg:cpg home:cluster-snapshot:lifeboat-bank-* home:cluster-snapshot:rds:bank-prod-* home:cluster:bank-prod home:db:orders-prod home:og:og home:pg:pg home:snapshot:lifeboat-orders-* home:snapshot:rds:orders-prod-* home:subgrp:net away:snapshot:lifeboat-orders-* away:subgrp:net-dr
Allow RestoreInto: RestoreDBInstanceFromDBSnapshot RestoreDBInstanceToPointInTime RestoreDBClusterFromSnapshot RestoreDBClusterToPointInTime rds:CreateDBInstance on home:cluster:lifeboat-drill-* home:db:lifeboat-drill-* away:db:lifeboat-drill-* if map[StringEquals:map[aws:RequestTag/lifeboat:drill]]
Allow AddInstanceWith: rds:CreateDBInstance on home:pg:pg home:subgrp:net
Allow TagWhatIsRestored: rds:AddTagsToResource on home:cluster:lifeboat-drill-* home:db:lifeboat-drill-* away:db:lifeboat-drill-* if map[StringEquals:map[aws:RequestTag/lifeboat:drill]]
Allow DeleteWhatDrillsMade: rds:DeleteDBInstance rds:DeleteDBCluster rds:DeleteDBInstanceAutomatedBackup on home:cluster:lifeboat-drill-* home:db:lifeboat-drill-* away:db:lifeboat-drill-* if map[StringEquals:map[aws:ResourceTag/lifeboat:drill]]
Allow ReadPasswords: secretsmanager:GetSecretValue on arn:aws:secretsmanager:*:123456789012:secret:rds/orders-*
Allow LogIn: rds-db:connect on arn:aws:rds-db:*:123456789012:dbuser:*/drill
Deny NeverDeleteSources: rds:DeleteDBInstance rds:DeleteDBCluster on home:cluster:bank-prod home:db:orders-prod
Allow UseKeysByRDS: kms:DescribeKey kms:Decrypt kms:GenerateDataKey kms:GenerateDataKeyWithoutPlaintext kms:ReEncryptFrom kms:ReEncryptTo on arn:own arn:there if map[StringLike:map[kms:ViaService:rds.*.amazonaws.com]]
Allow LetRDSUseKeys: kms:CreateGrant on arn:own arn:there if map[Bool:map[kms:GrantIsForAWSResource:true] StringLike:map[kms:ViaService:rds.*.amazonaws.com]]
failover
Allow Read: rds:DescribeDBInstances rds:DescribeDBClusters rds:DescribeDBSnapshots rds:DescribeDBClusterSnapshots rds:ListTagsForResource on *
Allow ReadEvents: rds:DescribeEvents on *
Allow Failover: rds:RebootDBInstance rds:FailoverDBCluster on home:cluster:bank-prod home:db:orders-prod
Allow ReadPasswords: secretsmanager:GetSecretValue on arn:aws:secretsmanager:*:123456789012:secret:rds/orders-*
Allow LogIn: rds-db:connect on arn:aws:rds-db:*:123456789012:dbuser:*/drill
`

func TestPoliciesToTheLastRight(t *testing.T) {
	text := "\n"
	for _, p := range rds.Policies(policySources, account) {
		text += p.Role + "\n"
		for _, s := range p.Statement {
			text += statementLine(s) + "\n"
		}
	}
	got, want := strings.Split(text, "\n"), strings.Split(policyText, "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("from line %d on the policies are\n%s", i, strings.Join(got[min(i, len(got)):], "\n"))
		}
	}
}
