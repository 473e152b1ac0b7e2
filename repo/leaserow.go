package repo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

const leaseContext = "lifeboat-lease-1\n"

// mostLeases bounds how many objects of a row are read: so many of the lowest
// generations, where signed ones lie however many others are put above them, and so
// many of those that are the latest by the store's clock.
const mostLeases = 64

// seenLease is a record and what the store says of it.
type seenLease struct {
	key    string
	gen    uint64
	made   time.Time // by the store's clock
	rec    leaseRecord
	signed bool // by somebody who is believed
	gone   bool // since the listing
	junk   bool // not a record
}

// leaseRow is what counts of a row.
type leaseRow struct {
	repo     *Repo
	name     string
	own      string     // the key that is read in any case
	signed   *seenLease // the highest that is signed; nil for none
	unsigned *seenLease // the highest that is not
	keys     []string   // what was read, by generation
	objects  int        // how many there are
	junk     int        // of those that were read
	now      time.Time  // the store's, once it was asked
}

// leaseRow reads a row.
func (r *Repo) leaseRow(ctx context.Context, name string) (*leaseRow, error) {
	return r.readLeases(ctx, &leaseRow{repo: r, name: name})
}

// readLeases reads a row of which the name is known, and perhaps the store's time or a
// key of interest.
func (r *Repo) readLeases(ctx context.Context, want *leaseRow) (*leaseRow, error) {
	for range leaseTries {
		row := new(*want)
		seen, err := row.list(ctx)
		if err == nil {
			err = row.read(ctx, seen)
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(seen, func(l *seenLease) bool { return l.gone }) {
			continue // the next was made and this one deleted since the listing
		}
		return row, row.judge(ctx, seen)
	}
	return nil, fmt.Errorf("read lease %s: others keep on changing it", want.name)
}

// list names what is to be read, by generation. Names that are no generation are
// nothing of ours.
func (row *leaseRow) list(ctx context.Context) ([]*seenLease, error) {
	prefix := leasesPrefix + row.name + "/"
	var low, late []*seenLease
	for info, err := range row.repo.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list leases: %w", opaque(err))
		}
		row.objects++
		gen, err := strconv.ParseUint(info.Key[len(prefix):], 10, 64)
		if err != nil || leaseKey(row.name, gen) != info.Key || gen == 0 || info.Size > maxLease {
			continue
		}
		l := &seenLease{key: info.Key, gen: gen, made: info.ModTime}
		if len(low) < mostLeases || info.Key == row.own {
			low = append(low, l)
			continue
		}
		if late = append(late, l); len(late) == 2*mostLeases {
			late = latest(late)
		}
	}
	all := append(low, latest(late)...)
	slices.SortFunc(all, func(a, b *seenLease) int { return cmp.Compare(a.gen, b.gen) })
	return all, nil
}

// latest keeps those that the store got last.
func latest(all []*seenLease) []*seenLease {
	slices.SortFunc(all, func(a, b *seenLease) int { return cmp.Or(b.made.Compare(a.made), cmp.Compare(b.gen, a.gen)) })
	return all[:min(len(all), mostLeases)]
}

func (row *leaseRow) read(ctx context.Context, seen []*seenLease) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(headersAtOnce)
	for _, l := range seen {
		g.Go(func() error {
			raw, err := readIfThere(ctx, row.repo.store, l.key, maxLease)
			if l.gone = errors.Is(err, fs.ErrNotExist); l.gone {
				return nil
			}
			if err != nil {
				return err
			}
			l.rec, err = parseLease(l.key, raw)
			l.junk = err != nil
			l.signed = !l.junk && row.repo.signedLease(l.key, l.rec)
			return nil
		})
	}
	return g.Wait()
}

// judge picks the highest records. An unsigned one of a generation to which no honest
// row gets counts until it has run out.
func (row *leaseRow) judge(ctx context.Context, seen []*seenLease) error {
	for _, l := range seen {
		row.keys = append(row.keys, l.key)
		switch {
		case l.junk:
			row.junk++
		case l.signed:
			row.signed = l
		case l.gen < mostGeneration:
			row.unsigned = l
		default:
			over, err := row.over(ctx, l)
			if err != nil {
				return err
			}
			if !over {
				row.unsigned = l
			}
		}
	}
	return nil
}

// highest is the generation behind which the next one is created.
func (row *leaseRow) highest() (gen uint64) {
	if row.signed != nil {
		gen = row.signed.gen
	}
	if u := row.unsigned; u != nil && u.gen < mostGeneration {
		gen = max(gen, u.gen)
	}
	return gen
}

// above is the record that counts for who has created one behind a generation: for who
// signs the highest signed one, for others the highest of all. Nil when none is there.
func (row *leaseRow) above(gen uint64, signs bool) *seenLease {
	if l := row.signed; l != nil && l.gen > gen {
		return l
	}
	if l := row.unsigned; !signs && l != nil && l.gen > gen {
		return l
	}
	return nil
}

// held says whether the record keeps others away.
func (row *leaseRow) held(ctx context.Context, l *seenLease) (bool, error) {
	if !l.rec.taken() {
		return false, nil
	}
	over, err := row.over(ctx, l)
	return !over, err
}

// over says whether a record has run out: by the times of the store among each other,
// and not by what stands in it. One that the store has from its own future is no measure
// of anything.
func (row *leaseRow) over(ctx context.Context, l *seenLease) (bool, error) {
	if row.now.IsZero() {
		now, err := row.repo.StoreTime(ctx, row.name)
		if err != nil {
			return false, err
		}
		row.now = now
	}
	age := row.now.Sub(l.made)
	return age >= leaseLasts || age < -leaseSkew, nil
}

// freeGeneration is the lowest that nothing has behind another one.
func (r *Repo) freeGeneration(ctx context.Context, name string, behind uint64) (uint64, error) {
	prefix := leasesPrefix + name + "/"
	free := behind + 1
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return 0, fmt.Errorf("list leases: %w", opaque(err))
		}
		if info.Key > leaseKey(name, free) {
			break
		}
		if info.Key == leaseKey(name, free) {
			free++
		}
	}
	return free, nil
}

// StoreTime asks for the time by the store's clock: it stores something beside a lease,
// looks when that was, and removes it.
func (r *Repo) StoreTime(ctx context.Context, lease string) (time.Time, error) {
	key := leasesPrefix + lease + "/now-" + NewID()
	if err := r.store.Create(ctx, key, bytes.NewReader(nil)); err != nil {
		return time.Time{}, fmt.Errorf("ask for the store's time: %w", opaque(err))
	}
	info, err := r.store.Stat(ctx, key)
	_ = r.store.Delete(ctx, key) // who may not delete leaves it: nothing reads it
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the store's time: %w", opaque(err))
	}
	return info.ModTime, nil
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

// leaseText is what the signature of a record covers.
func (r *Repo) leaseText(key string, rec leaseRecord) []byte {
	rec.Signature = ""
	raw, err := json.Marshal(rec)
	if err != nil {
		return nil // a year that no JSON can hold: nobody has signed that
	}
	return fmt.Appendf(nil, "%s\n%s\n%s\n", r.marker.Repository, key, raw)
}

// signedLease says whether somebody has signed the record who is believed now.
func (r *Repo) signedLease(key string, rec leaseRecord) bool {
	who := r.who()
	for _, k := range who.keys {
		if k.String() != rec.Signer || who.cuts[rec.Signer] != nil {
			continue
		}
		return k.Verify(leaseContext, r.leaseText(key, rec), rec.Signature)
	}
	return false
}
