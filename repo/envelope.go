package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"runtime"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// Stored says what CreateEnvelope did.
type Stored struct {
	Header  Header
	Bytes   int64 // the size of the object
	Existed bool  // the very same content was there already
}

// CreateEnvelope seals size bytes of src and stores them under key. WAL is
// sealed to the recipients; everything else, being metadata, to the cluster's
// own recipient as well.
//
// The same content under that name already is a success with Existed set;
// other content is *ConflictError. After an error nothing partial is there.
func (r *Repo) CreateEnvelope(ctx context.Context, key string, kind Kind, src io.Reader, size int64) (Stored, error) {
	h, sealed, err := r.seal(key, kind, src, size)
	if err != nil {
		return Stored{}, fmt.Errorf("seal %s: %w", key, err)
	}
	defer sealed.Close()
	b := &body{head: h.line(), rest: sealed}
	err = r.store.Create(ctx, key, b)
	if errors.Is(err, fs.ErrExist) {
		return r.compareStored(ctx, key, h)
	}
	if err != nil {
		return Stored{}, fmt.Errorf("store %s: %w", key, err)
	}
	return Stored{Header: h, Bytes: int64(len(b.head)) + sealed.size}, nil
}

func (r *Repo) compareStored(ctx context.Context, key string, mine Header) (Stored, error) {
	have, err := r.Header(ctx, key)
	if err != nil {
		return Stored{}, fmt.Errorf("compare with what is stored: %w", err)
	}
	if have.SHA256 != mine.SHA256 || have.Size != mine.Size || have.Kind != mine.Kind {
		return Stored{}, &ConflictError{Object: key, HaveSHA256: have.SHA256, SHA256: mine.SHA256,
			HaveHost: have.Host, Host: mine.Host, HaveSize: have.Size, WantedSize: mine.Size}
	}
	return Stored{Header: have, Existed: true}, nil
}

// Header reads and verifies the header line of an envelope; no identity is
// needed. fs.ErrNotExist when there is no such object.
func (r *Repo) Header(ctx context.Context, key string) (Header, error) {
	rc, err := r.store.Open(ctx, key, 0, maxHeader)
	if err != nil {
		return Header{}, fmt.Errorf("open %s: %w", key, err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(io.LimitReader(rc, maxHeader))
	if err != nil {
		return Header{}, fmt.Errorf("read %s: %w", key, err)
	}
	h, _, err := r.checkHeader(key, raw)
	return h, err
}

func (r *Repo) checkHeader(key string, raw []byte) (Header, int, error) {
	h, n, err := parseHeader(raw)
	if err != nil {
		return h, 0, &CorruptError{key, "not an envelope", err}
	}
	return h, n, h.verify(r.trusted, r.marker.Repository, key)
}

// seal compresses, hashes and encrypts in one pass over src, compressing on
// as many cores as there are, because a push is waited for.
func (r *Repo) seal(key string, kind Kind, src io.Reader, size int64) (Header, *spool, error) {
	to := r.metadata
	if kind == KindWAL {
		to = r.keys.Recipients
	}
	if r.keys.Cluster == nil || r.keys.Cluster.Signing == nil || len(to) == 0 {
		return Header{}, nil, ErrReadOnly
	}
	out := newSpool()
	sealedSum := sha256.New()
	w, err := age.Encrypt(io.MultiWriter(out, sealedSum), to...)
	if err != nil {
		return Header{}, nil, err
	}
	plainSum := sha256.New()
	n, err := compressFrames(w, io.TeeReader(io.LimitReader(src, size+1), plainSum))
	if err == nil && n != size {
		err = fmt.Errorf("source has %d bytes or more, %d were expected", n, size)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		out.Close()
		return Header{}, nil, err
	}
	h := Header{Kind: kind, SHA256: sumHex(plainSum), Size: size, Sealed: sumHex(sealedSum), Host: r.host}
	h.sign(*r.keys.Cluster.Signing, r.marker.Repository, key)
	return h, out, nil
}

func sumHex(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// compressFrames writes src to w as zstd frames, in order, and returns how
// many raw bytes there were. Several frames are compressed at once; a slot is
// a raw buffer, its compressed frame and the encoder that made it.
func compressFrames(w io.Writer, src io.Reader) (int64, error) {
	type slot struct {
		raw, out []byte
		enc      *zstd.Encoder
		done     chan struct{}
	}
	workers := min(runtime.GOMAXPROCS(0), 4)
	free := make(chan *slot, workers+1)
	for range workers + 1 {
		free <- &slot{done: make(chan struct{}, 1)}
	}
	queue := make([]*slot, 0, workers+1)
	flush := func() error {
		s := queue[0]
		queue = append(queue[:0], queue[1:]...)
		<-s.done
		_, err := w.Write(s.out)
		free <- s
		return err
	}
	var total int64
	for {
		if len(queue) == cap(queue) {
			if err := flush(); err != nil {
				return total, err
			}
		}
		s := <-free
		if s.raw == nil {
			s.raw, s.enc = make([]byte, FrameSize), newEncoder(Fastest)
		}
		n, err := io.ReadFull(src, s.raw[:FrameSize])
		if n > 0 || total == 0 && err == io.EOF {
			s.raw = s.raw[:n]
			total += int64(n)
			queue = append(queue, s)
			go func() {
				s.out = s.enc.EncodeAll(s.raw, s.out[:0])
				s.done <- struct{}{}
			}()
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return total, err
		}
	}
	for len(queue) > 0 {
		if err := flush(); err != nil {
			return total, err
		}
	}
	return total, nil
}

// OpenEnvelope fetches the object under key, verifies the signature and then
// the hash of every sealed byte, and returns the plain bytes to read. Only
// then are they decrypted, so nothing that was not signed reaches the
// decoders. A read error at any point, the end included, means that the bytes
// read so far must not be used.
//
// fs.ErrNotExist (only if the store said so), *UntrustedError, *CorruptError,
// ErrWrongIdentity, ErrNoIdentity.
func (r *Repo) OpenEnvelope(ctx context.Context, key string, kind Kind) (Header, io.ReadCloser, error) {
	if len(r.readers) == 0 {
		return Header{}, nil, ErrNoIdentity
	}
	h, sealed, err := r.fetchEnvelope(ctx, key)
	if err != nil {
		return h, nil, err
	}
	if h.Kind != kind {
		sealed.Close()
		return h, nil, &CorruptError{key, fmt.Sprintf("it is of kind %s, not %s", h.Kind, kind), nil}
	}
	rc, err := r.openSealed(key, h, sealed)
	if err != nil {
		sealed.Close()
		return h, nil, err
	}
	return h, rc, nil
}

// fetchEnvelope reads a whole envelope into a spool and verifies it.
func (r *Repo) fetchEnvelope(ctx context.Context, key string) (Header, *spool, error) {
	rc, err := r.store.Open(ctx, key, 0, -1)
	if err != nil {
		return Header{}, nil, fmt.Errorf("open %s: %w", key, err)
	}
	defer rc.Close()
	first := make([]byte, maxHeader)
	n, err := io.ReadFull(rc, first)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return Header{}, nil, fmt.Errorf("read %s: %w", key, err)
	}
	h, end, err := r.checkHeader(key, first[:n])
	if err != nil {
		return h, nil, err
	}
	sealed, sum := newSpool(), sha256.New()
	both := io.MultiWriter(sealed, sum)
	both.Write(first[end:n])
	// A sealed body is never larger than what an honest writer could have
	// made of h.Size bytes; the signature vouches for h.Size.
	limit := h.Size + h.Size/8 + 1<<20
	got, err := io.Copy(both, io.LimitReader(rc, limit+1))
	switch {
	case err != nil:
		err = fmt.Errorf("read %s: %w", key, err)
	case got > limit:
		err = &CorruptError{key, "it is longer than what was signed", nil}
	case sumHex(sum) != h.Sealed:
		err = &CorruptError{key, "its bytes are not the signed ones (truncated or altered)", nil}
	}
	if err != nil {
		sealed.Close()
		return h, nil, err
	}
	return h, sealed, nil
}

// plainReader ends with io.EOF only if size and hash are as signed.
type plainReader struct {
	key    string
	h      Header
	dec    *zstd.Decoder
	sealed *spool
	sum    hash.Hash
	n      int64
}

func (r *Repo) openSealed(key string, h Header, sealed *spool) (io.ReadCloser, error) {
	plain, err := age.Decrypt(sealed.Reader(), r.readers...)
	if err != nil {
		return nil, openError(key, err)
	}
	dec, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, &CorruptError{key, "not zstd", err}
	}
	return &plainReader{key: key, h: h, dec: dec, sealed: sealed, sum: sha256.New()}, nil
}

func openError(key string, err error) error {
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return fmt.Errorf("open %s: %w", key, ErrWrongIdentity)
	}
	return &CorruptError{key, "cannot be decrypted", err}
}

func (p *plainReader) Read(b []byte) (int, error) {
	n, err := p.dec.Read(b)
	p.n += int64(n)
	p.sum.Write(b[:n])
	switch {
	case p.n > p.h.Size:
		return 0, &CorruptError{p.key, fmt.Sprintf("holds more than the signed %d bytes", p.h.Size), nil}
	case err == io.EOF && (p.n != p.h.Size || sumHex(p.sum) != p.h.SHA256):
		return 0, &CorruptError{p.key, "its plain bytes are not the signed ones", nil}
	case err != nil && err != io.EOF:
		return n, &CorruptError{p.key, "cannot be decompressed", err}
	}
	return n, err
}

func (p *plainReader) Close() error {
	p.dec.Close()
	return p.sealed.Close()
}

// ReadEnvelope is OpenEnvelope for what fits in memory: at most limit bytes.
func (r *Repo) ReadEnvelope(ctx context.Context, key string, kind Kind, limit int64) ([]byte, Header, error) {
	h, rc, err := r.OpenEnvelope(ctx, key, kind)
	if err != nil {
		return nil, h, err
	}
	defer rc.Close()
	if h.Size > limit {
		return nil, h, &CorruptError{key, fmt.Sprintf("holds %d bytes, at most %d are expected", h.Size, limit), nil}
	}
	out := make([]byte, h.Size)
	if _, err := io.ReadFull(rc, out); err != nil {
		return nil, h, fmt.Errorf("read %s: %w", key, err)
	}
	if n, err := rc.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return nil, h, fmt.Errorf("read %s: %w", key, err)
	}
	return out, h, nil
}
