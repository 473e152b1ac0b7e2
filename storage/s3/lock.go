package s3

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lifeboat-dr/lifeboat/storage"
)

var (
	_ storage.Locker   = (*Store)(nil)
	_ storage.Retainer = (*Store)(nil)
)

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
	rule, err := s.RetentionRule(ctx)
	return err == nil && !rule.Supported
}

// RetentionRule implements storage.Retainer: the bucket is asked once. A server that
// does not know the question has no Object Lock.
func (s *Store) RetentionRule(ctx context.Context) (storage.RetentionRule, error) {
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	if s.lockAsked {
		return s.lockRule, s.lockErr
	}
	var rule storage.RetentionRule
	err := s.retry(ctx, func() error {
		out, err := s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &s.bucket})
		if err == nil {
			rule = ruleOf(out.ObjectLockConfiguration)
			return nil
		}
		failed := s.failure(ctx, "ask for the Object Lock of", "bucket "+s.bucket, err)
		if failed.Code == "ObjectLockConfigurationNotFoundError" || failed.Status == http.StatusNotImplemented {
			return nil
		}
		return failed
	})
	if failed, ok := errors.AsType[*Error](err); err == nil || ok && failed.Status/100 == 4 {
		s.lockAsked, s.lockRule, s.lockErr = true, rule, err // else there was no answer: ask again
	}
	return rule, err
}

func ruleOf(c *types.ObjectLockConfiguration) storage.RetentionRule {
	if c == nil || c.ObjectLockEnabled != types.ObjectLockEnabledEnabled {
		return storage.RetentionRule{}
	}
	rule := storage.RetentionRule{Supported: true}
	if c.Rule != nil && c.Rule.DefaultRetention != nil {
		d := c.Rule.DefaultRetention
		rule.Mode, rule.Days = string(d.Mode), int(aws.ToInt32(d.Days))+365*int(aws.ToInt32(d.Years))
	}
	return rule
}

// Retention implements storage.Retainer. GetObjectRetention is asked and not
// HeadObject, which leaves the retention out without a word where the right to
// see it is missing.
func (s *Store) Retention(ctx context.Context, key string) (storage.Retention, error) {
	if err := check(ctx, "ask for the retention of", key); err != nil {
		return storage.Retention{}, err
	}
	if s.neverLocks(ctx) {
		return storage.Retention{}, nil
	}
	var found storage.Retention
	err := s.retry(ctx, func() error {
		out, err := s.client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: &s.bucket, Key: s.name(key)})
		if err == nil {
			if r := out.Retention; r != nil {
				found = storage.Retention{Mode: string(r.Mode), Until: aws.ToTime(r.RetainUntilDate)}
			}
			return nil
		}
		failed := s.failure(ctx, "ask for the retention of", key, err)
		if failed.Code == "NoSuchObjectLockConfiguration" {
			return nil
		}
		return failed
	})
	return found, err
}
