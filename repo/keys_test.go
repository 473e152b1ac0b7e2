package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

func TestKeyFileRoundTrip(t *testing.T) {
	cluster, err := NewClusterKey("shop", NewID())
	check(t, err)
	recovery, err := NewRecoveryKey(cluster)
	check(t, err)
	alone, err := NewRecoveryKey(nil)
	check(t, err)
	for name, k := range map[string]*KeyFile{"cluster": cluster, "recovery": recovery, "alone": alone} {
		raw := k.Marshal("Made for tests.\nKeep it safe.")
		got, err := ParseKeyFile(bytes.NewReader(raw))
		check(t, err)
		if !bytes.Equal(got.Marshal("Made for tests.\nKeep it safe."), raw) {
			t.Errorf("%s: another file came back", name)
		}
		if got.Cluster != k.Cluster || got.Repository != k.Repository || !slices.Equal(got.Recipients(), k.Recipients()) {
			t.Errorf("%s: %v", name, got)
		}
		// The age tool reads it too.
		if ids, err := age.ParseIdentities(bytes.NewReader(plainAge(raw))); err != nil || len(ids) != len(k.Identities) {
			t.Errorf("%s: age reads %d identities, %v", name, len(ids), err)
		}
		// Windows line ends, blanks, no end of line.
		for _, other := range []string{strings.ReplaceAll(string(raw), "\n", "\r\n"), "\n\n " + strings.ReplaceAll(string(raw), "\n", " \n  ") + "\n", strings.TrimSpace(string(raw))} {
			got, err := ParseKeyFile(strings.NewReader(other))
			if err != nil || !slices.Equal(got.Recipients(), k.Recipients()) {
				t.Errorf("%s: with other white space: %v", name, err)
			}
		}
	}
	if len(recovery.Signers) != 1 || !recovery.Signers[0].Equal(cluster.Signing.Public()) || recovery.Signing != nil {
		t.Error("the recovery key is no anchor, or more")
	}
}

// plainAge is the file without the line that only we know.
func plainAge(raw []byte) []byte {
	var out []byte
	for line := range bytes.Lines(raw) {
		if !bytes.HasPrefix(line, []byte(signingPrefix)) {
			out = append(out, line...)
		}
	}
	return out
}

func TestPlainAgeFile(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	check(t, err)
	k, err := ParseKeyFile(strings.NewReader("# created: 2026-01-31T02:00:00Z\n# public key: " + id.Recipient().String() + "\n" + id.String() + "\n"))
	check(t, err)
	if k.Cluster != "" || len(k.Signers) != 0 || !slices.Equal(k.Recipients(), []string{id.Recipient().String()}) {
		t.Errorf("%v", k)
	}
}

func TestKeyFileRefused(t *testing.T) {
	cluster, err := NewClusterKey("shop", NewID())
	check(t, err)
	other, err := NewClusterKey("bank", NewID())
	check(t, err)
	good := string(cluster.Marshal("x"))
	secret := fmt.Sprint(cluster.Identities[1])
	swap := func(old, new string) string {
		out := strings.Replace(good, old, new, 1)
		if out == good {
			t.Fatalf("no %q", old)
		}
		return out
	}
	for name, text := range map[string]string{
		"empty":                   "",
		"only comments":           "# lifeboat-cluster: shop\n# x\n",
		"garbage":                 "SUPERSECRET " + secret,
		"a damaged identity":      swap(secret, secret[:len(secret)-1]+"x"),
		"a cut identity":          swap(secret, secret[:30]),
		"identity in a fact":      swap("shop", secret),
		"identity as repository":  swap(cluster.Repository, secret),
		"identity as signer":      swap("ed25519:", secret),
		"identity as fact's name": "# lifeboat-cluster " + secret + "\n" + swap("shop", secret),
		"a damaged signing key":   swap(signingPrefix, signingPrefix+"A"),
		"a second signing key":    good + string(other.Marshal("")),
		"a second cluster":        good + "# lifeboat-cluster: bank\n",
		"a second repository":     good + "# lifeboat-repository: " + other.Repository + "\n",
		"a foreign signer":        swap(cluster.Signers[0].String(), other.Signers[0].String()),
		"a cluster in capitals":   swap("shop", "Shop"),
		"too long":                good + strings.Repeat("# x\n", maxKeyFile/4),
		"one long line":           strings.Repeat("x", maxKeyFile-1),
		"binary":                  "\x7fELF\x00\xff" + secret,
	} {
		_, err := ParseKeyFile(strings.NewReader(text))
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		for n := 12; n < len(secret)-8; n++ {
			if strings.Contains(err.Error(), secret[n:n+8]) || strings.Contains(err.Error(), "SUPERSECRET") {
				t.Errorf("%s: the error shows the line: %v", name, err)
				break
			}
		}
	}
	// Two recovery keys of one cluster in one file are fine.
	a, err := NewRecoveryKey(cluster)
	check(t, err)
	b, err := NewRecoveryKey(cluster)
	check(t, err)
	k, err := ParseKeyFile(strings.NewReader(string(a.Marshal("")) + string(b.Marshal(""))))
	if err != nil || len(k.Identities) != 2 || len(k.Signers) != 1 {
		t.Errorf("two recovery keys: %v, %v", k, err)
	}
}

func TestParseRecipientAndSigner(t *testing.T) {
	w := newWorld(t)
	secret := fmt.Sprint(w.recovery.Identities[0])
	for _, s := range []string{"", "x", secret, strings.ToLower(secret), "age1" + secret, w.recovery.Recipients()[0] + "\n" + w.recovery.Recipients()[0],
		"# comment", w.recovery.Recipients()[0][:100], "ed25519:" + secret, "ed25519:AAAA", secret + "\n"} {
		_, err := ParseRecipient(s)
		_, err2 := ParsePublicKey(s)
		if err == nil || err2 == nil {
			t.Errorf("%.20q was taken", s)
			continue
		}
		if both := err.Error() + err2.Error(); strings.Contains(strings.ToUpper(both), secret[20:40]) {
			t.Errorf("the error shows %.20q", s)
		}
	}
	if _, err := ParseRecipient(" " + w.recovery.Recipients()[0] + "\n"); err != nil {
		t.Error(err)
	}
	signer := w.cluster.Signers[0].String()
	k, err := ParsePublicKey(signer)
	if err != nil || !k.Equal(w.cluster.Signers[0]) || k.String() != signer {
		t.Errorf("signer: %v, %v", k, err)
	}
	// The last character has unused bits: only one form is taken.
	last := signer[len(signer)-1]
	for c := byte('A'); c <= 'z'; c++ {
		if got, err := ParsePublicKey(signer[:len(signer)-1] + string(c)); err == nil && c != last && got.Equal(k) {
			t.Errorf("two forms of one key: %c and %c", last, c)
		}
	}
}

func TestRecipientsMixed(t *testing.T) {
	w := newWorld(t)
	id, err := age.GenerateX25519Identity()
	check(t, err)
	mixed := append(recipientsOf(t, w.recovery), id.Recipient())
	for _, rs := range [][]age.Recipient{mixed, {mixed[1], mixed[0]}, make20(t, w)} {
		if _, err := Open(t.Context(), w.store, Keys{Cluster: w.cluster, Recipients: rs}, "x"); err == nil {
			t.Errorf("%d recipients were taken", len(rs))
		}
	}
	// Classic alone is fine, and metadata is sealed to the classic identity.
	r, err := Open(t.Context(), w.store, Keys{Cluster: w.cluster, Recipients: []age.Recipient{id.Recipient()}}, "x")
	check(t, err)
	_, err = r.CreateEnvelope(t.Context(), "x/m", KindManifest, strings.NewReader("plain"), 5)
	check(t, err)
	got, _, err := r.ReadEnvelope(t.Context(), "x/m", KindManifest, 5)
	if err != nil || string(got) != "plain" {
		t.Errorf("classic metadata: %q, %v", got, err)
	}
	// A cluster key without an identity of that kind cannot write.
	lame := *w.cluster
	lame.Identities = lame.Identities[:1]
	if _, err := Open(t.Context(), w.store, Keys{Cluster: &lame, Recipients: []age.Recipient{id.Recipient()}}, "x"); err == nil {
		t.Error("a cluster key of the other kind was taken")
	}
}

func make20(t *testing.T, w *world) []age.Recipient {
	return recipients(t, w.recovery, MaxRecipients+1, true)
}

func TestMarker(t *testing.T) {
	w := newWorld(t)
	whole := w.get(t, MarkerKey)
	open := func(k Keys) error {
		_, err := Open(t.Context(), w.store, k, "x")
		return err
	}
	// Each byte, each cut.
	for i := range whole {
		for _, mask := range []byte{0x01, 0x20, 0x80, 0xff} {
			b := bytes.Clone(whole)
			b[i] ^= mask
			w.put(t, MarkerKey, b)
			err := open(w.readerKeys())
			var format *FormatError
			if !refused(err) && !errors.As(err, &format) {
				t.Errorf("byte %d xor %#x: %v", i, mask, err)
			}
		}
	}
	for n := range whole {
		w.put(t, MarkerKey, whole[:n])
		if err := open(w.readerKeys()); !refused(err) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for name, b := range map[string][]byte{
		"a space more":  append(bytes.Clone(whole), ' '),
		"doubled":       append(bytes.Clone(whole), whole...),
		"a field more":  bytes.Replace(whole, []byte(`,"signature"`), []byte(`,"x":1,"signature"`), 1),
		"a field twice": bytes.Replace(whole, []byte(`,"signature"`), []byte(`,"marker":{},"signature"`), 1),
		"huge":          append(bytes.Clone(whole), bytes.Repeat([]byte(" "), maxMarker)...),
		"deep":          bytes.Repeat([]byte("["), maxMarker-1),
	} {
		w.put(t, MarkerKey, b)
		if err := open(w.readerKeys()); !refused(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.put(t, MarkerKey, whole)
	check(t, open(w.readerKeys()))
	check(t, w.reader.CheckPresent(t.Context()))
	m, err := ReadMarker(t.Context(), w.store)
	if err != nil || m != w.reader.Marker() || m.Cluster != "shop" {
		t.Errorf("marker %+v, %v", m, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	renamed := *w.cluster
	renamed.Cluster = "bank"
	elsewhere := *w.cluster
	elsewhere.Repository = NewID()
	impostor := Marker{Format: 1, Repository: w.cluster.Repository, Cluster: "shop", Created: testTime, Signer: w.cluster.Signers[0].String()}
	forged := mem.New()
	check(t, forged.Create(t.Context(), MarkerKey, bytes.NewReader(impostor.marshal(*other.cluster.Signing))))
	newer := mem.New()
	impostor.Format = 2
	check(t, newer.Create(t.Context(), MarkerKey, bytes.NewReader(impostor.marshal(*w.cluster.Signing))))

	var foreign *ForeignError
	var untrusted *UntrustedError
	var format *FormatError
	for name, c := range map[string]struct {
		store *mem.Store
		keys  Keys
		want  func(error) bool
	}{
		"no repository":      {mem.New(), w.readerKeys(), func(err error) bool { return errors.Is(err, ErrNoRepository) && !errors.Is(err, fs.ErrNotExist) }},
		"no anchor":          {w.store, Keys{Identities: w.recovery.Identities}, func(err error) bool { return errors.Is(err, ErrNoTrust) }},
		"no keys":            {w.store, Keys{}, func(err error) bool { return errors.Is(err, ErrNoTrust) }},
		"an empty anchor":    {w.store, Keys{Trusted: []PublicKey{{}}}, func(err error) bool { return err != nil }},
		"another cluster":    {w.store, Keys{Cluster: &renamed}, func(err error) bool { return errors.As(err, &foreign) && foreign.What == "cluster" }},
		"another repository": {w.store, Keys{Cluster: &elsewhere}, func(err error) bool { return errors.As(err, &foreign) && foreign.What == "repository" }},
		"another's anchor":   {w.store, other.readerKeys(), func(err error) bool { return errors.As(err, &untrusted) }},
		"a forged marker":    {forged, w.readerKeys(), func(err error) bool { return errors.As(err, &untrusted) }},
		"a newer format":     {newer, w.readerKeys(), func(err error) bool { return errors.As(err, &format) && format.Have == 2 }},
	} {
		if _, err := Open(t.Context(), c.store, c.keys, "x"); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The marker vanishes, or another takes its place.
	check(t, w.store.Delete(t.Context(), MarkerKey))
	if err := w.reader.CheckPresent(t.Context()); !errors.Is(err, ErrNoRepository) {
		t.Errorf("without a marker: %v", err)
	}
	w.put(t, MarkerKey, other.get(t, MarkerKey))
	if err := w.reader.CheckPresent(t.Context()); !errors.As(err, &foreign) {
		t.Errorf("with another marker: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	w := newWorld(t)
	if _, err := Create(t.Context(), w.store, w.writerKeys(t), "x", testTime); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	id, err := age.GenerateX25519Identity()
	check(t, err)
	bad := *w.cluster
	bad.Repository = "x"
	nameless := *w.cluster
	nameless.Cluster = ""
	for name, keys := range map[string]Keys{
		"no cluster key":   w.readerKeys(),
		"mixed recipients": {Cluster: w.cluster, Recipients: append(recipientsOf(t, w.recovery), id.Recipient())},
		"a bad id":         {Cluster: &bad},
		"no name":          {Cluster: &nameless},
		"a recovery key":   {Cluster: w.recovery},
		"an empty anchor":  {Cluster: w.cluster, Trusted: []PublicKey{{}}},
	} {
		s := mem.New()
		if _, err := Create(t.Context(), s, keys, "x", testTime); err == nil {
			t.Errorf("%s: created", name)
		}
		for info := range s.List(t.Context(), "") {
			t.Errorf("%s: %s was written", name, info.Key)
		}
	}
}

func TestSystems(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		check(t, w.writer.RegisterSystem(t.Context(), 7000000000000000001, []byte(fmt.Sprint("note ", NewID()))))
	}
	check(t, w.writer.RegisterSystem(t.Context(), 7000000000000000002, []byte("note")))
	for _, junk := range []string{"systems/x", "systems/07000000000000000001", "systems/7000000000000000003/x"} {
		w.put(t, junk, []byte("x"))
	}
	got, err := w.reader.Systems(t.Context())
	if err != nil || len(got) != 2 || got[0] != 7000000000000000001 || got[1] != 7000000000000000002 {
		t.Errorf("systems: %v, %v", got, err)
	}
	w.put(t, SystemKey(7000000000000000002), []byte("forged"))
	if err := w.writer.RegisterSystem(t.Context(), 7000000000000000002, []byte("note")); !refused(err) {
		t.Errorf("onto a forged one: %v", err)
	}
}

func FuzzParseHeader(f *testing.F) {
	w := newWorld(f)
	_, err := w.writer.CreateEnvelope(f.Context(), testKey, KindWAL, strings.NewReader("x"), 1)
	check(f, err)
	object := w.get(f, testKey)
	line := object[:bytes.IndexByte(object, '\n')+1]
	f.Add(object)
	f.Add(line)
	f.Add(bytes.Replace(line, []byte("size=1"), []byte("size=9223372036854775807"), 1))
	f.Add(bytes.Replace(line, []byte(" "), []byte("\t"), 1))
	f.Add([]byte(magic + " kind= sha256= size= sealed= host= signer= sig=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := parseHeader(b)
		if err != nil {
			return
		}
		if !bytes.Equal(h.line(), b[:n]) {
			t.Errorf("%q is written as %q", b[:n], h.line())
		}
		if h.Size < 0 || h.Size > maxPlain || len(h.sig) != 64 || cleanText(string(b[:n-1])) != string(b[:min(n-1, 200)]) {
			t.Errorf("%+v", h)
		}
	})
}

func FuzzParseKeyFile(f *testing.F) {
	cluster, err := NewClusterKey("shop", NewID())
	check(f, err)
	f.Add(cluster.Marshal("a comment"))
	recovery, err := NewRecoveryKey(cluster)
	check(f, err)
	f.Add(recovery.Marshal(""))
	f.Add([]byte("# lifeboat-signer: ed25519:AAAA\nAGE-SECRET-KEY-1"))
	f.Add([]byte(signingPrefix + "AAAA"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKeyFile(bytes.NewReader(b))
		if err != nil {
			if len(err.Error()) > 200 {
				t.Errorf("a long error: %v", err)
			}
			return
		}
		again, err := ParseKeyFile(bytes.NewReader(k.Marshal("x")))
		if err != nil || !bytes.Equal(again.Marshal("x"), k.Marshal("x")) {
			t.Errorf("written and read again: %v", err)
		}
	})
}

func FuzzMarker(f *testing.F) {
	w := newWorld(f)
	whole := w.get(f, MarkerKey)
	f.Add(whole)
	f.Add([]byte(`{"marker":{"format":1},"signature":""}` + "\n"))
	f.Add([]byte(`{"marker":null,"signature":"x"}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, s, err := parseMarker(b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.bytes(), b) {
			t.Errorf("%q is written as %q", b, s.bytes())
		}
		if s.verify(m, w.reader.trusted) == nil && !bytes.Equal(b, whole) {
			t.Errorf("another marker holds: %q", b)
		}
	})
}

// FuzzPack opens any bytes as a pack.
func FuzzPack(f *testing.F) {
	w := newWorld(f)
	id, err := age.GenerateX25519Identity()
	check(f, err)
	writer, err := Open(f.Context(), w.store, Keys{Cluster: w.cluster, Recipients: []age.Recipient{id.Recipient()}}, "x")
	check(f, err)
	p := storePack(f, writer, nil, 100, func(i int) []byte { return []byte(fmt.Sprint("frame ", i)) })
	whole := w.get(f, PackKey(p.ID))
	f.Add(whole, p.Head, p.frames[0].At, p.frames[0].Len, p.frames[0].Raw)
	f.Add(whole[:p.Head], p.Head-1, int64(0), 1, 1)
	f.Add([]byte("age-encryption.org/v1\n-> X25519 x\n"), int64(3), int64(1), 2, 3)
	reader, err := Open(f.Context(), w.store, Keys{Identities: []age.Identity{id}, Trusted: w.cluster.Signers}, "x")
	check(f, err)
	pr, err := reader.NewPackReader()
	check(f, err)
	f.Fuzz(func(t *testing.T, b []byte, head, at int64, length, raw int) {
		ref := PackRef{ID: p.ID, Size: int64(len(b)), Head: head}
		frame := FrameRef{At: at, Len: length, Raw: raw, Sum: p.frames[0].Sum}
		w.put(t, PackKey(p.ID), b)
		pack, err := reader.FetchPack(t.Context(), ref, []FrameRef{frame})
		if err != nil {
			return
		}
		got, err := pr.Frame(pack, frame)
		if err == nil && !bytes.Equal(got, p.raws[0]) {
			t.Errorf("other bytes came out: %q", got)
		}
	})
}
