package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

const (
	ageChunk    = 64 << 10      // plain bytes a chunk of an age file
	ageSealed   = ageChunk + 16 // sealed bytes a chunk
	maxAgeStart = 64 << 10      // header and nonce; a recipient needs at most 2 KiB
	mergeGap    = 256 << 10     // a gap that is cheaper to read than to ask again for
)

// Pack is an opened pack: frames of it can be read. Each frame is checked
// against its signed sum before it is decompressed. For one goroutine.
type Pack struct {
	ref   PackRef
	src   *pieces
	plain io.ReaderAt
}

// PackReader reads frames of fetched packs; it holds the decoder and the
// buffers, so that a worker allocates nothing per frame. For one goroutine.
type PackReader struct {
	repo   *Repo
	dec    *zstd.Decoder
	stored []byte
	raw    []byte
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
// they are most of it, else the ranges that hold them, merged. The order of
// the frames must be ascending. It does not decrypt, so it can run ahead of
// the workers that do.
func (r *Repo) FetchPack(ctx context.Context, ref PackRef, frames []FrameRef) (*Pack, error) {
	if err := ref.Check(); err != nil {
		return nil, err
	}
	p := &Pack{ref: ref, src: &pieces{size: ref.Size}}
	var wanted int64
	for _, f := range frames {
		wanted += int64(f.Len)
	}
	if wanted*2 >= ref.Size || ref.Size <= mergeGap {
		return p, r.fetchPiece(ctx, p, 0, ref.Size)
	}
	// A header for a few recipients is small; one for many needs a second try.
	for _, n := range []int64{16 << 10, maxAgeStart} {
		if err := r.fetchPiece(ctx, p, 0, min(n, ref.Size)); err != nil {
			return nil, err
		}
		start, err := payloadStart(p.src)
		if err == nil {
			return p, r.fetchRanges(ctx, p, start, frames)
		}
		if n == maxAgeStart {
			return nil, &CorruptError{PackKey(ref.ID), "not an age file", err}
		}
	}
	panic("unreachable")
}

// fetchRanges fetches the sealed chunks that hold the frames; the first one
// begins at start.
func (r *Repo) fetchRanges(ctx context.Context, p *Pack, start int64, frames []FrameRef) error {
	sealedRange := func(from, to int64) (int64, int64) { // plain to sealed
		return start + from/ageChunk*ageSealed, min(start+(to-1)/ageChunk*ageSealed+ageSealed, p.ref.Size)
	}
	last := (p.ref.Size - start - 1) / ageSealed * ageSealed
	// age reads the last chunk when it opens a file, to know its length.
	want := [][2]int64{}
	for _, f := range frames {
		lo, hi := sealedRange(f.At, f.At+int64(f.Len))
		if n := len(want); n > 0 && lo-want[n-1][1] <= mergeGap {
			want[n-1][1] = max(hi, want[n-1][1])
			continue
		}
		want = append(want, [2]int64{lo, hi})
	}
	if n := len(want); n == 0 || want[n-1][1] < p.ref.Size {
		want = append(want, [2]int64{start + last, p.ref.Size})
	}
	for _, w := range want {
		if err := r.fetchPiece(ctx, p, w[0], w[1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Repo) fetchPiece(ctx context.Context, p *Pack, from, to int64) error {
	key := PackKey(p.ref.ID)
	rc, err := r.store.Open(ctx, key, from, to-from)
	if errors.Is(err, fs.ErrNotExist) {
		return &CorruptError{key, "the pack is missing", err}
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", key, err)
	}
	defer rc.Close()
	b := make([]byte, to-from)
	if n, err := io.ReadFull(rc, b); err == io.EOF || err == io.ErrUnexpectedEOF {
		return &CorruptError{key, fmt.Sprintf("it ends at byte %d of %d", from+int64(n), p.ref.Size), nil}
	} else if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	p.src.add(from, b)
	return nil
}

// Frame returns the raw bytes of a frame, valid until the next call.
// *CorruptError when the bytes are not those that the manifest vouches for.
func (pr *PackReader) Frame(p *Pack, f FrameRef) ([]byte, error) {
	key := PackKey(p.ref.ID)
	if err := f.Check(); err != nil {
		return nil, err
	}
	if p.plain == nil {
		plain, _, err := age.DecryptReaderAt(p.src, p.ref.Size, pr.repo.keys.Identities...)
		if err != nil {
			return nil, openError(key, err)
		}
		p.plain = plain
	}
	if cap(pr.stored) < f.Len {
		pr.stored = make([]byte, f.Len+f.Len/4)
	}
	stored := pr.stored[:f.Len]
	if n, err := p.plain.ReadAt(stored, f.At); err != nil && (err != io.EOF || n < len(stored)) {
		return nil, &CorruptError{key, fmt.Sprintf("frame at %d cannot be decrypted", f.At), err}
	}
	if frameSum(stored) != f.Sum {
		return nil, &CorruptError{key, fmt.Sprintf("frame at %d is not the one that was signed", f.At), nil}
	}
	raw, err := pr.dec.DecodeAll(stored, pr.raw[:0])
	if err != nil || len(raw) != f.Raw {
		return nil, &CorruptError{key, fmt.Sprintf("frame at %d yields %d bytes, not %d", f.At, len(raw), f.Raw), err}
	}
	pr.raw = raw
	return raw, nil
}

// pieces is the fetched parts of an object as an io.ReaderAt. Reading what was
// not fetched is an error: it would be a hidden request.
type pieces struct {
	size int64
	at   []int64
	data [][]byte
}

func (p *pieces) add(at int64, b []byte) {
	p.at, p.data = append(p.at, at), append(p.data, b)
}

// ReadAt serves a read that may span pieces. Later pieces are looked at first:
// they are the larger ones.
func (p *pieces) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		if off >= p.size {
			return n, io.EOF
		}
		m := 0
		for i := len(p.at) - 1; i >= 0 && m == 0; i-- {
			if d := off - p.at[i]; d >= 0 && d < int64(len(p.data[i])) {
				m = copy(b[n:], p.data[i][d:])
			}
		}
		if m == 0 {
			return n, fmt.Errorf("byte %d was not fetched", off)
		}
		n, off = n+m, off+int64(m)
	}
	return n, nil
}

// payloadStart finds where the sealed chunks begin: after the header, whose
// last line begins with "---", and a nonce of 16 bytes.
func payloadStart(src io.ReaderAt) (int64, error) {
	header, err := age.ExtractHeader(io.NewSectionReader(src, 0, maxAgeStart))
	if err != nil {
		return 0, err
	}
	return int64(len(header)) + 16, nil
}
