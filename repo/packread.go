package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

const (
	ageChunk  = 64 << 10      // plain bytes a chunk of an age file
	ageSealed = ageChunk + 16 // sealed bytes a chunk

	mergeGap     = 256 << 10 // a gap that is cheaper to read than to ask again for
	rangesAtOnce = 4         // ranges of one pack that are fetched at the same time
)

// sealedSize is how many bytes age makes of n plain ones, behind the head.
func sealedSize(n int64) int64 { return n + max(1, (n+ageChunk-1)/ageChunk)*(ageSealed-ageChunk) }

// Pack is a fetched pack: frames of it can be read. For one goroutine.
type Pack struct {
	ref   PackRef
	src   pieces
	plain io.ReaderAt
}

// PackReader reads frames of fetched packs; it holds the decoder and the
// buffers, so that a worker allocates nothing per frame. For one goroutine.
type PackReader struct {
	repo   *Repo
	dec    *zstd.Decoder
	stored []byte
	raw    []byte
	whole  []byte // of a pack that is checked
}

// NewPackReader makes a reader; ErrNoIdentity when data cannot be opened.
func (r *Repo) NewPackReader() (*PackReader, error) {
	if !r.CanOpenData() {
		return nil, ErrNoIdentity
	}
	return &PackReader{repo: r, dec: newDecoder()}, nil
}

// Close frees the decoder.
func (pr *PackReader) Close() { pr.dec.Close() }

// FetchPack reads from the store what the frames need: the whole pack when
// they are half of it, else the ranges that hold them, merged, several at the
// same time. The frames must be in ascending order. It does not decrypt, so it
// can run ahead of the workers that do.
//
// *CorruptError when the pack is missing (with ErrMissing) or too short.
func (r *Repo) FetchPack(ctx context.Context, ref PackRef, frames []FrameRef) (*Pack, error) {
	if err := ref.Check(); err != nil {
		return nil, err
	}
	var end int64
	for _, f := range frames {
		if err := ref.checkOrder(f, end); err != nil {
			return nil, err
		}
		end = f.At + int64(f.Len)
	}
	p := &Pack{ref: ref}
	p.src.size = ref.Size
	for _, w := range ref.ranges(frames) {
		p.src.data = append(p.src.data, piece{w[0], make([]byte, w[1]-w[0])})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(rangesAtOnce)
	for _, part := range p.src.data {
		g.Go(func() error { return r.fetchPiece(ctx, ref, part) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return p, nil
}

// ranges are the parts of the object, ascending and apart, that must be
// fetched for the frames: the start, the sealed chunks that hold the frames,
// and the last chunk, which age reads to know that the file is whole.
func (p PackRef) ranges(frames []FrameRef) [][2]int64 {
	var wanted int64
	for _, f := range frames {
		wanted += int64(f.Len)
	}
	if wanted*2 >= p.Size {
		return [][2]int64{{0, p.Size}}
	}
	out := [][2]int64{{0, p.Head}}
	add := func(from, to int64) {
		to = min(to, p.Size)
		if last := &out[len(out)-1]; from-last[1] <= mergeGap {
			last[1] = max(to, last[1])
			return
		}
		out = append(out, [2]int64{from, to})
	}
	for _, f := range frames {
		first, last := f.At/ageChunk, (f.At+int64(f.Len)-1)/ageChunk
		add(p.Head+first*ageSealed, p.Head+(last+1)*ageSealed)
	}
	add(p.Head+(p.Size-p.Head-1)/ageSealed*ageSealed, p.Size)
	return out
}

func (r *Repo) fetchPiece(ctx context.Context, ref PackRef, part piece) error {
	key := PackKey(ref.ID)
	rc, err := r.store.Open(ctx, key, part.at, int64(len(part.b)))
	if errors.Is(err, fs.ErrNotExist) {
		return &CorruptError{key, "the pack is missing", ErrMissing}
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", key, opaque(err))
	}
	defer rc.Close()
	if n, err := io.ReadFull(rc, part.b); err == io.EOF || err == io.ErrUnexpectedEOF {
		return &CorruptError{key, fmt.Sprintf("it ends at byte %d of %d", part.at+int64(n), ref.Size), nil}
	} else if err != nil {
		return fmt.Errorf("read %s: %w", key, opaque(err))
	}
	return nil
}

// Frame returns the raw bytes of a frame, valid until the next call.
// *CorruptError when the bytes are not those that the manifest vouches for:
// they are compared with their signed sum before they are decompressed.
func (pr *PackReader) Frame(p *Pack, f FrameRef) ([]byte, error) {
	key := PackKey(p.ref.ID)
	if err := f.Check(); err != nil {
		return nil, err
	}
	if p.plain == nil {
		plain, _, err := age.DecryptReaderAt(&p.src, p.ref.Size, pr.repo.keys.Identities...)
		if err != nil {
			return nil, p.openError(err)
		}
		p.plain = plain
	}
	if cap(pr.stored) < f.Len {
		pr.stored = make([]byte, f.Len+f.Len/4)
	}
	stored := pr.stored[:f.Len]
	if n, err := p.plain.ReadAt(stored, f.At); err != nil && (err != io.EOF || n < len(stored)) {
		return nil, &CorruptError{key, fmt.Sprintf("the frame at %d cannot be decrypted", f.At), err}
	}
	if frameSum(stored) != f.Sum {
		return nil, &CorruptError{key, fmt.Sprintf("the frame at %d is not the one that was signed", f.At), nil}
	}
	raw, err := pr.dec.DecodeAll(stored, pr.raw[:0])
	if err != nil || len(raw) != f.Raw {
		return nil, &CorruptError{key, fmt.Sprintf("the frame at %d yields %d bytes, not %d", f.At, len(raw), f.Raw), err}
	}
	pr.raw = raw
	return raw, nil
}

// openError tells damage from an identity that does not fit, as far as that
// can be told: a recipient's line with a flipped bit looks like one for
// somebody else, and only the hash of the whole pack knows better.
func (p *Pack) openError(err error) error {
	key := PackKey(p.ref.ID)
	if whole := p.src.data[0].b; int64(len(whole)) == p.ref.Size {
		if sum := sha256.Sum256(whole); hex.EncodeToString(sum[:]) != p.ref.ID {
			return &CorruptError{key, "its bytes are not those of its name", err}
		}
	}
	return openError(key, err)
}

// pieces is the fetched parts of an object, ascending, as an io.ReaderAt.
// Reading what was not fetched is an error: it would be a hidden request.
type pieces struct {
	size int64
	data []piece
}

type piece struct {
	at int64
	b  []byte
}

// ReadAt implements io.ReaderAt.
func (p *pieces) ReadAt(b []byte, off int64) (int, error) {
	if off >= p.size {
		return 0, io.EOF
	}
	i, found := slices.BinarySearchFunc(p.data, off, func(q piece, off int64) int { return int(q.at - off) })
	if !found {
		i-- // the one that begins before
	}
	if i < 0 || off-p.data[i].at >= int64(len(p.data[i].b)) {
		return 0, fmt.Errorf("byte %d was not fetched", off)
	}
	n := copy(b, p.data[i].b[off-p.data[i].at:])
	switch {
	case n == len(b):
		return n, nil
	case off+int64(n) == p.size:
		return n, io.EOF
	}
	return n, fmt.Errorf("byte %d was not fetched", off+int64(n))
}
