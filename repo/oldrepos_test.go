package repo

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

// The repositories in testdata/repos are whole ones of format 1, with the keys
// to them: what a later version must still open. Their data directories are
// made up, since the smallest real one takes a megabyte.

const reposDir = "../testdata/repos"

var update = flag.Bool("update", false, "make testdata/repos and testdata/format/v1 where they are missing")

// expectation is what a restore of the repository must yield.
type expectation struct {
	Backups map[string]map[string]string `json:"backups"` // label → path in hex → SHA-256; "" of a directory
	WAL     map[string]string            `json:"wal"`     // name → SHA-256
}

func TestOldRepositories(t *testing.T) {
	for _, name := range []string{"v1", "v1-classic"} {
		t.Run(name, func(t *testing.T) { openOld(t, filepath.Join(reposDir, name)) })
	}
}

func openOld(t *testing.T, dir string) {
	var want expectation
	raw, err := os.ReadFile(filepath.Join(dir, "expect.json"))
	check(t, err)
	check(t, json.Unmarshal(raw, &want))
	store, err := file.New(filepath.Join(dir, "repository"))
	check(t, err)
	defer store.Close()
	recovery := readKeys(t, filepath.Join(dir, "keys", "recovery.key"))
	r, err := Open(t.Context(), store, Keys{Identities: recovery.Identities, Trusted: recovery.Signers}, "test")
	check(t, err)

	labels, err := r.Backups(t.Context())
	if err != nil || len(labels) != len(want.Backups) {
		t.Fatalf("backups %v, %v", labels, err)
	}
	for _, label := range labels {
		compareTrees(t, label, restoreInMemory(t, r, label), want.Backups[label])
	}
	systems, err := r.Systems(t.Context())
	if err != nil || len(systems) != 1 {
		t.Fatalf("systems %v, %v", systems, err)
	}
	got := map[string]string{}
	for info, err := range store.List(t.Context(), SystemWALPrefix(systems[0])) {
		check(t, err)
		plain, _, err := r.ReadEnvelope(t.Context(), info.Key, KindWAL, 64<<20)
		check(t, err)
		got[filepath.Base(info.Key)] = sumOf(plain)
	}
	compareTrees(t, "WAL", got, want.WAL)

	// The database host reads the metadata with the cluster key.
	host, err := Open(t.Context(), store, Keys{Cluster: readKeys(t, filepath.Join(dir, "keys", "cluster.key"))}, "test")
	check(t, err)
	_, err = host.Info(t.Context(), labels[0])
	check(t, err)
}

func compareTrees(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Errorf("%s: %d entries, not %d", what, len(got), len(want))
	}
	for path, sum := range want {
		if got[path] != sum {
			t.Errorf("%s: %s has sha256 %q, not %q", what, path, got[path], sum)
		}
	}
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// restoreInMemory returns what a restore writes, as expectation holds it.
func restoreInMemory(t *testing.T, r *Repo, label string) map[string]string {
	t.Helper()
	m, err := r.OpenManifest(t.Context(), label)
	check(t, err)
	defer m.Close()
	content := make([][]byte, m.Files.Len())
	for i, f := range m.Files.All() {
		content[i] = make([]byte, f.Size)
	}
	pr, err := r.NewPackReader()
	check(t, err)
	defer pr.Close()
	for p, err := range m.Packs() {
		check(t, err)
		var refs []FrameRef
		for _, f := range p.Frames {
			refs = append(refs, f.FrameRef)
		}
		pack, err := r.FetchPack(t.Context(), p.PackRef, refs)
		check(t, err)
		for _, f := range p.Frames {
			raw, err := pr.Frame(pack, f.FrameRef)
			check(t, err)
			for _, s := range f.To {
				copy(content[s.File][s.Off:], raw[s.At:s.At+s.Len])
			}
		}
	}
	out := map[string]string{}
	for i, f := range m.Files.All() {
		key := hex.EncodeToString([]byte(f.Path))
		out[key] = ""
		if f.Type == Regular {
			out[key] = sumOf(content[i])
		}
	}
	return out
}

// TestMakeOldRepositories makes what is missing of testdata/repos and
// testdata/format/v1, with new keys. It changes nothing that is there:
//
//	go test ./repo -run TestMakeOldRepositories -update
func TestMakeOldRepositories(t *testing.T) {
	if !*update {
		t.Skip("makes test data; runs with -update only")
	}
	cluster, err := NewClusterKey("shop", NewID())
	check(t, err)
	hybrid, err := NewRecoveryKey(cluster)
	check(t, err)
	makeOld(t, filepath.Join(reposDir, "v1"), cluster, hybrid)

	cluster, err = NewClusterKey("shop-classic", NewID())
	check(t, err)
	id, err := age.GenerateX25519Identity()
	check(t, err)
	classic := &KeyFile{Cluster: cluster.Cluster, Repository: cluster.Repository, Signers: cluster.Signers, Identities: []age.Identity{id}}
	makeOld(t, filepath.Join(reposDir, "v1-classic"), cluster, classic)

	if fresh(t, vectorDir) {
		w := newWorld(t)
		writeKeys(t, vectorDir, w.cluster, w.recovery)
		makeVectors(t, w)
	}
}

// fresh says whether dir is missing, so may be made.
func fresh(t *testing.T, dir string) bool {
	if _, err := os.Stat(dir); err == nil {
		t.Logf("%s is there: left as it is", dir)
		return false
	}
	return true
}

func writeKeys(t *testing.T, dir string, cluster, recovery *KeyFile) {
	check(t, os.MkdirAll(filepath.Join(dir, "keys"), 0o755))
	for name, k := range map[string]*KeyFile{"cluster.key": cluster, "recovery.key": recovery} {
		check(t, os.WriteFile(filepath.Join(dir, "keys", name), k.Marshal("A test key. It protects nothing but test data."), 0o600))
	}
}

func makeOld(t *testing.T, dir string, cluster, recovery *KeyFile) {
	if !fresh(t, dir) {
		return
	}
	writeKeys(t, dir, cluster, recovery)
	store, err := file.Init(filepath.Join(dir, "repository"))
	check(t, err)
	defer store.Close()
	r, err := Create(t.Context(), store, Keys{Cluster: cluster, Recipients: recipientsOf(t, recovery)}, "db1", testTime)
	check(t, err)
	o := &oldMaker{t: t, r: r, dir: dir, rnd: rand.New(rand.NewPCG(2026, 1)), want: expectation{map[string]map[string]string{}, map[string]string{}}}
	check(t, r.RegisterSystem(t.Context(), oldSystem, []byte(`{"system":"7000000000000000001","pg_version":150010}`+"\n")))
	o.backups()
	o.wal()
	raw, err := json.MarshalIndent(o.want, "", "\t")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "expect.json"), append(raw, '\n'), 0o644))
	check(t, os.RemoveAll(filepath.Join(dir, "repository", "~tmp")))
}

const oldSystem = postgres.SystemID(7000000000000000001)

type oldMaker struct {
	t    *testing.T
	r    *Repo
	dir  string
	rnd  *rand.Rand
	want expectation
}

// backups makes a first backup and one that refers to its packs.
func (o *oldMaker) backups() {
	var files []FileEntry
	var content [][]byte
	add := func(path string, b []byte) {
		files = append(files, FileEntry{Type: Regular, Path: path, Mode: 0o600, Size: int64(len(b)), ModTime: testTime})
		content = append(content, b)
	}
	for _, d := range []string{"base", "base/1", "base/5", "global", "pg_tblspc", "pg_tblspc/16385", "pg_wal"} {
		files, content = append(files, FileEntry{Type: Dir, Path: d, Mode: 0o700}), append(content, nil)
	}
	add("PG_VERSION", []byte("15\n"))
	add("base/1/1259", walLike(3*8192))
	add("base/1/2619", rows(300*8192)) // more than two frames
	add("base/1/2619_fsm", nil)
	add("base/5/16384", randomBytes(o.rnd, 5*8192))
	add("base/5/16390", make([]byte, 3<<20)) // zeros
	add("base/5/not-utf8-\xe9", []byte("a name in Latin-1\n"))
	add("pg_tblspc/16385/PG_15_202209061", nil)
	files[len(files)-1] = FileEntry{Type: Dir, Path: "pg_tblspc/16385/PG_15_202209061", Mode: 0o700}
	add("pg_tblspc/16385/PG_15_202209061/16400", walLike(8192))
	add("global/pg_control", randomBytes(o.rnd, 8192))
	first := o.packFiles(files, content)
	o.commit("20260131T020000Z-1a2b3c", 0x2000028, files, content, first)

	// The second: one page of base/1/2619 changed, one file gone, one new.
	const changed, gone = 100 * 8192, "base/5/16384"
	files, content = append([]FileEntry(nil), files...), append([][]byte(nil), content...)
	var drop, big int
	for i, f := range files {
		switch f.Path {
		case gone:
			drop = i
		case "base/1/2619":
			big = i
		}
	}
	page := randomBytes(o.rnd, 8192)
	content[big] = bytes.Clone(content[big])
	copy(content[big][changed:], page)
	files[drop] = FileEntry{Type: Regular, Path: "base/5/16500", Mode: 0o600, Size: 8192, ModTime: testTime.Add(time.Hour)}
	content[drop] = randomBytes(o.rnd, 8192)
	w, err := o.r.NewPackWriter(NewPackBuffers(1), Better)
	check(o.t, err)
	var second []PackEntry
	for _, p := range first {
		second = append(second, withoutSpans(p, drop, big, changed, 8192))
	}
	f, err := w.Add(o.t.Context(), append(page, content[drop]...))
	check(o.t, err)
	second = append(second, o.finish(w, []FrameEntry{{f, []Span{{big, changed, 0, 8192}, {drop, 0, 8192, 8192}}}}))
	o.commit("20260201T020000Z-4d5e6f", 0x2040028, files, content, second)
}

// rows compress well.
func rows(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%09d\tordered\t%d pieces\tpaid\n", i, i%17)
	}
	return b.Bytes()[:n]
}

// withoutSpans is the pack without the file gone and without a page of big.
func withoutSpans(p PackEntry, gone, big int, off int64, n int) PackEntry {
	out := PackEntry{PackRef: p.PackRef}
	for _, f := range p.Frames {
		var to []Span
		for _, s := range f.To {
			switch {
			case s.File == gone:
			case s.File == big && s.Off <= off && s.Off+int64(s.Len) >= off+int64(n):
				before := int(off - s.Off)
				to = append(to, Span{big, s.Off, s.At, before}, Span{big, off + int64(n), s.At + before + n, s.Len - before - n})
			default:
				to = append(to, s)
			}
		}
		if len(to) > 0 {
			out.Frames = append(out.Frames, FrameEntry{f.FrameRef, to})
		}
	}
	return out
}

// packFiles puts small files together into frames and cuts large ones.
func (o *oldMaker) packFiles(files []FileEntry, content [][]byte) []PackEntry {
	w, err := o.r.NewPackWriter(NewPackBuffers(1), Fastest)
	check(o.t, err)
	var frames []FrameEntry
	var raw []byte
	var to []Span
	flush := func() {
		if len(raw) > 0 {
			f, err := w.Add(o.t.Context(), raw)
			check(o.t, err)
			frames = append(frames, FrameEntry{f, to})
			raw, to = nil, nil
		}
	}
	for i := range files {
		b := content[i]
		for off := 0; off < len(b); {
			n := min(len(b)-off, FrameSize-len(raw))
			to = append(to, Span{i, int64(off), len(raw), n})
			raw = append(raw, b[off:off+n]...)
			if off += n; len(raw) == FrameSize {
				flush()
			}
		}
	}
	flush()
	return []PackEntry{o.finish(w, frames)}
}

func (o *oldMaker) finish(w *PackWriter, frames []FrameEntry) PackEntry {
	p, err := w.Finish()
	check(o.t, err)
	check(o.t, o.r.StorePack(o.t.Context(), p))
	defer p.Release()
	return PackEntry{PackRef: p.PackRef, Frames: frames}
}

func (o *oldMaker) commit(label string, start postgres.LSN, files []FileEntry, content [][]byte, packs []PackEntry) {
	m := o.r.NewManifestWriter()
	defer m.Close()
	for _, p := range packs {
		check(o.t, m.Add(p))
	}
	info := testInfo()
	info.Label, info.StartLSN, info.StopLSN = label, start, start+0x110
	info.SegSize, info.BadPages, info.BadCount = postgres.MinSegmentSize, nil, 0
	info.Tablespaces = []Tablespace{{OID: 16385, Path: "/srv/fast"}}
	info.TablespaceMap = "16385 /srv/fast\n"
	info.BackupLabel = fmt.Sprintf("START WAL LOCATION: %s (file %s)\nLABEL: lifeboat\nSTART TIMELINE: 1\n", start, postgres.SegmentAt(1, start, info.SegSize).Name())
	check(o.t, m.Commit(o.t.Context(), &info, files))
	sums := map[string]string{}
	for i, f := range files {
		sums[hex.EncodeToString([]byte(f.Path))] = ""
		if f.Type == Regular {
			sums[hex.EncodeToString([]byte(f.Path))] = sumOf(content[i])
		}
	}
	o.want.Backups[label] = sums
}

// wal archives a few segments on two timelines, with what goes with them.
func (o *oldMaker) wal() {
	put := func(name string, plain []byte) {
		n, err := postgres.ParseWALName(name)
		check(o.t, err)
		_, err = o.r.CreateEnvelope(o.t.Context(), WALKey(oldSystem, n), KindWAL, bytes.NewReader(plain), int64(len(plain)))
		check(o.t, err)
		o.want.WAL[name] = sumOf(plain)
	}
	for _, no := range []uint64{0x20, 0x21, 0x22} {
		put(postgres.Segment{Timeline: 1, No: no, Size: postgres.MinSegmentSize}.Name(), o.segment(1, no))
	}
	put("000000010000000000000020.00000028.backup", []byte("START WAL LOCATION: 0/2000028 (file 000000010000000000000020)\n"))
	put("000000010000000000000023.partial", o.segment(1, 0x23))
	put("00000002.history", []byte("1\t0/2310000\tno recovery target specified\n"))
	put("000000020000000000000023", o.segment(2, 0x23))
}

// segment has the header that PostgreSQL 15 writes (XLogLongPageHeaderData in
// access/xlog_internal.h) and no real record.
func (o *oldMaker) segment(tl postgres.Timeline, no uint64) []byte {
	b := make([]byte, postgres.MinSegmentSize)
	le := binary.LittleEndian
	le.PutUint16(b, 0xD110)
	le.PutUint16(b[2:], 2) // XLP_LONG_HEADER
	le.PutUint32(b[4:], uint32(tl))
	le.PutUint64(b[8:], no*uint64(len(b)))
	le.PutUint64(b[24:], uint64(oldSystem))
	le.PutUint32(b[32:], uint32(len(b)))
	le.PutUint32(b[36:], 8192)
	copy(b[40:8192], walLike(8192-40))
	return b
}

// Every byte of an old repository matters: none can be changed unseen. A
// sample, because there are many.
func TestOldRepositoryFlips(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(reposDir, "v1")
	store, err := file.New(filepath.Join(dir, "repository"))
	check(t, err)
	defer store.Close()
	recovery := readKeys(t, filepath.Join(dir, "keys", "recovery.key"))
	r, err := Open(t.Context(), store, Keys{Identities: recovery.Identities, Trusted: recovery.Signers}, "test")
	check(t, err)
	r = over(t, r, w.store)
	rnd := rand.New(rand.NewPCG(15, 16))
	for info, err := range store.List(t.Context(), "") {
		check(t, err)
		whole := suite.Read(t, store, info.Key)
		for range 20 {
			b := bytes.Clone(whole)
			b[rnd.IntN(len(b))] ^= byte(1 + rnd.IntN(255))
			w.put(t, info.Key, b)
			var err error
			switch {
			case info.Key == MarkerKey:
				err = r.CheckPresent(t.Context())
			case strings.HasPrefix(info.Key, packsPrefix):
				if sumOf(b) != filepath.Base(info.Key) {
					err = &CorruptError{Object: info.Key}
				}
			default:
				h, _, perr := parseHeader(whole)
				check(t, perr)
				_, _, err = r.ReadEnvelope(t.Context(), info.Key, h.Kind, 1<<30)
			}
			if !refused(err) {
				t.Errorf("%s: %v", info.Key, err)
			}
		}
	}
}
