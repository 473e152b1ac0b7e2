package repo

import (
	"bytes"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// cpu is the processor time that this process has taken.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perCore reports bytes a second of processor time, which other work on the
// machine does not change as it does the wall clock.
func perCore(b *testing.B, bytes int, work func()) {
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	start := cpu(b)
	for b.Loop() {
		work()
	}
	spent := cpu(b) - start
	b.ReportMetric(float64(bytes)*float64(b.N)/1e6/spent.Seconds(), "MB/core-s")
	b.ReportMetric(float64(spent.Milliseconds())/float64(b.N), "cpu-ms/op")
}

func BenchmarkEnvelope(b *testing.B) {
	w := newWorld(b)
	plain := walLike(16 << 20)
	b.Run("seal", func(b *testing.B) {
		i := 0
		perCore(b, len(plain), func() {
			i++
			_, err := w.writer.CreateEnvelope(b.Context(), fmt.Sprint("wal/", b.N, "/", i), KindWAL, bytes.NewReader(plain), int64(len(plain)))
			check(b, err)
			*w.store = mem.Store{}
		})
	})
	_, err := w.writer.CreateEnvelope(b.Context(), "wal/x", KindWAL, bytes.NewReader(plain), int64(len(plain)))
	check(b, err)
	b.Logf("%d bytes are stored as %d", len(plain), len(w.get(b, "wal/x")))
	b.Run("open", func(b *testing.B) {
		perCore(b, len(plain), func() {
			_, rc, err := w.reader.OpenEnvelope(b.Context(), "wal/x", KindWAL)
			check(b, err)
			_, err = io.Copy(io.Discard, rc)
			check(b, err)
			rc.Close()
		})
	})
}

func BenchmarkPack(b *testing.B) {
	w := newWorld(b)
	raw := walLike(FrameSize)
	for _, level := range []Level{Fastest, Default, Better} {
		b.Run(fmt.Sprint("write/", level), func(b *testing.B) {
			pw, err := w.writer.NewPackWriter(NewPackBuffers(1), level)
			check(b, err)
			defer pw.Close()
			perCore(b, len(raw), func() {
				_, err := pw.Add(b.Context(), raw)
				check(b, err)
				if pw.Full() {
					p, err := pw.Finish()
					check(b, err)
					p.Release()
				}
			})
		})
	}
	p := storePack(b, w.writer, nil, packTarget-2*FrameSize, func(int) []byte { return raw })
	size := 0
	for _, f := range p.frames {
		size += f.Raw
	}
	pr, err := w.reader.NewPackReader()
	check(b, err)
	defer pr.Close()
	b.Run("read", func(b *testing.B) {
		perCore(b, size, func() {
			pack, err := w.reader.FetchPack(b.Context(), p.PackRef, p.frames)
			check(b, err)
			for _, f := range p.frames {
				_, err := pr.Frame(pack, f)
				check(b, err)
			}
		})
	})
}

func BenchmarkManifest(b *testing.B) {
	w := newWorld(b)
	const packs, frames = 400, 50
	files := []FileEntry{{Type: Regular, Path: "base/1/1", Mode: 0o600, Size: packs * frames << 20}}
	var entries []PackEntry
	for i := range packs {
		e := PackEntry{PackRef: PackRef{randomHex(32), 16 << 20, 4000}}
		for j := range frames {
			e.Frames = append(e.Frames, FrameEntry{FrameRef{int64(j) * 330000, 329000, FrameSize, randomHex(sumSize)},
				[]Span{{0, int64(i*frames+j) << 20, 0, FrameSize}}})
		}
		entries = append(entries, e)
	}
	info := testInfo()
	b.Run("write", func(b *testing.B) {
		start := cpu(b)
		for b.Loop() {
			*w.store = mem.Store{}
			_, err := commit(b, w, info, files, entries)
			check(b, err)
		}
		b.ReportMetric(float64((cpu(b)-start).Microseconds())/float64(b.N)/(packs*frames), "cpu-µs/frame")
	})
	b.Run("read", func(b *testing.B) {
		start := cpu(b)
		for b.Loop() {
			_, _, err := readAll(w.reader, b)
			check(b, err)
		}
		b.ReportMetric(float64((cpu(b)-start).Microseconds())/float64(b.N)/(packs*frames), "cpu-µs/frame")
	})
}
