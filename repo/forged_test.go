package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

func TestForgedAndMoved(t *testing.T) {
	w := newWorld(t)
	store := func(w *world, key string, kind Kind, plain string) []byte {
		_, err := w.writer.CreateEnvelope(t.Context(), key, kind, strings.NewReader(plain), int64(len(plain)))
		check(t, err)
		return w.get(t, key)
	}
	a := store(w, "wal/a", KindWAL, "content a")
	b := store(w, "wal/b", KindWAL, "content b")
	store(w, "wal/m", KindManifest, "metadata")

	// The same cluster key in another repository, and another cluster's key.
	twin := *w.cluster
	twin.Repository = NewID()
	sister := newWorldOf(t, &twin)
	fromSister := store(sister, "wal/a", KindWAL, "content a")
	stranger := newWorld(t)
	fromStranger := store(stranger, "wal/a", KindWAL, "content a")

	split := func(o []byte) (head, body []byte) {
		i := bytes.IndexByte(o, '\n') + 1
		return o[:i], o[i:]
	}
	headA, bodyA := split(a)
	headB, bodyB := split(b)
	resigned := func(change func(*Header)) []byte {
		h, _, err := parseHeader(headA)
		check(t, err)
		change(&h)
		h.sign(*stranger.cluster.Signing, w.writer.marker.Repository, "wal/a")
		return append(h.line(), bodyA...)
	}
	for name, object := range map[string][]byte{
		"moved":                       b,
		"of another repository":       fromSister,
		"of another cluster":          fromStranger,
		"another's header":            append(bytes.Clone(headB), bodyA...),
		"another's body":              append(bytes.Clone(headA), bodyB...),
		"two headers":                 append(bytes.Clone(headA), a...),
		"only the header":             headA,
		"only the body":               bodyA,
		"empty":                       {},
		"signed by a stranger":        resigned(func(*Header) {}),
		"signed by a stranger, as us": bytes.Replace(resigned(func(*Header) {}), []byte(stranger.cluster.Signing.Public().ID()), []byte(w.cluster.Signing.Public().ID()), 1),
		"a plain age file":            sealPlain(t, w, "content a"),
		"a huge size":                 resigned(func(h *Header) { h.Size = maxPlain }),
		"a header without an end":     bytes.Repeat([]byte("lifeboat/1 "), 200),
		"CRLF":                        append(append(bytes.Clone(headA[:len(headA)-1]), "\r\n"...), bodyA...),
		"a blank more":                append([]byte(" "), a...),
		"a double blank":              bytes.Replace(a, []byte(" kind"), []byte("  kind"), 1),
		"a field more":                bytes.Replace(a, []byte(" sig="), []byte(" x=y sig="), 1),
		"a sign before the size":      bytes.Replace(a, []byte("size="), []byte("size=+"), 1),
		"a zero before the size":      bytes.Replace(a, []byte("size="), []byte("size=0"), 1),
		"magic of another version":    bytes.Replace(a, []byte("lifeboat/1"), []byte("lifeboat/2"), 1),
		"upper-case digits":           upperHex(a),
	} {
		w.put(t, "wal/a", object)
		mustRefuse(t, w.reader, "wal/a", KindWAL, name)
		if _, err := w.writer.Header(t.Context(), "wal/a"); !refused(err) && name != "another's body" && name != "only the header" && name != "two headers" {
			t.Errorf("%s: the header is taken: %v", name, err)
		}
	}
	w.put(t, "wal/a", a)
	mustRefuse(t, w.reader, "wal/a", KindManifest, "asked for as another kind")
	mustRefuse(t, w.reader, "wal/m", KindWAL, "asked for as WAL")
	// Who does not trust the signer sees nothing either.
	distrust, err := Open(t.Context(), stranger.store, Keys{Identities: w.recovery.Identities, Trusted: stranger.cluster.Signers}, "x")
	check(t, err)
	distrust.store, distrust.marker = w.store, w.reader.marker
	mustRefuse(t, distrust, "wal/a", KindWAL, "untrusted signer")
}

func upperHex(object []byte) []byte {
	i := bytes.Index(object, []byte("sha256=")) + 7
	return append(append(bytes.Clone(object[:i]), bytes.ToUpper(object[i:i+64])...), object[i+64:]...)
}

func sealPlain(t *testing.T, w *world, plain string) []byte {
	var b bytes.Buffer
	a, err := age.Encrypt(&b, recipientsOf(t, w.recovery)...)
	check(t, err)
	z, err := zstd.NewWriter(a)
	check(t, err)
	_, err = io.WriteString(z, plain)
	check(t, err)
	check(t, z.Close())
	check(t, a.Close())
	return b.Bytes()
}

// signed makes an envelope of any body, as a holder of the cluster key can.
func (w *world) signed(t *testing.T, key string, kind Kind, plain []byte, claim func(*Header)) []byte {
	t.Helper()
	return w.signedTo(t, w.writer.metadata, key, kind, plain, claim)
}

func (w *world) signedTo(t *testing.T, to []age.Recipient, key string, kind Kind, plain []byte, claim func(*Header)) []byte {
	t.Helper()
	var b bytes.Buffer
	a, err := age.Encrypt(&b, to...)
	check(t, err)
	_, err = a.Write(plain)
	check(t, err)
	check(t, a.Close())
	sum := sha256.Sum256(b.Bytes())
	h := Header{Kind: kind, SHA256: strings.Repeat("0", 64), Sealed: hex.EncodeToString(sum[:]), Host: "evil"}
	claim(&h)
	h.sign(*w.cluster.Signing, w.writer.marker.Repository, key)
	return append(h.line(), b.Bytes()...)
}

// Signed objects that lie: what a stolen cluster key can make.
func TestSignedLies(t *testing.T) {
	w := newWorld(t)
	zeros := bytes.Repeat(newEncoder(Fastest).EncodeAll(make([]byte, FrameSize), nil), 64)
	for name, c := range map[string]struct {
		body []byte
		size int64
	}{
		"a zstd bomb":          {zeros, 1000},
		"a bomb of full size":  {zeros, 64 << 20},
		"shorter than claimed": {newEncoder(Fastest).EncodeAll([]byte("abc"), nil), 4},
		"other bytes":          {newEncoder(Fastest).EncodeAll([]byte("abc"), nil), 3},
		"not zstd":             {[]byte("abc"), 3},
		"nothing":              {nil, 3},
		"bytes after zstd":     {append(newEncoder(Fastest).EncodeAll([]byte("abc"), nil), "tail"...), 3},
		"a huge window":        {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xb0, 0x01, 0, 0}, 3},
	} {
		w.put(t, "x/m", w.signed(t, "x/m", KindManifest, c.body, func(h *Header) { h.Size = c.size }))
		_, rc, err := w.reader.OpenEnvelope(t.Context(), "x/m", KindManifest)
		n := int64(0)
		if err == nil {
			n, err = io.Copy(io.Discard, rc)
			rc.Close()
		}
		if !refused(err) || n > c.size+1<<17 {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
	// What is larger than expected is refused before it is fetched.
	w.put(t, "x/m", w.signed(t, "x/m", KindManifest, nil, func(h *Header) { h.Size = maxPlain }))
	mustRefuse(t, w.reader, "x/m", KindManifest, "a huge size")
}

// A small object of any kind that a holder of the cluster key has signed ends with an
// error, and takes little memory, whatever it unpacks to and says of itself.
func TestBombs(t *testing.T) {
	w := newWorld(t)
	label := testLabel
	packs := func(ctx context.Context, r *Repo, key string) error {
		m, err := r.OpenManifest(ctx, label)
		if err == nil {
			m.Close()
		}
		return err
	}
	stream := func(kind Kind) func(context.Context, *Repo, string) error {
		return func(ctx context.Context, r *Repo, key string) error {
			_, rc, err := r.OpenEnvelope(ctx, key, kind)
			if err == nil {
				_, err = io.Copy(io.Discard, rc)
				rc.Close()
			}
			return err
		}
	}
	whole := func(kind Kind, limit int64) func(context.Context, *Repo, string) error {
		return func(ctx context.Context, r *Repo, key string) error {
			_, _, err := r.ReadEnvelope(ctx, key, kind, limit)
			return err
		}
	}
	kinds := map[Kind]struct {
		key   string
		plain string // what there may be any number of
		open  func(context.Context, *Repo, string) error
	}{
		KindManifest:     {ManifestKey(label), " ", packs},
		KindInfo:         {InfoKey(label), `"",`, func(ctx context.Context, r *Repo, _ string) error { _, err := r.InfoObject(ctx, label); return err }},
		KindFingerprints: {FingerprintsKey(label), `{},`, whole(KindFingerprints, 32<<20)},
		KindAdoption:     {AdoptionKey(label), `"",`, func(ctx context.Context, r *Repo, _ string) error { _, err := r.Adoption(ctx, label); return err }},
		KindPart:         {PartKey(label, 1), `{},`, func(ctx context.Context, r *Repo, _ string) error { _, err := r.Part(ctx, label, 1); return err }},
		KindBlocks:       {BlocksKey(1, 1, 1, 2), `{},`, whole(KindBlocks, 16<<20)},
		KindPin:          {pinKey(label, 1), `"",`, func(ctx context.Context, r *Repo, _ string) error { _, err := r.readPin(ctx, label, 1); return err }},
		KindCheck:        {"checks/x/summary", `{},`, whole(KindCheck, 8<<20)},
		KindWAL:          {"wal/1/00000001/000000010000000000000001", "0", stream(KindWAL)},
		KindSystem:       {SystemKey(1), `{},`, stream(KindSystem)},
	}
	for _, k := range allKinds(t) {
		if _, there := kinds[k]; !there {
			t.Errorf("no bomb of kind %s", k)
		}
	}
	const expanded, most = 256 << 20, 160 << 20
	for kind, c := range kinds {
		var bomb bytes.Buffer
		z, err := zstd.NewWriter(&bomb, zstd.WithEncoderLevel(zstd.SpeedFastest))
		check(t, err)
		piece := bytes.Repeat([]byte(c.plain), 1<<20/len(c.plain))
		for n := 0; n < expanded; n += len(piece) {
			_, err = z.Write(piece)
			check(t, err)
		}
		check(t, z.Close())
		// It says that it is small, or just as large as may be, or what it is.
		for _, size := range []int64{3, 1 << 20, 32 << 20, expanded, maxPlain} {
			to := w.writer.metadata
			if kind == KindWAL {
				to = w.writer.keys.Recipients
			}
			w.put(t, c.key, w.signedTo(t, to, c.key, kind, bomb.Bytes(), func(h *Header) { h.Size = size }))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := c.open(t.Context(), w.reader, c.key)
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; !refused(err) || took > most {
				t.Errorf("%s of %d bytes that says %d: %d MiB, %v", kind, bomb.Len(), size, took>>20, err)
			}
		}
	}
}

// allKinds are the kinds of envelopes, from the source.
func allKinds(t *testing.T) []Kind {
	t.Helper()
	source, err := os.ReadFile("header.go")
	check(t, err)
	var out []Kind
	for _, m := range regexp.MustCompile(`Kind = "([a-z]+)"`).FindAllSubmatch(source, -1) {
		out = append(out, Kind(m[1]))
	}
	if len(out) < 10 {
		t.Fatalf("%d kinds", len(out))
	}
	return out
}

// An age header that goes on for ever is given up.
func TestLongAgeHeader(t *testing.T) {
	w := newWorld(t)
	var sealed bytes.Buffer
	sealed.WriteString("age-encryption.org/v1\n")
	sealed.WriteString("-> x\n")
	for sealed.Len() < 4<<20 {
		sealed.WriteString(strings.Repeat("A", 64) + "\n") // one recipient whose line never ends
	}
	sum := sha256.Sum256(sealed.Bytes())
	h := Header{Kind: KindPin, SHA256: strings.Repeat("0", 64), Size: 4 << 20, Sealed: hex.EncodeToString(sum[:]), Host: "evil"}
	h.sign(*w.cluster.Signing, w.writer.marker.Repository, "x/m")
	w.put(t, "x/m", append(h.line(), sealed.Bytes()...))
	_, _, err := w.reader.OpenEnvelope(t.Context(), "x/m", KindPin)
	if !refused(err) || !errors.Is(err, errLongHead) {
		t.Errorf("%v", err)
	}
}

// A key that is another cluster's is told as such. It stays an error of trust,
// and a file that says nothing of itself, or names this repository, explains
// nothing.
func TestOtherKey(t *testing.T) {
	w, stranger := newWorld(t), newWorld(t)
	open := func(file *KeyFile) error {
		keys := Keys{Identities: stranger.recovery.Identities, Trusted: stranger.cluster.Signers, IdentityFile: file}
		_, err := Open(t.Context(), w.store, keys, "x")
		return err
	}
	facts := func(cluster, repository string) *KeyFile { return &KeyFile{Cluster: cluster, Repository: repository} }
	ours, theirs := w.cluster, stranger.cluster
	for _, c := range []struct {
		file *KeyFile
		told bool
	}{
		{nil, false},
		{facts("", ""), false},
		{facts(ours.Cluster, ours.Repository), false},
		{facts(ours.Cluster, theirs.Repository), true},
		{facts("orders", theirs.Repository), true},
	} {
		err := open(c.file)
		_, told := errors.AsType[*OtherKeyError](err)
		if _, untrusted := errors.AsType[*UntrustedError](err); !untrusted || told != c.told {
			t.Errorf("with the file of %+v: %v; told as another's key: %t, want %t", c.file, err, told, c.told)
		}
	}
}

// What a note or an info record lists is counted before it is parsed.
func TestCountedBeforeParsed(t *testing.T) {
	w := newWorld(t)
	store := func(key string, kind Kind, text string) {
		_, err := w.writer.CreateEnvelope(t.Context(), key, kind, strings.NewReader(text), int64(len(text)))
		check(t, err)
	}
	store(PartKey(testLabel, 1), KindPart, `{"files":[`+strings.Repeat("{},", maxPartFiles)+"{}]}")
	if _, err := w.reader.Part(t.Context(), testLabel, 1); !errors.Is(err, ErrPartTooLarge) {
		t.Errorf("a note: %v", err)
	}
	store(InfoKey(testLabel), KindInfo, `{"recipients":[`+strings.Repeat(`"",`, maxInfoTexts)+`""]}`)
	if _, err := w.reader.InfoObject(t.Context(), testLabel); err == nil || !strings.Contains(err.Error(), "strings") {
		t.Errorf("an info record: %v", err)
	}
}
