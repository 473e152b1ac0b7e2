package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// A repository can lie in several places. All have the same id, so an object
// that is genuine in one is genuine, as it is, under the same key in the others:
// to bring it there takes no key and opens nothing. docs/adr/013 says why.

// OpenCopy opens the store as another place of this repository. Where there is no
// marker yet, this repository's is put there first. *ForeignError when the store
// holds another repository; errors of Open.
func (r *Repo) OpenCopy(ctx context.Context, store storage.Store) (*Repo, error) {
	to, err := Open(ctx, store, r.keys, r.host)
	if errors.Is(err, ErrNoRepository) {
		if err := r.copyMarker(ctx, store); err != nil {
			return nil, err
		}
		to, err = Open(ctx, store, r.keys, r.host)
	}
	if err != nil {
		return nil, err
	}
	return to, r.samePlace(to)
}

// samePlace refuses a repository of another id: nothing of ours is genuine there.
func (r *Repo) samePlace(to *Repo) error {
	if to.marker.Repository != r.marker.Repository {
		return &ForeignError{What: "repository", Want: r.marker.Repository, Have: to.marker.Repository}
	}
	return nil
}

func (r *Repo) copyMarker(ctx context.Context, store storage.Store) error {
	m, raw, err := readMarker(ctx, r.store)
	if err != nil {
		return err
	}
	if err := raw.verify(m, r.who().keys); err != nil {
		return err
	}
	err = store.Create(ctx, MarkerKey, bytes.NewReader(raw.bytes()))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: %w", MarkerKey, err)
	}
	return nil
}

// CopyEnvelope brings the envelope under key to the same key of another place, as
// it is. Its signature and the hash of its sealed bytes are verified first; it is
// not opened. Plain content that is there already is a success with Existed set,
// other content is *ConflictError, and what is believed here alone *DisbelievedError.
// fs.ErrNotExist only when this repository does not hold it. After an error nothing
// partial is there.
func (r *Repo) CopyEnvelope(ctx context.Context, to *Repo, key string, kind Kind) (Stored, error) {
	if err := r.samePlace(to); err != nil {
		return Stored{}, err
	}
	_, err := to.store.Stat(ctx, key)
	if err == nil {
		h, err := r.Header(ctx, key)
		if err != nil {
			return Stored{}, err
		}
		return to.compareStored(ctx, key, h)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Stored{}, fmt.Errorf("look for %s where it goes: %w", key, opaque(err))
	}
	h, sealed, err := r.fetchEnvelope(ctx, key, kind, maxPlain)
	if err != nil {
		return Stored{}, err
	}
	defer sealed.Close()
	err = to.believe(h, key)
	if untrusted, ok := errors.AsType[*UntrustedError](err); ok {
		return Stored{}, &DisbelievedError{key, untrusted.Reason}
	}
	if err != nil {
		return Stored{}, err
	}
	return to.storeAsIs(ctx, key, h, sealed)
}

// storeAsIs stores an envelope that is verified.
func (r *Repo) storeAsIs(ctx context.Context, key string, h Header, sealed *spool) (Stored, error) {
	b := &body{head: h.line(), rest: sealed}
	size := int64(len(b.head)) + sealed.size
	err := r.store.Create(ctx, key, b)
	b.end()
	if errors.Is(err, fs.ErrExist) {
		stored, err := r.compareStored(ctx, key, h)
		if r.goesBeside(key, err) {
			return r.storeBeside(ctx, key, h, sealed)
		}
		return stored, err
	}
	if err != nil {
		return Stored{}, fmt.Errorf("store %s: %w", key, opaque(err))
	}
	return Stored{Header: h, Bytes: size}, nil
}

// CopyPack brings a pack to another place. Its bytes are held against its name,
// which is their hash; it is not opened. A pack that is there already with the
// size that the manifest tells is a success. *CorruptError when the pack is
// damaged here, missing (ErrMissing), or of another size there.
func (r *Repo) CopyPack(ctx context.Context, to *Repo, ref PackRef) (existed bool, err error) {
	if err := errors.Join(ref.Check(), r.samePlace(to)); err != nil {
		return false, err
	}
	key := PackKey(ref.ID)
	if existed, err := to.hasPack(ctx, ref); existed || err != nil {
		return existed, err
	}
	rc, err := r.store.Open(ctx, key, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return false, &CorruptError{key, "the manifest refers to it", ErrMissing}
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", key, opaque(err))
	}
	defer rc.Close()
	raw, err := io.ReadAll(io.LimitReader(rc, ref.Size+1))
	if err != nil {
		return false, fmt.Errorf("read %s: %w", key, opaque(err))
	}
	sum := sha256.Sum256(raw)
	if int64(len(raw)) != ref.Size || hex.EncodeToString(sum[:]) != ref.ID {
		return false, &CorruptError{key, "its bytes are not those that it is named by", nil}
	}
	err = to.store.Create(ctx, key, bytes.NewReader(raw))
	if errors.Is(err, fs.ErrExist) {
		_, err = to.hasPack(ctx, ref)
		return true, err
	}
	if err != nil {
		return false, fmt.Errorf("store %s: %w", key, opaque(err))
	}
	return false, nil
}

// hasPack says whether the pack is there. Objects are written whole or not at
// all, so the size is enough to tell it from what somebody else has put there.
func (r *Repo) hasPack(ctx context.Context, ref PackRef) (bool, error) {
	key := PackKey(ref.ID)
	info, err := r.store.Stat(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for %s where it goes: %w", key, opaque(err))
	case info.Size != ref.Size:
		return false, &CorruptError{key, fmt.Sprintf("where it goes, it has %d bytes, not %d", info.Size, ref.Size), nil}
	}
	return true, nil
}
