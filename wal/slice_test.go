package wal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

func TestChain(t *testing.T) {
	t.Parallel()
	s := func(from, to int64) slice { return slice{from: from, to: to} }
	for name, c := range map[string]struct {
		all, use []slice
		held     int64
	}{
		"none":                  {nil, nil, 0},
		"one":                   {[]slice{s(0, 100)}, []slice{s(0, 100)}, 100},
		"less than a header":    {[]slice{s(0, 39)}, nil, 0},
		"in any order":          {[]slice{s(100, 200), s(0, 100)}, []slice{s(0, 100), s(100, 200)}, 200},
		"not from the start":    {[]slice{s(1, 100)}, nil, 0},
		"a hole":                {[]slice{s(0, 100), s(101, 200)}, []slice{s(0, 100)}, 100},
		"overlapping":           {[]slice{s(0, 100), s(50, 150), s(140, 160)}, []slice{s(0, 100), s(50, 150), s(140, 160)}, 160},
		"as few as can be":      {[]slice{s(0, 10), s(10, 20), s(20, 30), s(0, 30), s(30, 64)}, []slice{s(0, 30), s(30, 64)}, 64},
		"the farthest of three": {[]slice{s(0, 50), s(10, 60), s(20, 90), s(50, 70)}, []slice{s(0, 50), s(20, 90)}, 90},
		"twice":                 {[]slice{s(0, 100), s(0, 100)}, []slice{s(0, 100)}, 100},
	} {
		use, held := chain(c.all)
		if held != c.held || !slices.Equal(use, c.use) {
			t.Errorf("%s: %v, %d; want %v, %d", name, use, held, c.use, c.held)
		}
	}
}

// Whatever slices there are, the chain covers what a map of bytes covers.
func TestChainAgainstBytes(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var all []slice
		covered := make([]bool, 300)
		for range rnd.IntN(12) {
			from := rnd.Int64N(250)
			s := slice{from: from, to: from + 1 + rnd.Int64N(49)}
			all = append(all, s)
			for i := s.from; i < s.to; i++ {
				covered[i] = true
			}
		}
		want := int64(slices.Index(append(covered, false), false))
		if want < postgres.SegmentHeaderSize {
			want = 0
		}
		use, held := chain(all)
		if held != want {
			t.Fatalf("%v: held to %d, want %d", all, held, want)
		}
		at := int64(0)
		for _, s := range use {
			if s.from > at || s.to <= at {
				t.Fatalf("%v: the chain %v does not go on at %d", all, use, at)
			}
			at = s.to
		}
		if at != held {
			t.Fatalf("%v: the chain %v ends at %d, not %d", all, use, at, held)
		}
	}
}

// putSlice stores a slice of a segment.
func (a *archive) putSlice(t testing.TB, name string, content []byte, from, to int64) {
	t.Helper()
	n := walName(t, name)
	_, err := a.CreateEnvelope(context.Background(), repo.SliceKey(testSystem, n.Timeline, n.Segment, from, to), repo.KindWAL,
		bytes.NewReader(content[from:to]), to-from)
	if err != nil {
		t.Fatal(err)
	}
}

func TestFetchSlices(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000003"
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		a.pushSegment(t, "000000010000000000000002")
		b := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
		a.putSlice(t, name, b, 300000, 400000)
		if err := tryFetch(t, a.Repo, testSystem, name); !errors.Is(err, ErrNotArchived) {
			t.Errorf("without the beginning of the segment: %v", err)
		}
		a.putSlice(t, name, b, 0, 100000)
		a.putSlice(t, name, b, 90000, 200000)
		want := append(slices.Clone(b[:200000]), make([]byte, 1<<20-200000)...)
		if got := a.fetch(t, name); !bytes.Equal(got, want) {
			t.Error("not the slices, filled up with zeros")
		}
		if err := tryFetch(t, a.Repo, testSystem, "000000010000000000000004"); !errors.Is(err, ErrNotArchived) {
			t.Errorf("after the slices: %v", err)
		}
		// A slice of a later segment makes the hole a gap, and the same slices
		// whole once they reach the end.
		later := segmentBytes(segment(t, "000000010000000000000004", 1<<20), testSystem, 1)
		a.putSlice(t, "000000010000000000000004", later, 0, 5000)
		gap, ok := errors.AsType[*GapError](tryFetch(t, a.Repo, testSystem, name))
		if !ok || gap.Later != "000000010000000000000004" {
			t.Errorf("slices that end before their segment, with a later one: %v", gap)
		}
		a.putSlice(t, name, b, 200000, 1<<20)
		if got := a.fetch(t, name); !bytes.Equal(got, b) {
			t.Error("not the whole segment")
		}
		// The whole segment is what counts, whatever the slices are.
		a.push(t, name, b)
		if err := removeSlices(context.Background(), a.Repo, testSystem, segment(t, name, 1<<20)); err != nil {
			t.Fatal(err)
		}
		left, err := listSlices(context.Background(), a.Repo, testSystem, 1, name)
		if err != nil || len(left) != 0 {
			t.Errorf("slices are left: %v %v", left, err)
		}
		if got := a.fetch(t, name); !bytes.Equal(got, b) {
			t.Error("not the whole segment")
		}
	})
}

func TestFetchSlicesRefuses(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000003"
	other := segmentBytes(segment(t, name, 1<<20), testSystem, 2)
	b := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
	alien := segmentBytes(segment(t, name, 1<<20), testSystem+1, 1)
	for what, put := range map[string]func(t *testing.T, a *archive){
		"two that differ where they overlap": func(t *testing.T, a *archive) {
			a.putSlice(t, name, b, 0, 1000)
			a.putSlice(t, name, other, 500, 2000)
		},
		"of another system": func(t *testing.T, a *archive) { a.putSlice(t, name, alien, 0, 1000) },
		"zeros":             func(t *testing.T, a *archive) { a.putSlice(t, name, make([]byte, 1<<20), 0, 1000) },
		"moved to another segment": func(t *testing.T, a *archive) {
			a.putSlice(t, "000000010000000000000005", b, 0, 1000)
			raw := rawObject(t, a.store, repo.SliceKey(testSystem, 1, "000000010000000000000005", 0, 1000))
			check(t, a.store.Delete(context.Background(), repo.SliceKey(testSystem, 1, "000000010000000000000005", 0, 1000)))
			check(t, a.store.Create(context.Background(), repo.SliceKey(testSystem, 1, name, 0, 1000), bytes.NewReader(raw)))
		},
		"with fewer bytes than its name says": func(t *testing.T, a *archive) {
			_, err := a.CreateEnvelope(context.Background(), repo.SliceKey(testSystem, 1, name, 0, 1000), repo.KindWAL, bytes.NewReader(b[:900]), 900)
			check(t, err)
		},
		"past the end of the segment": func(t *testing.T, a *archive) {
			long := append(slices.Clone(b), 1, 2, 3)
			a.putSlice(t, name, long, 0, 1<<20+3)
		},
		"with a flipped bit": func(t *testing.T, a *archive) {
			a.putSlice(t, name, b, 0, 1000)
			raw := rawObject(t, a.store, repo.SliceKey(testSystem, 1, name, 0, 1000))
			raw[len(raw)-5] ^= 1
			replaceObject(t, a.store, repo.SliceKey(testSystem, 1, name, 0, 1000), raw)
		},
	} {
		t.Run(what, func(t *testing.T) {
			a := newArchive(t, mem.New())
			a.pushSegment(t, "000000010000000000000002")
			put(t, a)
			err := tryFetch(t, a.Repo, testSystem, name)
			if err == nil || errors.Is(err, ErrNotArchived) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) {
				t.Errorf("got %v", err)
			}
			// Without the identity nothing is handed over either.
			blind := a.open(t, a.store, "db2")
			if err := tryFetch(t, blind, testSystem, name); !errors.Is(err, repo.ErrNoIdentity) {
				t.Errorf("without an identity: %v", err)
			}
		})
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// replacing replaces slices at the moment at which they have been listed.
type replacing struct {
	storage.Store
	after  string // a listing of this prefix
	change func() // done once, after the listing
}

func (r *replacing) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		var all []storage.Info
		for info, err := range r.Store.List(ctx, prefix) {
			if err != nil {
				yield(info, err)
				return
			}
			all = append(all, info)
		}
		if prefix == r.after && r.change != nil {
			change := r.change
			r.change = nil
			change()
		}
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Slices that are merged, or replaced by their segment, while they are read are
// neither an error nor the end of the archive.
func TestSlicesReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000003"
	b := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
	seg := segment(t, name, 1<<20)
	for _, what := range []string{"merged", "whole"} {
		t.Run(what, func(t *testing.T) {
			a := newArchive(t, mem.New())
			a.pushSegment(t, "000000010000000000000002")
			a.putSlice(t, name, b, 0, 1000)
			a.putSlice(t, name, b, 1000, 2000)
			change := func() {
				if what == "whole" {
					a.push(t, name, b)
				} else {
					a.putSlice(t, name, b, 0, 2000)
				}
				for _, at := range []int64{0, 1000} {
					check(t, a.store.Delete(context.Background(), repo.SliceKey(testSystem, 1, name, at, at+1000)))
				}
			}
			want := slices.Clone(b)
			if what == "merged" {
				clear(want[2000:])
			}
			slow := &replacing{Store: a.store, after: repo.SlicePrefix(testSystem, 1, name), change: change}
			r := a.open(t, slow, "db2", a.identity)
			ix, err := LoadIndex(context.Background(), r, testSystem)
			check(t, err)
			dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
			check(t, Fetch(context.Background(), r, testSystem, walName(t, name), dest))
			if got, err := os.ReadFile(dest); err != nil || !bytes.Equal(got, want) {
				t.Errorf("fetched something else: %v", err)
			}
			// The index was loaded before.
			buf := make([]byte, 1<<20)
			check(t, ix.read(context.Background(), r, seg, buf))
			if !bytes.Equal(buf, want) {
				t.Error("read something else")
			}
		})
	}
}

func TestIndexOfSlices(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	for _, name := range []string{"000000010000000000000002", "000000010000000000000003", "000000010000000000000006"} {
		a.pushSegment(t, name)
	}
	b := func(name string) []byte { return segmentBytes(segment(t, name, 1<<20), testSystem, 1) }
	four, six, seven := "000000010000000000000004", "000000010000000000000006", "000000010000000000000007"
	a.putSlice(t, four, b(four), 0, 1000)
	a.putSlice(t, four, b(four), 1000, 5000)
	a.putSlice(t, four, b(four), 6000, 7000)
	a.putSlice(t, six, b(six), 0, 1000) // left from before it was whole
	a.putSlice(t, seven, b(seven), 0, 8192)
	ix, err := LoadIndex(context.Background(), a.Repo, testSystem)
	check(t, err)
	want := []Range{{1, 2 * mib, 4*mib + 5000}, {1, 6 * mib, 7*mib + 8192}}
	if got := ix.Ranges(1); !slices.Equal(got, want) {
		t.Errorf("ranges %v, want %v", got, want)
	}
	if n := want[0].Segments(1 << 20); n != 3 {
		t.Errorf("%d segments", n)
	}
	if seg, ok := ix.Newest(1); !ok || seg.Name() != seven || ix.HasWhole(seg) || !ix.Has(seg) || ix.HeldTo(seg) != 7*mib+8192 {
		t.Errorf("the newest is %v", seg)
	}
	p, err := ix.Path(LatestTimeline, 1, 2*mib)
	check(t, err)
	reach := ix.Reach(p, 2*mib)
	if reach.End != 4*mib+5000 || !reach.Gap || reach.Strays || reach.Missing.Name() != four {
		t.Errorf("from the first range: %+v", reach)
	}
	if reach := ix.Reach(p, 6*mib); reach.End != 7*mib+8192 || reach.Gap || reach.Strays {
		t.Errorf("from the second range: %+v", reach)
	}
	if missing, any := ix.Missing(p, 6*mib, 7*mib+8192); any {
		t.Errorf("%s is missing", missing)
	}
	if missing, any := ix.Missing(p, 6*mib, 7*mib+8193); !any || missing.Name() != seven {
		t.Errorf("one byte more: %s %v", missing, any)
	}
}

// Before any segment is whole, slices count as soon as the segment size is known:
// from the first of them with an identity, else from somebody else.
func TestIndexOfSlicesAlone(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000003"
	a := newArchive(t, mem.New())
	b := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
	a.putSlice(t, name, b, 0, 1000)
	a.putSlice(t, name, b, 1000, 5000)
	want := []Range{{1, 3 * mib, 3*mib + 5000}}
	ix, err := LoadIndex(t.Context(), a.Repo, testSystem)
	check(t, err)
	if got := ix.Ranges(1); !slices.Equal(got, want) || ix.UncountedSlices() || ix.SegmentSize() != 1<<20 {
		t.Errorf("with an identity: %v", got)
	}
	blind := a.open(t, a.store, "db2")
	ix, err = LoadIndex(t.Context(), blind, testSystem)
	check(t, err)
	if got := ix.Ranges(1); len(got) != 0 || !ix.UncountedSlices() {
		t.Errorf("without an identity: %v", got)
	}
	ix.LearnSegmentSize(1 << 20)
	if got := ix.Ranges(1); !slices.Equal(got, want) || ix.UncountedSlices() {
		t.Errorf("after learning the size: %v", got)
	}
	ix.LearnSegmentSize(16 << 20) // it is known
	if ix.SegmentSize() != 1<<20 {
		t.Error("it changed its mind")
	}
	// What is damaged is told, not passed over.
	key := repo.SliceKey(testSystem, 1, name, 0, 1000)
	raw := rawObject(t, a.store, key)
	raw[len(raw)-5] ^= 1
	replaceObject(t, a.store, key, raw)
	if _, err := LoadIndex(t.Context(), a.Repo, testSystem); err == nil {
		t.Error("a damaged slice told the segment size")
	}
}

// On two timelines: the new one is believed where it has slices, and the old
// one's slices past the point where it was left do not lead recovery astray.
func TestReachOfSlicesOnTwoTimelines(t *testing.T) {
	t.Parallel()
	const at = 5*mib + 0x80000 // timeline 2 leaves timeline 1 here
	ix := func(notes ...string) *Index {
		ix := newIndex(t, map[postgres.Timeline][]uint64{1: run(2, 4)}, map[postgres.Timeline]string{2: "1\t0/580000\tx\n"})
		for _, n := range notes {
			ix.note(n, 100)
		}
		for _, tl := range ix.timelines {
			tl.numbers = nil
		}
		ix.number()
		return ix
	}
	const one, two = "00000001/000000010000000000000005.d/", "00000002/000000020000000000000005.d/"
	for name, c := range map[string]struct {
		ix     *Index
		end    postgres.LSN
		strays bool
	}{
		"the old one ends before the switch":  {ix(one + "00000000-00070000"), 5*mib + 0x70000, false},
		"the old one ends after it":           {ix(one + "00000000-00090000"), at, true},
		"the new one ends after it":           {ix(one+"00000000-00090000", two+"00000000-00088000"), 5*mib + 0x88000, false},
		"the new one ends after it, old none": {ix(two + "00000000-00088000"), 5*mib + 0x88000, false},
	} {
		p, err := c.ix.Path(LatestTimeline, 1, 2*mib)
		check(t, err)
		if r := c.ix.Reach(p, 2*mib); r.End != c.end || r.Gap || r.Strays != c.strays {
			t.Errorf("%s: %+v; want %s, strays %t", name, r, c.end, c.strays)
		}
	}
}
