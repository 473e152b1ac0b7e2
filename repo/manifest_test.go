package repo

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

const testLabel = "20260131T020000Z-1a2b3c"

func testInfo() Info {
	return Info{
		Label: testLabel, System: 7000000000000000001, Timeline: 1, StartLSN: 0x2000028, StopLSN: 0x2000138,
		StartTime: testTime, StopTime: testTime.Add(time.Second), Host: "db1", Program: "lifeboat test",
		PGVersion: 150010, Catalog: 202209061, SegSize: postgres.DefaultSegmentSize, BlockSize: 8192, Checksums: true,
		BackupLabel: "START WAL LOCATION: 0/2000028 <file>\n",
		Tablespaces: []Tablespace{{OID: 16385, Path: "/srv/fast"}, {OID: 16386, InPlace: true}, {OID: 16387, Path: "/srv/\xfc"}},
		Settings:    map[string]string{"max_connections": "100"},
		BadPages:    []BadPage{{Path: "base/1/1259", Block: 3, Want: 1, Have: 2}}, BadCount: 1,
	}
}

// manifestOf is a random manifest: files of all sizes, each byte of them in
// one span, the spans in any order over frames and packs.
func manifestOf(rnd *rand.Rand) ([]FileEntry, []PackEntry) {
	files := []FileEntry{{Type: Dir, Path: "base", Mode: 0o700}}
	var spans []Span
	for i := range 1 + rnd.IntN(40) {
		f := FileEntry{Type: Regular, Path: fmt.Sprintf("base/%d", i), Mode: 0o600, ModTime: testTime}
		if rnd.IntN(10) == 0 {
			f.Path += "\xff <&>\u2028\"\\\n"
		}
		if rnd.IntN(5) > 0 {
			f.Size = 1 + rnd.Int64N(1<<(1+rnd.IntN(23)))
		}
		for off := int64(0); off < f.Size; {
			n := min(1+rnd.Int64N(FrameSize), f.Size-off)
			spans = append(spans, Span{File: len(files), Off: off, Len: int(n)})
			off += n
		}
		files = append(files, f)
	}
	rnd.Shuffle(len(spans), func(i, j int) { spans[i], spans[j] = spans[j], spans[i] })
	var packs []PackEntry
	for len(spans) > 0 {
		p := PackEntry{PackRef: PackRef{ID: fmt.Sprintf("%064x", rnd.Uint64()), Size: MaxPack, Head: 1 + rnd.Int64N(maxHead)}}
		at := int64(0)
		for range 1 + rnd.IntN(5) {
			if len(spans) == 0 {
				break
			}
			f := FrameEntry{FrameRef: FrameRef{At: at, Len: 1 + rnd.IntN(maxStored), Raw: FrameSize, Sum: fmt.Sprintf("%032x", rnd.Uint64())}}
			at += int64(f.Len) + rnd.Int64N(100)
			for used := 0; len(spans) > 0 && used+spans[0].Len <= FrameSize; spans = spans[1:] {
				s := spans[0]
				s.At = used
				used += s.Len
				f.To = append(f.To, s)
			}
			p.Frames = append(p.Frames, f)
		}
		packs = append(packs, p)
	}
	return files, packs
}

func commit(t testing.TB, w *world, info Info, files []FileEntry, packs []PackEntry) (Info, error) {
	t.Helper()
	m := w.writer.NewManifestWriter()
	defer m.Close()
	for _, p := range packs {
		if err := m.Add(p); err != nil {
			return info, err
		}
	}
	err := m.Commit(t.Context(), &info, files)
	return info, err
}

// readHead reads the info and the files; each may be nil.
func readHead(m *ManifestReader, r *Repo, label string, each func(int, FileEntry)) error {
	if err := m.readInfo(r, label); err != nil {
		return err
	}
	if each == nil {
		each = func(int, FileEntry) {}
	}
	return m.readFiles(each)
}

func readAll(r *Repo, t testing.TB) (*ManifestReader, []PackEntry, error) {
	t.Helper()
	m, err := r.OpenManifest(t.Context(), testLabel)
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	var packs []PackEntry
	for p, err := range m.Packs() {
		if err != nil {
			return m, packs, err
		}
		// Whoever takes a pack writes it before the end is known.
		if err := p.Check(m.Files); err != nil {
			t.Errorf("a pack came out that is not valid: %v", err)
		}
		for _, f := range p.Frames {
			for _, s := range f.To {
				if end := s.Off + int64(s.Len); end < s.Off || end > m.Files.Size(s.File) {
					t.Errorf("the span %v came out, of a file of %d bytes", s, m.Files.Size(s.File))
				}
			}
		}
		packs = append(packs, p)
	}
	return m, packs, nil
}

func TestManifestRoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	for range 30 {
		w := newWorld(t)
		files, packs := manifestOf(rnd)
		info, err := commit(t, w, testInfo(), files, packs)
		check(t, err)
		for _, r := range []*Repo{w.reader, w.writer} {
			m, got, err := readAll(r, t)
			check(t, err)
			var read []FileEntry
			whole, err := r.OpenManifestEach(t.Context(), testLabel, func(_ int, f FileEntry) { read = append(read, f) })
			check(t, err)
			check(t, whole.Close())
			for i, f := range m.Files.All() {
				want := files[i]
				want.ModTime, want.ID, want.Sum = time.Time{}, "", ""
				if found, there := m.Files.Find(f.Path); f != want || found != want || !there {
					t.Fatalf("file %d is held as %+v, and found as %+v, not %+v", i, f, found, want)
				}
			}
			if m.Files.Len() != len(files) || !reflect.DeepEqual(m.Info, info) || !reflect.DeepEqual(read, files) || !reflect.DeepEqual(got, packs) {
				t.Fatal("the manifest came back otherwise")
			}
			alone, err := r.Info(t.Context(), testLabel)
			check(t, err)
			if !reflect.DeepEqual(alone, info) {
				t.Errorf("info alone: %+v", alone)
			}
		}
		labels, err := w.reader.Backups(t.Context())
		if err != nil || !slices.Equal(labels, []string{testLabel}) {
			t.Errorf("backups: %v, %v", labels, err)
		}
	}
}

// What an older backup stored comes after all that this one did, so that a restore
// writes what is scattered first.
func TestManifestOlderPacksComeLast(t *testing.T) {
	w := newWorld(t)
	files, packs := manifestOf(rand.New(rand.NewPCG(5, 5)))
	m := w.writer.NewManifestWriter()
	defer m.Close()
	var own, older []PackEntry
	for i, p := range packs {
		if i%2 == 0 {
			check(t, m.AddOlder(p))
			older = append(older, p)
			continue
		}
		check(t, m.Add(p))
		own = append(own, p)
	}
	info := testInfo()
	check(t, m.Commit(t.Context(), &info, files))
	_, got, err := readAll(w.reader, t)
	check(t, err)
	if len(own) == 0 || !reflect.DeepEqual(got, append(own, older...)) {
		t.Errorf("%d packs of this backup and %d older ones came back in another order", len(own), len(older))
	}
}

func TestInfoWithoutItsObject(t *testing.T) {
	w := newWorld(t)
	files, packs := manifestOf(rand.New(rand.NewPCG(1, 1)))
	info, err := commit(t, w, testInfo(), files, packs)
	check(t, err)
	check(t, w.store.Delete(t.Context(), InfoKey(testLabel)))
	got, err := w.reader.Info(t.Context(), testLabel)
	if err != nil || !reflect.DeepEqual(got, info) {
		t.Errorf("info from the manifest: %v", err)
	}
	check(t, w.store.Delete(t.Context(), ManifestKey(testLabel)))
	if _, err := w.reader.Info(t.Context(), testLabel); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backup that is not: %v", err)
	}
	for _, label := range []string{"", "..", "20260131T020000Z-1a2b3c/../x", "20260131T020000Z-1A2B3C"} {
		_, err := w.reader.Info(t.Context(), label)
		_, err2 := w.reader.OpenManifest(t.Context(), label)
		if err == nil || err2 == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("label %q: %v, %v", label, err, err2)
		}
	}
}

// TestCommitAgain: after an error Commit is called again, also when the store
// had done what it was asked.
func TestCommitAgain(t *testing.T) {
	files, packs := manifestOf(rand.New(rand.NewPCG(2, 2)))
	for n := range 3 {
		w := newWorld(t)
		info := testInfo()
		m := over(t, w.writer, &forgetful{Store: w.store, n: n}).NewManifestWriter()
		for _, p := range packs {
			check(t, m.Add(p))
		}
		err := m.Commit(t.Context(), &info, files)
		if (err != nil) != (n < 2) {
			t.Errorf("write %d fails: %v", n, err)
		}
		if err != nil {
			check(t, m.Commit(t.Context(), &info, files))
		}
		m.Close()
		m.Close()
		if err := m.Commit(t.Context(), &info, files); err == nil {
			t.Error("committed after Close")
		}
		_, got, err := readAll(w.reader, t)
		if err != nil || !reflect.DeepEqual(got, packs) {
			t.Errorf("after all: %v", err)
		}
	}
}

// TestCommitRefuses: what no reader would accept is never committed.
func TestCommitRefuses(t *testing.T) {
	files := []FileEntry{{Type: Dir, Path: "base", Mode: 0o700}, {Type: Regular, Path: "base/1", Mode: 0o600, Size: 10}}
	pack := func(spans ...Span) PackEntry {
		return PackEntry{PackRef: PackRef{strings.Repeat("0", 64), 5000, 400}, Frames: []FrameEntry{{FrameRef{0, 10, 10, strings.Repeat("0", 32)}, spans}}}
	}
	good := []PackEntry{pack(Span{1, 0, 0, 10})}
	type setup struct {
		info  Info
		files []FileEntry
		packs []PackEntry
	}
	for name, change := range map[string]func(*setup){
		"label":                 func(s *setup) { s.info.Label = "../x" },
		"segment size":          func(s *setup) { s.info.SegSize = 5 },
		"block size":            func(s *setup) { s.info.BlockSize = 8191 },
		"timeline":              func(s *setup) { s.info.Timeline = 0 },
		"stop before start":     func(s *setup) { s.info.StopLSN = 1 },
		"tablespace relative":   func(s *setup) { s.info.Tablespaces = []Tablespace{{OID: 1, Path: "x"}} },
		"tablespace root":       func(s *setup) { s.info.Tablespaces = []Tablespace{{OID: 1, Path: "/"}} },
		"tablespace dots":       func(s *setup) { s.info.Tablespaces = []Tablespace{{OID: 1, Path: "/srv/../etc"}} },
		"tablespace 0":          func(s *setup) { s.info.Tablespaces = []Tablespace{{Path: "/x"}} },
		"tablespace both":       func(s *setup) { s.info.Tablespaces = []Tablespace{{OID: 1, Path: "/x", InPlace: true}} },
		"tablespace twice":      func(s *setup) { s.info.Tablespaces = []Tablespace{{OID: 1, Path: "/x"}, {OID: 1, Path: "/y"}} },
		"bad pages":             func(s *setup) { s.info.BadCount = 0 },
		"path up":               func(s *setup) { s.files[1].Path = "../x" },
		"path up inside":        func(s *setup) { s.files[1].Path = "base/../../x" },
		"path absolute":         func(s *setup) { s.files[1].Path = "/etc/passwd" },
		"path empty":            func(s *setup) { s.files[1].Path = "" },
		"path dot":              func(s *setup) { s.files[1].Path = "." },
		"path dots":             func(s *setup) { s.files[1].Path = ".." },
		"path slash at the end": func(s *setup) { s.files[1].Path = "base/" },
		"path zero byte":        func(s *setup) { s.files[1].Path = "a\x00b" },
		"path twice":            func(s *setup) { s.files[1].Path = "base" },
		"type link":             func(s *setup) { s.files[1].Type = "link" },
		"type none":             func(s *setup) { s.files[1].Type = "" },
		"mode setuid":           func(s *setup) { s.files[1].Mode = 0o4755 },
		"size negative":         func(s *setup) { s.files[1].Size = -1 },
		"directory with size":   func(s *setup) { s.files[0].Size = 1 },
		"file not filled":       func(s *setup) { s.packs = []PackEntry{pack(Span{1, 0, 0, 9})} },
		"file filled twice":     func(s *setup) { s.packs = append(s.packs, pack(Span{1, 0, 0, 10})) },
		"file filled beyond":    func(s *setup) { s.packs = []PackEntry{pack(Span{1, 1, 0, 10})} },
		"a gap and an overlap":  func(s *setup) { s.packs = []PackEntry{pack(Span{1, 0, 0, 6}, Span{1, 0, 0, 4})} },
		"an overlap inside":     func(s *setup) { s.packs = []PackEntry{pack(Span{1, 0, 0, 5}, Span{1, 3, 0, 5})} },
		"file in no pack":       func(s *setup) { s.packs = nil },
		"file unknown":          func(s *setup) { s.packs = []PackEntry{pack(Span{2, 0, 0, 10})} },
		"file huge":             func(s *setup) { s.packs = []PackEntry{pack(Span{1 << 40, 0, 0, 10})} },
		"file negative":         func(s *setup) { s.packs = []PackEntry{pack(Span{-1, 0, 0, 10})} },
		"directory filled":      func(s *setup) { s.packs = []PackEntry{pack(Span{1, 0, 0, 10}, Span{0, 0, 0, 1})} },
		"no frames":             func(s *setup) { s.packs[0].Frames = nil },
		"a frame for nothing": func(s *setup) {
			s.packs[0].Frames = append(s.packs[0].Frames, FrameEntry{FrameRef: FrameRef{10, 10, 10, strings.Repeat("0", 32)}})
		},
		"pack id":       func(s *setup) { s.packs[0].ID = "x" },
		"frame outside": func(s *setup) { s.packs[0].Frames[0].At = 4600 - 9 },
	} {
		w := newWorld(t)
		s := setup{testInfo(), slices.Clone(files), []PackEntry{good[0]}}
		s.packs[0].Frames = slices.Clone(good[0].Frames)
		change(&s)
		if _, err := commit(t, w, s.info, s.files, s.packs); err == nil {
			t.Errorf("%s: committed", name)
		}
		for info, err := range w.store.List(t.Context(), "backups/") {
			check(t, err)
			t.Errorf("%s: %s was written", name, info.Key)
		}
	}
	if _, err := commit(t, newWorld(t), testInfo(), files, good); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestPacksOnce(t *testing.T) {
	w := newWorld(t)
	records(t, w)
	m, err := w.reader.OpenManifest(t.Context(), testLabel)
	check(t, err)
	defer m.Close()
	for range m.Packs() {
		break
	}
	for _, err := range m.Packs() {
		if err == nil {
			t.Error("packs were read twice")
		}
	}
}

// TestManifestMemory writes the manifest of 200 GiB, and reads it, in memory
// that does not depend on the number of frames.
func TestManifestMemory(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes minutes under the race detector; left out by -short too")
	}
	const packs, frames = 4096, 50 // of 1 MiB
	w := newWorld(t)
	m := w.writer.NewManifestWriter()
	defer m.Close()
	var peak uint64
	sample := func(i int) {
		if i%500 == 0 {
			var s runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&s)
			peak = max(peak, s.HeapAlloc)
		}
	}
	files := make([]FileEntry, packs*frames>>10)
	for i := range files {
		files[i] = FileEntry{Type: Regular, Path: fmt.Sprintf("base/16384/%d.%d", i>>6, i&63), Mode: 0o600, Size: 1 << 30}
	}
	n := 0
	for i := range packs {
		p := PackEntry{PackRef: PackRef{ID: randomHex(32), Size: 16 << 20, Head: 4000}}
		for j := range frames {
			if n>>10 >= len(files) {
				break
			}
			p.Frames = append(p.Frames, FrameEntry{FrameRef{At: int64(j) * 330000, Len: 329000, Raw: FrameSize, Sum: randomHex(sumSize)},
				[]Span{{File: n >> 10, Off: int64(n&1023) << 20, Len: FrameSize}}})
			n++
		}
		if len(p.Frames) > 0 {
			check(t, m.Add(p))
		}
		sample(i)
	}
	info := testInfo()
	check(t, m.Commit(t.Context(), &info, files))
	size := len(w.get(t, ManifestKey(testLabel)))
	sample(0)
	r, err := w.reader.OpenManifest(t.Context(), testLabel)
	check(t, err)
	defer r.Close()
	i := 0
	for _, err := range r.Packs() {
		check(t, err)
		sample(i)
		i++
	}
	t.Logf("%d frames: manifest of %d bytes, peak heap %d MiB", n, size, peak>>20)
	// The store in memory holds the manifest too.
	if peak > uint64(size)+32<<20 {
		t.Errorf("peak heap %d MiB", peak>>20)
	}
}

func randomHex(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return hex.EncodeToString(b)
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

func TestSpoolsReadBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 14))
	for _, limit := range []int64{0, 5, spoolChunk, 3*spoolChunk + 1, spoolMemory} {
		s := &spool{limit: limit}
		var want []byte
		for range 30 {
			p := randomBytes(rnd, rnd.IntN(200<<10))
			_, err := s.Write(p)
			check(t, err)
			want = append(want, p...)
		}
		if (s.file != nil) != (int64(len(want)) > limit) {
			t.Errorf("limit %d: file %t", limit, s.file != nil)
		}
		b := &body{head: []byte("head\n"), rest: s}
		for range 2 { // a body is sent again after a failure
			_, err := b.Seek(0, 0)
			check(t, err)
			var got bytes.Buffer
			_, err = got.ReadFrom(b)
			check(t, err)
			if got.String() != "head\n"+string(want) {
				t.Fatalf("limit %d: other bytes", limit)
			}
		}
		for range 50 {
			off, n := rnd.IntN(len(want)), rnd.IntN(300<<10)
			p := make([]byte, n)
			got, err := s.ReadAt(p, int64(off))
			if !bytes.Equal(p[:got], want[off:min(off+n, len(want))]) || (got < n) != (err != nil) {
				t.Fatalf("limit %d: ReadAt %d of %d: %d, %v", limit, n, off, got, err)
			}
		}
		end, err := b.Seek(0, 2)
		if err != nil || end != int64(len(want))+5 {
			t.Errorf("the end is at %d, %v", end, err)
		}
		check(t, s.Close())
		check(t, s.Close())
	}
}
