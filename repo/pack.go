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
}

// Check says whether the reference is one that a reader may act on.
func (p PackRef) Check() error {
	if !isHex(p.ID, sha256.Size) || p.Size <= 0 || p.Size > MaxPack {
		return fmt.Errorf("pack reference %.80q with size %d", p.ID, p.Size)
	}
	return nil
}

// Check says whether the reference is one that a reader may act on.
func (f FrameRef) Check() error {
	if f.At < 0 || f.At > MaxPack || f.Len <= 0 || f.Len > MaxPack || f.Raw <= 0 || f.Raw > FrameSize || !isHex(f.Sum, sumSize) {
		return fmt.Errorf("frame reference at %d, %d bytes for %d, sum %.40q", f.At, f.Len, f.Raw, f.Sum)
	}
	return nil
}

// PackWriter fills packs, one after another. It is for one goroutine; a
// backup has one per worker, so that compressing and sealing need no lock.
type PackWriter struct {
	to     []age.Recipient
	enc    *zstd.Encoder
	free   chan []byte // empty buffers, shared by the writers of one backup
	buf    *bytes.Buffer
	seal   io.WriteCloser
	at     int64
	frame  []byte
	frames int
}

// PackBuffers bounds the packs that exist in memory at one time, being filled
// or being stored. It is shared by the writers of one backup.
type PackBuffers struct{ free chan []byte }

// NewPackBuffers allows n packs at a time.
func NewPackBuffers(n int) *PackBuffers {
	b := &PackBuffers{make(chan []byte, n)}
	for range n {
		b.free <- nil
	}
	return b
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
// lives.
func (w *PackWriter) Add(ctx context.Context, raw []byte) (FrameRef, error) {
	if w.buf == nil {
		if err := w.begin(ctx); err != nil {
			return FrameRef{}, err
		}
	}
	w.frame = w.enc.EncodeAll(raw, w.frame[:0])
	f := FrameRef{At: w.at, Len: len(w.frame), Raw: len(raw), Sum: frameSum(w.frame)}
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
	w.buf, w.at, w.frames = bytes.NewBuffer(b[:0]), 0, 0
	var err error
	if w.seal, err = age.Encrypt(w.buf, w.to...); err != nil {
		return fmt.Errorf("begin pack: %w", err)
	}
	return nil
}

// Full says whether the current pack should be finished now.
func (w *PackWriter) Full() bool { return w.buf != nil && w.buf.Len() >= packTarget-FrameSize }

// Empty says whether no frame was added since the last Finish.
func (w *PackWriter) Empty() bool { return w.buf == nil }

// SealedPack is a finished pack that is not stored yet.
type SealedPack struct {
	PackRef
	body []byte
	free chan []byte
}

// Finish seals the current pack. The buffer goes back when the pack is
// released.
func (w *PackWriter) Finish() (*SealedPack, error) {
	if err := w.seal.Close(); err != nil {
		return nil, fmt.Errorf("seal pack: %w", err)
	}
	b := w.buf.Bytes()
	w.buf, w.seal = nil, nil
	sum := sha256.Sum256(b)
	return &SealedPack{PackRef{hex.EncodeToString(sum[:]), int64(len(b))}, b, w.free}, nil
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
	key := PackKey(p.ID)
	err := r.store.Create(ctx, key, bytes.NewReader(p.body))
	if errors.Is(err, fs.ErrExist) {
		info, err := r.store.Stat(ctx, key)
		if err != nil {
			return fmt.Errorf("look at pack %s: %w", p.ID, err)
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
