package aws

import (
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/lifeboat-dr/lifeboat/rds"
)

func number(n *int32) int { return int(aws.ToInt32(n)) }

func percent(n *int32) int {
	if n == nil {
		return -1
	}
	return int(*n)
}

func ownTags(list []types.Tag) rds.Tags {
	tags := rds.Tags{}
	for _, t := range list {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags
}

func sdkTags(tags rds.Tags) []types.Tag {
	var list []types.Tag
	for k, v := range tags {
		list = append(list, types.Tag{Key: &k, Value: &v})
	}
	slices.SortFunc(list, func(a, b types.Tag) int { return strings.Compare(*a.Key, *b.Key) })
	return list
}

func groups(list []types.VpcSecurityGroupMembership) []string {
	var out []string
	for _, g := range list {
		if aws.ToString(g.Status) != "removing" {
			out = append(out, aws.ToString(g.VpcSecurityGroupId))
		}
	}
	slices.Sort(out)
	return out
}

func fromInstance(d *types.DBInstance) *rds.Database {
	out := &rds.Database{
		Kind: rds.Instance, ID: aws.ToString(d.DBInstanceIdentifier), ResourceID: aws.ToString(d.DbiResourceId), ARN: aws.ToString(d.DBInstanceArn),
		Status: aws.ToString(d.DBInstanceStatus), Created: aws.ToTime(d.InstanceCreateTime), Engine: aws.ToString(d.Engine), EngineVersion: aws.ToString(d.EngineVersion),
		Class: aws.ToString(d.DBInstanceClass), Storage: number(d.AllocatedStorage), StorageType: aws.ToString(d.StorageType), IOPS: number(d.Iops),
		Encrypted: aws.ToBool(d.StorageEncrypted), KMSKey: aws.ToString(d.KmsKeyId), MultiAZ: aws.ToBool(d.MultiAZ),
		Zone: aws.ToString(d.AvailabilityZone), SecondaryZone: aws.ToString(d.SecondaryAvailabilityZone),
		Public: aws.ToBool(d.PubliclyAccessible), Protected: aws.ToBool(d.DeletionProtection), SecurityGroups: groups(d.VpcSecurityGroups),
		RetentionDays: number(d.BackupRetentionPeriod), Restorable: aws.ToTime(d.LatestRestorableTime), Cluster: aws.ToString(d.DBClusterIdentifier), Tags: ownTags(d.TagList),
	}
	if d.Endpoint != nil {
		out.Host, out.Port = aws.ToString(d.Endpoint.Address), number(d.Endpoint.Port)
	}
	if d.DBSubnetGroup != nil {
		out.SubnetGroup = aws.ToString(d.DBSubnetGroup.DBSubnetGroupName)
	}
	if len(d.DBParameterGroups) > 0 {
		out.ParameterGroup = aws.ToString(d.DBParameterGroups[0].DBParameterGroupName)
	}
	if len(d.OptionGroupMemberships) > 0 {
		out.OptionGroup = aws.ToString(d.OptionGroupMemberships[0].OptionGroupName)
	}
	return out
}

func fromCluster(d *types.DBCluster) *rds.Database {
	out := &rds.Database{
		Kind: rds.Cluster, ID: aws.ToString(d.DBClusterIdentifier), ResourceID: aws.ToString(d.DbClusterResourceId), ARN: aws.ToString(d.DBClusterArn),
		Status: aws.ToString(d.Status), Created: aws.ToTime(d.ClusterCreateTime), Engine: aws.ToString(d.Engine), EngineVersion: aws.ToString(d.EngineVersion),
		Host: aws.ToString(d.Endpoint), Port: number(d.Port), Storage: number(d.AllocatedStorage), StorageType: aws.ToString(d.StorageType), IOPS: number(d.Iops),
		Encrypted: aws.ToBool(d.StorageEncrypted), KMSKey: aws.ToString(d.KmsKeyId), MultiAZ: aws.ToBool(d.MultiAZ),
		Public: aws.ToBool(d.PubliclyAccessible), Protected: aws.ToBool(d.DeletionProtection), SubnetGroup: aws.ToString(d.DBSubnetGroup),
		SecurityGroups: groups(d.VpcSecurityGroups), ParameterGroup: aws.ToString(d.DBClusterParameterGroup),
		RetentionDays: number(d.BackupRetentionPeriod), Restorable: aws.ToTime(d.LatestRestorableTime), Tags: ownTags(d.TagList),
	}
	for _, m := range d.DBClusterMembers {
		out.Members = append(out.Members, rds.Member{ID: aws.ToString(m.DBInstanceIdentifier), Writer: aws.ToBool(m.IsClusterWriter)})
	}
	return out
}

func fromSnapshot(s *types.DBSnapshot) *rds.Snapshot {
	return &rds.Snapshot{
		Kind: rds.Instance, ID: aws.ToString(s.DBSnapshotIdentifier), ARN: aws.ToString(s.DBSnapshotArn), Source: aws.ToString(s.DBInstanceIdentifier),
		ResourceID: aws.ToString(s.DbiResourceId), Type: aws.ToString(s.SnapshotType), Status: aws.ToString(s.Status), Percent: percent(s.PercentProgress),
		Created: oldest(s.OriginalSnapshotCreateTime, s.SnapshotCreateTime), Engine: aws.ToString(s.Engine), EngineVersion: aws.ToString(s.EngineVersion),
		Storage: number(s.AllocatedStorage), Encrypted: aws.ToBool(s.Encrypted), KMSKey: aws.ToString(s.KmsKeyId),
		CopyOf: aws.ToString(s.SourceDBSnapshotIdentifier), Tags: ownTags(s.TagList),
	}
}

// oldest is when the data is of: a copy keeps the time of what it was made of.
func oldest(original, own *time.Time) time.Time {
	if original != nil {
		return *original
	}
	return aws.ToTime(own)
}

func fromClusterSnapshot(s *types.DBClusterSnapshot) *rds.Snapshot {
	return &rds.Snapshot{
		Kind: rds.Cluster, ID: aws.ToString(s.DBClusterSnapshotIdentifier), ARN: aws.ToString(s.DBClusterSnapshotArn), Source: aws.ToString(s.DBClusterIdentifier),
		ResourceID: aws.ToString(s.DbClusterResourceId), Type: aws.ToString(s.SnapshotType), Status: aws.ToString(s.Status), Percent: percent(s.PercentProgress),
		Created: aws.ToTime(s.SnapshotCreateTime), Engine: aws.ToString(s.Engine), EngineVersion: aws.ToString(s.EngineVersion),
		Storage: number(s.AllocatedStorage), Encrypted: aws.ToBool(s.StorageEncrypted), KMSKey: aws.ToString(s.KmsKeyId),
		CopyOf: aws.ToString(s.SourceDBClusterSnapshotArn), Tags: ownTags(s.TagList),
	}
}

// set is a pointer to a value that a request is to hold, nil for the zero one.
func set[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
