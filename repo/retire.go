package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// StillSigningError says that a key cannot be retired because WAL comes in that it
// signs.
type StillSigningError struct {
	Signer string
	Host   string // that signs
	Object string // the newest of its objects
}

func (e *StillSigningError) Error() string {
	return fmt.Sprintf("the key %s still signs: host %s has signed %s, and nothing newer on that timeline is signed by another", e.Signer, e.Host, e.Object)
}

// Retire says, in the name of this host's cluster key, that an older signer is
// believed no more: for nothing but the WAL up to the newest segment that it has
// signed on each timeline. All metadata must have been sealed anew. *StillSigningError
// when the newest WAL of the newest timeline is signed by it. Said already is a success.
func (r *Repo) Retire(ctx context.Context, k PublicKey, now time.Time) error {
	if r.who().cuts[k.String()] != nil {
		return nil
	}
	if c := r.keys.Cluster; c == nil || c.Signing == nil || c.Signing.Public().Equal(k) {
		return errors.New("a key is retired by its successor, and this host has none")
	}
	cuts, err := r.WALSignedBy(ctx, k)
	if err != nil {
		return err
	}
	return r.retire(ctx, Retirement{Signer: k.String(), WAL: cuts}, now)
}

// WALSignedBy finds, on each timeline, the newest segment that a key has signed: up
// to there it would be believed, were it retired now. *StillSigningError as Retire.
func (r *Repo) WALSignedBy(ctx context.Context, k PublicKey) ([]WALCut, error) {
	out := []WALCut{}
	systems, err := r.Systems(ctx)
	if err != nil {
		return nil, err
	}
	for _, system := range systems {
		cuts, err := r.walCuts(ctx, k, system)
		if err != nil {
			return nil, err
		}
		out = append(out, cuts...)
	}
	return out, nil
}

// walCuts finds, on each timeline of a system, the newest segment that a key has
// signed.
func (r *Repo) walCuts(ctx context.Context, k PublicKey, system postgres.SystemID) ([]WALCut, error) {
	segments := map[postgres.Timeline][]walObject{}
	prefix := SystemWALPrefix(system)
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list the archive: %w", opaque(err))
		}
		folder, file, _ := strings.Cut(info.Key[len(prefix):], "/")
		name, err := postgres.ParseWALName(file)
		if segment, _, _, ok := ParseSlice(file); ok {
			name, err = postgres.ParseWALName(segment)
		}
		if err == nil && name.Timeline.Hex() == folder {
			segments[name.Timeline] = append(segments[name.Timeline], walObject{name.Segment, info.Key})
		}
	}
	var out []WALCut
	var newest postgres.Timeline
	for tl := range segments {
		newest = max(newest, tl)
	}
	for tl, objects := range segments {
		// The newest first; a history file has no segment, and comes last.
		slices.SortFunc(objects, func(a, b walObject) int { return strings.Compare(b.segment+b.key, a.segment+a.key) })
		found, h, err := r.newestSignedBy(ctx, k, objects)
		if err != nil {
			return nil, err
		}
		if found < 0 {
			continue
		}
		if tl == newest && objects[found].segment == objects[0].segment {
			return nil, &StillSigningError{k.ID(), cleanText(h.Host), objects[found].key}
		}
		out = append(out, WALCut{system, tl, objects[found].segment})
	}
	slices.SortFunc(out, func(a, b WALCut) int { return int(a.Timeline) - int(b.Timeline) })
	return out, nil
}

// walObject is an object of the archive and the segment it belongs to.
type walObject struct{ segment, key string }

// headersAtOnce is how many headers are read at the same time.
const headersAtOnce = 32

// newestSignedBy returns the index of the first object that the key has signed, -1
// for none. An object that is gone meanwhile, as slices go, is passed over.
func (r *Repo) newestSignedBy(ctx context.Context, k PublicKey, objects []walObject) (int, Header, error) {
	for at := 0; at < len(objects); at += headersAtOnce {
		some := objects[at:min(at+headersAtOnce, len(objects))]
		headers := make([]Header, len(some))
		g, gctx := errgroup.WithContext(ctx)
		for i, o := range some {
			g.Go(func() error {
				h, err := r.Header(gctx, o.key)
				_, corrupt := errors.AsType[*CorruptError](err)
				_, untrusted := errors.AsType[*UntrustedError](err)
				if err != nil && !corrupt && !untrusted && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				if err == nil {
					headers[i] = h
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return 0, Header{}, err
		}
		for i, h := range headers {
			if h.Signer == k.ID() {
				return at + i, h, nil
			}
		}
	}
	return -1, Header{}, nil
}
