package repo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// LeaseView is a lease as people look at it.
type LeaseView struct {
	Name    string
	Holder  string    // "" when nobody has taken it
	Since   time.Time // by the holder's clock
	Renewed time.Time // when the store got the record that counts
	Ends    time.Time // by the store's clock, if it is not renewed
	Held    bool
	Signed  bool // by a key that is believed
	Objects int  // under its name
	Junk    int  // of those that were read: no leases
}

// mostLeaseNames bounds how many names are looked at.
const mostLeaseNames = 100

// Leases lists the leases by name, the first hundred names and those that the program takes
// itself, which names that anybody can put before them do not hide. Now is the store's
// time. more is true when there are further names.
func (r *Repo) Leases(ctx context.Context, now time.Time) (all []LeaseView, more bool, err error) {
	var names []string
	for info, err := range r.store.List(ctx, leasesPrefix) {
		if err != nil {
			return nil, false, fmt.Errorf("list leases: %w", opaque(err))
		}
		name, _, ok := strings.Cut(strings.TrimPrefix(info.Key, leasesPrefix), "/")
		if !ok || !isLeaseName(name) || len(names) > 0 && names[len(names)-1] == name {
			continue
		}
		if more = len(names) == mostLeaseNames; more {
			break
		}
		names = append(names, name)
	}
	for _, own := range []string{BackupLease, DrillLease, ExpireLease} {
		if more && !slices.Contains(names, own) {
			names = append(names, own)
		}
	}
	for _, name := range names {
		row, err := r.readLeases(ctx, &leaseRow{repo: r, name: name, now: now})
		if err != nil {
			return nil, false, err
		}
		v, err := row.view(ctx)
		if err != nil {
			return nil, false, err
		}
		all = append(all, v)
	}
	return all, more, nil
}

// view is what holds the lease, or else the record that counts.
func (row *leaseRow) view(ctx context.Context) (LeaseView, error) {
	v := LeaseView{Name: row.name, Objects: row.objects, Junk: row.junk}
	for _, l := range []*seenLease{row.signed, row.unsigned} {
		if l == nil || v.Held {
			continue
		}
		held, err := row.held(ctx, l)
		if err != nil {
			return v, err
		}
		if held || v.Holder == "" {
			v.Holder, v.Since, v.Renewed, v.Ends = cleanText(l.rec.Holder), l.rec.Since, l.made, l.made.Add(leaseLasts)
			v.Held, v.Signed = held, l.signed
		}
	}
	return v, nil
}

// BreakLease ends a lease whoever holds it, and removes what else lies under its name.
// A holder that lives is told by its next renewal, and stops. Who signs leaves the record
// that says so, so that no older one counts again; others must be allowed to delete. It returns
// how many objects were removed.
func (r *Repo) BreakLease(ctx context.Context, name string, by Claim, now time.Time) (removed int, err error) {
	if !isLeaseName(name) {
		return 0, fmt.Errorf("%q cannot name a lease", name)
	}
	old, err := r.leaseKeys(ctx, name)
	if err != nil {
		return 0, err
	}
	if !r.signs() {
		return r.removeLeases(ctx, old)
	}
	row, err := r.leaseRow(ctx, name)
	if err != nil {
		return 0, err
	}
	l := &Lease{repo: r, name: name, gen: row.highest(), rec: leaseRecord{Holder: cleanText(by.Holder), Token: NewID(), Since: now.UTC()}}
	if err := l.Release(ctx); err != nil {
		return 0, err
	}
	return r.removeLeases(ctx, old) // without the record that Release has just made
}

// leaseKeys lists whatever lies under the name of a lease.
func (r *Repo) leaseKeys(ctx context.Context, name string) (keys []string, err error) {
	for info, err := range r.store.List(ctx, leasesPrefix+name+"/") {
		if err != nil {
			return nil, fmt.Errorf("list leases: %w", opaque(err))
		}
		keys = append(keys, info.Key)
	}
	return keys, nil
}

func (r *Repo) removeLeases(ctx context.Context, keys []string) (removed int, err error) {
	for _, key := range keys {
		if err := r.store.Delete(ctx, key); err != nil {
			return removed, fmt.Errorf("remove %s: %w", key, opaque(err))
		}
		removed++
	}
	return removed, nil
}
