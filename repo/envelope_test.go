package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/lifeboat-dr/lifeboat/storage"
)

const testKey = "wal/7000000000000000001/00000001/000000010000000000000001"

func TestEnvelopeRoundTrip(t *testing.T) {
	w := newWorld(t)
	for i, size := range []int{0, 1, 100, FrameSize - 1, FrameSize, FrameSize + 1, 5*FrameSize + 7, 16 << 20} {
		plain := walLike(size)
		for _, kind := range []Kind{KindWAL, KindManifest} {
			key := fmt.Sprintf("wal/test/%s%d", kind, i)
			stored, err := w.writer.CreateEnvelope(t.Context(), key, kind, iotest.HalfReader(bytes.NewReader(plain)), int64(size))
			check(t, err)
			object := w.get(t, key)
			if stored.Existed || stored.Bytes != int64(len(object)) || stored.Header.Size != int64(size) || stored.Header.Host != "db1" {
				t.Errorf("stored %+v of %d bytes", stored, len(object))
			}
			got, h, err := w.reader.ReadEnvelope(t.Context(), key, kind, int64(size))
			check(t, err)
			if !bytes.Equal(got, plain) || h.SHA256 != stored.Header.SHA256 {
				t.Errorf("%d bytes of %s came back otherwise", size, kind)
			}
			line, err := w.writer.Header(t.Context(), key)
			check(t, err)
			if line.SHA256 != fmt.Sprintf("%x", sha256.Sum256(plain)) {
				t.Errorf("the header says sha256 %s", line.SHA256)
			}
		}
	}
}

// The database host opens metadata and no data.
func TestWhoOpensWhat(t *testing.T) {
	w := newWorld(t)
	plain := []byte("plain")
	for _, kind := range []Kind{KindWAL, KindManifest, KindInfo, KindSystem} {
		_, err := w.writer.CreateEnvelope(t.Context(), "x/"+string(kind), kind, bytes.NewReader(plain), 5)
		check(t, err)
	}
	other, err := NewRecoveryKey(w.cluster)
	check(t, err)
	host := w.writer
	stranger, err := Open(t.Context(), w.store, Keys{Identities: other.Identities, Trusted: other.Signers}, "x")
	check(t, err)
	blind, err := Open(t.Context(), w.store, Keys{Trusted: other.Signers}, "x")
	check(t, err)
	// Someone who gives the cluster's own identities for data.
	thief, err := Open(t.Context(), w.store, Keys{Identities: w.cluster.Identities, Trusted: w.cluster.Signers}, "x")
	check(t, err)
	for _, c := range []struct {
		name string
		r    *Repo
		kind Kind
		want error
	}{
		{"host", host, KindWAL, ErrNoIdentity},
		{"host", host, KindManifest, nil},
		{"host", host, KindInfo, nil},
		{"host", host, KindSystem, nil},
		{"reader", w.reader, KindWAL, nil},
		{"reader", w.reader, KindManifest, nil},
		{"thief", thief, KindWAL, ErrWrongIdentity},
		{"thief", thief, KindManifest, nil},
		{"stranger", stranger, KindWAL, ErrWrongIdentity},
		{"stranger", stranger, KindManifest, ErrWrongIdentity},
		{"blind", blind, KindWAL, ErrNoIdentity},
		{"blind", blind, KindManifest, ErrNoIdentity},
	} {
		got, _, err := c.r.ReadEnvelope(t.Context(), "x/"+string(c.kind), c.kind, 100)
		if !errors.Is(err, c.want) || (err == nil) != (string(got) == "plain") {
			t.Errorf("%s opens %s: %q, %v; want %v", c.name, c.kind, got, err, c.want)
		}
		if _, err := c.r.Header(t.Context(), "x/"+string(c.kind)); err != nil {
			t.Errorf("%s reads the header of %s: %v", c.name, c.kind, err)
		}
	}
}

func TestSameAndOtherContent(t *testing.T) {
	w := newWorld(t)
	create := func(r *Repo, plain string) (Stored, error) {
		return r.CreateEnvelope(t.Context(), testKey, KindWAL, strings.NewReader(plain), int64(len(plain)))
	}
	_, err := create(w.writer, "one")
	check(t, err)
	before := w.get(t, testKey)
	again, err := create(w.writer, "one")
	check(t, err)
	if !again.Existed {
		t.Error("the same content does not count as being there")
	}
	second, err := Open(t.Context(), w.store, w.writerKeys(t), "db2")
	check(t, err)
	_, err = create(second, "two")
	var conflict *ConflictError
	if !errors.As(err, &conflict) || conflict.HaveHost != "db1" || conflict.Host != "db2" {
		t.Errorf("other content: %v", err)
	}
	if !bytes.Equal(w.get(t, testKey), before) {
		t.Error("what was stored has changed")
	}
	// A forged object in the way does not count: WAL is stored beside it, and found there.
	forged := bytes.Replace(before, []byte("host=db1"), []byte("host=db3"), 1)
	w.put(t, testKey, forged)
	stored, err := create(w.writer, "one")
	check(t, err)
	if of, beside, _ := w.writer.ArchiveKey(stored.Beside); !beside || of != testKey || !bytes.Equal(w.get(t, testKey), forged) {
		t.Errorf("onto a forged object: %+v", stored)
	}
	if h, err := w.writer.Header(t.Context(), testKey); err != nil || h.Host != "db1" {
		t.Errorf("beside a forged object: %+v, %v", h, err)
	}
}

func TestSourceOfAnotherSize(t *testing.T) {
	w := newWorld(t)
	for _, size := range []int64{-1, 0, 2, 4, 1 << 40} {
		_, err := w.writer.CreateEnvelope(t.Context(), testKey, KindWAL, strings.NewReader("one"), size)
		if err == nil {
			t.Errorf("3 bytes were stored as %d", size)
		}
	}
	broken := io.MultiReader(bytes.NewReader(make([]byte, 3*FrameSize)), iotest.ErrReader(errors.New("disk broke")))
	if _, err := w.writer.CreateEnvelope(t.Context(), testKey, KindWAL, broken, 16<<20); err == nil || !strings.Contains(err.Error(), "disk broke") {
		t.Errorf("a source that breaks: %v", err)
	}
	if _, err := w.store.Stat(t.Context(), testKey); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was stored: %v", err)
	}
}

// refused says whether err is one of the two that a bad object must yield.
func refused(err error) bool {
	var corrupt *CorruptError
	var untrusted *UntrustedError
	return (errors.As(err, &corrupt) || errors.As(err, &untrusted)) && !errors.Is(err, fs.ErrNotExist)
}

func mustRefuse(t *testing.T, r *Repo, key string, kind Kind, what string) {
	t.Helper()
	got, _, err := r.ReadEnvelope(t.Context(), key, kind, 1<<20)
	if !refused(err) || got != nil {
		t.Errorf("%s: %q, %v", what, got, err)
	}
}

// TestEveryByteCounts changes each byte of an object in several ways, cuts it
// at each length and lengthens it.
func TestEveryByteCounts(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and all in one goroutine: run in full, without the race detector")
	}
	w := newWorld(t)
	plain := "a short timeline history file"
	_, err := w.writer.CreateEnvelope(t.Context(), testKey, KindWAL, strings.NewReader(plain), int64(len(plain)))
	check(t, err)
	whole := w.get(t, testKey)
	for i := range whole {
		for _, mask := range []byte{0x01, 0x20, 0x80, 0xff} {
			b := bytes.Clone(whole)
			b[i] ^= mask
			w.put(t, testKey, b)
			mustRefuse(t, w.reader, testKey, KindWAL, fmt.Sprintf("byte %d xor %#x", i, mask))
		}
	}
	for n := range whole {
		w.put(t, testKey, whole[:n])
		mustRefuse(t, w.reader, testKey, KindWAL, fmt.Sprintf("cut to %d bytes", n))
		if n > 0 {
			w.put(t, testKey, whole[n:])
			mustRefuse(t, w.reader, testKey, KindWAL, fmt.Sprintf("without the first %d bytes", n))
		}
	}
	for _, tail := range []string{"\x00", "\n", string(whole), strings.Repeat("x", 2<<20)} {
		w.put(t, testKey, append(bytes.Clone(whole), tail...))
		mustRefuse(t, w.reader, testKey, KindWAL, "lengthened")
	}
	w.put(t, testKey, whole)
	got, _, err := w.reader.ReadEnvelope(t.Context(), testKey, KindWAL, 1<<20)
	if err != nil || string(got) != plain {
		t.Fatalf("the whole object: %q, %v", got, err)
	}
}

// failing is a store whose Open or Create answers with err.
type failing struct {
	storage.Store
	open, create, read error
}

func (f failing) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if f.open != nil {
		return nil, f.open
	}
	rc, err := f.Store.Open(ctx, key, off, n)
	if err == nil && f.read != nil {
		return io.NopCloser(io.MultiReader(io.LimitReader(rc, 600), iotest.ErrReader(f.read))), nil
	}
	return rc, err
}

func (f failing) Create(ctx context.Context, key string, b io.ReadSeeker) error {
	if f.create != nil {
		return f.create
	}
	return f.Store.Create(ctx, key, b)
}

// TestAbsence: fs.ErrNotExist comes out when, and only when, the store says
// that the very object is not there. Recovery ends on it.
func TestAbsence(t *testing.T) {
	w := newWorld(t)
	plain := rand.NewChaCha8([32]byte{}) // does not compress
	_, err := w.writer.CreateEnvelope(t.Context(), testKey, KindWAL, io.LimitReader(plain, 25<<20), 25<<20)
	check(t, err)
	if _, _, err = w.reader.OpenEnvelope(t.Context(), testKey+"2", KindWAL); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing object: %v", err)
	}
	if _, err = w.reader.Header(t.Context(), testKey+"2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing object: %v", err)
	}
	// The spool needs a temporary file, and its directory is missing.
	t.Setenv("TMPDIR", t.TempDir()+"/gone")
	_, _, err = w.reader.OpenEnvelope(t.Context(), testKey, KindWAL)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing temporary directory: %v", err)
	}
	_, err = w.writer.CreateEnvelope(t.Context(), testKey+"3", KindWAL, io.LimitReader(plain, 25<<20), 25<<20)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing temporary directory: %v", err)
	}
	// A connection that breaks with a confusing error.
	r := over(t, w.reader, failing{Store: w.store, read: fmt.Errorf("proxy: %w", fs.ErrNotExist)})
	for name, err := range map[string]error{
		"open":   func() error { _, _, err := r.OpenEnvelope(t.Context(), testKey, KindWAL); return err }(),
		"header": func() error { _, err := r.Header(t.Context(), testKey); return err }(),
		"marker": r.CheckPresent(t.Context()),
	} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a read that breaks: %v", name, err)
		}
	}
	// Taken, and gone when it is looked at.
	r = over(t, w.writer, failing{Store: w.store, create: fs.ErrExist, open: fs.ErrNotExist})
	_, err = r.CreateEnvelope(t.Context(), testKey+"4", KindWAL, strings.NewReader("x"), 1)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted meanwhile: %v", err)
	}
	if err := (&CorruptError{"x", "y", fs.ErrNotExist}); errors.Is(err, fs.ErrNotExist) {
		t.Error("damage counts as absence")
	}
}

func TestReadOnly(t *testing.T) {
	w := newWorld(t)
	noRecipients, err := Open(t.Context(), w.store, Keys{Cluster: w.cluster}, "x")
	check(t, err)
	for _, r := range []*Repo{w.reader, noRecipients} {
		_, err := r.CreateEnvelope(t.Context(), testKey, KindWAL, strings.NewReader("x"), 1)
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("written without keys: %v", err)
		}
	}
	if _, err := w.reader.NewPackWriter(NewPackBuffers(1), Fastest); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a pack without recipients: %v", err)
	}
	if _, err := w.writer.NewPackReader(); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("a pack read without identity: %v", err)
	}
}

// gone fails its n-th write.
type gone struct{ n int }

func (g *gone) Write(p []byte) (int, error) {
	if g.n--; g.n < 0 {
		return 0, errors.New("no space")
	}
	return len(p), nil
}

// After an error no frame is being compressed any more: its buffers go back
// to the pool. The race detector sees one that is.
func TestCompressFramesStopsOnError(t *testing.T) {
	var p slots
	for n := range 5 {
		if _, err := p.compressFrames(&gone{n}, bytes.NewReader(make([]byte, 8*FrameSize)), 0); err == nil {
			t.Error("no error")
		}
		src := io.MultiReader(bytes.NewReader(make([]byte, n*FrameSize)), iotest.ErrReader(errors.New("disk")))
		if _, err := p.compressFrames(io.Discard, src, 0); err == nil {
			t.Error("no error")
		}
		for range 8 {
			s := p.get()
			select {
			case <-s.done:
				t.Fatal("a slot came back in use")
			default:
			}
			clear(s.raw[:cap(s.raw)])
			s.out = append(s.out[:0], 1, 2, 3)
			p.pool.Put(s)
		}
	}
}

func TestFormatsShowNoSecrets(t *testing.T) {
	w := newWorld(t)
	keys := Keys{Cluster: w.cluster, Identities: w.recovery.Identities}
	signing := string(w.cluster.Marshal(""))
	signing = signing[strings.Index(signing, signingPrefix)+len(signingPrefix):][:43]
	var secrets []string
	for _, id := range append(w.cluster.Identities, w.recovery.Identities...) {
		secrets = append(secrets, fmt.Sprint(id))
	}
	secrets = append(secrets, signing, fmt.Sprint([]byte(w.cluster.Signing.key.Seed())[:8]), fmt.Sprintf("%x", w.cluster.Signing.key.Seed()))
	for _, v := range []any{w.cluster, *w.cluster, w.recovery, keys, &keys, w.writer, *w.cluster.Signing, w.cluster.Signing, SigningKey{}, KeyFile{}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T %v"} {
			out := fmt.Sprintf(verb, v)
			if strings.HasPrefix(verb, "%T") {
				out = fmt.Sprintf(verb, v, v)
			}
			for _, s := range secrets {
				if strings.Contains(strings.ToLower(out), strings.ToLower(strings.Trim(s, "[]"))) {
					t.Errorf("%s of %T shows a secret", verb, v)
				}
			}
			if strings.Contains(out, "PANIC") {
				t.Errorf("%s of %T: %s", verb, v, out)
			}
		}
	}
}
