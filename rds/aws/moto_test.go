package aws_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/rds"
)

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
}

func TestCallsToMoto(t *testing.T) {
	url := os.Getenv("LIFEBOAT_MOTO_URL")
	if url == "" {
		t.Skip("make test-moto runs this against moto's server")
	}
	c := newCalls(t, url)
	seedMoto(t, url, c)
	for _, s := range slices.Concat(suite(), auroraSuite()) {
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
