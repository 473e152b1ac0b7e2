package aws

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"

	"github.com/lifeboat-dr/lifeboat/rds"
)

func (a *api) Database(ctx context.Context, kind rds.Kind, id string) (*rds.Database, error) {
	all, err := a.databases(ctx, kind, &id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, &rds.Error{Action: "rds:Describe", Message: string(kind) + " " + id + " not found", Err: rds.ErrNotFound}
	}
	return &all[0], nil
}

func (a *api) Databases(ctx context.Context, kind rds.Kind) ([]rds.Database, error) {
	return a.databases(ctx, kind, nil)
}

// databases lists all, or the one of an identifier.
func (a *api) databases(ctx context.Context, kind rds.Kind, id *string) (out []rds.Database, err error) {
	if kind == rds.Cluster {
		pages := sdk.NewDescribeDBClustersPaginator(a.Client, &sdk.DescribeDBClustersInput{DBClusterIdentifier: id})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, translate(ctx, "DescribeDBClusters", err)
			}
			for _, d := range page.DBClusters {
				out = append(out, *fromCluster(&d))
			}
		}
		return out, nil
	}
	pages := sdk.NewDescribeDBInstancesPaginator(a.Client, &sdk.DescribeDBInstancesInput{DBInstanceIdentifier: id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate(ctx, "DescribeDBInstances", err)
		}
		for _, d := range page.DBInstances {
			out = append(out, *fromInstance(&d))
		}
	}
	return out, nil
}

func (a *api) Snapshot(ctx context.Context, kind rds.Kind, id string) (*rds.Snapshot, error) {
	all, err := a.snapshots(ctx, kind, nil, &id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, &rds.Error{Action: "rds:Describe", Message: "snapshot " + id + " not found", Err: rds.ErrNotFound}
	}
	return &all[0], nil
}

func (a *api) Snapshots(ctx context.Context, kind rds.Kind, source string) ([]rds.Snapshot, error) {
	return a.snapshots(ctx, kind, set(source), nil)
}

func (a *api) snapshots(ctx context.Context, kind rds.Kind, source, id *string) (out []rds.Snapshot, err error) {
	if kind == rds.Cluster {
		pages := sdk.NewDescribeDBClusterSnapshotsPaginator(a.Client, &sdk.DescribeDBClusterSnapshotsInput{DBClusterIdentifier: source, DBClusterSnapshotIdentifier: id})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, translate(ctx, "DescribeDBClusterSnapshots", err)
			}
			for _, s := range page.DBClusterSnapshots {
				out = append(out, *fromClusterSnapshot(&s))
			}
		}
		return out, nil
	}
	pages := sdk.NewDescribeDBSnapshotsPaginator(a.Client, &sdk.DescribeDBSnapshotsInput{DBInstanceIdentifier: source, DBSnapshotIdentifier: id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate(ctx, "DescribeDBSnapshots", err)
		}
		for _, s := range page.DBSnapshots {
			out = append(out, *fromSnapshot(&s))
		}
	}
	return out, nil
}

func (a *api) Events(ctx context.Context, kind rds.Kind, id string, since time.Time) (out []rds.Event, err error) {
	source := types.SourceTypeDbInstance
	if kind == rds.Cluster {
		source = types.SourceTypeDbCluster
	}
	pages := sdk.NewDescribeEventsPaginator(a.Client, &sdk.DescribeEventsInput{SourceIdentifier: &id, SourceType: source, StartTime: &since})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate(ctx, "DescribeEvents", err)
		}
		for _, e := range page.Events {
			out = append(out, rds.Event{At: aws.ToTime(e.Date), Message: aws.ToString(e.Message)})
		}
	}
	return out, nil
}
