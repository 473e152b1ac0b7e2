package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// ResealOptions says on whose behalf ResealAll works, and what comes after.
type ResealOptions struct {
	// Retire are the signers before this host's, to be retired at the end. With any,
	// only what others have signed is sealed again.
	Retire []PublicKey

	Claim Claim
	Now   func() time.Time
	Warn  func(error) // may be nil
}

// ResealAll seals all metadata again, and pins: to the recipients of now, signed by
// this host's cluster key. It holds the leases of backups and of expiry: what is on
// its way from one key to another is no leftover, and a manifest that an expiry
// removes meanwhile must not be put back.
//
// It returns how many objects were sealed again. *LeasedError and *StillSigningError
// before anything is changed; after another error nothing is lost, and the next run
// goes on.
func (r *Repo) ResealAll(ctx context.Context, o ResealOptions) (n int, err error) {
	held, release, err := r.HoldBoth(ctx, o.Claim, o.Now, o.Warn)
	if err != nil {
		return 0, err
	}
	defer release()
	if n, err = r.resealAll(held, o); err != nil {
		return n, errors.Join(context.Cause(held), err)
	}
	return n, nil
}

func (r *Repo) resealAll(ctx context.Context, o ResealOptions) (n int, err error) {
	for _, k := range o.Retire { // first what may refuse
		if _, err := r.WALSignedBy(ctx, k); err != nil {
			return 0, err
		}
	}
	all, err := r.Metadata(ctx)
	if err != nil {
		return 0, err
	}
	othersOnly := len(o.Retire) > 0
	for _, m := range all {
		if othersOnly && !m.Beside {
			own, err := r.SignedByOwn(ctx, m.Key)
			if err != nil {
				return n, err
			}
			if own {
				continue
			}
		}
		if err := r.Reseal(ctx, m); err != nil {
			return n, err
		}
		n++
	}
	pins, err := r.resealPins(ctx, othersOnly)
	n += pins
	for _, k := range o.Retire {
		if err == nil {
			err = r.Retire(ctx, k, o.Now())
		}
	}
	return n, err
}

// resealPins puts on top of each row of pins what its highest says once more; also
// of one that was taken off, which would hold again if who took it off were not
// believed any more. Nothing is removed. A pin that cannot be read is left: it holds.
func (r *Repo) resealPins(ctx context.Context, othersOnly bool) (n int, err error) {
	gens, err := r.pinGenerations(ctx, pinsPrefix)
	if err != nil {
		return 0, err
	}
	for _, label := range slices.Sorted(maps.Keys(gens)) {
		key := pinKey(label, gens[label])
		raw, h, err := r.ReadEnvelope(ctx, key, KindPin, maxPin)
		switch {
		case err != nil && (AboutObject(err) || errors.Is(err, fs.ErrNotExist)):
			continue
		case err != nil:
			return n, err
		case othersOnly && r.isOwn(h):
			continue
		}
		if _, err := r.CreateEnvelope(ctx, pinKey(label, gens[label]+1), KindPin, bytes.NewReader(raw), int64(len(raw))); err != nil {
			return n, fmt.Errorf("seal the pin of backup %s again: %w", label, err)
		}
		n++
	}
	return n, nil
}
