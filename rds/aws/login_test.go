package aws_test

import (
	"context"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/aws"
)

// The token is a URL without its scheme, signed for the service rds-db. The signature
// was calculated apart from the SDK, after "Create a signed AWS API request" of
// Amazon's guide to IAM.
func TestToken(t *testing.T) {
	at := time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)
	d := &aws.Dialer{Cloud: cloud(t, "http://none"), Login: rds.Login{Role: "lifeboat", IAM: true}, Now: func() time.Time { return at }}
	c, err := d.Connect(&rds.Database{Kind: rds.Instance, ID: "orders-prod", Host: "orders-prod.abc.eu-central-1.rds.amazonaws.com", Port: 5432}, home)
	if err != nil {
		t.Fatal(err)
	}
	const want = "orders-prod.abc.eu-central-1.rds.amazonaws.com:5432/?Action=connect&DBUser=lifeboat&X-Amz-Algorithm=AWS4-HMAC-SHA256" +
		"&X-Amz-Credential=AKIDTEST%2F20260131%2Feu-central-1%2Frds-db%2Faws4_request&X-Amz-Date=20260131T020000Z&X-Amz-Expires=900" +
		"&X-Amz-SignedHeaders=host&X-Amz-Signature=a232bbc38b70710dc509d1aac3640f14eb1d032c5e8c60a6ee59d642d9e2fda3"
	if token, err := c.Password(context.Background()); err != nil || token != want {
		t.Errorf("the token is\n%s\nwant\n%s\n%v", token, want, err)
	}
}
