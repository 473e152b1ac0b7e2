package s3

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// tokenName is the object metadata that tells our own object from another's
// under the same key: a random text for each call of Create.
const tokenName = "lifeboat-attempt"

// Create implements storage.Store.
//
// When a try ends without a clear answer, because the connection broke or the
// server failed, the object may have been made all the same, and the next try
// then gets "precondition failed". The token in the object's metadata says
// whose it is. That takes the right to read; where it is missing the answer is
// fs.ErrExist, which is true as well.
func (s *Store) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := check(ctx, "create", key); err != nil {
		return err
	}
	p, err := s.newPut(key, body)
	if err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	unclear := false // an earlier try may have made the object
	var last error
	for attempt := 1; ; attempt++ {
		err := s.put(ctx, p)
		if err == nil {
			return nil
		}
		if errors.Is(err, errTaken) {
			if unclear && s.isOurs(ctx, p) {
				return nil
			}
			return err
		}
		if !err.retry {
			return ended(ctx, err, last)
		}
		unclear = unclear || err.early || err.Status >= 500
		wait := true
		if err.early {
			// A server that refuses a large body may answer and hang up while
			// we still write, and the answer is lost. So look before sending
			// all of it again.
			switch there, ours := s.look(ctx, p); {
			case there == yes && ours:
				return nil
			case there == yes:
				return &Error{Op: "create", Key: key, kind: errTaken}
			case there == no && attempt == 1:
				wait = false // an idle connection that the server had closed
			}
		}
		if attempt >= s.attempts {
			return err
		}
		if wait {
			if pauseErr := pause(ctx, attempt); pauseErr != nil {
				return &storage.EndedError{Err: pauseErr, Last: err}
			}
		}
		last = err
	}
}

// put is what all tries of one Create have in common.
type put struct {
	key    string
	body   io.ReadSeeker
	token  string
	size   int64
	crc32c string // base64, "" when not wanted
	md5    string // likewise
	until  *time.Time
}

// newPut reads the body once for its size and checksums.
func (s *Store) newPut(key string, body io.ReadSeeker) (*put, error) {
	p := &put{key: key, body: body, token: rand.Text()}
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	sum := md5.New()
	var hashes []io.Writer
	withCRC := s.options.Checksum == checksumCRC32C
	// S3 accepts a lock only with a digest that covers the request; this is
	// the one that every server knows.
	withMD5 := s.options.Checksum == checksumMD5 || s.options.ObjectLockMode != ""
	if withCRC {
		hashes = append(hashes, crc)
	}
	if withMD5 {
		hashes = append(hashes, sum)
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind the body: %w", err)
	}
	var err error
	if p.size, err = io.Copy(io.MultiWriter(hashes...), onlyReader{body}); err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	encode := func(h hash.Hash) string { return base64.StdEncoding.EncodeToString(h.Sum(nil)) }
	if withCRC {
		p.crc32c = encode(crc)
	}
	if withMD5 {
		p.md5 = encode(sum)
	}
	if s.options.ObjectLockMode != "" {
		until := s.options.Now().AddDate(0, 0, s.options.ObjectLockDays).UTC()
		p.until = &until
	}
	return p, nil
}

// onlyReader hides a WriterTo, which would hand over a large body in one
// piece: hashes are faster on what fits the processor's cache.
type onlyReader struct{ io.Reader }

// put sends the object once.
func (s *Store) put(ctx context.Context, p *put) *Error {
	if _, err := p.body.Seek(0, io.SeekStart); err != nil {
		return &Error{Op: "create", Key: p.key, Message: "rewind the body", cause: err}
	}
	input := &s3.PutObjectInput{
		Bucket:        &s.bucket,
		Key:           s.name(p.key),
		Body:          &putBody{p.body},
		ContentLength: &p.size,
		IfNoneMatch:   aws.String("*"),
		Metadata:      map[string]string{tokenName: p.token},

		ServerSideEncryption:      types.ServerSideEncryption(s.options.SSE),
		StorageClass:              types.StorageClass(s.options.StorageClass),
		ObjectLockMode:            types.ObjectLockMode(s.options.ObjectLockMode),
		ObjectLockRetainUntilDate: p.until,
	}
	if s.options.SSEKMSKey != "" {
		input.SSEKMSKeyId = &s.options.SSEKMSKey
	}
	if p.crc32c != "" {
		input.ChecksumCRC32C = &p.crc32c
	}
	if p.md5 != "" {
		input.ContentMD5 = &p.md5
	}
	_, err := s.client.PutObject(ctx, input, s3.WithAPIOptions(unsignedOverTLS))
	if err != nil {
		return s.failure(ctx, "create", p.key, err)
	}
	return nil
}

// unsignedOverTLS leaves the body out of the signature where TLS protects it:
// SHA-256 over all of it, only to sign, would cost more CPU than all the rest.
func unsignedOverTLS(stack *middleware.Stack) error {
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("lifeboat:UnsignedOverTLS",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if request, ok := in.Request.(*smithyhttp.Request); ok && request.IsHTTPS() {
				ctx = v4.SetPayloadHash(ctx, "UNSIGNED-PAYLOAD")
			}
			return next.HandleFinalize(ctx, in)
		}), (*v4.ComputePayloadSHA256)(nil).ID(), middleware.Before)
}

// answer is what can be known about an object.
type answer int

const (
	unknown answer = iota
	no
	yes
)

// look asks once whether the object is there and whether this Create made it.
func (s *Store) look(ctx context.Context, p *put) (there answer, ours bool) {
	head, err := s.head(ctx, "create", p.key)
	switch {
	case errors.Is(err, errMissing):
		return no, false
	case err != nil:
		return unknown, false
	}
	return yes, head.Metadata[tokenName] == p.token
}

// isOurs asks until it knows whether this Create made the object.
func (s *Store) isOurs(ctx context.Context, p *put) bool {
	ours := false
	err := s.retry(ctx, func() error {
		head, err := s.head(ctx, "create", p.key)
		if err == nil {
			ours = head.Metadata[tokenName] == p.token
		}
		return err
	})
	return err == nil && ours
}

// bodyError is a failure of the caller's body, not of the network.
type bodyError struct{ error }

func (e bodyError) Unwrap() error { return e.error }

// putBody tells failures of the body apart from the network's.
type putBody struct{ io.ReadSeeker }

func (b *putBody) Read(p []byte) (int, error) {
	n, err := b.ReadSeeker.Read(p)
	if err != nil && err != io.EOF {
		err = bodyError{err}
	}
	return n, err
}
