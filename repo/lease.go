package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// A lease says who does what now, and until when. It is a row of objects,
// leases/<name>/<generation>; the highest generation counts. Taking, renewing
// and giving back all create the next generation, which only one can, so no
// object is ever changed and a host without the right to delete can use it.

const (
	leaseTTL  = 3 * time.Minute
	leaseSkew = time.Minute // clocks differ: a lease is over only this much later
	leaseGens = 20          // digits of a generation
)

type leaseRecord struct {
	Holder  string    `json:"holder"` // host and process
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires"` // in the past once given back
}

// Lease is a held lease. Renew it in time; Release gives it back.
type Lease struct {
	store storage.Store
	name  string
	gen   uint64
	rec   leaseRecord
}

// AcquireLease takes the lease of this name ("backup-<cluster>" and such) for
// holder, or fails with *LeasedError. Now is the holder's clock.
func AcquireLease(ctx context.Context, store storage.Store, name, holder string, now time.Time) (*Lease, error) {
	gen, rec, err := newestLease(ctx, store, name)
	if err != nil {
		return nil, err
	}
	if gen > 0 && now.Before(rec.Expires.Add(leaseSkew)) && !rec.Expires.Equal(rec.Since) {
		return nil, &LeasedError{name, cleanText(rec.Holder), rec.Expires}
	}
	l := &Lease{store: store, name: name, gen: gen, rec: leaseRecord{Holder: holder, Since: now.UTC()}}
	if err := l.next(ctx, now.Add(leaseTTL)); err != nil {
		return nil, err
	}
	return l, nil
}

// RenewEvery is how often a holder should call Renew.
const RenewEvery = leaseTTL / 4

// Renew moves the end on. *LeasedError when somebody else took the lease,
// because it had run out: the work must stop then.
func (l *Lease) Renew(ctx context.Context, now time.Time) error { return l.next(ctx, now.Add(leaseTTL)) }

// Release gives the lease back: the next one need not wait for its end.
func (l *Lease) Release(ctx context.Context) error { return l.next(ctx, l.rec.Since) }

func (l *Lease) next(ctx context.Context, expires time.Time) error {
	l.rec.Expires = expires.UTC()
	raw, err := json.Marshal(l.rec)
	if err != nil {
		return fmt.Errorf("encode lease: %w", err)
	}
	err = l.store.Create(ctx, leaseKey(l.name, l.gen+1), bytes.NewReader(raw))
	if errors.Is(err, fs.ErrExist) {
		_, rec, err := newestLease(ctx, l.store, l.name)
		if err != nil {
			return err
		}
		return &LeasedError{l.name, cleanText(rec.Holder), rec.Expires}
	}
	if err != nil {
		return fmt.Errorf("write lease %s: %w", l.name, err)
	}
	l.gen++
	// Older generations only cost a little; not being allowed to delete is fine.
	if l.gen > 1 {
		_ = l.store.Delete(ctx, leaseKey(l.name, l.gen-1))
	}
	return nil
}

func leaseKey(name string, gen uint64) string {
	return fmt.Sprintf("%s%s/%0*d", leasesPrefix, name, leaseGens, gen)
}

func newestLease(ctx context.Context, store storage.Store, name string) (uint64, leaseRecord, error) {
	var rec leaseRecord
	var key string
	prefix := leasesPrefix + name + "/"
	for info, err := range store.List(ctx, prefix) {
		if err != nil {
			return 0, rec, fmt.Errorf("list leases: %w", err)
		}
		key = info.Key
	}
	if key == "" {
		return 0, rec, nil
	}
	var gen uint64
	if _, err := fmt.Sscanf(strings.TrimPrefix(key, prefix), "%d", &gen); err != nil {
		return 0, rec, &CorruptError{key, "not the name of a lease", err}
	}
	rc, err := store.Open(ctx, key, 0, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		// The next generation was made and this one deleted since the listing.
		return newestLease(ctx, store, name)
	}
	if err != nil {
		return 0, rec, fmt.Errorf("open lease %s: %w", name, err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(rc)
	if err != nil {
		return 0, rec, fmt.Errorf("read lease %s: %w", name, err)
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return 0, rec, &CorruptError{key, "not a lease", err}
	}
	return gen, rec, nil
}

// cleanText makes text from the store fit to be shown on a terminal.
func cleanText(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
}
