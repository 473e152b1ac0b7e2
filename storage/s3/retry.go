package s3

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

const (
	firstPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
)

// retry runs one request until it succeeds, fails for good, or has failed as
// often as the options allow.
func (s *Store) retry(ctx context.Context, request func() error) error {
	var last error
	for attempt := 1; ; attempt++ {
		err := request()
		var failed *Error
		if err == nil || !errors.As(err, &failed) || !failed.retry || attempt >= s.attempts {
			return ended(ctx, err, last)
		}
		if pauseErr := pause(ctx, attempt); pauseErr != nil {
			return &storage.EndedError{Err: pauseErr, Last: err}
		}
		last = err
	}
}

// ended adds to an error that is only the context's why the try before failed.
func ended(ctx context.Context, err, last error) error {
	if err == nil || last == nil || ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	return &storage.EndedError{Err: err, Last: last}
}

// pause waits before the next try, or until the context ends. The wait is
// random, so that many clients do not come back together, and its bound
// doubles each time.
func pause(ctx context.Context, attempt int) error {
	bound := mostPause
	if attempt < 10 {
		bound = min(bound, firstPause<<(attempt-1))
	}
	timer := time.NewTimer(bound/2 + rand.N(bound/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
