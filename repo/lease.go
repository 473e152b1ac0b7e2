package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// A lease says who does what now, and until when. It is a row of objects,
// leases/<name>/<generation>; the highest generation counts. Taking, renewing
// and giving back all create the next generation, which only one can, so no
// object is ever changed and a host without the right to delete can use it.

const (
	leaseTTL   = 3 * time.Minute
	leaseSkew  = time.Minute // clocks differ: a lease is over only this much later
	leaseGens  = 20          // digits of a generation
	leaseTries = 8           // looks at a row that changes under our eyes
	maxLease   = 4096        // bytes of a record
)

type leaseRecord struct {
	Holder  string    `json:"holder"`            // host and process, for people
	Process string    `json:"process,omitempty"` // for the holder's host alone
	Token   string    `json:"token"`             // 32 random hex digits: one taking of the lease
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires"` // not after since once given back
}

// Lease is a held lease. Renew it in time; Release gives it back. For one
// goroutine.
type Lease struct {
	store storage.Store
	name  string
	gen   uint64
	rec   leaseRecord
}

// Claim says who wants a lease.
type Claim struct {
	Holder string // host and process, for people

	// Process names the process, "" when it cannot be named; Gone says of
	// such a name whether that process is proven to have ended, and is nil
	// when that is never known. A lease whose holder is gone is free at once.
	// A holder that was taken for gone and lives is told by its next Renew.
	Process string
	Gone    func(process string) bool
}

// AcquireLease takes the lease of this name ("backup" and such: lower-case
// letters, digits, "-" and "_"), or fails with *LeasedError. Now is the
// holder's clock.
func AcquireLease(ctx context.Context, store storage.Store, name string, by Claim, now time.Time) (*Lease, error) {
	if !isWord(name, 100, lowerLetters+decimals, lowerLetters+decimals+"_-") {
		return nil, fmt.Errorf("%q cannot name a lease", name)
	}
	gen, rec, err := newestLease(ctx, store, name)
	if err != nil {
		return nil, err
	}
	if gen > 0 && rec.heldAt(now) && !by.knowsGone(rec.Process) {
		return nil, leasedBy(name, rec)
	}
	l := &Lease{store: store, name: name, gen: gen,
		rec: leaseRecord{Holder: cleanText(by.Holder), Process: by.Process, Token: NewID(), Since: now.UTC()}}
	if err := l.next(ctx, now.Add(leaseTTL)); err != nil {
		return nil, err
	}
	return l, nil
}

func (r leaseRecord) heldAt(now time.Time) bool {
	return r.Expires.After(r.Since) && now.Before(r.Expires.Add(leaseSkew))
}

func (c Claim) knowsGone(process string) bool {
	return process != "" && c.Gone != nil && c.Gone(process)
}

func leasedBy(name string, rec leaseRecord) *LeasedError {
	return &LeasedError{name, cleanText(rec.Holder), rec.Expires}
}

// RenewEvery is how often a holder should call Renew.
const RenewEvery = leaseTTL / 4

// Renew moves the end on. *LeasedError when somebody else took the lease,
// because it had run out: the work must stop then. After another error the
// lease may be renewed or not; Renew can be called again.
func (l *Lease) Renew(ctx context.Context, now time.Time) error {
	return l.next(ctx, now.Add(leaseTTL))
}

// Release gives the lease back: the next one need not wait for its end.
// *LeasedError when it was lost already.
func (l *Lease) Release(ctx context.Context) error { return l.next(ctx, l.rec.Since) }

func (l *Lease) next(ctx context.Context, expires time.Time) error {
	rec := l.rec
	rec.Expires = expires.UTC()
	raw, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode lease: %w", err)
	}
	for range leaseTries {
		err = l.store.Create(ctx, leaseKey(l.name, l.gen+1), bytes.NewReader(raw))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("write lease %s: %w", l.name, err)
		}
		created := err == nil
		gen, newest, err := newestLease(ctx, l.store, l.name)
		switch {
		case err != nil:
			return err
		case gen == l.gen+1 && newest.Token == rec.Token && newest.Expires.Equal(rec.Expires):
			// Also when the key was taken: by this very write, sent twice.
			l.moved(ctx, gen, rec)
			return nil
		case newest.Token == rec.Token && gen > l.gen:
			// An attempt before this one failed for us and not for the store.
			l.gen = gen
		case created:
			// The row had gone on, and what was created was a generation that
			// the later holder has already removed. It is of no meaning.
			_ = l.store.Delete(ctx, leaseKey(l.name, l.gen+1))
			return leasedBy(l.name, newest)
		default:
			return leasedBy(l.name, newest)
		}
	}
	return fmt.Errorf("write lease %s: others keep on changing it", l.name)
}

// moved notes that generation gen, the newest, is ours.
func (l *Lease) moved(ctx context.Context, gen uint64, rec leaseRecord) {
	l.gen, l.rec = gen, rec
	// Older generations only cost a little; not being allowed to delete is fine.
	if gen > 1 {
		_ = l.store.Delete(ctx, leaseKey(l.name, gen-1))
	}
}

// HoldLease takes the lease and renews it until release is called. When it is
// lost, or renewing fails until its end is near, the context ends with the
// reason, because somebody else may then be taking its holder for dead. A lease
// that cannot be given back runs out by itself; warn, which may be nil, hears of
// it. Errors are those of AcquireLease.
func HoldLease(ctx context.Context, store storage.Store, name string, by Claim, now func() time.Time, warn func(error)) (held context.Context, release func(), err error) {
	lease, err := AcquireLease(ctx, store, name, by, now())
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
			warn(err)
		}
	}, nil
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

func leaseKey(name string, gen uint64) string {
	return fmt.Sprintf("%s%s/%0*d", leasesPrefix, name, leaseGens, gen)
}

// newestLease reads the record of the highest generation; 0 when there is
// none.
func newestLease(ctx context.Context, store storage.Store, name string) (uint64, leaseRecord, error) {
	for range leaseTries {
		gen, err := newestGeneration(ctx, store, name)
		if err != nil || gen == 0 {
			return 0, leaseRecord{}, err
		}
		rec, err := readLease(ctx, store, leaseKey(name, gen))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the next was made and this one deleted since the listing
		}
		return gen, rec, err
	}
	return 0, leaseRecord{}, fmt.Errorf("read lease %s: others keep on changing it", name)
}

// newestGeneration looks at names only. Names that are no generation are
// nothing of ours.
func newestGeneration(ctx context.Context, store storage.Store, name string) (uint64, error) {
	prefix := leasesPrefix + name + "/"
	var newest uint64
	for info, err := range store.List(ctx, prefix) {
		if err != nil {
			return 0, fmt.Errorf("list leases: %w", opaque(err))
		}
		gen, err := strconv.ParseUint(info.Key[len(prefix):], 10, 64)
		if err != nil || leaseKey(name, gen) != info.Key {
			continue
		}
		if gen == ^uint64(0) {
			return 0, &CorruptError{info.Key, "no lease can follow this generation", nil}
		}
		newest = gen
	}
	return newest, nil
}

func readLease(ctx context.Context, store storage.Store, key string) (leaseRecord, error) {
	rc, err := store.Open(ctx, key, 0, maxLease)
	if err != nil {
		return leaseRecord{}, fmt.Errorf("open lease %s: %w", key, err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(io.LimitReader(rc, maxLease))
	if err != nil {
		return leaseRecord{}, fmt.Errorf("read lease %s: %w", key, opaque(err))
	}
	return parseLease(key, raw)
}

func parseLease(key string, raw []byte) (leaseRecord, error) {
	var rec leaseRecord
	if err := json.Unmarshal(raw, &rec); err != nil {
		return rec, &CorruptError{key, "not a lease", err}
	}
	if rec.Since.IsZero() || rec.Expires.IsZero() {
		return rec, &CorruptError{key, "not a lease: it has no times", nil}
	}
	return rec, nil
}
