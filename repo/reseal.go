package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Metadata can be sealed anew, to other recipients and with another signature: the
// cluster key opens it. Objects are never changed, so the new one is first put
// beside the old one, under a key that readers know, and read back; then the old
// one goes, the new one takes its place, and the one beside goes. At every moment
// there is one that is whole, and a run that was killed is completed by the next.
// docs/adr/015 says why it is done so.

// besideSuffix is behind the key of what is to take an object's place.
const besideSuffix = ".next"

// mayLieBeside says whether a reader who finds nothing under the key looks beside
// it: for metadata. WAL and packs are never sealed anew.
func mayLieBeside(key string) bool {
	return strings.HasPrefix(key, backupsPrefix) || strings.HasPrefix(key, systemsPrefix) || strings.HasPrefix(key, blocksPrefix)
}

// openObject opens the object under key, or the one beside that is just taking its
// place, and says under which key it lies.
func (r *Repo) openObject(ctx context.Context, key string, n int64) (io.ReadCloser, string, error) {
	rc, err := r.store.Open(ctx, key, 0, n)
	if !errors.Is(err, fs.ErrNotExist) || !mayLieBeside(key) {
		return rc, key, err
	}
	if rc, beside := r.store.Open(ctx, key+besideSuffix, 0, n); !errors.Is(beside, fs.ErrNotExist) {
		return rc, key + besideSuffix, beside
	}
	rc, err = r.store.Open(ctx, key, 0, n) // it may have got there between the two looks
	return rc, key, err
}

// MetadataObject is an object that can be sealed anew.
type MetadataObject struct {
	Key  string
	Kind Kind
}

// Metadata lists all metadata: of committed backups, of systems, and block
// summaries.
func (r *Repo) Metadata(ctx context.Context) ([]MetadataObject, error) {
	found := map[string]Kind{}
	for _, prefix := range []string{backupsPrefix, systemsPrefix, blocksPrefix} {
		for info, err := range r.store.List(ctx, prefix) {
			if err != nil {
				return nil, fmt.Errorf("list metadata: %w", opaque(err))
			}
			key := strings.TrimSuffix(info.Key, besideSuffix)
			if kind, ok := metadataKind(key); ok {
				found[key] = kind
			}
		}
	}
	var out []MetadataObject
	for key, kind := range found {
		out = append(out, MetadataObject{key, kind})
	}
	slices.SortFunc(out, func(a, b MetadataObject) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

func metadataKind(key string) (Kind, bool) {
	if rest, ok := strings.CutPrefix(key, systemsPrefix); ok {
		_, err := postgres.ParseSystemID(rest)
		return KindSystem, err == nil
	}
	if strings.HasPrefix(key, blocksPrefix) {
		_, _, ok := ParseBlocks(key[strings.LastIndexByte(key, '/')+1:])
		return KindBlocks, ok
	}
	label, name, ok := strings.Cut(strings.TrimPrefix(key, backupsPrefix), "/")
	if !ok || CheckLabel(label) != nil {
		return "", false
	}
	kind := map[string]Kind{"manifest": KindManifest, "info": KindInfo, "fingerprints": KindFingerprints}[name]
	return kind, kind != ""
}

// SignedByOwn says whether this host's cluster key has signed the object, so that
// it is sealed for its identities too.
func (r *Repo) SignedByOwn(ctx context.Context, key string) (bool, error) {
	h, err := r.Header(ctx, key)
	c := r.keys.Cluster
	return err == nil && c != nil && c.Signing != nil && h.Signer == c.Signing.Public().ID(), err
}

// Reseal puts in the place of a metadata object one of the same plain bytes that is
// sealed to the present recipients and signed by the present cluster key. Nobody
// else may do the same meanwhile. It takes the right to delete.
//
// After an error, or a crash, the object is readable: as it was, as it is to be, or
// beside its place; then Reseal again completes it.
func (r *Repo) Reseal(ctx context.Context, o MetadataObject) error {
	if err := r.reseal(ctx, o); err != nil {
		return fmt.Errorf("seal %s anew: %w", o.Key, opaque(err))
	}
	return nil
}

func (r *Repo) reseal(ctx context.Context, o MetadataObject) error {
	beside := o.Key + besideSuffix
	if _, err := r.store.Stat(ctx, o.Key); errors.Is(err, fs.ErrNotExist) {
		// A run before this one ended between the two.
		if err := r.promote(ctx, o); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	h, plain, err := r.OpenEnvelope(ctx, o.Key, o.Kind)
	if err != nil {
		return err
	}
	defer plain.Close()
	sealed, err := r.Seal(beside, o.Kind, plain, h.Size, SealOptions{})
	if err != nil {
		return err
	}
	defer sealed.Close()
	if sealed.header.SHA256 != h.SHA256 {
		return &CorruptError{o.Key, "its plain bytes are not the signed ones", nil}
	}
	// What an earlier run has left beside may be sealed to others.
	if err := r.store.Delete(ctx, beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := r.StoreSealed(ctx, sealed); err != nil {
		return err
	}
	if err := r.readThrough(ctx, beside, o.Kind); err != nil {
		return fmt.Errorf("read back what was sealed: %w", err)
	}
	if err := r.store.Delete(ctx, o.Key); err != nil {
		return err
	}
	return r.promote(ctx, o)
}

// readThrough reads an envelope to its end, where it is proven.
func (r *Repo) readThrough(ctx context.Context, key string, kind Kind) error {
	_, rc, err := r.OpenEnvelope(ctx, key, kind)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = io.Copy(io.Discard, rc)
	return err
}

// promote puts what lies beside into its place: the same sealed bytes, signed for
// that key.
func (r *Repo) promote(ctx context.Context, o MetadataObject) error {
	c := r.keys.Cluster
	if c == nil || c.Signing == nil {
		return ErrReadOnly
	}
	beside := o.Key + besideSuffix
	h, sealed, err := r.fetchEnvelope(ctx, beside, o.Kind, maxPlain)
	if err != nil {
		return err
	}
	defer sealed.Close()
	h.sign(*c.Signing, r.marker.Repository, o.Key)
	if _, err := r.storeAsIs(ctx, o.Key, h, sealed); err != nil {
		return err
	}
	if err := r.store.Delete(ctx, beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

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
