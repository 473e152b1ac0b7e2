package rdstest

import (
	"cmp"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
)

func (d *database) instance() types.DBInstance {
	out := types.DBInstance{
		DBInstanceIdentifier: &d.id, DbiResourceId: &d.resource, DBInstanceArn: ptr(arn(d.region, "db", d.id)), DBInstanceStatus: &d.status, InstanceCreateTime: &d.created,
		Engine: &d.engine, EngineVersion: &d.version, DBInstanceClass: &d.class, AllocatedStorage: &d.storage, StorageType: ptr("gp3"), StorageEncrypted: &d.encrypted,
		MultiAZ: &d.multiAZ, AvailabilityZone: &d.zones[0], PubliclyAccessible: &d.public, DeletionProtection: &d.protected, BackupRetentionPeriod: &d.retention,
		DBSubnetGroup: &types.DBSubnetGroup{DBSubnetGroupName: &d.subnets}, DBParameterGroups: []types.DBParameterGroupStatus{{DBParameterGroupName: &d.group, ParameterApplyStatus: ptr("in-sync")}},
		TagList: d.tags, MasterUsername: ptr(MasterRole),
	}
	if d.multiAZ {
		out.SecondaryAvailabilityZone = &d.zones[1]
	}
	if d.kms != "" {
		out.KmsKeyId = &d.kms
	}
	if d.option != "" {
		out.OptionGroupMemberships = []types.OptionGroupMembership{{OptionGroupName: &d.option, Status: ptr("in-sync")}}
	}
	if !d.restorable.IsZero() {
		out.LatestRestorableTime = &d.restorable
	}
	for _, g := range d.security {
		out.VpcSecurityGroups = append(out.VpcSecurityGroups, types.VpcSecurityGroupMembership{VpcSecurityGroupId: ptr(g), Status: ptr("active")})
	}
	pg := d.pg
	if d.parent != nil {
		out.DBClusterIdentifier, pg = &d.parent.id, d.parent.pg
	}
	if pg != nil && d.status != "creating" {
		out.Endpoint = &types.Endpoint{Address: ptr(hostOf(d.region, d.id)), Port: ptr(int32(pg.port))}
	}
	return out
}

func (d *database) asCluster() types.DBCluster {
	out := types.DBCluster{
		DBClusterIdentifier: &d.id, DbClusterResourceId: &d.resource, DBClusterArn: ptr(arn(d.region, "cluster", d.id)), Status: &d.status, ClusterCreateTime: &d.created,
		Engine: &d.engine, EngineVersion: &d.version, AllocatedStorage: ptr(int32(1)), StorageEncrypted: &d.encrypted, MultiAZ: ptr(len(d.members) > 1),
		DeletionProtection: &d.protected, BackupRetentionPeriod: &d.retention, DBSubnetGroup: &d.subnets, DBClusterParameterGroup: &d.group, TagList: d.tags, MasterUsername: ptr(MasterRole),
		Endpoint: ptr(hostOf(d.region, d.id)),
	}
	if d.pg != nil {
		out.Port = ptr(int32(d.pg.port))
	}
	if d.kms != "" {
		out.KmsKeyId = &d.kms
	}
	if !d.restorable.IsZero() {
		out.LatestRestorableTime = &d.restorable
	}
	for _, g := range d.security {
		out.VpcSecurityGroups = append(out.VpcSecurityGroups, types.VpcSecurityGroupMembership{VpcSecurityGroupId: ptr(g), Status: ptr("active")})
	}
	for i, m := range d.members {
		out.DBClusterMembers = append(out.DBClusterMembers, types.DBClusterMember{DBInstanceIdentifier: &m.id, IsClusterWriter: ptr(i == 0)})
	}
	return out
}

func describeDBInstances(f *Fake, region string, in *sdk.DescribeDBInstancesInput) (*sdk.DescribeDBInstancesOutput, *Fault) {
	var all []types.DBInstance
	for _, d := range f.instances {
		if d.region == region && (in.DBInstanceIdentifier == nil || d.id == *in.DBInstanceIdentifier) {
			all = append(all, d.instance())
		}
	}
	if in.DBInstanceIdentifier != nil && len(all) == 0 {
		return nil, fault("DBInstanceNotFound", "DBInstance %s not found.", *in.DBInstanceIdentifier)
	}
	slices.SortFunc(all, func(a, b types.DBInstance) int { return cmp.Compare(*a.DBInstanceIdentifier, *b.DBInstanceIdentifier) })
	out, next := page(f, all, in.Marker)
	return &sdk.DescribeDBInstancesOutput{DBInstances: out, Marker: next}, nil
}

func describeDBClusters(f *Fake, region string, in *sdk.DescribeDBClustersInput) (*sdk.DescribeDBClustersOutput, *Fault) {
	var all []types.DBCluster
	for _, d := range f.clusters {
		if d.region == region && (in.DBClusterIdentifier == nil || d.id == *in.DBClusterIdentifier) {
			all = append(all, d.asCluster())
		}
	}
	if in.DBClusterIdentifier != nil && len(all) == 0 {
		return nil, fault("DBClusterNotFoundFault", "DBCluster %s not found.", *in.DBClusterIdentifier)
	}
	slices.SortFunc(all, func(a, b types.DBCluster) int { return cmp.Compare(*a.DBClusterIdentifier, *b.DBClusterIdentifier) })
	out, next := page(f, all, in.Marker)
	return &sdk.DescribeDBClustersOutput{DBClusters: out, Marker: next}, nil
}

func describeEvents(f *Fake, region string, in *sdk.DescribeEventsInput) (*sdk.DescribeEventsOutput, *Fault) {
	var all []types.Event
	for _, e := range f.events {
		if e.region == region && (in.SourceIdentifier == nil || e.id == *in.SourceIdentifier) && (in.StartTime == nil || !e.at.Before(*in.StartTime)) {
			all = append(all, types.Event{SourceIdentifier: ptr(e.id), Message: ptr(e.message), Date: ptr(e.at), EventCategories: []string{"failover"}})
		}
	}
	out, next := page(f, all, in.Marker)
	return &sdk.DescribeEventsOutput{Events: out, Marker: next}, nil
}
