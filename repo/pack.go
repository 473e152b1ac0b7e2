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

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

const (
	// MaxPack is the largest pack that a reader accepts, in sealed bytes.
	MaxPack = 32 << 20
	// packTarget is where a writer ends a pack: large enough that a round
	// trip is small beside it, small enough that several fit in memory.
	packTarget = 16 << 20
	// packFrames ends a pack of next to nothing, such as empty pages: its
	// record in the manifest would become as long as the pack.
	packFrames = 4096
	// maxHead is the longest start of a pack: the age header, which takes 2 KiB
	// a recipient at most, and the nonce.
	maxHead = 64 << 10
)

// FrameRef says where a frame lies in its pack, and what it must be.
type FrameRef struct {
	At  int64  `json:"at"`  // offset in the plain text of the pack
	Len int    `json:"len"` // stored (compressed) bytes
	Raw int    `json:"raw"` // raw bytes, 1 to FrameSize
	Sum string `json:"sum"` // SHA-256 of the stored bytes, first 16, in hex
}

// PackRef names a pack and what is needed to read parts of it.
type PackRef struct {
	ID   string `json:"pack"` // SHA-256 of the object, 64 hex digits
	Size int64  `json:"size"` // bytes of the object
	Head int64  `json:"head"` // bytes before the first sealed chunk
}

// Check says whether the reference is one that a reader may act on.
func (p PackRef) Check() error {
	if !isHex(p.ID, sha256.Size) || p.Size > MaxPack || p.Head <= 0 || p.Head > maxHead || p.Head >= p.Size {
		return fmt.Errorf("pack reference %.80q with size %d and head %d", p.ID, p.Size, p.Head)
	}
	return nil
}

// Check says whether the reference is one that a reader may act on.
func (f FrameRef) Check() error {
	if f.At < 0 || f.At > MaxPack || f.Len <= 0 || f.Len > maxStored || f.Raw <= 0 || f.Raw > FrameSize || !isHex(f.Sum, sumSize) {
		return fmt.Errorf("frame reference at %d, %d bytes for %d, sum %.40q", f.At, f.Len, f.Raw, f.Sum)
	}
	return nil
}

// checkOrder says whether the frame can follow one that ends at end.
func (p PackRef) checkOrder(f FrameRef, end int64) error {
	if err := f.Check(); err != nil {
		return err
	}
	if f.At < end || f.At+int64(f.Len) > p.Size-p.Head {
		return fmt.Errorf("pack %s: the frame at %d overlaps another, is out of order or ends outside", p.ID, f.At)
	}
	return nil
}

// PackBuffers bounds the packs that exist in memory at one time, being filled
// or being stored. It is shared by the writers of one backup.
type PackBuffers struct{ free chan []byte }

// NewPackBuffers allows n packs at a time, at least one.
func NewPackBuffers(n int) *PackBuffers {
	n = max(n, 1)
	b := &PackBuffers{make(chan []byte, n)}
	for range n {
		b.free <- nil
	}
	return b
}

// PackWriter fills packs, one after another. It is for one goroutine; a
// backup has one per worker, so that compressing and sealing need no lock.
type PackWriter struct {
	to     []age.Recipient
	enc    *zstd.Encoder
	free   chan []byte // empty buffers, shared by the writers of one backup
	buf    *bytes.Buffer
	seal   io.WriteCloser
	head   int64
	at     int64
	frame  []byte
	frames int
}

// NewPackWriter makes a writer; ErrReadOnly without recipients.
func (r *Repo) NewPackWriter(buffers *PackBuffers, level Level) (*PackWriter, error) {
	if len(r.keys.Recipients) == 0 {
		return nil, ErrReadOnly
	}
	return &PackWriter{to: r.keys.Recipients, enc: newEncoder(level), free: buffers.free}, nil
}

// Add compresses raw (1 to FrameSize bytes) into a frame of the current pack.
// It waits for a free buffer when it begins a pack, at most as long as ctx
// lives. After an error the pack is as it was.
func (w *PackWriter) Add(ctx context.Context, raw []byte) (FrameRef, error) {
	if len(raw) == 0 || len(raw) > FrameSize {
		return FrameRef{}, fmt.Errorf("a frame of %d bytes, 1 to %d are allowed", len(raw), FrameSize)
	}
	if w.buf == nil {
		if err := w.begin(ctx); err != nil {
			return FrameRef{}, err
		}
	}
	w.frame = w.enc.EncodeAll(raw, w.frame[:0])
	f := FrameRef{At: w.at, Len: len(w.frame), Raw: len(raw), Sum: frameSum(w.frame)}
	if w.head+sealedSize(w.at+int64(f.Len)) > MaxPack {
		return FrameRef{}, fmt.Errorf("the pack is full: it would have more than %d bytes", MaxPack)
	}
	if _, err := w.seal.Write(w.frame); err != nil {
		return FrameRef{}, fmt.Errorf("seal frame: %w", err)
	}
	w.at += int64(f.Len)
	w.frames++
	return f, nil
}

func (w *PackWriter) begin(ctx context.Context) error {
	var b []byte
	select {
	case b = <-w.free:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if b == nil {
		b = make([]byte, 0, packTarget+2*FrameSize)
	}
	buf := bytes.NewBuffer(b[:0])
	seal, err := age.Encrypt(buf, w.to...)
	if err != nil {
		w.free <- b
		return fmt.Errorf("begin pack: %w", err)
	}
	w.buf, w.seal, w.head, w.at, w.frames = buf, seal, int64(buf.Len()), 0, 0
	return nil
}

// Full says whether the current pack should be finished now.
func (w *PackWriter) Full() bool {
	return w.buf != nil && (w.buf.Len() >= packTarget-FrameSize || w.frames >= packFrames)
}

// Empty says whether no frame was added since the last Finish.
func (w *PackWriter) Empty() bool { return w.buf == nil || w.frames == 0 }

// Close drops the current pack, if there is one, and gives its buffer back.
func (w *PackWriter) Close() {
	if w.buf != nil {
		w.free <- w.buf.Bytes()
		w.buf, w.seal = nil, nil
	}
}

// SealedPack is a finished pack that is not stored yet.
type SealedPack struct {
	PackRef
	body []byte
	free chan []byte
}

// Finish seals the current pack, which must not be empty. The buffer goes back
// when the pack is released.
func (w *PackWriter) Finish() (*SealedPack, error) {
	if w.Empty() {
		return nil, errors.New("seal pack: it is empty")
	}
	if err := w.seal.Close(); err != nil {
		return nil, fmt.Errorf("seal pack: %w", err)
	}
	b := w.buf.Bytes()
	w.buf, w.seal = nil, nil
	sum := sha256.Sum256(b)
	return &SealedPack{PackRef{hex.EncodeToString(sum[:]), int64(len(b)), w.head}, b, w.free}, nil
}

// Release gives the buffer back. The pack cannot be stored afterwards.
func (p *SealedPack) Release() {
	if p.body != nil {
		p.free <- p.body
		p.body = nil
	}
}

// StorePack stores the pack. One that is there already, with its size, is the
// same one, since its name is its hash.
func (r *Repo) StorePack(ctx context.Context, p *SealedPack) error {
	if p.body == nil {
		return fmt.Errorf("store pack %s: it was released", p.ID)
	}
	key := PackKey(p.ID)
	err := r.store.Create(ctx, key, bytes.NewReader(p.body))
	if errors.Is(err, fs.ErrExist) {
		info, err := r.store.Stat(ctx, key)
		if err != nil {
			return fmt.Errorf("look at pack %s: %w", p.ID, opaque(err))
		}
		if info.Size != p.Size {
			return &CorruptError{key, fmt.Sprintf("it has %d bytes, not %d", info.Size, p.Size), nil}
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("store pack %s: %w", p.ID, err)
	}
	return nil
}
