package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// records are the lines of a small manifest, for cutting and changing.
func records(t *testing.T, w *world) []string {
	t.Helper()
	files := []FileEntry{{Type: Dir, Path: "base", Mode: 0o700}, {Type: Regular, Path: "base/1", Mode: 0o600, Size: 20}}
	var packs []PackEntry
	for i := range 2 {
		packs = append(packs, PackEntry{PackRef: PackRef{strings.Repeat("ab", 32), 5000, 400},
			Frames: []FrameEntry{{FrameRef{0, 10, 10, strings.Repeat("0", 32)}, []Span{{1, int64(10 * i), 0, 10}}}}})
	}
	_, err := commit(t, w, testInfo(), files, packs)
	check(t, err)
	raw, _, err := w.reader.ReadEnvelope(t.Context(), ManifestKey(testLabel), KindManifest, 1<<20)
	check(t, err)
	lines := strings.SplitAfter(string(raw), "\n")
	return lines[:len(lines)-1]
}

// sign stores a manifest of any text with a signature that holds, as whoever
// took the database host can.
func (w *world) sign(t *testing.T, plain string) {
	t.Helper()
	check(t, w.store.Delete(t.Context(), ManifestKey(testLabel)))
	_, err := w.writer.CreateEnvelope(t.Context(), ManifestKey(testLabel), KindManifest, strings.NewReader(plain), int64(len(plain)))
	check(t, err)
}

// TestManifestLies: records cut, doubled, swapped, and fields changed, under a
// signature that holds.
func TestManifestLies(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and all in one goroutine: run in full, without the race detector")
	}
	w := newWorld(t)
	lines := records(t, w)
	if len(lines) != 6 {
		t.Fatalf("%d records", len(lines))
	}
	cases := map[string]string{"nothing": "", "null": "null\n", "deep": strings.Repeat("[", 1<<20)}
	whole := strings.Join(lines, "")
	for i := range lines {
		cases[fmt.Sprintf("without record %d", i)] = strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "")
		cases[fmt.Sprintf("record %d twice", i)] = strings.Join(slices.Insert(slices.Clone(lines), i, lines[i]), "")
		cases[fmt.Sprintf("cut after record %d", i)] = strings.Join(lines[:i], "")
		if i > 0 && lines[i] != lines[i-1] && !strings.HasPrefix(lines[i], `{"pack`) {
			swapped := slices.Clone(lines)
			swapped[i], swapped[i-1] = swapped[i-1], swapped[i]
			cases[fmt.Sprintf("record %d before the one before", i)] = strings.Join(swapped, "")
		}
	}
	for n := range len(whole) {
		cases[fmt.Sprintf("cut to %d bytes", n)] = whole[:n]
	}
	for _, c := range [][2]string{
		{`"files":2`, `"files":1e18`}, {`"files":2`, `"files":1000000000000000000`}, {`"files":2`, `"files":-1`},
		{`"files":2`, `"files":1`}, {`"files":2`, `"files":3`}, {`"packs":2`, `"packs":-2`}, {`"packs":2`, `"packs":3`},
		{`"packs":2`, `"packs":1000000000000000000`}, {`"frames":2`, `"frames":3`}, {`"raw_bytes":20`, `"raw_bytes":21`},
		{`"stored_bytes":10000`, `"stored_bytes":1`}, {`"format":1`, `"format":2`}, {`"cluster":"shop"`, `"cluster":"shop2"`},
		{testLabel, "20260131T020000Z-1a2b3d"}, {w.cluster.Repository, NewID()},
		{`[1,0,0,10]`, `[1,0,0,9]`}, {`[1,0,0,10]`, `[1,0,0]`}, {`[1,0,0,10]`, `[1,0,0,10,0]`}, {`[1,0,0,10]`, `[0,0,0,10]`},
		{`[1,0,0,10]`, `[2,0,0,10]`}, {`[1,0,0,10]`, `[-1,0,0,10]`}, {`[1,0,0,10]`, `[1,-1,0,10]`}, {`[1,0,0,10]`, `[1,0,-1,10]`},
		{`[1,0,0,10]`, `[1,0,1,10]`}, {`[1,0,0,10]`, `[1,11,0,10]`}, {`[1,0,0,10]`, `[1,0,9223372036854775807,10]`},
		{`[1,0,0,10]`, `[1,9223372036854775807,0,10]`}, {`[1,0,0,10]`, `[1,0,0,9223372036854775807]`}, {`[1,0,0,10]`, `[1,0,0,10.5]`},
		{`[1,0,0,10]`, `[1,0,0,1e1]`}, {`[1,0,0,10]`, `"x"`}, {`[1,0,0,10]`, `null`}, {`[1,0,0,10]`, `{}`}, {`[[1,0,0,10]]`, `[]`}, {`[[1,0,0,10]]`, `null`},
		{`"base/1"`, `"../1"`}, {`"base/1"`, `"/base"`}, {`"base/1"`, `"base"`}, {`"path":"base/1"`, `"path":"base/1","path_hex":"ff"`},
		{`"path":"base/1"`, `"path":"","path_hex":"2f657463"`}, {`"path":"base/1"`, `"path":"","path_hex":"2e2e2fff"`},
		{`"type":"file"`, `"type":"link"`}, {`"type":"file"`, `"type":"dir"`}, {`"size":20`, `"size":21`}, {`"size":20`, `"size":-20`},
		{`"end":true`, `"end":false`}, {`"head":400`, `"head":0`}, {`"size":5000`, `"size":500000000`}, {`"at":0`, `"at":4591`},
	} {
		changed := strings.Replace(whole, c[0], c[1], 1)
		if changed == whole {
			t.Fatalf("no %s to change", c[0])
		}
		cases[c[0]+" to "+c[1]] = changed
	}
	cases["a tail"] = whole + "\n"
	cases["an end more"] = whole + lines[5]
	for name, text := range cases {
		w.sign(t, text)
		_, _, err := readAll(w.reader, t)
		var format *FormatError
		if !refused(err) && !errors.As(err, &format) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.sign(t, whole)
	_, packs, err := readAll(w.reader, t)
	if err != nil || len(packs) != 2 {
		t.Errorf("the true one: %v", err)
	}
}

// A record without an end is given up at maxRecord, not when memory is.
func TestManifestEndlessRecord(t *testing.T) {
	w := newWorld(t)
	lines := records(t, w)
	w.sign(t, lines[0]+strings.Repeat(" ", maxRecord+2<<20))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := readAll(w.reader, t)
	runtime.ReadMemStats(&after)
	if !refused(err) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("an endless record: %v", err)
	}
}

// The spans' own decoder agrees with the library on what is a span.
func FuzzSpan(f *testing.F) {
	for _, s := range []string{`[1,2,3,4]`, `[0,0,0,0]`, `[1,2,3]`, `[1,2,3,4,5]`, `[-1,0,0,0]`, `[1e3,0,0,0]`, `[ 1 , 2,3,4 ]`, `[9223372036854775808,0,0,0]`, `null`, `"x"`, `[[1],2,3,4]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Span
		if json.Unmarshal(b, &s) != nil {
			return
		}
		if s.File < 0 || s.Off < 0 || s.At < 0 || s.Len < 0 {
			t.Errorf("%q is %v", b, s)
		}
		var list []int64
		if err := json.Unmarshal(b, &list); err != nil && string(bytes.TrimSpace(b)) != "null" {
			t.Errorf("%q is a span and no list: %v", b, err)
		}
	})
}

// FuzzManifest reads any text as the records of a manifest.
func FuzzManifest(f *testing.F) {
	w := newWorld(f)
	info := testInfo()
	info.Format, info.Repository, info.Cluster = Format, w.writer.marker.Repository, "shop"
	info.Files, info.Packs, info.Frames, info.RawBytes, info.StoredBytes = 1, 1, 1, 10, 5000
	line, err := recordLine(info)
	check(f, err)
	f.Add([]byte(`{"type":"file","path":"base/1","mode":384,"size":10}` + "\n" +
		`{"pack":"` + strings.Repeat("0", 64) + `","size":5000,"head":400,"frames":[{"at":0,"len":10,"raw":10,"sum":"` + strings.Repeat("0", 32) + `","to":[[0,0,0,10]]}]}` + "\n" +
		`{"end":true,"files":1,"packs":1}` + "\n"))
	f.Add([]byte(`{"type":"file","path":"","path_hex":"ff"}` + "\n"))
	f.Add([]byte("null\nnull\nnull\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newManifestReader("m", nopCloser{bytes.NewReader(append(slices.Clip(line), b...))})
		if err := readHead(m, w.reader, testLabel, nil); err != nil {
			if !refused(err) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		for p, err := range m.Packs() {
			if err != nil {
				if !refused(err) {
					t.Errorf("refused with %v", err)
				}
				return
			}
			for _, fr := range p.Frames {
				for _, s := range fr.To {
					if s.Off+int64(s.Len) > m.Files.Size(s.File) || s.At+s.Len > fr.Raw || s.Len < 1 {
						t.Errorf("the span %v of %+v is outside", s, fr)
					}
				}
			}
		}
	})
}
