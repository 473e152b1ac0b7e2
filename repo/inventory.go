package repo

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// The prefixes under which who checks or cleans up a repository lists it.
const (
	BackupsPrefix = backupsPrefix
	PacksPrefix   = packsPrefix
	SystemsPrefix = systemsPrefix
	ArchivePrefix = walPrefix
	SummaryPrefix = blocksPrefix
	PinsPrefix    = pinsPrefix
	LeasesPrefix  = leasesPrefix
)

// Directory is what lies below backups/<label>/.
type Directory struct {
	Label     string
	Committed bool           // it has a manifest: it is a backup
	Adopts    bool           // it has an adoption
	Objects   []storage.Info // ascending by key
	Newest    time.Time      // when the newest of them was made, by the store's clock
}

// Has says whether the directory holds the object.
func (f Directory) Has(key string) bool {
	return slices.ContainsFunc(f.Objects, func(o storage.Info) bool { return o.Key == key })
}

// Began is the time in the label: when the backup began, by its host's clock.
func (f Directory) Began() time.Time {
	t, _ := LabelTime(f.Label)
	return t
}

// LabelTime is the time in a label.
func LabelTime(label string) (time.Time, error) {
	if err := CheckLabel(label); err != nil {
		return time.Time{}, err
	}
	return time.Parse("20060102T150405Z", label[:16])
}

// Directories lists all directories of backups, ascending, and the keys below
// backups/ that are in none. One listing tells of a directory either that it is
// committed, or what it adopts, if it adopted before the listing began: the
// manifest comes after the adoption, in time and in the order of the keys.
func (r *Repo) Directories(ctx context.Context) (directories []Directory, others []string, err error) {
	for info, err := range r.store.List(ctx, backupsPrefix) {
		if err != nil {
			return nil, nil, fmt.Errorf("list backups: %w", err)
		}
		label, name, ok := strings.Cut(strings.TrimPrefix(info.Key, backupsPrefix), "/")
		if !ok || CheckLabel(label) != nil {
			others = append(others, info.Key)
			continue
		}
		if n := len(directories); n == 0 || directories[n-1].Label != label {
			directories = append(directories, Directory{Label: label})
		}
		f := &directories[len(directories)-1]
		f.Committed = f.Committed || strings.TrimSuffix(name, besideSuffix) == "manifest" // or one that is just sealed again
		f.Adopts = f.Adopts || name == "adoption"
		f.Objects = append(f.Objects, info)
		if info.ModTime.After(f.Newest) {
			f.Newest = info.ModTime
		}
	}
	return directories, others, nil
}

// StoredPack is a pack as the store lists it.
type StoredPack struct {
	ID   [32]byte
	Size int64
	Nano int64 // when it was stored, nanoseconds since 1970, by the store's clock
}

// Key is where the pack lies.
func (p StoredPack) Key() string { return PackKey(hex.EncodeToString(p.ID[:])) }

// PackList is all packs of a repository at one moment, in ascending order: 48
// bytes of memory each.
type PackList []StoredPack

// ListPacks lists the packs, and the keys below packs/ that are none.
func (r *Repo) ListPacks(ctx context.Context) (list PackList, others []string, err error) {
	for info, err := range r.store.List(ctx, packsPrefix) {
		if err != nil {
			return nil, nil, fmt.Errorf("list packs: %w", err)
		}
		p, ok := PackOf(info)
		if !ok {
			others = append(others, info.Key)
			continue
		}
		list = append(list, p)
	}
	return list, others, nil
}

// ListPacksAtOnce is ListPacks in sixteen listings side by side: a store tells a thousand
// names at a time. The names are hashes, so their first digit cuts the list into equal parts.
func (r *Repo) ListPacksAtOnce(ctx context.Context) (PackList, error) {
	const digits = "0123456789abcdef"
	parts := make([]PackList, len(digits))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range digits {
		g.Go(func() error {
			for info, err := range r.store.List(ctx, PackKey(digits[i:i+1])) {
				if err != nil {
					return fmt.Errorf("list packs: %w", err)
				}
				if p, ok := PackOf(info); ok {
					parts[i] = append(parts[i], p)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(parts...), nil
}

// PackOf is the pack that a listed object is, false for every other object.
func PackOf(info storage.Info) (StoredPack, bool) {
	text, ok := strings.CutPrefix(info.Key, packsPrefix)
	if !ok {
		return StoredPack{}, false
	}
	id, ok := packID(text)
	return StoredPack{id, info.Size, info.ModTime.UnixNano()}, ok
}

func packID(text string) (id [32]byte, ok bool) {
	if !isHex(text, len(id)) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(text))
	return id, err == nil
}

// Find is the place of the pack in the list, false when it is not there.
func (l PackList) Find(id string) (int, bool) {
	want, ok := packID(id)
	if !ok {
		return 0, false
	}
	return slices.BinarySearchFunc(l, want, func(p StoredPack, id [32]byte) int { return slices.Compare(p.ID[:], id[:]) })
}

// LeaseState says who holds a lease, without taking it.
type LeaseState struct {
	Held   bool
	Holder string
	Since  time.Time // by the holder's clock
}

// LookAtLease tells whether somebody holds the lease of this name. A holder
// that has died counts until its lease has ended. Now is the store's time;
// a zero one is asked for, which takes the right to write.
func (r *Repo) LookAtLease(ctx context.Context, name string, now time.Time) (LeaseState, error) {
	row, err := r.readLeases(ctx, &leaseRow{repo: r, name: name, now: now})
	if err != nil {
		return LeaseState{}, err
	}
	for _, l := range []*seenLease{row.signed, row.unsigned} {
		if l == nil {
			continue
		}
		held, err := row.held(ctx, l)
		held = held || err == nil && l.rec.taken() && l.made.After(row.now) // its clock or ours is wrong
		if held || err != nil {
			return LeaseState{held, cleanText(l.rec.Holder), l.rec.Since}, err
		}
	}
	return LeaseState{}, nil
}

// PackSet is a set of packs, by their place in a PackList: a bit each.
type PackSet []uint64

// NewSet is the empty set for a list.
func (l PackList) NewSet() PackSet { return make(PackSet, (len(l)+63)/64) }

// Add takes one pack in.
func (s PackSet) Add(i int) { s[i/64] |= 1 << (i % 64) }

// Has says whether the pack is in it.
func (s PackSet) Has(i int) bool { return i/64 < len(s) && s[i/64]&(1<<(i%64)) != 0 }

// Join takes all of another set of the same list in.
func (s PackSet) Join(o PackSet) {
	for i, w := range o {
		s[i] |= w
	}
}

// On is the same repository, with the same keys and believing the same signers, on
// another store: one that watches, or that answers from a listing.
func (r *Repo) On(s storage.Store) (*Repo, error) {
	on, err := newRepo(s, r.marker, r.keys, r.host)
	if err != nil {
		return nil, err
	}
	if r.settled != nil {
		<-r.settled
	}
	on.believed.Store(r.believed.Load())
	on.retired.Store(r.retired.Load())
	return on, nil
}
