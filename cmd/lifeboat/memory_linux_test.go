package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/file"
)

// peak runs the program and returns how many bytes of memory it took at most.
func (s *site) peak(t *testing.T, args ...string) (bytes int64, code int, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "peak")
	code, stdout, stderr := runProgram(t, s.dir, append([]string{peakVariable + "=" + path}, s.env...), append(args, "--config", s.config)...)
	raw, err := os.ReadFile(path)
	must(t, err)
	kib, err := strconv.ParseInt(string(raw), 10, 64)
	must(t, err)
	return kib << 10, code, stdout + stderr
}

// hostile is a manifest that somebody who has taken the cluster key has signed. It is
// complete: whoever reads it reads it to its end.
type hostile struct {
	name  string
	short string // commands that are run with it in the short form
	files int64  // beside what each has
	file  func(i int64) string
	bytes int64 // of them all
	packs int64
	pack  func(i int64) string
	info  func(*repo.Info)
}

// each have a directory and the file without which there is no restore.
var each = []string{`{"type":"dir","path":"global","mode":448}`, `{"type":"file","path":"global/pg_control","mode":384}`}

func (h hostile) records(info repo.Info) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		head, err := json.Marshal(info)
		if err != nil || !yield(head) {
			return
		}
		for _, line := range each {
			yield([]byte(line))
		}
		for i := range h.files {
			if !yield([]byte(h.file(i))) {
				return
			}
		}
		for i := range h.packs {
			if !yield([]byte(h.pack(i))) {
				return
			}
		}
		yield(fmt.Appendf(nil, `{"end":true,"files":%d,"packs":%d}`, info.Files, info.Packs))
	}
}

// plant signs and stores it, and returns its label.
func (h hostile) plant(t *testing.T, r *repo.Repo, info repo.Info, at time.Time) string {
	t.Helper()
	info.Label = at.UTC().Format("20060102T150405Z") + "-ffffff"
	info.Files, info.Packs, info.Frames = int64(len(each))+h.files, h.packs, h.packs
	info.RawBytes, info.StoredBytes = h.bytes, h.packs*5000
	if h.info != nil {
		h.info(&info)
	}
	var size int64
	for line := range h.records(info) {
		size += int64(len(line)) + 1
	}
	pipe, w := io.Pipe()
	go func() {
		b := bufio.NewWriterSize(w, 1<<20)
		for line := range h.records(info) {
			b.Write(append(line, '\n'))
		}
		w.CloseWithError(b.Flush())
	}()
	_, err := r.CreateEnvelope(t.Context(), repo.ManifestKey(info.Label), repo.KindManifest, pipe, size)
	must(t, err)
	return info.Label
}

// packLine is a record of a pack that is not there, of one frame.
func packLine(i, raw int64, spans string) string {
	return fmt.Sprintf(`{"pack":"%064x","size":5000,"head":400,"frames":[{"at":0,"len":10,"raw":%d,"sum":"%032x","to":[%s]}]}`, i, raw, i, spans)
}

// hostiles are manifests of a share of what there may be at most; real is a file of the
// server that has not changed since.
func hostiles(share int64, real repo.FileEntry) []hostile {
	const most, frame = 3_500_000, 1 << 20
	n := most / share
	spans := frame / share
	fill := func(file, size int64) string {
		var b strings.Builder
		for at := range size {
			fmt.Fprintf(&b, ",[%d,%d,%d,1]", file, at, at)
		}
		return b.String()[1:]
	}
	record, _ := json.Marshal(real)
	return []hostile{
		{name: "directories", short: "restore", files: n - 2, file: func(i int64) string { return fmt.Sprintf(`{"type":"dir","path":"%07d","mode":448}`, i) }},
		{name: "directories that hold something", files: n/7 - 2, file: func(i int64) string {
			if i%2 == 0 {
				return fmt.Sprintf(`{"type":"dir","path":"%07d","mode":448}`, i)
			}
			return fmt.Sprintf(`{"type":"file","path":"%07d/x","mode":384}`, i-1)
		}},
		{name: "files in no order", files: n - 2, file: func(i int64) string {
			return fmt.Sprintf(`{"type":"file","path":"global/%d","mode":384}`, uint32(i)*2654435761)
		}},
		{name: "long names", files: 11_000 / share, file: func(i int64) string {
			return fmt.Sprintf(`{"type":"file","path":"%06d%s","mode":384}`, i, strings.Repeat("x", 4000))
		}},
		{name: "long sums", files: 24 / share, file: func(i int64) string {
			return fmt.Sprintf(`{"type":"file","path":"%d","mode":384,"sum":"%s"}`, i, strings.Repeat("0", 8<<20-100))
		}},
		{name: "spans", files: 4, bytes: 4 * spans, packs: 4, file: func(i int64) string {
			return fmt.Sprintf(`{"type":"file","path":"%d","mode":384,"size":%d}`, i, spans)
		}, pack: func(i int64) string { return packLine(i, spans, fill(i+2, spans)) }},
		{name: "spans of a real file", short: "backup", files: 1, bytes: real.Size, packs: 24, file: func(int64) string { return string(record) },
			pack: func(i int64) string { return packLine(i, spans, fill(2, spans)) }},
		{name: "packs", short: "restore copy", files: 1, bytes: n, packs: n,
			file: func(int64) string { return fmt.Sprintf(`{"type":"file","path":"x","mode":384,"size":%d}`, n) },
			pack: func(i int64) string { return packLine(i, 1, fmt.Sprintf("[2,%d,0,1]", i)) }},
	}
}

// memorySite is a cluster with a backup and a file that does not change any more.
func memorySite(t *testing.T) (s *site, r *repo.Repo, like repo.Info, real repo.FileEntry) {
	t.Helper()
	s = newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Exec(t, "create table t as select n, repeat('x', 100) from generate_series(1, 12000) n")
	s.Exec(t, "vacuum (freeze) t")
	path := s.QueryString(t, "select pg_relation_filepath('t')")
	s.Exec(t, "checkpoint")
	label := s.backup(t)
	store, err := file.New(filepath.Join(s.dir, "repository"))
	must(t, err)
	r, err = repo.Open(t.Context(), store, s.readKeys(t), "db1")
	must(t, err)
	m, err := r.OpenManifestEach(t.Context(), label, func(_ int, f repo.FileEntry) {
		if f.Path == path {
			real = f
		}
	})
	must(t, err)
	must(t, m.Close())
	if real.Size < 1<<20 {
		t.Fatalf("%+v", real)
	}
	return s, r, m.Info, real
}

// No command takes more than 256 MiB for hostile manifests, one or many. The short form
// makes them a sixteenth as large, and gives them as much less memory above that which
// each command takes by itself, 64 MiB.
func TestCommandMemory(t *testing.T) {
	t.Parallel()
	share, most := int64(16), int64(64+(256-64)/16)<<20
	if *memoryAll {
		share, most = 1, 256<<20
	}
	s, r, like, real := memorySite(t)
	run := func(what string, args ...string) {
		t.Helper()
		began := time.Now()
		peak, code, text := s.peak(t, args...)
		command := strings.Join(args[:min(len(args), 2)], " ")
		t.Logf("%-32s %-20.20s %4d MiB, exit code %d, %.1f s", what, command, peak>>20, code, time.Since(began).Seconds())
		if peak > most {
			t.Errorf("%s, %s: %d MiB of memory, more than %d\n%.2000s", what, command, peak>>20, most>>20, text)
		}
	}
	for i, h := range hostiles(share, real) {
		if h.short == "" && !*memoryAll {
			continue
		}
		// The newest backup, in the future, so that the next one builds on it.
		label := h.plant(t, r, like, like.StartTime.Add(time.Duration(i+1)*time.Hour))
		commands := map[string][]string{
			"restore": {"restore", "--dry-run", "--backup", label, "--to", filepath.Join(s.dir, "restored"), "--identity", s.identity},
			"copy":    {"copy", label, "--to", "file://" + filepath.Join(s.dir, "copy")},
			"backup":  {"backup"},
		}
		for _, name := range slices.Sorted(maps.Keys(commands)) {
			if *memoryAll || strings.Contains(h.short, name) {
				run(h.name, commands[name]...)
			}
		}
	}
	run("all", "backups")
	if *memoryAll {
		run("all", "verify")
		run("all", "wal", "status")
	}
	run("all", "verify", "--read", "--identity", s.identity)
	run("all", "expire", "--dry-run", "--keep-last", "1")
}
