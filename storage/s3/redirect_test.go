package s3_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/direct"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
)

// listener is a server that nothing may reach.
func listener(t *testing.T) (*httptest.Server, *[]http.Header) {
	t.Helper()
	var arrived []http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived = append(arrived, r.Header)
		w.WriteHeader(http.StatusOK)
	}))
	t.Cleanup(s.Close)
	return s, &arrived
}

// No redirect is followed, neither to another port of the same host, which
// net/http sends Authorization to, nor from TLS to plain text.
func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		elsewhere, arrived := listener(t)
		secret := strings.Replace(elsewhere.URL, "http://", "http://user:hunter2@", 1) + "/bucket/a?X-Amz-Signature=hunter3"
		server, o := script(t, reply{status: status, header: map[string]string{"Location": secret}})
		t.Setenv("AWS_SESSION_TOKEN", "hunter4")
		for op, err := range everyOperation(open(t, o)) {
			if !errors.Is(err, storage.ErrRedirected) {
				t.Errorf("%d: %s: %v", status, op, err)
				continue
			}
			detail, ok := errors.AsType[*s3.Error](err)
			if !ok || detail.Status != status || !strings.Contains(err.Error(), elsewhere.URL) || strings.Contains(err.Error(), "hunter") {
				t.Errorf("%d: %s does not say where it points, or too much: %q", status, op, err)
			}
		}
		if len(*arrived) > 0 {
			t.Errorf("%d: followed, with the headers %v", status, (*arrived)[0])
		}
		if len(server.seen()) == 0 {
			t.Errorf("%d: the server itself was not asked", status)
		}
	}
}

// The bucket of another region: S3 says which, in any kind of redirect.
func TestRedirectNamesTheRegion(t *testing.T) {
	for _, status := range []int{301, 307} {
		elsewhere, arrived := listener(t)
		answer := s3Error(status, "PermanentRedirect")
		answer.header["x-amz-bucket-region"] = "eu-central-1"
		if status == 307 {
			answer.header["Location"] = elsewhere.URL
		}
		_, o := script(t, answer)
		_, err := open(t, o).Stat(t.Context(), "a")
		if !errors.Is(err, storage.ErrRedirected) || !strings.Contains(err.Error(), "the bucket is in region eu-central-1") {
			t.Errorf("%d: %v", status, err)
		}
		if len(*arrived) > 0 {
			t.Errorf("%d: followed", status)
		}
	}
}

// What fetches credentials is sent elsewhere no more than what uses them: here the
// web identity's token to STS, and the container's.
func TestCredentialsAreNotRedirected(t *testing.T) {
	elsewhere, arrived := listener(t)
	asked := 0
	from := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	defer from.Close()
	for name, environment := range map[string]map[string]string{
		"container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": from.URL, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "hunter5"},
		"STS": {"AWS_ENDPOINT_URL_STS": from.URL, "AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_REGION": "eu-west-1",
			"AWS_WEB_IDENTITY_TOKEN_FILE": filepath.Join(t.TempDir(), "token")},
		"IMDS": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": from.URL, "AWS_EC2_METADATA_V1_DISABLED": "true", "AWS_EC2_METADATA_DISABLED": "", "AWS_MAX_ATTEMPTS": "1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, o := script(t, reply{status: 200})
			t.Setenv("AWS_ACCESS_KEY_ID", "")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "")
			for k, v := range environment {
				t.Setenv(k, v)
			}
			if file := environment["AWS_WEB_IDENTITY_TOKEN_FILE"]; file != "" {
				if err := os.WriteFile(file, []byte("hunter6"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o.Attempts = 1
			_, err := open(t, o).Stat(t.Context(), "a")
			if !errors.Is(err, storage.ErrCredentials) || strings.Contains(err.Error(), "hunter") {
				t.Errorf("%v", err)
			}
			if len(*arrived) > 0 {
				t.Errorf("followed, with the headers %v", (*arrived)[0])
			}
			if asked == 0 {
				t.Error("the server that redirects was not asked")
			}
			asked, *arrived = 0, nil
		})
	}
}

// A proxy of the environment still counts.
func TestProxyOfTheEnvironment(t *testing.T) {
	want, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "http", Host: "db.example"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := direct.Proxy(&http.Request{URL: &url.URL{Scheme: "http", Host: "db.example"}})
	if err != nil || (got == nil) != (want == nil) {
		t.Errorf("%v, %v, and not %v", got, err, want)
	}
}
