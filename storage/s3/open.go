package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// Open implements storage.Store. A transfer that breaks off is resumed where
// it broke, if the object is still the same one.
func (s *Store) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := check(ctx, "open", key); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("open %s: negative offset %d", key, off)
	}
	if n == 0 {
		_, err := s.Stat(ctx, key) // a range of no bytes cannot be asked for
		return http.NoBody, err
	}
	if n > 0 && off > math.MaxInt64-n {
		n = -1
	}
	r := &reader{ctx: ctx, store: s, key: key, off: off, left: n}
	if err := s.retry(ctx, r.open); err != nil {
		return nil, err
	}
	return r, nil
}

// resumeAfter is how many bytes must come before the tries count again.
const resumeAfter = 1 << 20

// reader reads a range of an object.
type reader struct {
	ctx   context.Context
	store *Store
	key   string

	body  io.ReadCloser // nil after it broke
	etag  *string       // of the first answer
	off   int64         // of the next byte
	left  int64         // bytes to come; negative before the first answer to "to the end"
	since int64         // bytes since the tries were last counted from 0
	tries int           // without resumeAfter bytes in between
}

// open asks for what is left.
func (r *reader) open() error {
	s := r.store
	input := &s3.GetObjectInput{Bucket: &s.bucket, Key: s.name(r.key), IfMatch: r.etag}
	switch {
	case r.left >= 0:
		input.Range = aws.String(fmt.Sprintf("bytes=%d-%d", r.off, r.off+r.left-1))
	case r.off > 0:
		input.Range = aws.String(fmt.Sprintf("bytes=%d-", r.off))
	}
	output, err := s.client.GetObject(r.ctx, input)
	if err != nil {
		return r.refused(s.failure(r.ctx, "open", r.key, err))
	}
	first := r.etag == nil
	length, err := r.answered(output)
	if err == nil && !first && length != r.left {
		err = fmt.Errorf("%d bytes are left and the store offers %d", r.left, length)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", r.key, err), output.Body.Close())
	}
	r.body, r.left = output.Body, length
	r.etag = output.ETag
	return nil
}

// refused turns the answers that are none of the errors they look like.
func (r *reader) refused(failed *Error) error {
	switch {
	case failed.Status == http.StatusRequestedRangeNotSatisfiable && r.etag == nil:
		// The object is there and ends before the range begins.
		r.body, r.left = http.NoBody, 0
		return nil
	case failed.Status == http.StatusPreconditionFailed:
		failed.kind = nil
		failed.Message = "the object was replaced while it was being read"
	}
	return failed
}

// answered gives the number of bytes that an answer promises, after seeing
// that they are the ones that were asked for: a cache or a proxy in between
// can ignore the range.
func (r *reader) answered(output *s3.GetObjectOutput) (int64, error) {
	if output.ContentRange == nil {
		if output.ContentLength == nil {
			return 0, errors.New("the store does not say how long the object is")
		}
		length := *output.ContentLength
		if r.off > 0 {
			return 0, fmt.Errorf("the store ignored the range from byte %d", r.off)
		}
		if r.left >= 0 {
			length = min(length, r.left)
		}
		return length, nil
	}
	var first, last, total int64
	if n, err := fmt.Sscanf(*output.ContentRange, "bytes %d-%d/%d", &first, &last, &total); n != 3 || err != nil {
		return 0, fmt.Errorf("the store answered with Content-Range %q", oneLine(*output.ContentRange))
	}
	want := total - 1
	if r.left >= 0 {
		want = min(want, r.off+r.left-1)
	}
	if first != r.off || last != want || last < first-1 {
		return 0, fmt.Errorf("the store answered with bytes %d to %d of %d when asked from %d to %d", first, last, total, r.off, want)
	}
	return last - first + 1, nil
}

// Read reads on, and asks for the rest when the connection breaks.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, fmt.Errorf("read %s: %w", r.key, err)
		}
		if r.left == 0 {
			return 0, io.EOF
		}
		if r.body == nil {
			if err := r.store.retry(r.ctx, r.open); err != nil {
				return 0, fmt.Errorf("resume at byte %d: %w", r.off, err)
			}
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.progress(int64(n))
		if err != nil && r.left > 0 {
			if err := r.broken(err); err != nil {
				return n, err
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (r *reader) progress(n int64) {
	r.off += n
	r.left -= n
	if r.since += n; r.since >= resumeAfter {
		r.since, r.tries = 0, 0
	}
}

// broken lets go of a body that ended early, and gives up after as many times
// as a request is tried.
func (r *reader) broken(err error) error {
	_ = r.body.Close() // the error is known
	r.body = nil
	if ended := r.ctx.Err(); ended != nil {
		return fmt.Errorf("read %s: %w", r.key, ended)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if r.tries++; r.tries >= r.store.attempts {
		return &Error{Op: "read", Key: r.key, kind: storage.ErrUnavailable, cause: err,
			Message: oneLine(fmt.Sprintf("the transfer broke %d times, last at byte %d: %v", r.tries, r.off, err))}
	}
	if r.tries > 1 {
		return pause(r.ctx, r.tries-1)
	}
	return nil
}

// Close lets go of the connection. One whose body was read to the end is used
// again; another is closed, which is cheaper than reading the rest.
func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body, r.left = nil, 0
	return body.Close()
}
