package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// StillSigningError says that no key can be retired, because WAL comes in that an
// older one than this host's signs.
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
// signed on each timeline. All metadata must have been sealed again. *StillSigningError
// unless this host's key has signed the newest segment of the timeline that got WAL
// last. Said already is a success.
func (r *Repo) Retire(ctx context.Context, k PublicKey, now time.Time) error {
	if r.who().cuts[k.String()] != nil {
		return nil
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
	c := r.keys.Cluster
	if c == nil || c.Signing == nil || c.Signing.Public().Equal(k) {
		return nil, errors.New("a key is retired by its successor, and this host has none")
	}
	own := c.Signing.Public().ID()
	all, err := r.archivedTimelines(ctx)
	if err != nil {
		return nil, err
	}
	// Where WAL comes in is told by the store's clock alone. A system from before an
	// upgrade, or a copy of the server that once archived, has a newest timeline too,
	// and nobody will ever put another segment on it. Where that was copied here just
	// now it looks like the one in use: so the own key must have signed, and not only
	// this one have ceased to.
	var last time.Time
	for _, t := range all {
		if t.stored.After(last) {
			last = t.stored
		}
	}
	out := []WALCut{}
	for _, t := range all {
		if t.stored.Equal(last) {
			at, h, err := r.newestSigned(ctx, t.objects, func(string) bool { return true })
			if err != nil {
				return nil, err
			}
			if at >= 0 && h.Signer != own {
				return nil, &StillSigningError{h.Signer, cleanText(h.Host), t.objects[at].key}
			}
		}
		found, h, err := r.newestSigned(ctx, t.objects, func(signer string) bool { return signer == k.ID() })
		if err != nil {
			return nil, err
		}
		if found < 0 {
			continue
		}
		if t.stored.Equal(last) && t.objects[found].segment == t.objects[0].segment {
			return nil, &StillSigningError{k.ID(), cleanText(h.Host), t.objects[found].key}
		}
		out = append(out, WALCut{t.system, t.timeline, t.objects[found].segment})
	}
	return out, nil
}

// archivedTimeline is the WAL of a timeline.
type archivedTimeline struct {
	system   postgres.SystemID
	timeline postgres.Timeline
	objects  []walObject // the newest segment first
	stored   time.Time   // the last of them
}

// walObject is an object of the archive and the segment it belongs to.
type walObject struct{ segment, key string }

func (r *Repo) archivedTimelines(ctx context.Context) (all []*archivedTimeline, err error) {
	systems, err := r.Systems(ctx)
	if err != nil {
		return nil, err
	}
	for _, system := range systems {
		own := map[postgres.Timeline]*archivedTimeline{}
		for info, err := range r.ListArchive(ctx, SystemWALPrefix(system)) {
			if err != nil {
				return nil, fmt.Errorf("list the archive: %w", opaque(err))
			}
			name, ok := ParseWALKey(system, info.Key)
			if !ok {
				continue
			}
			t := own[name.Timeline]
			if t == nil {
				t = &archivedTimeline{system: system, timeline: name.Timeline}
				own[name.Timeline] = t
			}
			t.objects = append(t.objects, walObject{name.Segment, info.Key})
			if info.ModTime.After(t.stored) {
				t.stored = info.ModTime
			}
		}
		for _, tl := range slices.Sorted(maps.Keys(own)) {
			// A history file has no segment, and comes last.
			slices.SortFunc(own[tl].objects, func(a, b walObject) int { return strings.Compare(b.segment+b.key, a.segment+a.key) })
			all = append(all, own[tl])
		}
	}
	return all, nil
}

// headersAtOnce is how many headers are read at the same time.
const headersAtOnce = 32

// newestSigned returns the index of the first object that such a key has signed, -1
// for none. One that is not believed, or is gone meanwhile, as slices go, is passed
// over.
func (r *Repo) newestSigned(ctx context.Context, objects []walObject, such func(signer string) bool) (int, Header, error) {
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
			if h.Signer != "" && such(h.Signer) {
				return at + i, h, nil
			}
		}
	}
	return -1, Header{}, nil
}
