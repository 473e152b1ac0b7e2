package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
)

// retry runs one request until it succeeds, fails for good, or has failed as
// often as the options allow.
func (s *Store) retry(ctx context.Context, request func() error) error {
	for attempt := 1; ; attempt++ {
		err := request()
		var failed *Error
		if err == nil || !errors.As(err, &failed) || !failed.retry || attempt >= s.attempts {
			return err
		}
		if pauseErr := pause(ctx, attempt); pauseErr != nil {
			return fmt.Errorf("%w, after: %w", pauseErr, err)
		}
	}
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
