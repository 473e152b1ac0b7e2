package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/direct"
)

// OptionsError says that the options of a store cannot work. It wraps nothing: a
// file that is missing here is none of the store's objects.
type OptionsError struct {
	Option string // such as endpoint, sse_kms_key or object_lock_days
	Reason string
}

func (e *OptionsError) Error() string { return "S3 options: " + e.Reason }

func wrongOption(option, format string, args ...any) error {
	return &OptionsError{option, fmt.Sprintf(format, args...)}
}

// Error is what a request to the server failed with, in one line. Ask with
// errors.Is for fs.ErrExist, fs.ErrNotExist and the errors of package storage.
type Error struct {
	Op        string // what was being done: create, open, stat, list, delete
	Key       string // to which key
	Status    int    // of HTTP; 0 when no answer came
	Code      string // of S3, such as SlowDown; "" when there was none
	Message   string // the server's or the network's words, in one line
	RequestID string // the server's, for its operator

	kind  error // what it is by the words of package storage; may be nil
	cause error // the network's error, the context's, or nil
	retry bool  // another try may succeed
	early bool  // the connection broke before an answer, after bytes were sent
}

// Kinds that errors.Is answers to besides those of package storage.
var (
	errMissing = fs.ErrNotExist
	errTaken   = fs.ErrExist
)

func (e *Error) Error() string {
	var b strings.Builder
	key := e.Key
	if key == "" {
		key = `""` // a listing of everything
	}
	fmt.Fprintf(&b, "%s %s: ", e.Op, key)
	if e.Status != 0 {
		fmt.Fprintf(&b, "HTTP %d ", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, "%s ", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, "(%s) ", e.Message)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, "request %s ", e.RequestID)
	}
	text := strings.TrimSuffix(b.String(), " ")
	if e.kind != nil {
		text = strings.TrimSuffix(text, ":") + ": " + e.kind.Error()
	}
	return text
}

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	var all []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// credentialError marks a failure to get credentials, which the SDK reports
// like any other.
type credentialError struct{ error }

func (e credentialError) Unwrap() error { return e.error }

// credentialMarker marks the errors of a credentials provider.
type credentialMarker struct{ aws.CredentialsProvider }

func markCredentialErrors(p aws.CredentialsProvider) aws.CredentialsProvider {
	if p == nil {
		return nil
	}
	return credentialMarker{p}
}

func (m credentialMarker) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := m.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return c, credentialError{err}
	}
	return c, nil
}

// failure understands an error of the SDK. err is not nil.
func (s *Store) failure(ctx context.Context, op, key string, err error) *Error {
	e := &Error{Op: op, Key: key}
	if ended := ctx.Err(); ended != nil {
		e.kind = ended
		return e
	}
	var credentials credentialError
	if errors.As(err, &credentials) {
		e.kind, e.Message = storage.ErrCredentials, oneLine(credentials.Error())
		return e
	}
	if moved, ok := errors.AsType[*direct.RedirectError](err); ok {
		e.redirected(moved)
		return e
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.HTTPStatusCode() != 0 {
		e.Status, e.RequestID = response.HTTPStatusCode(), response.ServiceRequestID()
		var api smithy.APIError
		if errors.As(err, &api) {
			e.Code, e.Message = api.ErrorCode(), oneLine(api.ErrorMessage())
		}
		if moved := direct.FromResponse(response.HTTPResponse().Response); moved != nil {
			e.redirected(moved)
			return e
		}
		e.classify()
		if e.kind == nil && e.Code == "" && e.Status < 300 {
			// The answer said yes, and broke off before its end.
			e.networkFailure(err)
		}
		return e
	}
	e.networkFailure(err)
	return e
}

// redirected sets what there is to say of an answer that points elsewhere.
func (e *Error) redirected(to *direct.RedirectError) {
	e.kind, e.Status, e.Message = storage.ErrRedirected, to.Status, "it points to "+to.To
	if to.Region != "" {
		e.Message = "the bucket is in region " + to.Region
	}
}

// classify sets the kind by status and code.
func (e *Error) classify() {
	switch e.Code {
	case "NoSuchKey", "NoSuchVersion":
		e.kind = errMissing
		return
	case "NoSuchBucket":
		e.kind = storage.ErrNoStore
		return
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken",
		"TokenRefreshRequired", "AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidSecurity",
		"CredentialsNotSupported", "RequestExpired",
		"XAdminUserNotFound": // versitygw, with status 404
		e.kind = storage.ErrCredentials
		return
	case "SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "InternalError", "ServiceUnavailable", "Throttling",
		"ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "BandwidthLimitExceeded",
		"ConditionalRequestConflict", "OperationAborted",
		// The bytes were damaged on their way.
		"BadDigest", "XAmzContentChecksumMismatch", "IncompleteBody":
		e.retry, e.kind = true, storage.ErrUnavailable
		return
	case "PreconditionFailed":
		e.kind = errTaken
		return
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.kind = storage.ErrDenied
	case http.StatusPreconditionFailed:
		e.kind = errTaken
	case http.StatusRequestTimeout, http.StatusTooManyRequests, 499, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout, 509, 520, 522, 524, 529:
		e.retry, e.kind = true, storage.ErrUnavailable
	}
}

// networkFailure understands an error without a usable answer.
func (e *Error) networkFailure(err error) {
	e.cause = err
	var sent *smithyhttp.RequestSendError
	if errors.As(err, &sent) {
		e.cause = sent.Err
	}
	var withURL *url.Error
	if errors.As(e.cause, &withURL) {
		e.cause = withURL.Err // the URL says no more than the key
	}
	e.Message = oneLine(e.cause.Error())
	if lasting(e.cause) {
		return
	}
	var network net.Error
	known := sent != nil || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
	if !known {
		return // an error of ours or of the SDK's, before anything was sent
	}
	e.kind, e.retry = storage.ErrUnavailable, true
	var dial *net.OpError
	e.early = !errors.As(err, &dial) || dial.Op != "dial"
}

// lasting says that no other try can succeed: the server is not who it should
// be, or speaks no TLS, or the body cannot be read.
func lasting(err error) bool {
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var body bodyError
	return errors.As(err, &verify) || errors.As(err, &record) || errors.As(err, &authority) || errors.As(err, &body)
}

// oneLine keeps what a server says from breaking our output.
func oneLine(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return -1
		}
		return r
	}, text)
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
