package aws_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/aws"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
)

func TestMain(m *testing.M) { servertest.Main(m, nil) }

const (
	home     = "eu-central-1"
	away     = "eu-west-1"
	homeKey  = "arn:aws:kms:eu-central-1:123456789012:key/default"
	attempt  = "20260131t020000z-1a2b3c4d"
	snapshot = "lifeboat-orders-" + attempt
	drill    = "lifeboat-drill-" + attempt
)

// calls is the suite: the calls that Lifeboat makes, what must come of them, and
// what must be refused. It runs against the fake, and against moto.
type calls struct {
	home, away rds.API
	awayKey    string
	source     *rds.Database
	poll       time.Duration
}

type step struct {
	name string
	run  func(ctx context.Context, c *calls) error
}

func want(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func refused(err, kind error) error {
	return want(errors.Is(err, kind), "it came to %v, want %v", err, kind)
}

// until waits for a state, and fails for any error.
func (c *calls) until(look func() (bool, error)) error {
	for range 500 {
		if ok, err := look(); ok || err != nil {
			return err
		}
		time.Sleep(c.poll)
	}
	return errors.New("it did not get there")
}

func (c *calls) available(ctx context.Context, kind rds.Kind, id string) (d *rds.Database, err error) {
	return d, c.until(func() (bool, error) {
		d, err = c.home.Database(ctx, kind, id)
		return err == nil && d.Status == "available", err
	})
}

func (c *calls) gone(ctx context.Context, kind rds.Kind, id string) error {
	return c.until(func() (bool, error) {
		_, err := c.home.Database(ctx, kind, id)
		if errors.Is(err, rds.ErrNotFound) {
			return true, nil
		}
		return false, err
	})
}

func (c *calls) snapshotIn(ctx context.Context, api rds.API, kind rds.Kind, id string) (s *rds.Snapshot, err error) {
	return s, c.until(func() (bool, error) {
		s, err = api.Snapshot(ctx, kind, id)
		return err == nil && s.Status == "available", err
	})
}

var staging = rds.Staging{SubnetGroup: "staging", SecurityGroups: []string{"sg-0123456789abcdef0"}, ParameterGroup: "orders", ClusterParameterGroup: "orders-cluster", OptionGroup: "orders-options"}

func request(kind rds.Kind) rds.Restore {
	r := rds.Restore{Kind: kind, ID: drill, Staging: staging, Class: "db.t4g.medium", Tags: rds.Tags{rds.TagKind: "drill", rds.TagAttempt: attempt}, Engine: "postgres", Version: "15.6"}
	if kind == rds.Cluster {
		r.Engine = "aurora-postgresql"
	}
	return r
}

var ownTags = rds.Tags{rds.TagKind: "snapshot", rds.TagSource: "orders", rds.TagAttempt: attempt}

func suite() []step {
	tags := ownTags
	return []step{
		{"look at an instance", func(ctx context.Context, c *calls) (err error) {
			c.source, err = c.home.Database(ctx, rds.Instance, "orders-prod")
			if err != nil {
				return err
			}
			d := c.source
			return want(d.Engine == "postgres" && d.ResourceID != "" && d.ARN != "" && d.Class != "" && d.Storage == 20 && d.Encrypted && d.Host != "" && d.Port != 0, "%+v", d)
		}},
		{"an unknown instance", func(ctx context.Context, c *calls) error {
			_, err := c.home.Database(ctx, rds.Instance, "nobody")
			return refused(err, rds.ErrNotFound)
		}},
		{"an unknown snapshot", func(ctx context.Context, c *calls) error {
			_, err := c.home.Snapshot(ctx, rds.Instance, "nothing")
			return refused(err, rds.ErrNotFound)
		}},
		{"take a snapshot", func(ctx context.Context, c *calls) error {
			if _, err := c.home.CreateSnapshot(ctx, rds.Instance, "orders-prod", snapshot, tags); err != nil {
				return err
			}
			s, err := c.snapshotIn(ctx, c.home, rds.Instance, snapshot)
			if err != nil {
				return err
			}
			return want(s.Source == "orders-prod" && s.Type == "manual" && maps.Equal(s.Tags, tags) && s.Storage == 20 && s.Encrypted && s.Engine == "postgres", "%+v", s)
		}},
		{"a snapshot takes time", func(ctx context.Context, c *calls) error {
			s, err := c.home.CreateSnapshot(ctx, rds.Instance, "orders-prod", snapshot+"-2", tags)
			if err != nil {
				return err
			}
			state := s.Status
			if _, err := c.snapshotIn(ctx, c.home, rds.Instance, s.ID); err != nil {
				return err
			}
			return want(state == "creating", "it is %s at once", state)
		}},
		{"a second snapshot of one name", func(ctx context.Context, c *calls) error {
			_, err := c.home.CreateSnapshot(ctx, rds.Instance, "orders-prod", snapshot, tags)
			return refused(err, rds.ErrExists)
		}},
		{"list the snapshots of a source", func(ctx context.Context, c *calls) error {
			all, err := c.home.Snapshots(ctx, rds.Instance, "orders-prod")
			return errors.Join(err, want(slices.ContainsFunc(all, func(s rds.Snapshot) bool { return s.ID == snapshot }), "%+v", all))
		}},
		{"tag a snapshot", func(ctx context.Context, c *calls) error {
			s, err := c.home.Snapshot(ctx, rds.Instance, snapshot)
			if err != nil {
				return err
			}
			if err := c.home.Tag(ctx, s.ARN, rds.Tags{rds.TagDone: "2026-01-31T02:00:00Z"}); err != nil {
				return err
			}
			s, err = c.home.Snapshot(ctx, rds.Instance, snapshot)
			return errors.Join(err, want(s != nil && s.Tags[rds.TagDone] != "", "%+v", s))
		}},
		{"copy an encrypted snapshot without a key", func(ctx context.Context, c *calls) error {
			s, err := c.home.Snapshot(ctx, rds.Instance, snapshot)
			if err != nil {
				return err
			}
			_, err = c.away.CopySnapshot(ctx, rds.Copy{Of: *s, From: home, ID: snapshot + "-no-key", Tags: tags})
			return want(err != nil, "it was accepted")
		}},
		{"copy with a key of the wrong region", func(ctx context.Context, c *calls) error {
			s, err := c.home.Snapshot(ctx, rds.Instance, snapshot)
			if err != nil {
				return err
			}
			_, err = c.away.CopySnapshot(ctx, rds.Copy{Of: *s, From: home, ID: snapshot, KMSKey: homeKey, Tags: tags})
			return refused(err, rds.ErrDenied)
		}},
		{"copy to another region", func(ctx context.Context, c *calls) error {
			s, err := c.home.Snapshot(ctx, rds.Instance, snapshot)
			if err != nil {
				return err
			}
			if _, err := c.away.CopySnapshot(ctx, rds.Copy{Of: *s, From: home, ID: snapshot, KMSKey: c.awayKey, Tags: tags}); err != nil {
				return err
			}
			got, err := c.snapshotIn(ctx, c.away, rds.Instance, snapshot)
			if err != nil {
				return err
			}
			return want(got.Encrypted && got.KMSKey == c.awayKey && got.Storage == s.Storage && maps.Equal(got.Tags, tags), "%+v", got)
		}},
		{"a copy names what it was made of", func(ctx context.Context, c *calls) error {
			s, err := c.home.Snapshot(ctx, rds.Instance, snapshot)
			if err != nil {
				return err
			}
			got, err := c.away.Snapshot(ctx, rds.Instance, snapshot)
			return errors.Join(err, want(got != nil && got.CopyOf == s.ARN, "%+v", got))
		}},
		{"restore from a snapshot", func(ctx context.Context, c *calls) error {
			r := request(rds.Instance)
			r.Snapshot = snapshot
			if _, err := c.home.Restore(ctx, r); err != nil {
				return err
			}
			d, err := c.available(ctx, rds.Instance, drill)
			if err != nil {
				return err
			}
			return want(d.SubnetGroup == staging.SubnetGroup && slices.Equal(d.SecurityGroups, staging.SecurityGroups) && !d.Public && !d.Protected && d.Class == r.Class, "%+v", d)
		}},
		{"a restore without Multi-AZ, as asked", func(ctx context.Context, c *calls) error {
			d, err := c.home.Database(ctx, rds.Instance, drill)
			return errors.Join(err, want(d != nil && !d.MultiAZ, "%+v", d))
		}},
		{"the tags of a restore", func(ctx context.Context, c *calls) error {
			d, err := c.home.Database(ctx, rds.Instance, drill)
			return errors.Join(err, want(d != nil && maps.Equal(d.Tags, request(rds.Instance).Tags), "%+v", d))
		}},
		{"a restore has a resource id of its own", func(ctx context.Context, c *calls) error {
			d, err := c.home.Database(ctx, rds.Instance, drill)
			return errors.Join(err, want(d != nil && d.ResourceID != c.source.ResourceID, "%+v", d))
		}},
		{"the parameter group of a restore", func(ctx context.Context, c *calls) error {
			d, err := c.home.Database(ctx, rds.Instance, drill)
			return errors.Join(err, want(d != nil && d.ParameterGroup == staging.ParameterGroup, "it is %+v", d))
		}},
		{"a restore into a name that is taken", func(ctx context.Context, c *calls) error {
			r := request(rds.Instance)
			r.Snapshot = snapshot
			_, err := c.home.Restore(ctx, r)
			return refused(err, rds.ErrExists)
		}},
		{"delete what was restored", func(ctx context.Context, c *calls) error {
			if err := c.home.Delete(ctx, rds.Instance, drill, false); err != nil {
				return err
			}
			return c.gone(ctx, rds.Instance, drill)
		}},
		{"a point in time without a time", func(ctx context.Context, c *calls) error {
			r := request(rds.Instance)
			r.Source = "orders-prod"
			_, err := c.home.Restore(ctx, r)
			if err == nil {
				_ = c.home.Delete(ctx, rds.Instance, drill, false)
			}
			return want(err != nil, "it was accepted")
		}},
		{"a point in time to come", func(ctx context.Context, c *calls) error {
			r := request(rds.Instance)
			r.Source, r.Time = "orders-prod", time.Now().Add(time.Hour)
			_, err := c.home.Restore(ctx, r)
			if err == nil {
				_ = c.home.Delete(ctx, rds.Instance, drill, false)
			}
			return want(err != nil, "it was accepted")
		}},
		{"the latest restorable time stands still", func(ctx context.Context, c *calls) error {
			a, err := c.home.Database(ctx, rds.Instance, "orders-prod")
			if err != nil {
				return err
			}
			time.Sleep(1100 * time.Millisecond)
			b, err := c.home.Database(ctx, rds.Instance, "orders-prod")
			return errors.Join(err, want(!a.Restorable.IsZero() && a.Restorable.Equal(b.Restorable), "%s, then %s", a.Restorable, b.Restorable))
		}},
		{"restore to the latest time", func(ctx context.Context, c *calls) error {
			r := request(rds.Instance)
			r.Source, r.Latest = "orders-prod", true
			if _, err := c.home.Restore(ctx, r); err != nil {
				return err
			}
			if _, err := c.available(ctx, rds.Instance, drill); err != nil {
				return err
			}
			if err := c.home.Delete(ctx, rds.Instance, drill, false); err != nil {
				return err
			}
			return c.gone(ctx, rds.Instance, drill)
		}},
		{"an instance that is protected", func(ctx context.Context, c *calls) error {
			return want(c.home.Delete(ctx, rds.Instance, "orders-protected", false) != nil, "it was deleted")
		}},
		{"fail over to another zone", func(ctx context.Context, c *calls) error {
			before, err := c.home.Database(ctx, rds.Instance, "orders-prod")
			if err != nil {
				return err
			}
			if err := c.home.Failover(ctx, rds.Instance, "orders-prod", ""); err != nil {
				return err
			}
			after, err := c.available(ctx, rds.Instance, "orders-prod")
			return errors.Join(err, want(after != nil && after.Zone != before.Zone, "the zone is still %s", before.Zone))
		}},
		{"events of a failover", func(ctx context.Context, c *calls) error {
			events, err := c.home.Events(ctx, rds.Instance, "orders-prod", time.Now().Add(-time.Minute))
			return errors.Join(err, want(slices.ContainsFunc(events, func(e rds.Event) bool { return strings.Contains(e.Message, "failover") }), "%+v", events))
		}},
		{"delete a snapshot", func(ctx context.Context, c *calls) error {
			if err := c.away.DeleteSnapshot(ctx, rds.Instance, snapshot); err != nil {
				return err
			}
			_, err := c.away.Snapshot(ctx, rds.Instance, snapshot)
			return refused(err, rds.ErrNotFound)
		}},
	}
}

func cloud(t *testing.T, url string) *aws.Cloud {
	t.Helper()
	return aws.New(aws.Options{Endpoint: url, Attempts: 2, MostBackoff: 10 * time.Millisecond, CredentialsFrom: credentials.NewStaticCredentialsProvider("AKIDTEST", "none", "")})
}

func newCalls(t *testing.T, url string) *calls {
	t.Helper()
	c := &calls{poll: 10 * time.Millisecond, awayKey: "arn:aws:kms:eu-west-1:123456789012:key/copies"}
	var err error
	if c.home, err = cloud(t, url).RDS(home); err != nil {
		t.Fatal(err)
	}
	if c.away, err = cloud(t, url).RDS(away); err != nil {
		t.Fatal(err)
	}
	return c
}

// Keys of a file that another program renews are read again.
func TestRenewedKeys(t *testing.T) {
	f := rdstest.Start(t, rdstest.Options{})
	f.Add(t, rdstest.Source{ID: "orders-prod", NoServer: true})
	file := filepath.Join(t.TempDir(), "credentials")
	for name, value := range map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_CONFIG_FILE": "/nonexistent", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true"} {
		t.Setenv(name, value)
	}
	// By this clock what was read has run out by now.
	api, err := aws.New(aws.Options{Endpoint: f.URL, Attempts: 1, Now: func() time.Time { return time.Now().Add(-time.Hour) }}).RDS(home)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"AKIDFIRST", "AKIDSECOND"} {
		if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = "+id+"\naws_secret_access_key = x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := api.Database(context.Background(), rds.Instance, "orders-prod"); err != nil {
			t.Fatal(err)
		}
		if calls := f.Calls(""); calls[len(calls)-1].Key != id {
			t.Errorf("signed with %s, want %s", calls[len(calls)-1].Key, id)
		}
	}
}

func TestCallsToTheFake(t *testing.T) {
	f := rdstest.Start(t, rdstest.Options{PageSize: 1, Create: 30 * time.Millisecond, Snapshot: 30 * time.Millisecond, Copy: 30 * time.Millisecond, Delete: 30 * time.Millisecond, Failover: 30 * time.Millisecond})
	f.Add(t, rdstest.Source{ID: "orders-prod", Encrypted: true, MultiAZ: true, Backups: true})
	f.Add(t, rdstest.Source{ID: "orders-protected", Protected: true, NoServer: true})
	f.Add(t, rdstest.Source{ID: "aurora-prod", Cluster: true, MultiAZ: true, Backups: true})
	f.Advance(t, home, "orders-prod")
	f.Advance(t, home, "aurora-prod")
	c := newCalls(t, f.URL)
	for _, s := range slices.Concat(suite(), auroraSuite()) {
		if err := s.run(context.Background(), c); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}
