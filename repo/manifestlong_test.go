package repo

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

var manyExtents = flag.Int("extents", 1_000_000, "extents of the long manifest")

// A manifest of a million extents, of ten with -extents, is written and read as
// a stream: memory stays what a few packs take.
func TestManifestOfManyExtents(t *testing.T) {
	extents := *manyExtents
	if testing.Short() {
		extents = 200_000
	}
	const frames, perFrame, page = 64, 128, 8192
	packs := extents / frames / perFrame
	world := newWorld(t)
	w := world.writer.NewManifestWriter()
	defer w.Close()
	files := []FileEntry{{Type: Regular, Path: "base/1", Mode: 0o600, Size: int64(packs) * frames * perFrame * page}}
	peak := newHeapPeak()
	begin := time.Now()
	for i := range packs {
		p := PackEntry{PackRef: PackRef{ID: fmt.Sprintf("%064x", i), Size: 16 << 20, Head: 400}, Day: 20000, Frames: make([]FrameEntry, frames)}
		for j := range p.Frames {
			f := &p.Frames[j]
			f.FrameRef = FrameRef{At: int64(j) * 100_000, Len: 90_000, Raw: perFrame * page, Sum: strings.Repeat("0", 32)}
			for k := range perFrame {
				// Pages of a pack lie far from one another, as after many updates.
				at := (int64(j*perFrame+k)*int64(packs) + int64(i)) * page
				f.To = append(f.To, Span{0, at, k * page, page})
			}
		}
		check(t, w.Add(p))
		peak.look(i)
	}
	info := testInfo()
	check(t, w.Commit(t.Context(), &info, files))
	written := time.Since(begin)
	begin = time.Now()
	m, err := world.writer.OpenManifest(t.Context(), info.Label)
	check(t, err)
	defer m.Close()
	n := 0
	for p, err := range m.Packs() {
		check(t, err)
		for _, f := range p.Frames {
			n += len(f.To)
		}
		peak.look(n / frames / perFrame)
	}
	if n != packs*frames*perFrame {
		t.Errorf("%d extents were read", n)
	}
	t.Logf("%d extents: written in %s, read in %s, %d MiB of heap at most", n, written.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond), peak.most>>20)
	// The store of this test keeps the object in memory as well.
	stored, err := world.store.Stat(t.Context(), ManifestKey(info.Label))
	check(t, err)
	if limit := uint64(96<<20) + 2*uint64(stored.Size); peak.most > limit {
		t.Errorf("%d MiB of heap, more than %d", peak.most>>20, limit>>20)
	}
}

// heapPeak looks at the heap now and then, after a collection.
type heapPeak struct{ most uint64 }

func newHeapPeak() *heapPeak { return &heapPeak{} }

func (h *heapPeak) look(i int) {
	if i%200 != 0 {
		return
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.most = max(h.most, m.HeapAlloc)
}
