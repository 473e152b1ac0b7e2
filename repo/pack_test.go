package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/storage"
)

// packed is a stored pack and what is in it.
type packed struct {
	PackRef
	frames []FrameRef
	raws   [][]byte
}

// storePack fills one pack until it holds about size bytes. Most frames do not
// compress, so that they end anywhere among age's chunks.
func storePack(t testing.TB, r *Repo, rnd *rand.Rand, size int64, raw func(i int) []byte) packed {
	t.Helper()
	w, err := r.NewPackWriter(NewPackBuffers(1), Fastest)
	check(t, err)
	var p packed
	for i, at := 0, int64(0); at < size; i++ {
		b := raw(i)
		f, err := w.Add(t.Context(), b)
		check(t, err)
		p.frames, p.raws = append(p.frames, f), append(p.raws, b)
		at = f.At + int64(f.Len)
	}
	sealed, err := w.Finish()
	check(t, err)
	check(t, r.StorePack(t.Context(), sealed))
	check(t, r.StorePack(t.Context(), sealed)) // there already
	p.PackRef = sealed.PackRef
	sealed.Release()
	return p
}

func randomBytes(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func recipients(t testing.TB, first *KeyFile, n int, hybrid bool) []age.Recipient {
	t.Helper()
	out := recipientsOf(t, first)
	for len(out) < n {
		var r age.Recipient
		if hybrid {
			id, err := age.GenerateHybridIdentity()
			check(t, err)
			r = id.Recipient()
		} else {
			id, err := age.GenerateX25519Identity()
			check(t, err)
			r = id.Recipient()
		}
		out = append(out, r)
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// TestRangedReads compares ranged reads of every frame, and of random choices
// of frames, with what was put in, and counts requests and bytes.
func TestRangedReads(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and all in one goroutine: run in full, without the race detector")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	w := newWorld(t)
	classic, err := age.GenerateX25519Identity()
	check(t, err)
	kinds := map[bool]*KeyFile{true: w.recovery, false: {Identities: []age.Identity{classic}}}
	for _, hybrid := range []bool{true, false} {
		for _, n := range []int{1, 2, 3, 7, 8, 13, MaxRecipients} {
			t.Run(fmt.Sprintf("hybrid=%t/%d", hybrid, n), func(t *testing.T) {
				writer, err := Open(t.Context(), w.store, Keys{Cluster: w.cluster, Recipients: recipients(t, kinds[hybrid], n, hybrid)}, "db1")
				check(t, err)
				p := storePack(t, writer, rnd, 2<<20+rnd.Int64N(1<<20), func(int) []byte {
					return randomBytes(rnd, 1+rnd.IntN(1<<(4+rnd.IntN(15))))
				})
				if p.Head > maxHead {
					t.Fatalf("%d recipients make a head of %d bytes", n, p.Head)
				}
				store := &watched{Store: w.store}
				reader, err := Open(t.Context(), store, Keys{Identities: kinds[hybrid].Identities, Trusted: w.cluster.Signers}, "x")
				check(t, err)
				pr, err := reader.NewPackReader()
				check(t, err)
				defer pr.Close()
				for i := range p.frames {
					compareFrames(t, reader, pr, store, p, []int{i})
				}
				for range 20 {
					var some []int
					step := 1 + rnd.IntN(2*len(p.frames))
					for i := rnd.IntN(step); i < len(p.frames); i += 1 + rnd.IntN(step) {
						some = append(some, i)
					}
					compareFrames(t, reader, pr, store, p, some)
				}
			})
		}
	}
}

func compareFrames(t *testing.T, r *Repo, pr *PackReader, store *watched, p packed, which []int) {
	t.Helper()
	var refs []FrameRef
	var wanted int64
	for _, i := range which {
		refs = append(refs, p.frames[i])
		wanted += int64(p.frames[i].Len)
	}
	store.taken()
	pack, err := r.FetchPack(t.Context(), p.PackRef, refs)
	check(t, err)
	requests := store.taken()
	for _, k := range rand.Perm(len(which)) { // any order of reading
		got, err := pr.Frame(pack, refs[k])
		check(t, err)
		if !bytes.Equal(got, p.raws[which[k]]) {
			t.Fatalf("frame %d of %d is another", which[k], len(p.frames))
		}
	}
	if more := store.taken(); len(more) > 0 {
		t.Fatalf("hidden requests: %v", more)
	}
	var fetched int64
	for _, q := range requests {
		fetched += q.n
	}
	// At worst: the head, each frame with two broken chunks and a gap that was
	// not worth a request, and the last chunk.
	most := p.Head + wanted + int64(len(which)+1)*(2*ageSealed+mergeGap) + ageSealed
	if len(requests) > len(which)+2 || fetched > min(most, p.Size) {
		t.Fatalf("%d frames of %d bytes took %d requests, %d bytes of %d", len(which), wanted, len(requests), fetched, p.Size)
	}
	if len(which) == 1 && wanted*2 < p.Size && fetched > p.Head+wanted+3*ageSealed+2*mergeGap {
		t.Fatalf("one frame of %d bytes took %d bytes", wanted, fetched)
	}
}

// TestPackWhole: a full pack, of frames that compress in all degrees.
func TestPackWhole(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	p := storePack(t, w.writer, rnd, packTarget-2*FrameSize, func(i int) []byte {
		n := []int{1, 100, 8192, FrameSize - 1, FrameSize}[i%5]
		switch i % 3 {
		case 0:
			return make([]byte, n)
		case 1:
			return walLike(n)
		}
		return randomBytes(rnd, n)
	})
	if p.Size > packTarget {
		t.Errorf("a pack of %d bytes", p.Size)
	}
	for _, level := range []Level{Fastest, Default, Better} {
		stored := newEncoder(level).EncodeAll(randomBytes(rnd, FrameSize), nil)
		if len(stored) > maxStored {
			t.Errorf("level %d makes %d bytes of what does not compress", level, len(stored))
		}
	}
	pack, err := w.reader.FetchPack(t.Context(), p.PackRef, p.frames)
	check(t, err)
	pr, err := w.reader.NewPackReader()
	check(t, err)
	defer pr.Close()
	for i, f := range p.frames {
		got, err := pr.Frame(pack, f)
		check(t, err)
		if !bytes.Equal(got, p.raws[i]) {
			t.Fatalf("frame %d is another", i)
		}
	}
}

func TestPackEveryByte(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and all in one goroutine: run in full, without the race detector")
	}
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(5, 6))
	p := storePack(t, w.writer, rnd, 600, func(int) []byte { return randomBytes(rnd, 200) })
	other := storePack(t, w.writer, rnd, 600, func(int) []byte { return randomBytes(rnd, 200) })
	whole := w.get(t, PackKey(p.ID))
	pr, err := w.reader.NewPackReader()
	check(t, err)
	defer pr.Close()
	// read returns the first error, and fails on other bytes.
	read := func(ref PackRef, frames []FrameRef) (failed error) {
		pack, err := w.reader.FetchPack(t.Context(), ref, frames)
		if err != nil {
			return err
		}
		for i, f := range frames {
			got, err := pr.Frame(pack, f)
			if err == nil && !bytes.Equal(got, p.raws[i]) {
				t.Fatal("a frame of other bytes came out")
			}
			failed = errors.Join(failed, err)
		}
		return failed
	}
	check(t, read(p.PackRef, p.frames))
	for i := range whole {
		for _, mask := range []byte{1 << (i % 8), 0xff} {
			b := bytes.Clone(whole)
			b[i] ^= mask
			w.put(t, PackKey(p.ID), b)
			if err := read(p.PackRef, p.frames); !refused(err) {
				t.Errorf("byte %d xor %#x: %v", i, mask, err)
			}
		}
	}
	for n := range whole {
		w.put(t, PackKey(p.ID), whole[:n])
		if err := read(p.PackRef, p.frames); !refused(err) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	// Another pack in its place, of the same size.
	if other.Size != p.Size {
		t.Fatalf("sizes %d and %d", other.Size, p.Size)
	}
	w.put(t, PackKey(p.ID), w.get(t, PackKey(other.ID)))
	if err := read(p.PackRef, p.frames); !refused(err) {
		t.Errorf("another pack in its place: %v", err)
	}
	w.put(t, PackKey(p.ID), whole)
	// Frames swapped, and one asked for in the other pack.
	swapped := slices.Clone(p.frames)
	swapped[0].Sum, swapped[1].Sum = swapped[1].Sum, swapped[0].Sum
	if err := read(p.PackRef, swapped); !refused(err) {
		t.Errorf("sums swapped: %v", err)
	}
	if err := read(other.PackRef, p.frames); !refused(err) {
		t.Errorf("frames of another pack: %v", err)
	}
	check(t, w.store.Delete(t.Context(), PackKey(p.ID)))
	if err := read(p.PackRef, p.frames); !refused(err) || !errors.Is(err, ErrMissing) {
		t.Errorf("a missing pack: %v", err)
	}
}

func TestHostileReferences(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(7, 8))
	p := storePack(t, w.writer, rnd, 1<<20, func(int) []byte { return randomBytes(rnd, 100<<10) })
	const huge = int64(1) << 62
	for name, change := range map[string]func(*PackRef, *FrameRef){
		"size 0":          func(p *PackRef, _ *FrameRef) { p.Size = 0 },
		"size negative":   func(p *PackRef, _ *FrameRef) { p.Size = -1 },
		"size huge":       func(p *PackRef, _ *FrameRef) { p.Size = huge },
		"size too large":  func(p *PackRef, _ *FrameRef) { p.Size++ },
		"size too small":  func(p *PackRef, _ *FrameRef) { p.Size-- },
		"head 0":          func(p *PackRef, _ *FrameRef) { p.Head = 0 },
		"head negative":   func(p *PackRef, _ *FrameRef) { p.Head = -huge },
		"head huge":       func(p *PackRef, _ *FrameRef) { p.Head = huge },
		"head other":      func(p *PackRef, _ *FrameRef) { p.Head -= 17 },
		"id":              func(p *PackRef, _ *FrameRef) { p.ID = "../../lifeboat.json" },
		"at negative":     func(_ *PackRef, f *FrameRef) { f.At = -1 },
		"at huge":         func(_ *PackRef, f *FrameRef) { f.At = huge },
		"at the end":      func(p *PackRef, f *FrameRef) { f.At = p.Size },
		"len 0":           func(_ *PackRef, f *FrameRef) { f.Len = 0 },
		"len negative":    func(_ *PackRef, f *FrameRef) { f.Len = -1 },
		"len huge":        func(_ *PackRef, f *FrameRef) { f.Len = int(huge) },
		"len over a pack": func(_ *PackRef, f *FrameRef) { f.Len = MaxPack },
		"raw 0":           func(_ *PackRef, f *FrameRef) { f.Raw = 0 },
		"raw huge":        func(_ *PackRef, f *FrameRef) { f.Raw = int(huge) },
		"raw other":       func(_ *PackRef, f *FrameRef) { f.Raw-- },
		"sum short":       func(_ *PackRef, f *FrameRef) { f.Sum = f.Sum[2:] },
		"sum empty":       func(_ *PackRef, f *FrameRef) { f.Sum = "" },
		"sum other":       func(_ *PackRef, f *FrameRef) { f.Sum = "00" + f.Sum[2:] },
	} {
		for _, i := range []int{0, 5, len(p.frames) - 1} {
			ref, frame := p.PackRef, p.frames[i]
			change(&ref, &frame)
			pr, err := w.reader.NewPackReader()
			check(t, err)
			pack, err := w.reader.FetchPack(t.Context(), ref, []FrameRef{frame})
			if err == nil {
				_, err = pr.Frame(pack, frame)
			}
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of frame %d: %v", name, i, err)
			}
			pr.Close()
		}
	}
	backwards := []FrameRef{p.frames[3], p.frames[1]}
	if _, err := w.reader.FetchPack(t.Context(), p.PackRef, backwards); err == nil {
		t.Error("frames in descending order were taken")
	}
}

// A frame whose signed sum holds and that is a bomb: a stolen cluster key and
// a recipient are enough to make one.
func TestPackBombs(t *testing.T) {
	w := newWorld(t)
	enc := newEncoder(Fastest)
	zeros := enc.EncodeAll(make([]byte, FrameSize), nil)
	for name, stored := range map[string][]byte{
		"many frames in one": bytes.Repeat(zeros, 64),
		"two frames in one":  bytes.Repeat(enc.EncodeAll([]byte("x"), nil), 2),
		"not zstd":           []byte("plain"),
	} {
		var b bytes.Buffer
		a, err := age.Encrypt(&b, w.writer.keys.Recipients...)
		check(t, err)
		head := int64(b.Len())
		_, err = a.Write(stored)
		check(t, err)
		check(t, a.Close())
		ref := PackRef{ID: fmt.Sprintf("%064x", len(stored)), Size: int64(b.Len()), Head: head}
		w.put(t, PackKey(ref.ID), b.Bytes())
		f := FrameRef{Len: len(stored), Raw: 1, Sum: frameSum(stored)}
		pack, err := w.reader.FetchPack(t.Context(), ref, []FrameRef{f})
		check(t, err)
		pr, err := w.reader.NewPackReader()
		check(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := pr.Frame(pack, f); !refused(err) {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if made := after.TotalAlloc - before.TotalAlloc; made > 16*FrameSize {
			t.Errorf("%s took %d MiB", name, made>>20)
		}
		pr.Close()
	}
}

func TestPackWriterLimits(t *testing.T) {
	w := newWorld(t)
	buffers := NewPackBuffers(1)
	pw, err := w.writer.NewPackWriter(buffers, Fastest)
	check(t, err)
	for _, n := range []int{0, FrameSize + 1} {
		if _, err := pw.Add(t.Context(), make([]byte, n)); err == nil {
			t.Errorf("a frame of %d bytes was taken", n)
		}
	}
	if _, err := pw.Finish(); err == nil {
		t.Error("an empty pack was sealed")
	}
	// Who does not look at Full gets an error, not a pack that no reader takes.
	noise := randomBytes(rand.New(rand.NewPCG(9, 10)), FrameSize)
	for err == nil {
		_, err = pw.Add(t.Context(), noise)
	}
	sealed, err := pw.Finish()
	check(t, err)
	check(t, sealed.Check())
	if sealed.Size < MaxPack-2*FrameSize {
		t.Errorf("a pack was full at %d bytes", sealed.Size)
	}
	// The only buffer is taken until it is given back.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pw.Add(ctx, noise); !errors.Is(err, context.Canceled) {
		t.Errorf("a second pack in one buffer: %v", err)
	}
	sealed.Release()
	sealed.Release()
	if err := w.writer.StorePack(t.Context(), sealed); err == nil {
		t.Error("a released pack was stored")
	}
	_, err = pw.Add(t.Context(), noise)
	check(t, err)
	pw.Close()
	if _, err := pw.Add(t.Context(), noise); err != nil || len(buffers.free) != 0 {
		t.Errorf("after Close: %v", err)
	}
	pw.Close()
	// Zeros: the number of frames ends the pack.
	for !pw.Full() {
		_, err := pw.Add(t.Context(), make([]byte, 8192))
		check(t, err)
	}
	if pw.frames != packFrames {
		t.Errorf("full after %d frames", pw.frames)
	}
	pw.Close()
}

// StorePack takes a pack that is there for the same one, by its size.
func TestStorePackTwice(t *testing.T) {
	w := newWorld(t)
	pw, err := w.writer.NewPackWriter(NewPackBuffers(1), Fastest)
	check(t, err)
	_, err = pw.Add(t.Context(), []byte("x"))
	check(t, err)
	p, err := pw.Finish()
	check(t, err)
	w.put(t, PackKey(p.ID), []byte("cut short"))
	if err := w.writer.StorePack(t.Context(), p); !refused(err) {
		t.Errorf("onto a damaged pack: %v", err)
	}
	r := over(t, w.writer, lostStore{w.store})
	if err := r.StorePack(t.Context(), p); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted meanwhile: %v", err)
	}
}

// lostStore has every object, and then not.
type lostStore struct{ storage.Store }

func (lostStore) Create(context.Context, string, io.ReadSeeker) error { return fs.ErrExist }
func (lostStore) Stat(context.Context, string) (storage.Info, error) {
	return storage.Info{}, fs.ErrNotExist
}
