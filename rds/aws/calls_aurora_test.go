package aws_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lifeboat-dr/lifeboat/rds"
)

// auroraSuite is the part of the suite about clusters.
func auroraSuite() []step {
	tags := ownTags
	return []step{
		{"Aurora: a cluster and its writer", func(ctx context.Context, c *calls) error {
			d, err := c.home.Database(ctx, rds.Cluster, "aurora-prod")
			if err != nil {
				return err
			}
			return want(d.Engine == "aurora-postgresql" && d.ResourceID != "" && len(d.Members) == 2 && d.Members[0].Writer != d.Members[1].Writer, "%+v", d)
		}},
		{"Aurora: take a snapshot", func(ctx context.Context, c *calls) error {
			if _, err := c.home.CreateSnapshot(ctx, rds.Cluster, "aurora-prod", snapshot, tags); err != nil {
				return err
			}
			s, err := c.snapshotIn(ctx, c.home, rds.Cluster, snapshot)
			return errors.Join(err, want(s != nil && s.Source == "aurora-prod" && maps.Equal(s.Tags, tags), "%+v", s))
		}},
		{"Aurora: restore, and add the instance", func(ctx context.Context, c *calls) error {
			r := request(rds.Cluster)
			r.Snapshot = snapshot
			if _, err := c.home.Restore(ctx, r); err != nil {
				return err
			}
			d, err := c.available(ctx, rds.Cluster, drill)
			if err != nil {
				return err
			}
			if len(d.Members) != 0 || d.RetentionDays != 1 {
				return fmt.Errorf("members %+v, backups of %d days", d.Members, d.RetentionDays)
			}
			r.ID = drill + "-1"
			if _, err := c.home.AddInstance(ctx, r, drill); err != nil {
				return err
			}
			if d, err = c.available(ctx, rds.Instance, r.ID); err != nil {
				return err
			}
			return want(d.Cluster == drill && maps.Equal(d.Tags, r.Tags), "%+v", d)
		}},
		{"Aurora: the groups of a restore", func(ctx context.Context, c *calls) error {
			d, err := c.home.Database(ctx, rds.Cluster, drill)
			return errors.Join(err, want(d != nil && d.SubnetGroup == staging.SubnetGroup && slices.Equal(d.SecurityGroups, staging.SecurityGroups) && d.ParameterGroup == staging.ClusterParameterGroup && maps.Equal(d.Tags, request(rds.Cluster).Tags), "%+v", d))
		}},
		{"Aurora: a cluster with an instance is not deleted", func(ctx context.Context, c *calls) error {
			return refused(c.home.Delete(ctx, rds.Cluster, drill, false), rds.ErrState)
		}},
		{"Aurora: delete instance and cluster", func(ctx context.Context, c *calls) error {
			if err := c.home.Delete(ctx, rds.Instance, drill+"-1", true); err != nil {
				return err
			}
			if err := c.gone(ctx, rds.Instance, drill+"-1"); err != nil {
				return err
			}
			if err := c.home.Delete(ctx, rds.Cluster, drill, false); err != nil && !errors.Is(err, rds.ErrNotFound) {
				return err
			}
			return c.gone(ctx, rds.Cluster, drill)
		}},
		{"Aurora: restore to the latest time", func(ctx context.Context, c *calls) error {
			r := request(rds.Cluster)
			r.ID, r.Source, r.Latest = drill+"-2", "aurora-prod", true
			if _, err := c.home.Restore(ctx, r); err != nil {
				return err
			}
			if _, err := c.available(ctx, rds.Cluster, r.ID); err != nil {
				return err
			}
			if err := c.home.Delete(ctx, rds.Cluster, r.ID, false); err != nil {
				return err
			}
			return c.gone(ctx, rds.Cluster, r.ID)
		}},
		{"Aurora: copy a snapshot to another region", func(ctx context.Context, c *calls) error {
			s, err := c.home.Snapshot(ctx, rds.Cluster, snapshot)
			if err != nil {
				return err
			}
			if _, err := c.away.CopySnapshot(ctx, rds.Copy{Of: *s, From: home, ID: snapshot, KMSKey: c.awayKey, Tags: tags}); err != nil {
				return err
			}
			got, err := c.snapshotIn(ctx, c.away, rds.Cluster, snapshot)
			return errors.Join(err, want(got != nil && maps.Equal(got.Tags, tags), "%+v", got))
		}},
		{"Aurora: delete a snapshot", func(ctx context.Context, c *calls) error {
			if err := c.home.DeleteSnapshot(ctx, rds.Cluster, snapshot); err != nil {
				return err
			}
			_, err := c.home.Snapshot(ctx, rds.Cluster, snapshot)
			return refused(err, rds.ErrNotFound)
		}},
		{"Aurora: fail over to the other instance", func(ctx context.Context, c *calls) error {
			reader := ""
			writer := func() string {
				d, err := c.available(ctx, rds.Cluster, "aurora-prod")
				if err != nil {
					return err.Error()
				}
				now := "nobody"
				for _, m := range d.Members {
					if m.Writer {
						now = m.ID
					} else {
						reader = m.ID
					}
				}
				return now
			}
			before := writer()
			target := reader
			if err := c.home.Failover(ctx, rds.Cluster, "aurora-prod", target); err != nil {
				return err
			}
			after := writer()
			return want(after == target, "%s, then %s; asked for %s", before, after, target)
		}},
	}
}
