package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Metadata can be sealed again, to other recipients and with another signature: the
// cluster key opens it. Objects are never changed, so the new one is first put
// beside the old one, under a key that readers know, and read back; then the old
// one goes, the new one takes its place, and the one beside goes. At every moment
// there is one that is whole, and a run that was killed is completed by the next.
// docs/adr/015 says why it is done so.

// besideSuffix is behind the key of what is to take an object's place.
const besideSuffix = ".next"

// ManifestPlaces are the keys under which a backup's manifest may lie, in the order in
// which they are to be removed: while one is there, the backup exists, and the last
// must be the one that readers look for first.
func ManifestPlaces(label string) []string {
	return []string{ManifestKey(label) + besideSuffix, ManifestKey(label)}
}

// mayLieBeside says whether a reader who finds nothing under the key looks beside
// it: for metadata. WAL and packs are never sealed again.
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

// MetadataObject is an object that can be sealed again.
type MetadataObject struct {
	Key    string
	Kind   Kind
	Beside bool // what is to take its place, or has taken it, lies beside it
}

// Metadata lists all metadata: of committed backups, of systems, and block
// summaries.
func (r *Repo) Metadata(ctx context.Context) ([]MetadataObject, error) {
	found := map[string]MetadataObject{}
	for _, prefix := range []string{backupsPrefix, systemsPrefix, blocksPrefix} {
		for info, err := range r.store.List(ctx, prefix) {
			if err != nil {
				return nil, fmt.Errorf("list metadata: %w", opaque(err))
			}
			key, beside := strings.CutSuffix(info.Key, besideSuffix)
			if kind, ok := metadataKind(key); ok {
				found[key] = MetadataObject{key, kind, beside || found[key].Beside}
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b MetadataObject) int { return strings.Compare(a.Key, b.Key) }), nil
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
	return err == nil && r.isOwn(h), err
}

func (r *Repo) isOwn(h Header) bool {
	c := r.keys.Cluster
	return c != nil && c.Signing != nil && h.Signer == c.Signing.Public().ID()
}

// Reseal puts in the place of a metadata object one of the same plain bytes that is
// sealed to the present recipients and signed by the present cluster key. Nobody
// else may do the same meanwhile. It takes the right to delete.
//
// After an error, or a crash, the object is readable: as it was, as it is to be, or
// beside its place; then Reseal again completes it.
func (r *Repo) Reseal(ctx context.Context, o MetadataObject) error {
	if err := r.reseal(ctx, o); err != nil {
		return fmt.Errorf("seal %s again: %w", o.Key, opaque(err))
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
