package aws_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/aws"
)

// A request to Amazon is signed for one host; an answer that points to another is
// an error, of RDS as of Secrets Manager, whose answer is the password.
func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 307, 308} {
		arrived := 0
		elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived++ }))
		defer elsewhere.Close()
		asked := 0
		from := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			http.Redirect(w, r, elsewhere.URL, status)
		}))
		defer from.Close()
		c := aws.New(aws.Options{Endpoint: from.URL, Attempts: 1, CredentialsFrom: credentials.NewStaticCredentialsProvider("a", "b", "c")})
		api, err := c.RDS(home)
		if err != nil {
			t.Fatal(err)
		}
		if err := api.Failover(t.Context(), rds.Instance, "prod", ""); err == nil {
			t.Errorf("%d: a redirect is taken for a success", status)
		}
		d := &aws.Dialer{Cloud: c, Login: rds.Login{Role: "lifeboat", Secret: "s"}, Now: time.Now}
		conn, err := d.Connect(&rds.Database{Kind: rds.Instance, ID: "prod", Host: "prod", Port: 5432}, home)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Password(t.Context()); err == nil {
			t.Errorf("%d: a redirect is taken for a password", status)
		}
		if arrived > 0 || asked < 2 {
			t.Errorf("%d: %d requests arrived elsewhere, of %d", status, arrived, asked)
		}
	}
}
