package s3

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// List implements storage.Store. Objects whose names cannot be keys are left out.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return s.ListAfter(ctx, prefix, "")
}

// ListAfter is List without the objects up to and including the key after. It
// costs as if they were not there: who asks for what follows the last of a
// hundred thousand objects reads one page, not a hundred.
func (s *Store) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		err := s.list(ctx, prefix, after, func(info storage.Info) bool { return yield(info, nil) })
		if err != nil {
			yield(storage.Info{}, err)
		}
	}
}

func (s *Store) list(ctx context.Context, prefix, after string, yield func(storage.Info) bool) error {
	if err := storage.CheckPrefix(prefix); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	last := ""
	var token *string
	for {
		page, err := s.page(ctx, prefix, after, token)
		if err != nil {
			return err
		}
		for _, object := range page.Contents {
			info, ok := s.info(object)
			if !ok || !strings.HasPrefix(info.Key, prefix) || after != "" && info.Key <= after {
				continue
			}
			// Callers look for the newest, and for gaps.
			if info.Key <= last {
				return fmt.Errorf("list %s: the store lists %q after %q", prefix, info.Key, last)
			}
			last = info.Key
			if !yield(info) {
				return nil
			}
		}
		if !aws.ToBool(page.IsTruncated) {
			return nil
		}
		next := aws.ToString(page.NextContinuationToken)
		if next == "" || next == aws.ToString(token) {
			return fmt.Errorf("list %s: %w", prefix, errors.New("the store says that there is more and not where to go on"))
		}
		token = &next
	}
}

func (s *Store) page(ctx context.Context, prefix, after string, token *string) (*s3.ListObjectsV2Output, error) {
	var page *s3.ListObjectsV2Output
	var start *string
	if after != "" {
		start = s.name(after)
	}
	err := s.retry(ctx, func() error {
		var err error
		page, err = s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
			Bucket: &s.bucket, Prefix: s.name(prefix), StartAfter: start, ContinuationToken: token,
		})
		if err != nil {
			return s.failure(ctx, "list", prefix, err)
		}
		return nil
	})
	return page, err
}

// info describes a listed object, unless it is none of ours.
func (s *Store) info(object types.Object) (storage.Info, bool) {
	key, ours := strings.CutPrefix(aws.ToString(object.Key), s.prefix)
	if !ours || storage.CheckKey(key) != nil {
		return storage.Info{}, false
	}
	return storage.Info{Key: key, Size: aws.ToInt64(object.Size), ModTime: aws.ToTime(object.LastModified), Tag: tagOf(object.ETag)}, true
}

// tagOf is a number for an ETag: S3 gives an object that is written again another
// one, unless the bytes are the same.
func tagOf(etag *string) uint64 {
	if aws.ToString(etag) == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(*etag))
	return binary.BigEndian.Uint64(sum[:])
}
