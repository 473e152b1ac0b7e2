package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// A lease says who does what now. It is a row of objects, leases/<name>/<generation>.
// Taking, renewing and giving back all create a higher generation, so no object is ever
// changed and a host without the right to delete can use it.
//
// Hosts with a cluster key sign their records, and for them signed ones alone count:
// whoever can only write to the bucket takes no lease from them, and keeps them waiting
// for the length of one lease. Every end counts from the store's own time of the object.
// docs/adr/020 tells why.

const (
	leaseTTL   = 3 * time.Minute
	leaseSkew  = time.Minute // a lease is over only this much later
	leaseGens  = 20          // digits of a generation
	leaseTries = 8           // looks at a row that changes under our eyes
	maxLease   = 4096        // bytes of a record

	// leaseLasts is for how long a record that is not renewed keeps others away.
	leaseLasts = leaseTTL + leaseSkew

	// mostGeneration bounds what an unsigned record can make the next generation: no
	// honest row gets there, and above it there is room for every row that did.
	mostGeneration = 1 << 62
)

type leaseRecord struct {
	Holder    string    `json:"holder"`            // host and process, for people
	Process   string    `json:"process,omitempty"` // for the holder's host alone
	Token     string    `json:"token"`             // 32 random hex digits: one taking of the lease
	Since     time.Time `json:"since"`
	Expires   time.Time `json:"expires"` // for people; not after since once given back
	Signer    string    `json:"signer,omitempty"`
	Signature string    `json:"signature,omitempty"`
}

// Lease is a held lease. Renew it in time; Release gives it back. For one
// goroutine.
type Lease struct {
	repo *Repo
	name string
	gen  uint64
	rec  leaseRecord
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
// holder's clock, for people: the end counts by the store's.
func (r *Repo) AcquireLease(ctx context.Context, name string, by Claim, now time.Time) (*Lease, error) {
	return r.acquireLease(ctx, name, by, now, false)
}

// acquireLease takes a lease, for who signs also over unsigned records.
func (r *Repo) acquireLease(ctx context.Context, name string, by Claim, now time.Time, overUnsigned bool) (*Lease, error) {
	if !isLeaseName(name) {
		return nil, fmt.Errorf("%q cannot name a lease", name)
	}
	row, err := r.leaseRow(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, top := range []*seenLease{row.signed, row.unsigned} {
		if top == nil || !top.rec.taken() || by.knowsGone(top.rec.Process) || overUnsigned && !top.signed {
			continue
		}
		held, err := row.held(ctx, top)
		if err != nil {
			return nil, err
		}
		if held {
			return nil, leasedBy(name, top)
		}
	}
	l := &Lease{repo: r, name: name, gen: row.highest(),
		rec: leaseRecord{Holder: cleanText(by.Holder), Process: by.Process, Token: NewID(), Since: now.UTC()}}
	if err := l.next(ctx, now.Add(leaseTTL)); err != nil {
		return nil, err
	}
	return l, nil
}

func isLeaseName(name string) bool {
	return isWord(name, 100, lowerLetters+decimals, lowerLetters+decimals+"_-")
}

// taken is false once the lease was given back.
func (rec leaseRecord) taken() bool { return rec.Expires.After(rec.Since) }

func (c Claim) knowsGone(process string) bool {
	return process != "" && c.Gone != nil && c.Gone(process)
}

func leasedBy(name string, l *seenLease) *LeasedError {
	return &LeasedError{Name: name, Holder: cleanText(l.rec.Holder), Until: l.made.Add(leaseLasts), Unsigned: !l.signed}
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

// next creates the record behind the last one, and looks whether it counts.
func (l *Lease) next(ctx context.Context, expires time.Time) error {
	rec := l.rec
	rec.Expires = expires.UTC()
	behind := l.gen
	for range 2 * leaseTries {
		key := leaseKey(l.name, behind+1)
		raw, err := l.repo.signLease(key, rec)
		if err != nil {
			return err
		}
		err = l.repo.store.Create(ctx, key, bytes.NewReader(raw))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("write lease %s: %w", l.name, err)
		}
		created := err == nil
		row, err := l.repo.readLeases(ctx, &leaseRow{repo: l.repo, name: l.name, own: key})
		if err != nil {
			return err
		}
		top := row.above(behind, l.repo.signs())
		switch {
		case top != nil && top.rec.Token == rec.Token && top.rec.Expires.Equal(rec.Expires):
			// Also when the key was taken: by this very write, sent twice.
			l.moved(ctx, top.gen, rec, row.keys)
			return nil
		case top != nil && top.rec.Token == rec.Token:
			// An attempt before this one failed for us and not for the store.
			l.gen, behind = top.gen, top.gen
		case top != nil && created:
			// The row had gone on, and what was created was a generation that
			// the later holder has already removed. It is of no meaning.
			_ = l.repo.store.Delete(ctx, key)
			return leasedBy(l.name, top)
		case top != nil:
			return leasedBy(l.name, top)
		default:
			// Something that is no lease has this number, and perhaps those behind it.
			free, err := l.repo.freeGeneration(ctx, l.name, behind)
			if err != nil {
				return err
			}
			behind = free - 1
		}
	}
	return fmt.Errorf("write lease %s: others keep on changing it", l.name)
}

// signs says whether this host's word counts for others: it has a key that is not retired.
func (r *Repo) signs() bool {
	_, ok := r.ownKey()
	return ok && r.retired.Load() == nil
}

// signLease is the object of a record, signed where this host signs.
func (r *Repo) signLease(key string, rec leaseRecord) ([]byte, error) {
	if own, ok := r.ownKey(); ok && r.signs() {
		rec.Signer = own.String()
		rec.Signature = r.keys.Cluster.Signing.Sign(leaseContext, r.leaseText(key, rec))
	}
	raw, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encode lease: %w", err)
	}
	return raw, nil
}

// moved notes that a generation, the newest, is ours, and removes those before it that
// were read: also what others left there, else each next one would read it again.
func (l *Lease) moved(ctx context.Context, gen uint64, rec leaseRecord, read []string) {
	l.gen, l.rec = gen, rec
	own := leaseKey(l.name, gen)
	for _, key := range read {
		// Older generations only cost a little; not being allowed to delete is fine.
		if key >= own || l.repo.store.Delete(ctx, key) != nil {
			return
		}
	}
}

func leaseKey(name string, gen uint64) string {
	return fmt.Sprintf("%s%s/%0*d", leasesPrefix, name, leaseGens, gen)
}
