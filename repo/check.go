package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// CheckPack reads a pack to its end and compares it with its name and size;
// that needs no identity. With a reader it also opens the frames, which must be
// in ascending order, and then holds the whole pack in memory.
//
// *CorruptError when the pack is missing (with ErrMissing) or not what it was;
// ErrWrongIdentity when none of the reader's identities opens it.
func (r *Repo) CheckPack(ctx context.Context, ref PackRef, frames []FrameRef, pr *PackReader) error {
	key := PackKey(ref.ID)
	rc, err := r.store.Open(ctx, key, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return &CorruptError{key, "the pack is missing", ErrMissing}
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", key, opaque(err))
	}
	defer rc.Close()
	sum := sha256.New()
	body := io.TeeReader(io.LimitReader(rc, ref.Size+1), sum)
	var whole []byte
	var n int64
	if pr == nil {
		n, err = io.Copy(io.Discard, body)
	} else if err = ref.Check(); err == nil {
		if int64(cap(pr.whole)) <= ref.Size {
			pr.whole = make([]byte, ref.Size+1)
		}
		whole = pr.whole[:ref.Size+1]
		var got int
		got, err = io.ReadFull(body, whole)
		n, whole = int64(got), whole[:got]
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = nil
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", key, opaque(err))
	case n > ref.Size:
		return &CorruptError{key, fmt.Sprintf("it has more than %d bytes", ref.Size), nil}
	case n < ref.Size:
		return &CorruptError{key, fmt.Sprintf("it ends at byte %d of %d", n, ref.Size), nil}
	case hex.EncodeToString(sum.Sum(nil)) != ref.ID:
		return &CorruptError{key, "its bytes are not those of its name", nil}
	case pr == nil:
		return nil
	}
	p := &Pack{ref: ref, src: pieces{size: ref.Size, data: []piece{{0, whole}}}}
	var end int64
	for _, f := range frames {
		if err := ref.checkOrder(f, end); err != nil {
			return err
		}
		end = f.At + int64(f.Len)
		if _, err := pr.Frame(p, f); err != nil {
			return err
		}
	}
	return nil
}

// CheckEnvelope reads an envelope to its end and verifies its signature and
// its sealed bytes; that needs no identity. It returns how many bytes the
// object has. Errors are those of OpenEnvelope.
func (r *Repo) CheckEnvelope(ctx context.Context, key string, kind Kind) (Header, int64, error) {
	h, sealed, err := r.fetchEnvelope(ctx, key, kind, maxPlain)
	if err != nil {
		return h, 0, err
	}
	n := int64(len(h.line())) + sealed.size
	return h, n, sealed.Close()
}
