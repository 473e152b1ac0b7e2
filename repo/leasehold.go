package repo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// HoldLease takes the lease and renews it until release is called. When it is
// lost, or renewing fails until its end is near, the context ends with the
// reason, because somebody else may then be taking its holder for dead. A lease
// that cannot be given back runs out by itself; warn, which may be nil, hears of
// it. Errors are those of AcquireLease.
//
// Who signs waits while only unsigned records are in the way, which anybody can make
// who may write to the bucket, and after the length of a lease passes over them.
func (r *Repo) HoldLease(ctx context.Context, name string, by Claim, now func() time.Time, warn func(error)) (held context.Context, release func(), err error) {
	lease, err := r.waitForLease(ctx, name, by, now, warn)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(RenewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := lease.keep(ctx, now); err != nil && ctx.Err() == nil {
					cancel(fmt.Errorf("renew the lease %s: %w", name, err))
				}
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer stop()
		if err := lease.Release(end); err != nil && warn != nil {
			warn(fmt.Errorf("the lease could not be given back and runs out by itself: %w", err))
		}
	}, nil
}

// leaseLook is how often a lease that is waited for is looked at.
const leaseLook = 5 * time.Second

func (r *Repo) waitForLease(ctx context.Context, name string, by Claim, now func() time.Time, warn func(error)) (*Lease, error) {
	lease, err := r.AcquireLease(ctx, name, by, now())
	waited := time.Duration(0)
	for ; ; waited += leaseLook {
		held, leased := errors.AsType[*LeasedError](err)
		if !leased || !held.Unsigned || !r.signs() {
			return lease, err
		}
		if waited == 0 && warn != nil {
			warn(fmt.Errorf("%w; no key that is believed has signed that: waiting until %s at most", held, now().Add(leaseLasts).UTC().Format(time.RFC3339)))
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(leaseLook):
		}
		lease, err = r.acquireLease(ctx, name, by, now(), waited+leaseLook >= leaseLasts)
	}
}

// keep renews the lease, and fails when it was lost or would have run out before
// it can be tried again: one answer that got lost is no reason to stop the work.
func (l *Lease) keep(ctx context.Context, now func() time.Time) error {
	trying, cancel := context.WithTimeout(ctx, RenewEvery)
	defer cancel()
	err := l.Renew(trying, now())
	if _, lost := errors.AsType[*LeasedError](err); err != nil && !lost && now().Add(RenewEvery).Before(l.rec.Expires) {
		return nil
	}
	return err
}
