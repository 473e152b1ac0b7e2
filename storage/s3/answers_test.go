package s3_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
)

// These are the answers that a healthy server does not give on demand. What
// it does give is tested on a real one.

// scripted is a server that gives prepared answers, in order, and the last one
// for ever.
type scripted struct {
	*httptest.Server
	mu       sync.Mutex
	answers  []reply
	requests []*http.Request
	bodies   [][]byte
}

type reply struct {
	status int
	header map[string]string
	body   string
}

// s3Error is an answer as S3 gives it.
func s3Error(status int, code string) reply {
	return reply{status: status, header: map[string]string{"Content-Type": "application/xml", "x-amz-request-id": "REQ1"},
		body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>told by the
test</Message><RequestId>REQ1</RequestId></Error>`}
}

func script(t *testing.T, answers ...reply) (*scripted, s3.Options) {
	t.Helper()
	for _, name := range []string{"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "somebody")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "top-secret-of-somebody")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	s := &scripted{answers: answers}
	s.Server = httptest.NewUnstartedServer(s)
	s.EnableHTTP2 = true // offered, and not to be taken
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}
	if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, s3.Options{Bucket: "bucket", Endpoint: s.URL, CAFile: ca, PathStyle: true}
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.requests, s.bodies = append(s.requests, r), append(s.bodies, body)
	answer := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	s.mu.Unlock()
	for name, value := range answer.header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(answer.status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, answer.body)
	}
}

func (s *scripted) seen() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func TestErrorsAreToldApart(t *testing.T) {
	html := reply{status: 404, header: map[string]string{"Content-Type": "text/html"}, body: "<html><body>nothing here</body></html>"}
	none := errors.New("none")
	for _, c := range []struct {
		answer reply
		want   error // of the storage errors; none for none of them
	}{
		{s3Error(404, "NoSuchBucket"), storage.ErrNoStore},
		{s3Error(403, "AccessDenied"), storage.ErrDenied},
		{s3Error(403, "AllAccessDisabled"), storage.ErrDenied},
		{s3Error(403, "InvalidAccessKeyId"), storage.ErrCredentials},
		{s3Error(403, "SignatureDoesNotMatch"), storage.ErrCredentials},
		{s3Error(400, "ExpiredToken"), storage.ErrCredentials},
		{s3Error(503, "SlowDown"), storage.ErrUnavailable},
		{s3Error(500, "InternalError"), storage.ErrUnavailable},
		{reply{status: 502, body: "bad gateway"}, storage.ErrUnavailable},
		{s3Error(409, "ConditionalRequestConflict"), storage.ErrUnavailable},
		{s3Error(301, "PermanentRedirect"), storage.ErrRedirected},
		{s3Error(400, "AuthorizationHeaderMalformed"), none},
		{s3Error(501, "NotImplemented"), none},
		{html, none},
		{reply{status: 404}, none},
	} {
		t.Run(fmt.Sprintf("%d %v", c.answer.status, c.want), func(t *testing.T) {
			_, o := script(t, c.answer)
			o.Attempts = 2
			for op, err := range everyOperation(open(t, o)) {
				if err == nil {
					t.Errorf("%s succeeded", op)
					continue
				}
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
					t.Errorf("%s takes it for an answer about the object: %v", op, err)
				}
				if strings.ContainsAny(err.Error(), "\n\r") || strings.Contains(err.Error(), "top-secret") {
					t.Errorf("%s: not one line, or too much told: %q", op, err)
				}
				for _, kind := range []error{storage.ErrNoStore, storage.ErrDenied, storage.ErrCredentials, storage.ErrUnavailable, storage.ErrRedirected} {
					if errors.Is(err, kind) != (kind == c.want) {
						t.Errorf("%s: errors.Is(%q, %q) is %v", op, err, kind, kind != c.want)
					}
				}
				var detail *s3.Error
				if !errors.As(err, &detail) || detail.Status != c.answer.status {
					t.Errorf("%s: %q does not carry status %d", op, err, c.answer.status)
				}
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	_, o := script(t, s3Error(403, "AccessDenied"))
	err := open(t, o).Create(context.Background(), "packs/01ab", strings.NewReader("x"))
	const want = "create packs/01ab: HTTP 403 AccessDenied (told by the test) request REQ1: the store refuses: permission denied"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestRetries(t *testing.T) {
	ok := reply{status: 200, header: map[string]string{"ETag": `"e"`}}
	for _, first := range []reply{
		s3Error(500, "InternalError"), s3Error(503, "SlowDown"), s3Error(429, "TooManyRequests"), s3Error(400, "RequestTimeout"),
		s3Error(409, "ConditionalRequestConflict"), s3Error(409, "OperationAborted"), s3Error(403, "RequestTimeTooSkewed"),
		s3Error(400, "BadDigest"), {status: 499}, {status: 504, body: "<html>"},
	} {
		server, o := script(t, first, first, ok)
		body := []byte("the whole body each time")
		if err := open(t, o).Create(context.Background(), "a", bytes.NewReader(body)); err != nil {
			t.Errorf("%d %s: not retried: %v", first.status, first.body, err)
		}
		if n := len(server.seen()); n != 3 {
			t.Errorf("%d: %d requests, want 3", first.status, n)
		}
		for _, got := range server.bodies {
			if !bytes.Equal(got, body) {
				t.Errorf("%d: a try sent %q", first.status, got)
			}
		}
	}
	for _, first := range []reply{s3Error(403, "AccessDenied"), s3Error(400, "InvalidRequest"), s3Error(404, "NoSuchBucket"), s3Error(412, "PreconditionFailed")} {
		server, o := script(t, first, ok)
		if err := open(t, o).Create(context.Background(), "a", strings.NewReader("x")); err == nil {
			t.Errorf("%d: Create succeeded", first.status)
		}
		if n := len(server.seen()); n != 1 {
			t.Errorf("%d: %d requests, want 1", first.status, n)
		}
	}
}

// After a 500 the object may be there, and 412 may mean our own.
func TestTakenAfterServerError(t *testing.T) {
	for _, ours := range []bool{true, false} {
		server, o := script(t, s3Error(500, "InternalError"))
		store := open(t, o)
		server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			server.mu.Lock()
			server.requests = append(server.requests, r)
			n := len(server.requests)
			first := server.requests[0]
			server.mu.Unlock()
			switch {
			case n == 1:
				w.WriteHeader(500)
			case r.Method == http.MethodPut:
				w.WriteHeader(412)
			case ours:
				w.Header().Set("x-amz-meta-lifeboat-attempt", first.Header.Get("x-amz-meta-lifeboat-attempt"))
			default:
				w.Header().Set("x-amz-meta-lifeboat-attempt", "ANOTHER")
			}
		})
		err := store.Create(context.Background(), "a", strings.NewReader("x"))
		if ours && err != nil || !ours && !errors.Is(err, fs.ErrExist) {
			t.Errorf("ours %v: %v", ours, err)
		}
	}
}

func TestWhatIsSent(t *testing.T) {
	server, o := script(t, reply{status: 200, header: map[string]string{"ETag": `"e"`}})
	o.SSE, o.SSEKMSKey, o.StorageClass = "aws:kms", "alias/backups", "STANDARD_IA"
	o.ObjectLockMode, o.ObjectLockDays = "COMPLIANCE", 30
	o.Now = func() time.Time { return time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC) }
	o.Prefix = "/prod/main/"
	body := randomBytes(3 * mib)
	if err := open(t, o).Create(context.Background(), "packs/ab", bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	requests := server.seen()
	if len(requests) != 1 {
		t.Fatalf("%d requests for one Create", len(requests))
	}
	r := requests[0]
	if r.Method != http.MethodPut || r.URL.Path != "/bucket/prod/main/packs/ab" || r.ContentLength != int64(len(body)) {
		t.Errorf("%s %s of %d bytes", r.Method, r.URL.Path, r.ContentLength)
	}
	if !bytes.Equal(server.bodies[0], body) {
		t.Error("the body arrived differently")
	}
	if r.Proto != "HTTP/1.1" {
		t.Errorf("sent by %s", r.Proto)
	}
	for name, want := range map[string]string{
		"If-None-Match":                                   "*",
		"X-Amz-Content-Sha256":                            "UNSIGNED-PAYLOAD",
		"X-Amz-Server-Side-Encryption":                    "aws:kms",
		"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id":     "alias/backups",
		"X-Amz-Storage-Class":                             "STANDARD_IA",
		"X-Amz-Object-Lock-Mode":                          "COMPLIANCE",
		"X-Amz-Object-Lock-Retain-Until-Date":             "2026-03-05T04:05:06Z",
		"Expect":                                          "",
		"Content-Encoding":                                "",
		"Transfer-Encoding":                               "",
		"X-Amz-Trailer":                                   "",
		"X-Amz-Decoded-Content-Length":                    "",
		"X-Amz-Server-Side-Encryption-Bucket-Key-Enabled": "",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"X-Amz-Checksum-Crc32c", "Content-Md5", "X-Amz-Meta-Lifeboat-Attempt"} {
		if r.Header.Get(name) == "" {
			t.Errorf("%s is missing", name)
		}
	}

	for checksum, want := range map[string][2]bool{"": {true, false}, "CRC32C": {true, false}, "MD5": {false, true}, "none": {false, false}} {
		server, o := script(t, reply{status: 200})
		o.Checksum = checksum
		if err := open(t, o).Create(context.Background(), "a", bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		h := server.seen()[0].Header
		if got := [2]bool{h.Get("X-Amz-Checksum-Crc32c") != "", h.Get("Content-Md5") != ""}; got != want {
			t.Errorf("checksum %q sends CRC32C and MD5: %v, want %v", checksum, got, want)
		}
		for _, name := range []string{"X-Amz-Trailer", "Content-Encoding", "X-Amz-Checksum-Crc32", "X-Amz-Decoded-Content-Length"} {
			if got := h.Get(name); got != "" {
				t.Errorf("checksum %q sends %s: %s", checksum, name, got)
			}
		}
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	for name, change := range map[string]func(*s3.Options){
		"no bucket":          func(o *s3.Options) { o.Bucket = "" },
		"bucket with slash":  func(o *s3.Options) { o.Bucket = "a/b" },
		"prefix":             func(o *s3.Options) { o.Prefix = "a/../b" },
		"endpoint":           func(o *s3.Options) { o.Endpoint = "s3.example.com" },
		"SSE":                func(o *s3.Options) { o.SSE = "rot13" },
		"KMS key":            func(o *s3.Options) { o.SSEKMSKey = "k" },
		"lock mode":          func(o *s3.Options) { o.ObjectLockMode = "MAYBE" },
		"lock without days":  func(o *s3.Options) { o.ObjectLockMode = "GOVERNANCE" },
		"days without lock":  func(o *s3.Options) { o.ObjectLockDays = 3 },
		"archive class":      func(o *s3.Options) { o.StorageClass = "DEEP_ARCHIVE" },
		"checksum":           func(o *s3.Options) { o.Checksum = "SHA0" },
		"CA file missing":    func(o *s3.Options) { o.CAFile = "/no/such/file" },
		"CA file of rubbish": func(o *s3.Options) { o.CAFile = "s3.go" },
	} {
		o := s3.Options{Bucket: "bucket", Region: "eu-central-1"}
		if _, err := s3.New(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		change(&o)
		if _, err := s3.New(context.Background(), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A server that is not who it should be is not asked again.
func TestUnknownCertificate(t *testing.T) {
	server := s3test.Start(t, s3test.Options{TLS: true})
	o := options(server)
	o.CAFile = ""
	begin := time.Now()
	for op, err := range everyOperation(open(t, o)) {
		if err == nil || errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v", op, err)
		}
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v to find out", took)
	}
}
