// Package realtest runs snapshots, copies and drills on a real AWS account. It
// costs money, is asked for by name, and has not been run yet.
package realtest

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/aws"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// hardTTL is how long anything of this suite may be there. It is in the tags of
// all that is restored, before anything is made.
const hardTTL = 2 * time.Hour

// variables name what the suite works on; all must be set.
var variables = []string{"LIFEBOAT_AWS_COSTS", "LIFEBOAT_AWS_INSTANCE", "LIFEBOAT_AWS_REGION", "LIFEBOAT_AWS_DR_REGION", "LIFEBOAT_AWS_DR_KMS_KEY",
	"LIFEBOAT_AWS_SUBNET_GROUP", "LIFEBOAT_AWS_DR_SUBNET_GROUP", "LIFEBOAT_AWS_SECURITY_GROUP", "LIFEBOAT_AWS_DR_SECURITY_GROUP", "LIFEBOAT_AWS_PARAMETER_GROUP",
	"LIFEBOAT_AWS_OPTION_GROUP", "LIFEBOAT_AWS_ROLE", "LIFEBOAT_AWS_PASSWORD", "LIFEBOAT_AWS_CA_FILE"}

func sourceOf(t *testing.T) rds.Source {
	t.Helper()
	var missing []string
	for _, v := range variables {
		if os.Getenv(v) == "" {
			missing = append(missing, v)
		}
	}
	if len(missing) > 0 || os.Getenv("LIFEBOAT_AWS_COSTS") != "yes" {
		t.Skipf("this runs on a real AWS account and costs money: docs/rds.md; not set: %s", strings.Join(missing, ", "))
	}
	staging := func(dr string) rds.Staging {
		return rds.Staging{SubnetGroup: os.Getenv("LIFEBOAT_AWS" + dr + "_SUBNET_GROUP"), SecurityGroups: []string{os.Getenv("LIFEBOAT_AWS" + dr + "_SECURITY_GROUP")},
			ParameterGroup: os.Getenv("LIFEBOAT_AWS_PARAMETER_GROUP"), OptionGroup: os.Getenv("LIFEBOAT_AWS_OPTION_GROUP"), Class: "db.t4g.medium"}
	}
	return rds.Source{Name: "realtest", Kind: rds.Instance, ID: os.Getenv("LIFEBOAT_AWS_INSTANCE"), Region: os.Getenv("LIFEBOAT_AWS_REGION"), Staging: staging(""), TTL: hardTTL, Keep: 1,
		DR:    []rds.Region{{Name: os.Getenv("LIFEBOAT_AWS_DR_REGION"), KMSKey: os.Getenv("LIFEBOAT_AWS_DR_KMS_KEY"), Staging: staging("_DR")}},
		Login: rds.Login{Role: os.Getenv("LIFEBOAT_AWS_ROLE"), PasswordEnv: "LIFEBOAT_AWS_PASSWORD", CAFile: os.Getenv("LIFEBOAT_AWS_CA_FILE")}}
}

// A snapshot and its copy; a drill of each; a point in time; and at the end, what
// Lifeboat made is gone but for the newest snapshot of each region, which expiry
// always keeps and a person deletes. Aurora and failovers are not in it.
func TestReal(t *testing.T) {
	s := sourceOf(t)
	ctx, cancel := context.WithTimeout(context.Background(), hardTTL)
	defer cancel()
	cloud := aws.New(aws.Options{})
	dialer := &aws.Dialer{Cloud: cloud, Login: s.Login, Getenv: os.Getenv, Now: time.Now}
	waiting := rds.Waiting{Limit: hardTTL, Now: time.Now, Observe: func(p rds.Progress) { t.Logf("%s is %s, %d%%", p.What, p.State, p.Percent) }}
	// Whatever happens: what an earlier run left goes first, and what this one
	// leaves carries its end in its tags.
	expire := func() {
		gone, err := rds.Expire(context.WithoutCancel(ctx), cloud.RDS, rds.ExpireOptions{Source: s, Sources: []rds.Source{s}, Waiting: waiting})
		t.Logf("expired: %+v", gone)
		if err != nil {
			t.Error(err)
		}
	}
	expire()
	t.Cleanup(expire)

	taken, err := rds.TakeSnapshot(ctx, cloud.RDS, rds.SnapshotOptions{Source: s, CopyTo: s.DR, Wait: true, Attempt: rds.Attempt(evidence.NewID(time.Now())), Waiting: waiting})
	if err != nil {
		t.Fatal(err)
	}
	if !taken.Verified || len(taken.Copies) != 1 {
		t.Errorf("%+v", taken)
	}
	r, key := newRepo(t)
	for _, d := range []rds.DrillOptions{{From: rds.FromLatest, Level: evidence.Deep}, {From: rds.FromLatest, Level: evidence.Standard, Region: s.DR[0].Name}, {From: rds.FromLatestTime, Level: evidence.Standard}} {
		d.Source, d.Sources, d.Connect, d.Waiting, d.Key, d.Now = s, []rds.Source{s}, dialer.Connect, waiting, key, time.Now
		result, err := rds.Drill(ctx, cloud.RDS, r, d)
		if err != nil {
			t.Fatal(err)
		}
		doc := result.Document.Drill
		t.Logf("%s %s: %s; available %v, checked %v, hydrated %v", d.From, d.Region, doc.Verdict, doc.RDS.Available, doc.RDS.Checked, doc.RDS.Hydrated)
		if doc.Verdict != evidence.Passed {
			t.Errorf("%v; %v", doc.Reasons, result.Err)
		}
		// Its time to live is not over, so expiry lets it be: it costs money until then.
		if !doc.Cleanup.Done {
			t.Errorf("%s%s is LEFT, and the next run removes it after %s: %s", rds.DrillPrefix, doc.RDS.Attempt, hardTTL, doc.Cleanup.Detail)
		}
	}
}

// The errors of the real RDS mean what the fake's mean.
func TestRealErrors(t *testing.T) {
	s := sourceOf(t)
	api, err := aws.New(aws.Options{}).RDS(s.Region)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Database(context.Background(), rds.Instance, "lifeboat-nobody"); !errors.Is(err, rds.ErrNotFound) {
		t.Errorf("an unknown instance: %v", err)
	}
	if _, err := api.Snapshot(context.Background(), rds.Instance, "lifeboat-nothing"); !errors.Is(err, rds.ErrNotFound) {
		t.Errorf("an unknown snapshot: %v", err)
	}
}

func newRepo(t *testing.T) (*repo.Repo, repo.SigningKey) {
	t.Helper()
	keys, err := repo.NewClusterKey("realtest", repo.NewID())
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Create(context.Background(), mem.New(), repo.Keys{Cluster: keys}, "realtest", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k, err := repo.NewHostKey("realtest", r.Marker().Repository)
	if err != nil {
		t.Fatal(err)
	}
	return r, *k.Signing
}
