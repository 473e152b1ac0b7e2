package rds_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/aws"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

func TestMain(m *testing.M) { servertest.Main(m, nil) }

const (
	home = "eu-central-1"
	away = "eu-west-1"
	key  = "arn:aws:kms:eu-west-1:123456789012:key/copies"
)

// site is a fake of RDS with one source, and what is needed to work with it.
type site struct {
	*rdstest.Fake
	cloud  *aws.Cloud
	source rds.Source
	repo   *repo.Repo
	key    repo.SigningKey
	wait   rds.Waiting
}

func newSite(t *testing.T, o rdstest.Options, s rdstest.Source) *site {
	t.Helper()
	t.Parallel()
	return newSiteIn(t, o, s)
}

func newSiteIn(t *testing.T, o rdstest.Options, s rdstest.Source) *site {
	t.Helper()
	f := rdstest.Start(t, o)
	s.ID = "orders-prod"
	f.Add(t, s)
	kind := rds.Instance
	if s.Cluster {
		kind = rds.Cluster
	}
	staging := rds.Staging{SubnetGroup: "staging", SecurityGroups: []string{"sg-staging"}, ParameterGroup: "orders", ClusterParameterGroup: "orders", OptionGroup: "default:postgres-15", Class: "db.t4g.medium"}
	if s.Cluster {
		staging.ParameterGroup = "orders-instance"
	}
	out := &site{Fake: f, wait: rds.Waiting{Poll: 10 * time.Millisecond, Limit: time.Minute, Now: time.Now},
		cloud: aws.New(aws.Options{Endpoint: f.URL, Attempts: 4, MostBackoff: 10 * time.Millisecond, CredentialsFrom: credentials.NewStaticCredentialsProvider("AKIDTEST", "none", "")}),
		source: rds.Source{Name: "orders", Kind: kind, ID: s.ID, Region: home, Staging: staging, DR: []rds.Region{{Name: away, KMSKey: key, Staging: staging}},
			Login: rds.Login{Role: rdstest.MasterRole, PasswordEnv: "ORDERS_PASSWORD", CAFile: f.CA}}}
	out.repo, out.key = newRepo(t)
	return out
}

func newRepo(t *testing.T) (*repo.Repo, repo.SigningKey) {
	t.Helper()
	ctx := context.Background()
	id := repo.NewID()
	keys, err := repo.NewClusterKey("orders", id)
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Create(ctx, mem.New(), repo.Keys{Cluster: keys}, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k, err := repo.NewHostKey("orders", r.Marker().Repository)
	if err != nil {
		t.Fatal(err)
	}
	return r, *k.Signing
}

func (s *site) dialer() *aws.Dialer {
	return &aws.Dialer{Cloud: s.cloud, Login: s.source.Login, Resolver: s.DNS, Now: time.Now, Getenv: func(name string) string {
		if name == "ORDERS_PASSWORD" {
			return rdstest.Password
		}
		return ""
	}}
}

func (s *site) connect(d *rds.Database, region string) (probe.Conn, error) {
	return s.dialer().Connect(d, region)
}

func (s *site) snapshot(t *testing.T, change func(*rds.SnapshotOptions)) (*rds.Taken, error) {
	t.Helper()
	o := rds.SnapshotOptions{Source: s.source, Wait: true, Attempt: rds.Attempt(evidence.NewID(time.Now())), Waiting: s.wait}
	if change != nil {
		change(&o)
	}
	return rds.TakeSnapshot(context.Background(), s.cloud.RDS, o)
}

func (s *site) take(t *testing.T, regions ...rds.Region) *rds.Taken {
	t.Helper()
	taken, err := s.snapshot(t, func(o *rds.SnapshotOptions) { o.CopyTo = regions })
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

func (s *site) drill(t *testing.T, change func(*rds.DrillOptions)) (*evidence.Drill, error) {
	t.Helper()
	return s.drillIn(t, context.Background(), change)
}

func (s *site) drillIn(t *testing.T, ctx context.Context, change func(*rds.DrillOptions)) (*evidence.Drill, error) {
	t.Helper()
	o := rds.DrillOptions{Source: s.source, From: rds.FromLatest, Level: evidence.Standard, Connect: s.connect, Waiting: s.wait, Key: s.key, Now: time.Now}
	if change != nil {
		change(&o)
	}
	o.Sources = []rds.Source{o.Source}
	r, err := rds.Drill(ctx, s.cloud.RDS, s.repo, o)
	if err != nil {
		t.Fatal(err)
	}
	return &r.Document.Drill, r.Err
}

// passed fails the test unless the drill passed, and says why it did not.
func passed(t *testing.T, d *evidence.Drill, err error) {
	t.Helper()
	if d.Verdict != evidence.Passed || err != nil {
		t.Fatalf("the drill is %s: %s; error %v", d.Verdict, strings.Join(d.Reasons, "; "), err)
	}
}

func (s *site) beat(t *testing.T) time.Time {
	t.Helper()
	api, err := s.cloud.RDS(home)
	if err != nil {
		t.Fatal(err)
	}
	d, err := api.Database(context.Background(), s.source.Kind, s.source.ID)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := s.connect(d, home)
	if err != nil {
		t.Fatal(err)
	}
	at, _, err := rds.Beat(context.Background(), conn, "", true)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
