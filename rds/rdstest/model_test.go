package rdstest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/rds/types"
	"github.com/aws/smithy-go"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m, nil) }

func client(t *testing.T, h http.HandlerFunc) *sdk.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return sdk.New(sdk.Options{Region: "eu-central-1", BaseEndpoint: &s.URL, Retryer: aws.NopRetryer{}, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")})
}

// call makes a call by its name, with something in every text that is required.
func call(c *sdk.Client, action string) (any, error) {
	method := reflect.ValueOf(c).MethodByName(action)
	in := reflect.New(method.Type().In(1).Elem())
	for i := range in.Elem().NumField() {
		if f := in.Elem().Field(i); f.Type() == reflect.TypeFor[*string]() && f.CanSet() {
			if n := in.Elem().Type().Field(i).Name; n != "SourceRegion" && n != "PreSignedUrl" {
				f.Set(reflect.ValueOf(aws.String("x")))
			}
		}
		if f := in.Elem().Field(i); f.Type() == reflect.TypeFor[[]types.Tag]() {
			f.Set(reflect.ValueOf([]types.Tag{}))
		}
	}
	out := method.Call([]reflect.Value{reflect.ValueOf(context.Background()), in})
	err, _ := out[1].Interface().(error)
	return out[0].Interface(), err
}

// Every code that the fake answers an action with is one that the model has for
// that action; the SDK makes a type of those and of no others.
func TestCodesAreThoseOfTheModel(t *testing.T) {
	if len(handlers) != len(modelCodes) {
		t.Errorf("%d actions, and codes for %d", len(handlers), len(modelCodes))
	}
	ours := &Fake{}
	var give *Fault
	c := client(t, func(w http.ResponseWriter, r *http.Request) { ours.answer(w, "", nil, give) })
	for action := range handlers {
		codes, ok := modelCodes[action]
		if !ok {
			t.Errorf("no codes for %s", action)
		}
		for _, code := range slices.Concat(codes, commonCodes) {
			give = fault(code, "told by the test")
			_, err := call(c, action)
			answer, ok := errors.AsType[smithy.APIError](err)
			if !ok || answer.ErrorCode() != code && !slices.Contains(codes, code) {
				t.Fatalf("%s, %s: %v", action, code, err)
			}
			_, generic := errors.AsType[*smithy.GenericAPIError](err)
			if generic == slices.Contains(codes, code) {
				t.Errorf("%s: the model knows %s: %v", action, code, !generic)
			}
			if answer.ErrorMessage() != "told by the test" {
				t.Errorf("%s: the message of %s is %q", action, code, answer.ErrorMessage())
			}
		}
	}
}

// Every field that the fake writes is read back by the SDK as it was.
func TestFieldsAreThoseOfTheModel(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	d := &database{region: "eu-central-1", id: "a&<b", resource: "db-1", status: "available", created: now, engine: "postgres", version: "15.6", class: "db.x", storage: 20, encrypted: true, kms: "k", multiAZ: true,
		zones: [2]string{"a", "b"}, subnets: "s", group: "g", option: "o", security: []string{"sg-1", "sg-2"}, retention: 7, restorable: now, tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}, {Key: aws.String("l"), Value: aws.String("w")}},
		pg: &postgres{port: 5432}}
	d.members = []*database{{id: "m1"}, {id: "m2"}}
	member := *d
	member.parent = d
	s := &snapshot{region: "eu-central-1", id: "s", source: "a", resource: "db-1", kind: "manual", status: "creating", percent: 7, created: now, original: now, engine: "postgres", version: "15.6", storage: 20, encrypted: true, kms: "k", copyOf: "arn", tags: d.tags}
	for action, want := range map[string]any{
		"DescribeDBInstances":          &sdk.DescribeDBInstancesOutput{DBInstances: []types.DBInstance{d.instance(), member.instance()}, Marker: aws.String("7")},
		"DescribeDBClusters":           &sdk.DescribeDBClustersOutput{DBClusters: []types.DBCluster{d.asCluster()}, Marker: aws.String("7")},
		"DescribeDBSnapshots":          &sdk.DescribeDBSnapshotsOutput{DBSnapshots: []types.DBSnapshot{*s.asInstance()}},
		"DescribeDBClusterSnapshots":   &sdk.DescribeDBClusterSnapshotsOutput{DBClusterSnapshots: []types.DBClusterSnapshot{*s.asCluster()}},
		"DescribeEvents":               &sdk.DescribeEventsOutput{Events: []types.Event{{Message: aws.String("m"), Date: &now, SourceIdentifier: aws.String("a"), EventCategories: []string{"failover"}}}},
		"CreateDBSnapshot":             &sdk.CreateDBSnapshotOutput{DBSnapshot: s.asInstance()},
		"CreateDBInstance":             &sdk.CreateDBInstanceOutput{DBInstance: ptr(member.instance())},
		"RestoreDBClusterFromSnapshot": &sdk.RestoreDBClusterFromSnapshotOutput{DBCluster: ptr(d.asCluster())},
	} {
		ours := &Fake{}
		got, err := call(client(t, func(w http.ResponseWriter, r *http.Request) { ours.answer(w, action, want, nil) }), action)
		if err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		reflect.ValueOf(got).Elem().FieldByName("ResultMetadata").SetZero()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the SDK has read\n%+v\nof\n%+v", action, got, want)
		}
	}
}

// What Amazon refuses, the fake refuses.
func TestRefusals(t *testing.T) {
	f := Start(t, Options{})
	f.Add(t, Source{ID: "a", Protected: true, NoServer: true})
	f.Add(t, Source{ID: "b", Backups: true})
	at := f.Advance(t, "eu-central-1", "b")
	c := sdk.New(sdk.Options{Region: "eu-central-1", BaseEndpoint: &f.URL, Retryer: aws.NopRetryer{}, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")})
	ctx := context.Background()
	refused := func(what, code string, err error) {
		t.Helper()
		if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != code && reflect.TypeOf(e).Elem().Name() != code {
			t.Errorf("%s: %v, want %s", what, err, code)
		}
	}
	_, err := c.DeleteDBInstance(ctx, &sdk.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String("a"), SkipFinalSnapshot: aws.Bool(true)})
	refused("deleting what is protected", "InvalidParameterCombination", err)
	_, err = c.DeleteDBInstance(ctx, &sdk.DeleteDBInstanceInput{DBInstanceIdentifier: aws.String("b")})
	refused("deleting without a choice", "InvalidParameterCombination", err)
	restore := &sdk.RestoreDBInstanceToPointInTimeInput{SourceDBInstanceIdentifier: aws.String("b"), TargetDBInstanceIdentifier: aws.String("x")}
	_, err = c.RestoreDBInstanceToPointInTime(ctx, restore)
	refused("no time", "InvalidParameterCombination", err)
	restore.RestoreTime = aws.Time(at.Add(time.Hour))
	_, err = c.RestoreDBInstanceToPointInTime(ctx, restore)
	refused("a time to come", "InvalidParameterValue", err)
	_, err = c.RebootDBInstance(ctx, &sdk.RebootDBInstanceInput{DBInstanceIdentifier: aws.String("b"), ForceFailover: aws.Bool(true)})
	refused("failover without a standby", "InvalidParameterCombination", err)
	_, err = c.DescribeDBInstances(ctx, &sdk.DescribeDBInstancesInput{DBInstanceIdentifier: aws.String("none")})
	refused("an unknown instance", "DBInstanceNotFoundFault", err)
	if out, err := c.DescribeDBInstances(ctx, &sdk.DescribeDBInstancesInput{}); err != nil || len(out.DBInstances) != 2 || !out.DBInstances[1].LatestRestorableTime.Equal(at.Truncate(time.Millisecond)) {
		t.Errorf("%v, %v", out, err)
	}
}
