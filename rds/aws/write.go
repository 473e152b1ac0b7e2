package aws

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/rds"

	"github.com/lifeboat-dr/lifeboat/rds"
)

func (a *api) CreateSnapshot(ctx context.Context, kind rds.Kind, source, id string, tags rds.Tags) (*rds.Snapshot, error) {
	if kind == rds.Cluster {
		out, err := a.CreateDBClusterSnapshot(ctx, &sdk.CreateDBClusterSnapshotInput{DBClusterIdentifier: &source, DBClusterSnapshotIdentifier: &id, Tags: sdkTags(tags)})
		if err != nil {
			return nil, translate(ctx, "CreateDBClusterSnapshot", err)
		}
		return fromClusterSnapshot(out.DBClusterSnapshot), nil
	}
	out, err := a.CreateDBSnapshot(ctx, &sdk.CreateDBSnapshotInput{DBInstanceIdentifier: &source, DBSnapshotIdentifier: &id, Tags: sdkTags(tags)})
	if err != nil {
		return nil, translate(ctx, "CreateDBSnapshot", err)
	}
	return fromSnapshot(out.DBSnapshot), nil
}

func (a *api) CopySnapshot(ctx context.Context, c rds.Copy) (*rds.Snapshot, error) {
	if c.Of.Kind == rds.Cluster {
		out, err := a.CopyDBClusterSnapshot(ctx, &sdk.CopyDBClusterSnapshotInput{SourceDBClusterSnapshotIdentifier: &c.Of.ARN, TargetDBClusterSnapshotIdentifier: &c.ID,
			SourceRegion: set(c.From), KmsKeyId: set(c.KMSKey), Tags: sdkTags(c.Tags)})
		if err != nil {
			return nil, translate(ctx, "CopyDBClusterSnapshot", err)
		}
		return fromClusterSnapshot(out.DBClusterSnapshot), nil
	}
	out, err := a.CopyDBSnapshot(ctx, &sdk.CopyDBSnapshotInput{SourceDBSnapshotIdentifier: &c.Of.ARN, TargetDBSnapshotIdentifier: &c.ID,
		SourceRegion: set(c.From), KmsKeyId: set(c.KMSKey), OptionGroupName: set(c.OptionGroup), Tags: sdkTags(c.Tags)})
	if err != nil {
		return nil, translate(ctx, "CopyDBSnapshot", err)
	}
	return fromSnapshot(out.DBSnapshot), nil
}

func (a *api) DeleteSnapshot(ctx context.Context, kind rds.Kind, id string) error {
	if kind == rds.Cluster {
		_, err := a.DeleteDBClusterSnapshot(ctx, &sdk.DeleteDBClusterSnapshotInput{DBClusterSnapshotIdentifier: &id})
		return translate(ctx, "DeleteDBClusterSnapshot", err)
	}
	_, err := a.DeleteDBSnapshot(ctx, &sdk.DeleteDBSnapshotInput{DBSnapshotIdentifier: &id})
	return translate(ctx, "DeleteDBSnapshot", err)
}

func (a *api) Tag(ctx context.Context, arn string, tags rds.Tags) error {
	_, err := a.AddTagsToResource(ctx, &sdk.AddTagsToResourceInput{ResourceName: &arn, Tags: sdkTags(tags)})
	return translate(ctx, "AddTagsToResource", err)
}

// What is never left to RDS to choose: it takes for some of it what the source has.
var (
	no     = aws.Bool(false)
	fewest = aws.Int32(1) // days of backups: Aurora takes no fewer, and they go with the cluster
)

func (a *api) Restore(ctx context.Context, r rds.Restore) (*rds.Database, error) {
	switch {
	case r.Kind == rds.Cluster && r.Snapshot != "":
		out, err := a.RestoreDBClusterFromSnapshot(ctx, &sdk.RestoreDBClusterFromSnapshotInput{
			DBClusterIdentifier: &r.ID, SnapshotIdentifier: &r.Snapshot, Engine: &r.Engine, EngineVersion: set(r.Version),
			DBSubnetGroupName: &r.Staging.SubnetGroup, VpcSecurityGroupIds: r.Staging.SecurityGroups, DBClusterParameterGroupName: &r.Staging.ClusterParameterGroup,
			DeletionProtection: no, CopyTagsToSnapshot: no, EnableIAMDatabaseAuthentication: &r.IAM,
			BackupRetentionPeriod: fewest, Tags: sdkTags(r.Tags)})
		if err != nil {
			return nil, translate(ctx, "RestoreDBClusterFromSnapshot", err)
		}
		return fromCluster(out.DBCluster), nil
	case r.Kind == rds.Cluster:
		out, err := a.RestoreDBClusterToPointInTime(ctx, &sdk.RestoreDBClusterToPointInTimeInput{
			DBClusterIdentifier: &r.ID, SourceDBClusterIdentifier: &r.Source, RestoreToTime: set(r.Time), UseLatestRestorableTime: set(r.Latest),
			DBSubnetGroupName: &r.Staging.SubnetGroup, VpcSecurityGroupIds: r.Staging.SecurityGroups, DBClusterParameterGroupName: &r.Staging.ClusterParameterGroup,
			DeletionProtection: no, CopyTagsToSnapshot: no, EnableIAMDatabaseAuthentication: &r.IAM,
			BackupRetentionPeriod: fewest, Tags: sdkTags(r.Tags)})
		if err != nil {
			return nil, translate(ctx, "RestoreDBClusterToPointInTime", err)
		}
		return fromCluster(out.DBCluster), nil
	case r.Snapshot != "":
		out, err := a.RestoreDBInstanceFromDBSnapshot(ctx, &sdk.RestoreDBInstanceFromDBSnapshotInput{
			DBInstanceIdentifier: &r.ID, DBSnapshotIdentifier: &r.Snapshot, DBInstanceClass: &r.Class,
			DBSubnetGroupName: &r.Staging.SubnetGroup, VpcSecurityGroupIds: r.Staging.SecurityGroups, DBParameterGroupName: &r.Staging.ParameterGroup, OptionGroupName: &r.Staging.OptionGroup,
			PubliclyAccessible: no, DeletionProtection: no, MultiAZ: no, CopyTagsToSnapshot: no, EnableIAMDatabaseAuthentication: &r.IAM,
			BackupRetentionPeriod: aws.Int32(0), Tags: sdkTags(r.Tags)})
		if err != nil {
			return nil, translate(ctx, "RestoreDBInstanceFromDBSnapshot", err)
		}
		return fromInstance(out.DBInstance), nil
	}
	out, err := a.RestoreDBInstanceToPointInTime(ctx, &sdk.RestoreDBInstanceToPointInTimeInput{
		TargetDBInstanceIdentifier: &r.ID, SourceDBInstanceIdentifier: &r.Source, RestoreTime: set(r.Time), UseLatestRestorableTime: set(r.Latest), DBInstanceClass: &r.Class,
		DBSubnetGroupName: &r.Staging.SubnetGroup, VpcSecurityGroupIds: r.Staging.SecurityGroups, DBParameterGroupName: &r.Staging.ParameterGroup, OptionGroupName: &r.Staging.OptionGroup,
		PubliclyAccessible: no, DeletionProtection: no, MultiAZ: no, CopyTagsToSnapshot: no, EnableIAMDatabaseAuthentication: &r.IAM,
		BackupRetentionPeriod: aws.Int32(0), Tags: sdkTags(r.Tags)})
	if err != nil {
		return nil, translate(ctx, "RestoreDBInstanceToPointInTime", err)
	}
	return fromInstance(out.DBInstance), nil
}

func (a *api) AddInstance(ctx context.Context, r rds.Restore, cluster string) (*rds.Database, error) {
	out, err := a.CreateDBInstance(ctx, &sdk.CreateDBInstanceInput{
		DBInstanceIdentifier: &r.ID, DBClusterIdentifier: &cluster, DBInstanceClass: &r.Class, Engine: &r.Engine,
		DBParameterGroupName: &r.Staging.ParameterGroup, PubliclyAccessible: no, Tags: sdkTags(r.Tags)})
	if err != nil {
		return nil, translate(ctx, "CreateDBInstance", err)
	}
	return fromInstance(out.DBInstance), nil
}

// Delete takes no final snapshot and keeps no backups: what it deletes is a copy.
func (a *api) Delete(ctx context.Context, kind rds.Kind, id string, member bool) error {
	if kind == rds.Cluster {
		_, err := a.DeleteDBCluster(ctx, &sdk.DeleteDBClusterInput{DBClusterIdentifier: &id, SkipFinalSnapshot: aws.Bool(true), DeleteAutomatedBackups: aws.Bool(true)})
		return translate(ctx, "DeleteDBCluster", err)
	}
	in := &sdk.DeleteDBInstanceInput{DBInstanceIdentifier: &id}
	if !member {
		in.SkipFinalSnapshot, in.DeleteAutomatedBackups = aws.Bool(true), aws.Bool(true)
	}
	_, err := a.DeleteDBInstance(ctx, in)
	return translate(ctx, "DeleteDBInstance", err)
}

func (a *api) Failover(ctx context.Context, kind rds.Kind, id, target string) error {
	if kind == rds.Cluster {
		_, err := a.FailoverDBCluster(ctx, &sdk.FailoverDBClusterInput{DBClusterIdentifier: &id, TargetDBInstanceIdentifier: set(target)})
		return translate(ctx, "FailoverDBCluster", err)
	}
	_, err := a.RebootDBInstance(ctx, &sdk.RebootDBInstanceInput{DBInstanceIdentifier: &id, ForceFailover: aws.Bool(true)})
	return translate(ctx, "RebootDBInstance", err)
}
