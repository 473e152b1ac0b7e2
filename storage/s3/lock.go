package s3

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/lifeboat-dr/lifeboat/storage"
)

var _ storage.Locker = (*Store)(nil)

// LockedUntil implements storage.Locker. A bucket that is known to have no
// Object Lock is asked once; else each object is.
//
// Delete does not fail for an object that is locked: it puts a delete marker
// on top, which hides the object and frees nothing. So whoever removes asks
// first, and leaves what is locked where everybody sees it.
func (s *Store) LockedUntil(ctx context.Context, key string) (time.Time, error) {
	if err := check(ctx, "lock", key); err != nil {
		return time.Time{}, err
	}
	if s.neverLocks(ctx) {
		return time.Time{}, nil
	}
	var until time.Time
	err := s.retry(ctx, func() error {
		head, err := s.head(ctx, "lock", key)
		if err != nil {
			return err
		}
		until = aws.ToTime(head.ObjectLockRetainUntilDate)
		if head.ObjectLockLegalHoldStatus == types.ObjectLockLegalHoldStatusOn {
			until = storage.Forever
		}
		return nil
	})
	return until, err
}

// neverLocks asks the bucket, once. Only the plain answer that it has no Object
// Lock counts; not being allowed to ask does not.
func (s *Store) neverLocks(ctx context.Context) bool {
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	if s.lockAsked {
		return s.lockless
	}
	out, err := s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &s.bucket})
	if ctx.Err() != nil {
		return false
	}
	var api smithy.APIError
	switch {
	case err == nil:
		s.lockless = out.ObjectLockConfiguration == nil || out.ObjectLockConfiguration.ObjectLockEnabled != types.ObjectLockEnabledEnabled
	case errors.As(err, &api):
		s.lockless = api.ErrorCode() == "ObjectLockConfigurationNotFoundError"
	default:
		return false // no answer: ask again
	}
	s.lockAsked = true
	return s.lockless
}
