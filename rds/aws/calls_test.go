package aws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/rds"

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

// calls is the suite: every call that Lifeboat makes, what must come of it, and
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

func suite() []step {
	tags := rds.Tags{rds.TagKind: "snapshot", rds.TagSource: "orders", rds.TagAttempt: attempt}
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
			if err := c.home.Failover(ctx, rds.Instance, "orders-prod"); err != nil {
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
			if len(d.Members) != 0 {
				return fmt.Errorf("it has members: %+v", d.Members)
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
		{"Aurora: fail over to the other instance", func(ctx context.Context, c *calls) error {
			writer := func() string {
				d, err := c.available(ctx, rds.Cluster, "aurora-prod")
				if err != nil {
					return err.Error()
				}
				for _, m := range d.Members {
					if m.Writer {
						return m.ID
					}
				}
				return "nobody"
			}
			before := writer()
			if err := c.home.Failover(ctx, rds.Cluster, "aurora-prod"); err != nil {
				return err
			}
			after := writer()
			return want(after != before && strings.HasPrefix(after, "aurora-prod"), "%s, then %s", before, after)
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

func TestCallsToTheFake(t *testing.T) {
	f := rdstest.Start(t, rdstest.Options{PageSize: 1, Create: 30 * time.Millisecond, Snapshot: 30 * time.Millisecond, Copy: 30 * time.Millisecond, Delete: 30 * time.Millisecond, Failover: 30 * time.Millisecond})
	f.Add(t, rdstest.Source{ID: "orders-prod", Encrypted: true, MultiAZ: true, Backups: true})
	f.Add(t, rdstest.Source{ID: "orders-protected", Protected: true, NoServer: true})
	f.Add(t, rdstest.Source{ID: "aurora-prod", Cluster: true, MultiAZ: true})
	f.Advance(t, home, "orders-prod")
	c := newCalls(t, f.URL)
	for _, s := range suite() {
		if err := s.run(context.Background(), c); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

// motoCannot are the steps that moto 5.1 does otherwise than Amazon. When it learns
// one, the test says so.
var motoCannot = map[string]string{
	"a snapshot takes time":                    "everything is available at once",
	"copy an encrypted snapshot without a key": "it is accepted",
	"a copy names what it was made of":         "the field is missing",
	"a restore has a resource id of its own":   "it has the source's: the guard would never let it be deleted",
	"a restore without Multi-AZ, as asked":     "it keeps what the source has",
	"a point in time without a time":           "it is accepted",
	"a point in time to come":                  "it is accepted",
	"the latest restorable time stands still":  "it is always now",
	"fail over to another zone":                "the call does nothing",
	"events of a failover":                     "there are none",
	"Aurora: fail over to the other instance":  "the server has an error",
}

func TestCallsToMoto(t *testing.T) {
	url := os.Getenv("LIFEBOAT_MOTO_URL")
	if url == "" {
		t.Skip("make test-moto runs this against moto's server")
	}
	c := newCalls(t, url)
	seedMoto(t, url, c)
	for _, s := range suite() {
		err := s.run(context.Background(), c)
		why, known := motoCannot[s.name]
		switch {
		case err == nil && known:
			t.Errorf("%s: moto can do that now; it was: %s", s.name, why)
		case err != nil && known:
			t.Logf("moto cannot: %s: %s (%v)", s.name, why, err)
		case err != nil:
			t.Errorf("%s: %v", s.name, err)
		default:
			t.Logf("moto can: %s", s.name)
		}
	}
}

// motoFinds asks another service of moto's, which checks no signature.
func motoFinds(t *testing.T, url, region, service, kind, body, pattern string) []string {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("X-Amz-Target", "TrentService.CreateKey")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDTEST/20260131/"+region+"/"+service+"/aws4_request, SignedHeaders=host, Signature=none")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		found = append(found, m[1])
	}
	if len(found) == 0 {
		t.Fatalf("moto's %s answers %s", service, text)
	}
	return found
}

// seedMoto makes what the fake has from the beginning.
func seedMoto(t *testing.T, url string, c *calls) {
	t.Helper()
	ctx := context.Background()
	client := sdk.New(sdk.Options{Region: home, BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider("AKIDTEST", "none", "")})
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c.awayKey = motoFinds(t, url, away, "kms", "application/x-amz-json-1.1", "{}", `"Arn": ?"([^"]+)"`)[0]
	subnets := motoFinds(t, url, home, "ec2", "application/x-www-form-urlencoded", "Action=DescribeSubnets&Version=2016-11-15", `<subnetId>([^<]+)<`)
	must(client.CreateDBSubnetGroup(ctx, &sdk.CreateDBSubnetGroupInput{DBSubnetGroupName: sdkaws.String("staging"), DBSubnetGroupDescription: sdkaws.String("x"), SubnetIds: subnets}))
	must(client.CreateOptionGroup(ctx, &sdk.CreateOptionGroupInput{OptionGroupName: sdkaws.String("orders-options"), EngineName: sdkaws.String("mysql"), MajorEngineVersion: sdkaws.String("5.6"), OptionGroupDescription: sdkaws.String("x")}))
	must(client.CreateDBParameterGroup(ctx, &sdk.CreateDBParameterGroupInput{DBParameterGroupName: sdkaws.String("orders"), DBParameterGroupFamily: sdkaws.String("postgres15"), Description: sdkaws.String("x")}))
	must(client.CreateDBInstance(ctx, &sdk.CreateDBInstanceInput{DBInstanceIdentifier: sdkaws.String("orders-prod"), DBInstanceClass: sdkaws.String("db.r6g.large"), Engine: sdkaws.String("postgres"), EngineVersion: sdkaws.String("15.6"),
		AllocatedStorage: sdkaws.Int32(20), StorageEncrypted: sdkaws.Bool(true), MultiAZ: sdkaws.Bool(true), MasterUsername: sdkaws.String("master"), MasterUserPassword: sdkaws.String("xxxxxxxx"), BackupRetentionPeriod: sdkaws.Int32(7)}))
	must(client.CreateDBInstance(ctx, &sdk.CreateDBInstanceInput{DBInstanceIdentifier: sdkaws.String("orders-protected"), DBInstanceClass: sdkaws.String("db.r6g.large"), Engine: sdkaws.String("postgres"), AllocatedStorage: sdkaws.Int32(20),
		DeletionProtection: sdkaws.Bool(true), MasterUsername: sdkaws.String("master"), MasterUserPassword: sdkaws.String("xxxxxxxx")}))
	must(client.CreateDBCluster(ctx, &sdk.CreateDBClusterInput{DBClusterIdentifier: sdkaws.String("aurora-prod"), Engine: sdkaws.String("aurora-postgresql"), MasterUsername: sdkaws.String("master"), MasterUserPassword: sdkaws.String("xxxxxxxx")}))
	for _, id := range []string{"aurora-prod-1", "aurora-prod-2"} {
		must(client.CreateDBInstance(ctx, &sdk.CreateDBInstanceInput{DBInstanceIdentifier: &id, DBClusterIdentifier: sdkaws.String("aurora-prod"), DBInstanceClass: sdkaws.String("db.r6g.large"), Engine: sdkaws.String("aurora-postgresql")}))
	}
}
