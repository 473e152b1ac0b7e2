package repo

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// Stored says what CreateEnvelope did.
type Stored struct {
	Header  Header
	Bytes   int64 // the size of the object
	Existed bool  // the very same content was there already

	// Beside is under which name it was stored, where something that no believed
	// signer has signed has the key's; "" when it has its key.
	Beside string
}

// CreateEnvelope seals size bytes of src and stores them under key. WAL is
// sealed to the recipients; everything else, being metadata, to the cluster's
// own recipient as well.
//
// The same content under that name already is a success with Existed set;
// other content is *ConflictError. After an error nothing partial is there.
func (r *Repo) CreateEnvelope(ctx context.Context, key string, kind Kind, src io.Reader, size int64) (Stored, error) {
	s, err := r.Seal(key, kind, src, size, SealOptions{})
	if err != nil {
		return Stored{}, err
	}
	defer s.Close()
	return r.StoreSealed(ctx, s)
}

// SealOptions bound what sealing takes. The zero value is for a caller that
// seals one envelope and waits for it.
type SealOptions struct {
	Workers int   // frames compressed at once; 0 is one for each core
	Memory  int64 // bytes of the result kept in memory, the rest in a temporary file; 0 is 24 MiB
}

// Sealed is an envelope that is made and not stored yet.
type Sealed struct {
	key    string
	header Header
	spool  *spool
}

// Seal does all of CreateEnvelope that needs no store, so that a caller with
// many envelopes can decide when each is sent. The caller closes the result.
func (r *Repo) Seal(key string, kind Kind, src io.Reader, size int64, o SealOptions) (*Sealed, error) {
	h, out, err := r.seal(key, kind, src, size, o)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", key, opaque(err))
	}
	return &Sealed{key: key, header: h, spool: out}, nil
}

// Memory is how many bytes of memory the envelope holds until it is closed.
func (s *Sealed) Memory() int64 { return s.spool.memory() }

// Close frees memory or temporary file. The second call does nothing.
func (s *Sealed) Close() error { return s.spool.Close() }

// StoreSealed stores what Seal has made, with the promises of CreateEnvelope.
func (r *Repo) StoreSealed(ctx context.Context, s *Sealed) (Stored, error) {
	return r.storeAsIs(ctx, s.key, s.header, s.spool)
}

// StoreSure is StoreSealed for what its writer forgets once it is stored, as a server
// does with WAL. It asks once more who is believed: a key that was retired since the
// repository was opened may have signed what lies behind its cut, and nobody would
// believe it. *RetiredKeyError when that is this host's key; *UntrustedError when the
// same content was there already, signed by such a key.
func (r *Repo) StoreSure(ctx context.Context, s *Sealed) (Stored, error) {
	stored, err := r.StoreSealed(ctx, s)
	if err == nil {
		err = r.CheckSigning(ctx)
	}
	if err == nil {
		err = r.believe(stored.Header, s.key)
	}
	if err != nil {
		return Stored{}, err
	}
	return stored, nil
}

func (r *Repo) compareStored(ctx context.Context, key string, mine Header) (Stored, error) {
	have, err := r.Header(ctx, key)
	if err != nil {
		// Also when it has just been deleted: the next try stores it.
		return Stored{}, fmt.Errorf("compare with what is stored: %w", opaque(err))
	}
	return mine.sameAs(have, key)
}

// sameAs is a success when the content that is there already is the very same, else
// *ConflictError.
func (mine Header) sameAs(have Header, key string) (Stored, error) {
	if have.SHA256 != mine.SHA256 || have.Size != mine.Size || have.Kind != mine.Kind {
		return Stored{}, &ConflictError{Object: key, HaveSHA256: have.SHA256, SHA256: mine.SHA256,
			HaveHost: have.Host, Host: mine.Host, HaveSize: have.Size, WantedSize: mine.Size}
	}
	return Stored{Header: have, Existed: true}, nil
}

// Header reads and verifies the header line of an envelope; no identity is
// needed. fs.ErrNotExist when there is no such object.
//
// Of WAL it is that of what lies beside the key, where the key itself is taken by
// something that no believed signer has signed.
func (r *Repo) Header(ctx context.Context, key string) (h Header, err error) {
	err = r.inPlaces(ctx, key, func(name string) (err error) {
		h, err = r.headerAt(ctx, name, key)
		return err
	})
	return h, err
}

// headerAt reads the header of what lies under a name and is signed for a key.
func (r *Repo) headerAt(ctx context.Context, name, key string) (Header, error) {
	rc, key, err := r.openPlace(ctx, name, key, maxHeader)
	if err != nil {
		return Header{}, err
	}
	defer rc.Close()
	raw, err := io.ReadAll(io.LimitReader(rc, maxHeader))
	if err != nil {
		return Header{}, fmt.Errorf("read %s: %w", name, opaque(err))
	}
	h, _, err := r.checkHeader(key, raw)
	return h, err
}

// leastSealed is fewer bytes than any age file has (the first line, the header's
// MAC line, a nonce and the tag of the last chunk; age-encryption.org/v1).
const leastSealed = 22 + 48 + 16 + 16

// mostSealed is more bytes than an honest writer could have made of the plain ones;
// the signature vouches for their number.
func (h Header) mostSealed() int64 { return h.Size + h.Size/8 + 1<<20 }

// CheckListed reads and verifies the header line of an envelope, with one small
// ranged read, and compares it with what a listing says of the object: kind, and
// whether so many bytes can be what was signed. That is not told of bytes in their
// middle, nor of a last part that is cut off: CheckEnvelope reads them.
//
// Errors are those of Header, and *CorruptError.
func (r *Repo) CheckListed(ctx context.Context, o storage.Info, kind Kind) (Header, error) {
	h, err := r.Header(ctx, o.Key)
	if err != nil {
		return h, err
	}
	sealed := o.Size - int64(len(h.line()))
	switch {
	case h.Kind != kind:
		err = &CorruptError{o.Key, fmt.Sprintf("it is of kind %s, not %s", h.Kind, kind), nil}
	case sealed < leastSealed:
		err = &CorruptError{o.Key, fmt.Sprintf("it has %d bytes, and ends before what was signed begins", o.Size), nil}
	case sealed > h.mostSealed():
		err = &CorruptError{o.Key, "it is longer than what was signed", nil}
	}
	return h, err
}

func (r *Repo) checkHeader(key string, raw []byte) (Header, int, error) {
	h, n, err := parseHeader(raw)
	if err != nil {
		return h, 0, &CorruptError{key, "not an envelope", err}
	}
	err = r.believe(h, key)
	if err != nil && r.settled != nil {
		<-r.settled // a signer that was added, which is being read just now
		err = r.believe(h, key)
	}
	return h, n, err
}

// believe returns *UntrustedError unless somebody who is believed signed the
// header for this place.
func (r *Repo) believe(h Header, key string) error {
	who := r.who()
	k, err := h.signedBy(who.keys, r.marker.Repository, key)
	if err != nil {
		return err
	}
	return who.believes(k, key)
}

// seal compresses, hashes and encrypts in one pass over src.
func (r *Repo) seal(key string, kind Kind, src io.Reader, size int64, o SealOptions) (Header, *spool, error) {
	to := r.metadata
	if kind == KindWAL {
		to = r.keys.Recipients
	}
	if r.keys.Cluster == nil || r.keys.Cluster.Signing == nil || len(to) == 0 {
		return Header{}, nil, ErrReadOnly
	}
	if e := r.retired.Load(); e != nil {
		return Header{}, nil, e
	}
	out := &spool{limit: cmp.Or(o.Memory, spoolMemory), pool: &r.chunks}
	sealedSum := sha256.New()
	w, err := age.Encrypt(io.MultiWriter(out, sealedSum), to...)
	if err != nil {
		return Header{}, nil, err
	}
	plainSum := sha256.New()
	n, err := r.slots.compressFrames(w, io.TeeReader(io.LimitReader(src, size+1), plainSum), o.Workers)
	if err == nil && n != size {
		err = fmt.Errorf("the source has %d bytes or more, not %d", n, size)
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

// OpenEnvelope fetches the object under key, verifies the signature and then
// the hash of every sealed byte, and returns the plain bytes to read. Only
// then are they decrypted, so nothing that was not signed reaches the
// decoders. A read error at any point, the end included, means that the bytes
// read so far must not be used.
//
// fs.ErrNotExist (only if the store said so), *UntrustedError, *CorruptError,
// ErrWrongIdentity, ErrNoIdentity.
func (r *Repo) OpenEnvelope(ctx context.Context, key string, kind Kind) (Header, io.ReadCloser, error) {
	return r.open(ctx, key, kind, maxPlain)
}

// open refuses what holds more than limit plain bytes before fetching it.
func (r *Repo) open(ctx context.Context, key string, kind Kind, limit int64) (Header, io.ReadCloser, error) {
	readers := r.readers
	if kind == KindWAL {
		readers = r.keys.Identities // the cluster's own opens no data
	}
	if len(readers) == 0 {
		return Header{}, nil, fmt.Errorf("open %s: %w", key, ErrNoIdentity)
	}
	h, sealed, err := r.fetchEnvelope(ctx, key, kind, limit)
	if err != nil {
		return h, nil, err
	}
	rc, err := openSealed(key, h, sealed, readers)
	if err != nil {
		sealed.Close()
		return h, nil, err
	}
	return h, rc, nil
}

// openPlace opens what lies under a name, and says for which key it must be signed:
// where an object is just taking another one's place, for its own.
func (r *Repo) openPlace(ctx context.Context, name, key string, n int64) (io.ReadCloser, string, error) {
	rc, place, err := r.openObject(ctx, name, n)
	if err != nil {
		return nil, key, fmt.Errorf("open %s: %w", place, err)
	}
	if name == key {
		key = place
	}
	return rc, key, nil
}

// fetchEnvelope reads a whole envelope into a spool and verifies it.
func (r *Repo) fetchEnvelope(ctx context.Context, key string, kind Kind, limit int64) (h Header, sealed *spool, err error) {
	err = r.inPlaces(ctx, key, func(name string) (err error) {
		h, sealed, err = r.fetchPlace(ctx, name, key, kind, limit)
		return err
	})
	return h, sealed, err
}

// fetchPlace fetches what lies under a name and is signed for a key.
func (r *Repo) fetchPlace(ctx context.Context, name, key string, kind Kind, limit int64) (Header, *spool, error) {
	rc, key, err := r.openPlace(ctx, name, key, -1)
	if err != nil {
		return Header{}, nil, err
	}
	defer rc.Close()
	first := make([]byte, maxHeader)
	n, err := io.ReadFull(rc, first)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return Header{}, nil, fmt.Errorf("read %s: %w", key, opaque(err))
	}
	h, end, err := r.checkHeader(key, first[:n])
	if err != nil {
		return h, nil, err
	}
	if h.Kind != kind {
		return h, nil, &CorruptError{key, fmt.Sprintf("it is of kind %s, not %s", h.Kind, kind), nil}
	}
	if h.Size > limit {
		return h, nil, &CorruptError{key, fmt.Sprintf("holds %d bytes, at most %d are expected", h.Size, limit), nil}
	}
	sealed, err := h.spoolBody(key, first[end:n], rc)
	return h, sealed, err
}

// spoolBody reads the sealed bytes, of which first is here already, and makes
// sure that they are the signed ones.
func (h Header) spoolBody(key string, first []byte, rest io.Reader) (*spool, error) {
	sealed, sum := newSpool(), sha256.New()
	limit := h.mostSealed()
	got, err := io.Copy(io.MultiWriter(sealed, sum), io.LimitReader(io.MultiReader(bytes.NewReader(first), rest), limit+1))
	switch {
	case err != nil:
		err = fmt.Errorf("read %s: %w", key, opaque(err))
	case got > limit:
		err = &CorruptError{key, "it is longer than what was signed", nil}
	case sumHex(sum) != h.Sealed:
		err = &CorruptError{key, "its bytes are not the signed ones (truncated or altered)", nil}
	}
	if err != nil {
		sealed.Close()
		return nil, err
	}
	return sealed, nil
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

func openSealed(key string, h Header, sealed *spool, readers []age.Identity) (io.ReadCloser, error) {
	head := &headLimit{r: sealed.Reader(), left: maxHead}
	plain, err := age.Decrypt(head, readers...)
	if err != nil {
		return nil, openError(key, err)
	}
	head.left = math.MaxInt64 // the payload, which is read as it comes
	dec, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, &CorruptError{key, "not zstd", err}
	}
	return &plainReader{key: key, h: h, dec: dec, sealed: sealed, sum: sha256.New()}, nil
}

// headLimit ends the reading of an age header that is longer than any has to be: the
// library holds all of it in memory.
type headLimit struct {
	r    io.Reader
	left int64
}

var errLongHead = fmt.Errorf("its age header has more than %d bytes", maxHead)

func (h *headLimit) Read(p []byte) (int, error) {
	if h.left <= 0 {
		return 0, errLongHead
	}
	n, err := h.r.Read(p[:min(int64(len(p)), h.left)])
	h.left -= int64(n)
	return n, err
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
	h, rc, err := r.open(ctx, key, kind, limit)
	if err != nil {
		return nil, h, err
	}
	defer rc.Close()
	out, err := readPlain(key, h, rc)
	return out, h, err
}

// readPlain reads all plain bytes of an envelope.
func readPlain(key string, h Header, rc io.Reader) ([]byte, error) {
	out := make([]byte, h.Size)
	if _, err := io.ReadFull(rc, out); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	// The hash is compared at the end, which must be read to.
	if _, err := io.ReadFull(rc, make([]byte, 1)); err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return out, nil
}
