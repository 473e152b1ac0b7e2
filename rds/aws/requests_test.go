package aws_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/aws"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
)

// What RDS is asked for, to the last field: for one that is left out it takes its own
// default, or what the source has.
func TestRequests(t *testing.T) {
	f := rdstest.Start(t, rdstest.Options{})
	api, err := aws.New(aws.Options{Endpoint: f.URL, Attempts: 1, CredentialsFrom: credentials.NewStaticCredentialsProvider("a", "b", "")}).RDS(home)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	restore := func(kind rds.Kind, change func(*rds.Restore)) func() {
		return func() {
			r := request(kind)
			r.IAM = true
			change(&r)
			_, _ = api.Restore(ctx, r) // there is nothing to restore from: it is asked for all the same
		}
	}
	of := func(r *rds.Restore) { r.Snapshot = snapshot }
	latest := func(r *rds.Restore) { r.Source, r.Latest = "prod", true }
	at := func(r *rds.Restore) { r.Source, r.Time = "prod", time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC) }
	const (
		common   = " DBSubnetGroupName=staging VpcSecurityGroupIds.VpcSecurityGroupId.1=sg-0123456789abcdef0 DeletionProtection=false CopyTagsToSnapshot=false EnableIAMDatabaseAuthentication=true" + tags
		instance = common + " DBInstanceClass=db.t4g.medium DBParameterGroupName=orders OptionGroupName=orders-options PubliclyAccessible=false MultiAZ=false BackupRetentionPeriod=0"
		cluster  = common + " DBClusterIdentifier=" + drill + " DBClusterParameterGroupName=orders-cluster BackupRetentionPeriod=1"
	)
	for _, c := range []struct {
		ask  func()
		want string
	}{
		{restore(rds.Instance, of), "RestoreDBInstanceFromDBSnapshot DBInstanceIdentifier=" + drill + " DBSnapshotIdentifier=" + snapshot + instance},
		{restore(rds.Instance, latest), "RestoreDBInstanceToPointInTime TargetDBInstanceIdentifier=" + drill + " SourceDBInstanceIdentifier=prod UseLatestRestorableTime=true" + instance},
		{restore(rds.Instance, at), "RestoreDBInstanceToPointInTime TargetDBInstanceIdentifier=" + drill + " SourceDBInstanceIdentifier=prod RestoreTime=2026-01-31T02:00:00Z" + instance},
		{restore(rds.Cluster, of), "RestoreDBClusterFromSnapshot SnapshotIdentifier=" + snapshot + " Engine=aurora-postgresql EngineVersion=15.6" + cluster},
		{restore(rds.Cluster, latest), "RestoreDBClusterToPointInTime SourceDBClusterIdentifier=prod UseLatestRestorableTime=true" + cluster},
		{restore(rds.Cluster, at), "RestoreDBClusterToPointInTime SourceDBClusterIdentifier=prod RestoreToTime=2026-01-31T02:00:00Z" + cluster},
		{func() { _, _ = api.AddInstance(ctx, request(rds.Cluster), "cluster") }, "CreateDBInstance DBInstanceIdentifier=" + drill + " DBClusterIdentifier=cluster DBInstanceClass=db.t4g.medium Engine=aurora-postgresql DBParameterGroupName=orders PubliclyAccessible=false" + tags},
		{func() { _ = api.Delete(ctx, rds.Instance, drill, false) }, "DeleteDBInstance DBInstanceIdentifier=" + drill + " SkipFinalSnapshot=true DeleteAutomatedBackups=true"},
		{func() { _ = api.Delete(ctx, rds.Instance, drill, true) }, "DeleteDBInstance DBInstanceIdentifier=" + drill},
		{func() { _ = api.Delete(ctx, rds.Cluster, drill, false) }, "DeleteDBCluster DBClusterIdentifier=" + drill + " SkipFinalSnapshot=true DeleteAutomatedBackups=true"},
		{func() { _ = api.Failover(ctx, rds.Instance, "prod", "") }, "RebootDBInstance DBInstanceIdentifier=prod ForceFailover=true"},
		{func() { _ = api.Failover(ctx, rds.Cluster, "prod", "prod-2") }, "FailoverDBCluster DBClusterIdentifier=prod TargetDBInstanceIdentifier=prod-2"},
	} {
		before := len(f.Calls(""))
		c.ask()
		calls := f.Calls("")[before:]
		if len(calls) != 1 {
			t.Fatalf("%d calls, want one: %s", len(calls), c.want)
		}
		got := []string{calls[0].Action}
		for _, name := range slices.Sorted(maps.Keys(calls[0].Form)) {
			if name != "Action" && name != "Version" {
				got = append(got, name+"="+calls[0].Form[name])
			}
		}
		want := strings.Fields(c.want)
		slices.Sort(want[1:])
		if !slices.Equal(got, want) {
			t.Errorf("RDS was asked\n%q\nwant\n%q", got, want)
		}
	}
}

const tags = " Tags.Tag.1.Key=lifeboat Tags.Tag.1.Value=drill Tags.Tag.2.Key=lifeboat:attempt Tags.Tag.2.Value=" + attempt
