// Package s3 is a storage.Store in a bucket of Amazon S3, or of a server that
// speaks its protocol and knows conditional writes.
//
// Create is one PUT with "If-None-Match: *", so that the server itself refuses
// to overwrite; there is no multipart upload that could be left half done.
// The retries are this package's own, because only it can tell an object that
// was there before from one that an earlier try of the same call has made.
//
// On a bucket that keeps versions, and so on every one with Object Lock,
// Delete only puts a delete marker on top: the bytes stay, and are paid for,
// until a lifecycle rule for noncurrent versions removes them.
package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// Options say where the bucket is and how objects are kept in it. Credentials
// come from the AWS SDK's own chain: environment, shared files, web identity,
// container and instance roles.
type Options struct {
	Bucket string
	Prefix string // goes before every key, with a slash between; may be empty

	Endpoint  string // URL of the server; "" is Amazon's for the region
	Region    string // "" is what the SDK finds, else us-east-1
	PathStyle bool   // the bucket's name goes into the path, not into the host
	CAFile    string // PEM file of certificates trusted beside the system's

	SSE            string // "", AES256, aws:kms or aws:kms:dsse
	SSEKMSKey      string // key for the KMS methods; "" is the account's default
	StorageClass   string // "" is the server's default
	ObjectLockMode string // "", GOVERNANCE or COMPLIANCE
	ObjectLockDays int    // how long a new object is locked; 1 or more with a mode

	// Checksum is what proves to the server that the bytes arrived: CRC32C,
	// MD5 for servers that do not know that, or none. "" is CRC32C.
	Checksum string

	Attempts     int           // tries of one request; 0 is 6
	DialTimeout  time.Duration // to connect, and again for the TLS handshake; 0 is 10 s
	StallTimeout time.Duration // without a byte either way; 0 is 60 s

	// Now is the clock for the end of an object's lock; nil is time.Now.
	Now func() time.Time
}

const (
	defaultAttempts     = 6
	defaultDialTimeout  = 10 * time.Second
	defaultStallTimeout = 60 * time.Second
	defaultRegion       = "us-east-1"
)

// Checksums.
const (
	checksumCRC32C = "CRC32C"
	checksumMD5    = "MD5"
	checksumNone   = "none"
)

// Store is a store in a bucket.
type Store struct {
	client   *s3.Client
	bucket   string
	prefix   string // "" or ends at a slash
	options  Options
	attempts int

	lockMu    sync.Mutex
	lockAsked bool // the bucket has answered what it does about Object Lock
	lockRule  storage.RetentionRule
	lockErr   error // it has refused
}

var _ storage.Store = (*Store)(nil)

// New prepares a store. It sends nothing to the server: a bucket that is
// missing, or credentials that are wrong, show with the first operation.
// *OptionsError when the options cannot work.
func New(ctx context.Context, o Options) (*Store, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	client, err := newHTTPClient(o)
	if err != nil {
		return nil, wrongOption("ca_file", "%v", err)
	}
	load := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		// The container's credentials come through a client of the SDK's own otherwise.
		config.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = client }),
		config.WithLogger(logging.Nop{}),
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = defaultRegion
	}
	cfg.Credentials = markCredentialErrors(cfg.Credentials)
	s := &Store{bucket: o.Bucket, options: o, attempts: o.Attempts}
	if prefix := strings.Trim(o.Prefix, "/"); prefix != "" {
		s.prefix = prefix + "/"
	}
	s.client = s3.NewFromConfig(cfg, func(c *s3.Options) {
		if o.Endpoint != "" {
			c.BaseEndpoint = &o.Endpoint
		}
		c.UsePathStyle = o.PathStyle
		c.Retryer = aws.NopRetryer{}
		// Waiting for "100 Continue" costs a round trip for each large PUT.
		c.ContinueHeaderThresholdBytes = -1
		// Otherwise the SDK adds a checksum of its own after the body, in a
		// transfer coding that many servers do not know.
		c.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		c.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	return s, nil
}

// checked refuses what cannot work and fills in the defaults.
func (o Options) checked() (Options, error) {
	if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/ ") {
		return o, wrongOption("bucket", "bucket %q is no bucket name", o.Bucket)
	}
	if prefix := strings.Trim(o.Prefix, "/"); prefix != "" {
		if err := storage.CheckKey(prefix); err != nil {
			return o, wrongOption("prefix", "prefix: %v", err)
		}
	}
	if o.Endpoint != "" && !strings.HasPrefix(o.Endpoint, "https://") && !strings.HasPrefix(o.Endpoint, "http://") {
		return o, wrongOption("endpoint", "endpoint %q does not begin with https:// or http://", o.Endpoint)
	}
	switch o.SSE {
	case "", "AES256":
		if o.SSEKMSKey != "" {
			return o, wrongOption("sse_kms_key", "a KMS key needs the encryption aws:kms")
		}
	case "aws:kms", "aws:kms:dsse":
	default:
		return o, wrongOption("sse", "encryption %q is none of AES256, aws:kms, aws:kms:dsse", o.SSE)
	}
	switch o.ObjectLockMode {
	case "":
		if o.ObjectLockDays != 0 {
			return o, wrongOption("object_lock_mode", "the days of Object Lock need a mode: GOVERNANCE or COMPLIANCE")
		}
	case "GOVERNANCE", "COMPLIANCE":
		if o.ObjectLockDays < 1 {
			return o, wrongOption("object_lock_days", "the Object Lock mode %s needs 1 day at least", o.ObjectLockMode)
		}
	default:
		return o, wrongOption("object_lock_mode", "the Object Lock mode %q is neither GOVERNANCE nor COMPLIANCE", o.ObjectLockMode)
	}
	switch o.StorageClass {
	case "GLACIER", "DEEP_ARCHIVE":
		return o, wrongOption("storage_class", "objects of storage class %s cannot be read without a wait of hours", o.StorageClass)
	}
	switch o.Checksum {
	case "":
		o.Checksum = checksumCRC32C
	case checksumCRC32C, checksumMD5, checksumNone:
	default:
		return o, wrongOption("checksum", "checksum %q is none of %s, %s, %s", o.Checksum, checksumCRC32C, checksumMD5, checksumNone)
	}
	if o.Attempts <= 0 {
		o.Attempts = defaultAttempts
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = defaultDialTimeout
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = defaultStallTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

// name is the object's name in the bucket.
func (s *Store) name(key string) *string { return aws.String(s.prefix + key) }

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := check(ctx, "stat", key); err != nil {
		return storage.Info{}, err
	}
	var info storage.Info
	err := s.retry(ctx, func() error {
		head, err := s.head(ctx, "stat", key)
		if err != nil {
			return err
		}
		info = storage.Info{Key: key, Size: aws.ToInt64(head.ContentLength), ModTime: aws.ToTime(head.LastModified), Tag: tagOf(head.ETag)}
		return nil
	})
	return info, err
}

// head asks once. The answer to a HEAD has no body: it says neither whether the
// object or the bucket is missing, nor why it is refused. So a refusal is
// asked for again as a GET of one byte, whose answer names the reason.
func (s *Store) head(ctx context.Context, op, key string) (*s3.HeadObjectOutput, error) {
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.name(key)})
	if err == nil {
		return head, nil
	}
	failed := s.failure(ctx, op, key, err)
	if failed.Status < 300 || failed.retry {
		return nil, failed
	}
	get, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.name(key), Range: aws.String("bytes=0-0")})
	if err == nil {
		_ = get.Body.Close() // nothing was read that could be wrong
		failed.kind, failed.retry = storage.ErrUnavailable, true
		failed.Message = "the object appeared just now"
		return nil, failed
	}
	return nil, s.failure(ctx, op, key, err)
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, "delete", key); err != nil {
		return err
	}
	err := s.retry(ctx, func() error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.name(key)})
		if err != nil {
			return s.failure(ctx, "delete", key, err)
		}
		return nil
	})
	if errors.Is(err, errMissing) {
		return nil
	}
	return err
}

// check refuses what no operation may go on with.
func check(ctx context.Context, op, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	return nil
}
