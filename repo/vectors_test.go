package repo

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// The vectors in testdata/format/v1 pin single objects of format 1, good and
// bad ones. Each is a text header, a blank line and the bytes. They were made
// once and are never made again: what is in them must be read for ever.

const vectorDir = "../testdata/format/v1"

type vector struct {
	name string
	head map[string]string
	body []byte
}

func readVectors(t *testing.T) []vector {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(vectorDir, "*.vector"))
	check(t, err)
	var out []vector
	for _, name := range names {
		raw, err := os.ReadFile(name)
		check(t, err)
		v := vector{name: strings.TrimSuffix(filepath.Base(name), ".vector"), head: map[string]string{}}
		r := bufio.NewReader(bytes.NewReader(raw))
		for {
			line, err := r.ReadString('\n')
			check(t, err)
			if line == "\n" {
				break
			}
			k, val, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			if !ok {
				t.Fatalf("%s: header line %q", name, line)
			}
			v.head[k] = val
		}
		v.body, err = io.ReadAll(r)
		check(t, err)
		out = append(out, v)
	}
	return out
}

func readKeys(t testing.TB, name string) *KeyFile {
	t.Helper()
	f, err := os.Open(name)
	check(t, err)
	defer f.Close()
	k, err := ParseKeyFile(f)
	check(t, err)
	return k
}

// class is how the vectors name an error.
func class(err error) string {
	var corrupt *CorruptError
	var untrusted *UntrustedError
	var format *FormatError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &untrusted):
		return "untrusted"
	case errors.As(err, &format):
		return "format"
	case errors.As(err, &corrupt):
		return "corrupt"
	case errors.Is(err, ErrWrongIdentity):
		return "wrong identity"
	}
	return "error"
}

// vectorRepo is the repository that the vectors were made for, over an empty
// store.
func vectorRepo(t *testing.T) *Repo {
	t.Helper()
	recovery := readKeys(t, filepath.Join(vectorDir, "keys", "recovery.key"))
	r, err := newRepo(mem.New(), Marker{Format: 1, Repository: recovery.Repository, Cluster: recovery.Cluster},
		Keys{Identities: recovery.Identities, Trusted: recovery.Signers}, "vectors")
	check(t, err)
	return r
}

func TestVectors(t *testing.T) {
	vectors := readVectors(t)
	seen := map[string]bool{}
	for _, v := range vectors {
		got, err := v.open(t)
		if class(err) != v.head["expect"] {
			t.Errorf("%s: %v, expected %s", v.name, err, v.head["expect"])
		}
		if sum := sha256.Sum256(got); err == nil && hex.EncodeToString(sum[:]) != v.head["sha256"] {
			t.Errorf("%s: other content: %.200q", v.name, got)
		}
		seen[v.head["what"]+" "+v.head["expect"]] = true
	}
	for _, what := range []string{"header", "envelope", "marker", "keyfile", "pack", "manifest", "statement"} {
		if !seen[what+" ok"] || !seen[what+" corrupt"] && !seen[what+" error"] {
			t.Errorf("no good or no bad vector of a %s among %d", what, len(vectors))
		}
	}
}

// open reads the vector and returns what is in it, as the vectors' sha256
// takes it.
func (v vector) open(t *testing.T) ([]byte, error) {
	t.Helper()
	r := vectorRepo(t)
	put := func(key string) {
		check(t, r.store.Create(t.Context(), key, bytes.NewReader(v.body)))
	}
	switch v.head["what"] {
	case "header":
		put(v.head["key"])
		h, err := r.Header(t.Context(), v.head["key"])
		return h.line(), err
	case "envelope":
		put(v.head["key"])
		plain, _, err := r.ReadEnvelope(t.Context(), v.head["key"], Kind(v.head["kind"]), 1<<20)
		return plain, err
	case "marker":
		put(MarkerKey)
		r, err := Open(t.Context(), r.store, r.keys, "x")
		if err != nil {
			return nil, err
		}
		return json.Marshal(r.Marker())
	case "statement":
		return openStatement(v, r)
	case "keyfile":
		k, err := ParseKeyFile(bytes.NewReader(v.body))
		if err != nil {
			return nil, err
		}
		return fmt.Appendf(nil, "%q %q %q %q", k.Cluster, k.Repository, k.Signers, k.Recipients()), nil
	case "pack":
		var e PackEntry
		check(t, json.Unmarshal([]byte(v.head["entry"]), &e))
		put(PackKey(e.ID))
		return readPack(t, r, e)
	case "manifest":
		m := newManifestReader("manifest", nopCloser{bytes.NewReader(v.body)})
		var read []FileEntry
		if err := readHead(m, r, v.head["label"], func(_ int, f FileEntry) { read = append(read, f) }); err != nil {
			return nil, err
		}
		var out bytes.Buffer
		for p, err := range m.Packs() {
			if err != nil {
				return nil, err
			}
			// The fields that there were when the vectors were made.
			fmt.Fprintln(&out, struct {
				PackRef
				Frames []FrameEntry
			}{p.PackRef, p.Frames})
		}
		type file struct {
			Type    FileType
			Path    string
			Mode    uint32
			Size    int64
			ModTime time.Time
		}
		var files []file
		for _, f := range read {
			files = append(files, file{f.Type, f.Path, f.Mode, f.Size, f.ModTime})
		}
		return fmt.Append(out.Bytes(), m.Info.Label, files), nil
	}
	t.Fatalf("%s: what is %q?", v.name, v.head["what"])
	return nil, nil
}

func readPack(t *testing.T, r *Repo, e PackEntry) ([]byte, error) {
	var refs []FrameRef
	for _, f := range e.Frames {
		refs = append(refs, f.FrameRef)
	}
	p, err := r.FetchPack(t.Context(), e.PackRef, refs)
	if err != nil {
		return nil, err
	}
	pr, err := r.NewPackReader()
	check(t, err)
	defer pr.Close()
	var out []byte
	for _, f := range refs {
		raw, err := pr.Frame(p, f)
		if err != nil {
			return nil, err
		}
		out = append(out, raw...)
	}
	return out, nil
}

// vectorMaker writes vectors.
type vectorMaker struct {
	t   *testing.T
	w   *world
	dir string
}

func (m vectorMaker) write(name, what, expect, about string, body []byte, head ...string) {
	m.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "what: %s\nexpect: %s\nabout: %s\n", what, expect, about)
	for i := 0; i < len(head); i += 2 {
		fmt.Fprintf(&b, "%s: %s\n", head[i], head[i+1])
	}
	path := filepath.Join(m.dir, name+".vector")
	write := func(sum string) {
		check(m.t, os.WriteFile(path, append([]byte(b.String()+sum+"\n"), body...), 0o644))
	}
	write("")
	if expect != "ok" {
		return
	}
	v := vector{name: name, head: map[string]string{"what": what}, body: body}
	for i := 0; i < len(head); i += 2 {
		v.head[head[i]] = head[i+1]
	}
	got, err := v.open(m.t)
	check(m.t, err)
	write(fmt.Sprintf("sha256: %x\n", sha256.Sum256(got)))
}

// makeVectors writes all vectors of format 1.
func makeVectors(t *testing.T, w *world) {
	m := vectorMaker{t, w, vectorDir}
	m.keyFiles()
	m.markers()
	m.envelopes()
	m.packs()
	m.manifests()
	m.statements()
}

func (m vectorMaker) keyFiles() {
	cluster := m.w.cluster.Marshal("A test key. It protects nothing.")
	m.write("keyfile-cluster", "keyfile", "ok", "a cluster key", cluster)
	m.write("keyfile-recovery", "keyfile", "ok", "a recovery key", m.w.recovery.Marshal("A test key. It protects nothing."))
	id, err := age.GenerateX25519Identity()
	check(m.t, err)
	plain := []byte("# created: 2026-01-31T02:00:00Z\n# public key: " + id.Recipient().String() + "\n" + id.String() + "\n")
	m.write("keyfile-age", "keyfile", "ok", "a plain age identity file", plain)
	m.write("keyfile-unknown-fact", "keyfile", "ok", "facts of later versions are skipped", append([]byte("# lifeboat-moon: full\n"), plain...))
	m.write("keyfile-crlf", "keyfile", "ok", "line ends of Windows", bytes.ReplaceAll(plain, []byte("\n"), []byte("\r\n")))
	m.write("keyfile-garbage", "keyfile", "error", "neither key nor comment", []byte("hello\n"))
	m.write("keyfile-two-clusters", "keyfile", "error", "two names", append([]byte("# lifeboat-cluster: bank\n"), cluster...))
	m.write("keyfile-no-signer", "keyfile", "error", "a signing key whose public half is missing", bytes.ReplaceAll(cluster, []byte("# lifeboat-signer"), []byte("# was-signer")))
}

func (m vectorMaker) markers() {
	marker := m.w.get(m.t, MarkerKey)
	m.write("marker", "marker", "ok", "a marker", marker)
	m.write("marker-altered", "marker", "untrusted", "another cluster's name", bytes.Replace(marker, []byte("shop"), []byte("shoq"), 1))
	m.write("marker-blank", "marker", "corrupt", "a blank that is not signed", append(bytes.Clone(marker), ' '))
	other := newWorld(m.t)
	forged := m.w.writer.marker
	m.write("marker-forged", "marker", "untrusted", "signed by another key", forged.marshal(*other.cluster.Signing))
	forged.Signer = other.cluster.Signers[0].String()
	m.write("marker-other-signer", "marker", "untrusted", "signed by another key, and says so", forged.marshal(*other.cluster.Signing))
	newer := m.w.writer.marker
	newer.Format = 2
	m.write("marker-format-2", "marker", "format", "of a later format", newer.marshal(*m.w.cluster.Signing))
}

func (m vectorMaker) envelopes() {
	const key = "wal/7000000000000000001/00000002.history"
	plain := []byte("1\t0/3000000\tno recovery target specified\n")
	_, err := m.w.writer.CreateEnvelope(m.t.Context(), key, KindWAL, bytes.NewReader(plain), int64(len(plain)))
	check(m.t, err)
	object := m.w.get(m.t, key)
	end := bytes.IndexByte(object, '\n') + 1
	m.write("header", "header", "ok", "a header line", object[:end], "key", key)
	m.write("header-moved", "header", "untrusted", "at another key", object[:end], "key", key+"x")
	m.write("header-crlf", "header", "corrupt", "CR LF", append(slices.Clone(object[:end-1]), "\r\n"...), "key", key)
	m.write("header-size-sign", "header", "corrupt", "a sign before the size", bytes.Replace(object[:end], []byte("size="), []byte("size=+"), 1), "key", key)
	m.write("header-long", "header", "corrupt", "no line end in the first 1024 bytes", bytes.Repeat([]byte("x"), 2000), "key", key)
	m.write("header-host", "header", "untrusted", "another host", bytes.Replace(object[:end], []byte("host=db1"), []byte("host=db2"), 1), "key", key)
	m.write("envelope", "envelope", "ok", "a timeline history file", object, "key", key, "kind", "wal")
	_, err = m.w.writer.CreateEnvelope(m.t.Context(), "x/empty", KindSystem, bytes.NewReader(nil), 0)
	check(m.t, err)
	m.write("envelope-empty", "envelope", "ok", "of no bytes", m.w.get(m.t, "x/empty"), "key", "x/empty", "kind", "system")
	m.write("envelope-truncated", "envelope", "corrupt", "without its last byte", object[:len(object)-1], "key", key, "kind", "wal")
	m.write("envelope-tail", "envelope", "corrupt", "with a byte more", append(slices.Clone(object), 0), "key", key, "kind", "wal")
	m.write("envelope-kind", "envelope", "corrupt", "asked for as another kind", object, "key", key, "kind", "manifest")
	flipped := slices.Clone(object)
	flipped[end+300] ^= 1
	m.write("envelope-flipped", "envelope", "corrupt", "a bit of the sealed bytes", flipped, "key", key, "kind", "wal")
}

func (m vectorMaker) packs() {
	raws := [][]byte{[]byte("first frame"), bytes.Repeat([]byte("second "), 500), make([]byte, 8192)}
	p := storePack(m.t, m.w.writer, nil, 60, func(i int) []byte { return raws[i%3] })
	e := PackEntry{PackRef: p.PackRef}
	for _, f := range p.frames {
		e.Frames = append(e.Frames, FrameEntry{FrameRef: f})
	}
	object := m.w.get(m.t, PackKey(p.ID))
	entry := func(change func(*PackEntry)) string {
		c := e
		c.Frames = slices.Clone(e.Frames)
		change(&c)
		line, err := recordLine(c)
		check(m.t, err)
		return strings.TrimSuffix(string(line), "\n")
	}
	m.write("pack", "pack", "ok", "all frames of a pack", object, "entry", entry(func(*PackEntry) {}))
	m.write("pack-one-frame", "pack", "ok", "one frame", object, "entry", entry(func(e *PackEntry) { e.Frames = e.Frames[1:2] }))
	m.write("pack-sums-swapped", "pack", "corrupt", "a frame that is not the signed one", object,
		"entry", entry(func(e *PackEntry) { e.Frames[0].Sum, e.Frames[1].Sum = e.Frames[1].Sum, e.Frames[0].Sum }))
	m.write("pack-truncated", "pack", "corrupt", "without its last byte", object[:len(object)-1], "entry", entry(func(*PackEntry) {}))
	flipped := slices.Clone(object)
	flipped[len(flipped)-20] ^= 1
	m.write("pack-flipped", "pack", "corrupt", "a bit of the sealed frames", flipped, "entry", entry(func(*PackEntry) {}))
	m.write("pack-raw-size", "pack", "corrupt", "a frame of another raw size", object, "entry", entry(func(e *PackEntry) { e.Frames[0].Raw++ }))
}

func (m vectorMaker) manifests() {
	lines := records(m.t, m.w)
	whole := strings.Join(lines, "")
	write := func(name, expect, about, text string) {
		m.write(name, "manifest", expect, about, []byte(text), "label", testLabel)
	}
	write("manifest", "ok", "a manifest", whole)
	write("manifest-cut", "corrupt", "without its end record", strings.Join(lines[:5], ""))
	write("manifest-path", "corrupt", "a path that leads out", strings.Replace(whole, `"base/1"`, `"../1"`, 1))
	write("manifest-link", "corrupt", "a symbolic link", strings.Replace(whole, `"type":"file"`, `"type":"link"`, 1))
	write("manifest-hole", "corrupt", "a file with a hole", strings.Replace(whole, "[1,0,0,10]", "[1,0,0,9]", 1))
	write("manifest-count", "corrupt", "an absurd number of files", strings.Replace(whole, `"files":2`, `"files":1000000000000000000`, 1))
	write("manifest-format-2", "format", "of a later format", strings.Replace(whole, `"format":1`, `"format":2`, 1))
	write("manifest-foreign", "untrusted", "of another repository", strings.Replace(whole, m.w.cluster.Repository, NewID(), 1))
}
