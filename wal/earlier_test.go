package wal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// Two servers were promoted to one timeline. The first has streamed the
// beginning of a segment, the second has all of its own: it must not take the
// place of what is there.
func TestPushComparesWithSlices(t *testing.T) {
	t.Parallel()
	const name = "000000020000000000000003"
	seg := segment(t, name, 1<<20)
	first, second := segmentBytes(seg, testSystem, 1), segmentBytes(seg, testSystem, 2)
	later := slices.Clone(first) // as the first, up to there
	copy(later[150000:], second[150000:])
	type run struct{ from, to int64 }
	for what, c := range map[string]struct {
		slices  []run
		push    []byte
		refused bool
	}{
		"the same bytes":             {[]run{{0, 100000}, {90000, 200000}}, first, false},
		"all the same bytes":         {[]run{{0, 1 << 20}}, first, false},
		"other bytes":                {[]run{{0, 100000}}, second, true},
		"other bytes later on":       {[]run{{0, 100000}, {100000, 200000}}, later, true},
		"other bytes not seen yet":   {[]run{{0, 100000}, {100000, 150000}}, later, false},
		"other bytes behind a hole":  {[]run{{0, 100000}, {120000, 200000}}, later, true},
		"other bytes, less than all": {[]run{{0, 180000}, {0, 140000}, {140000, 160000}}, later, true},
	} {
		t.Run(what, func(t *testing.T) {
			eachStore(t, func(t *testing.T, store storage.Store) {
				a := newArchive(t, store)
				a.pushSegment(t, "000000020000000000000002")
				for _, s := range c.slices {
					a.putSlice(t, name, first, s.from, s.to)
				}
				blind := a.open(t, store, "db2") // a push has no identity
				_, err := Push(t.Context(), blind, writeFile(t, name, c.push), PushOptions{System: testSystem})
				if !c.refused {
					if got := a.fetch(t, name); err != nil || !bytes.Equal(got, c.push) {
						t.Errorf("%v; or another segment is archived", err)
					}
					return
				}
				expectTwo(t, err, name)
				if _, err := store.Stat(t.Context(), repo.WALKey(testSystem, walName(t, name))); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the segment is stored: %v", err)
				}
				_, held := chain(archivedSlices(t, a.Repo, name))
				if got := a.fetch(t, name); held == 0 || !bytes.Equal(got[:held], first[:held]) {
					t.Errorf("what was streamed, %d bytes, does not come back", held)
				}
			})
		})
	}
}

// expectTwo wants the error that names both hosts and both hashes.
func expectTwo(t *testing.T, err error, name string) {
	t.Helper()
	two, ok := errors.AsType[*TwoPrimariesError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"slice of " + name, two.HaveSHA256, two.SHA256, "host db1", "host db2", "two primaries"} {
		if len(want) < 8 || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not tell %q: %v", want, err)
		}
	}
}

func archivedSlices(t *testing.T, r *repo.Repo, name string) []slice {
	t.Helper()
	all, err := listSlices(t.Context(), r, testSystem, walName(t, name).Timeline, name)
	check(t, err)
	return all
}

// Once the whole segment is there slices count no longer: the very same file is
// a success, and it is that which another one is held against.
func TestPushBesideLeftSlices(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000003"
	seg := segment(t, name, 1<<20)
	first, second := segmentBytes(seg, testSystem, 1), segmentBytes(seg, testSystem, 2)
	a := newArchive(t, mem.New())
	a.push(t, name, first)
	a.putSlice(t, name, second, 0, 1000)
	if s, err := Push(t.Context(), a.Repo, writeFile(t, name, first), PushOptions{System: testSystem}); err != nil || !s.Existed {
		t.Errorf("the same file again: existed %t, %v", s.Existed, err)
	}
	_, err := Push(t.Context(), a.Repo, writeFile(t, name, second), PushOptions{System: testSystem})
	if two, ok := errors.AsType[*TwoPrimariesError](err); !ok || two.Name != name {
		t.Errorf("another file: %v", err)
	}
	// A partial segment takes no slice's place.
	a.putSlice(t, "000000010000000000000004", segmentBytes(segment(t, "000000010000000000000004", 1<<20), testSystem, 2), 0, 1000)
	a.push(t, "000000010000000000000004.partial", segmentBytes(segment(t, "000000010000000000000004", 1<<20), testSystem, 1))
}

func TestPushRefusesSlicePastTheEnd(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000003"
	b := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
	a := newArchive(t, mem.New())
	a.putSlice(t, name, append(slices.Clone(b), 1, 2, 3), 0, 1<<20+3)
	_, err := Push(t.Context(), a.Repo, writeFile(t, name, b), PushOptions{System: testSystem})
	if _, ok := errors.AsType[*HeaderError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// Slices that go while they are looked at are merged into another, which is
// compared then, or replaced by the whole segment.
func TestPushWhileSlicesAreReplaced(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000003"
	seg := segment(t, name, 1<<20)
	first, second := segmentBytes(seg, testSystem, 1), segmentBytes(seg, testSystem, 2)
	for _, by := range []string{"a merge", "the whole segment"} {
		for what, content := range map[string][]byte{"the same": first, "another": second} {
			t.Run(by+", "+what, func(t *testing.T) {
				a := newArchive(t, mem.New())
				a.putSlice(t, name, first, 0, 1000)
				a.putSlice(t, name, first, 1000, 2000)
				change := func() {
					if by == "a merge" {
						a.putSlice(t, name, first, 0, 2000)
					} else if _, err := a.CreateEnvelope(t.Context(), repo.WALKey(testSystem, walName(t, name)), repo.KindWAL, bytes.NewReader(first), 1<<20); err != nil {
						t.Error(err)
					}
					for _, at := range []int64{0, 1000} {
						check(t, a.store.Delete(t.Context(), repo.SliceKey(testSystem, 1, name, at, at+1000)))
					}
				}
				slow := &replacing{Store: a.store, after: repo.SlicePrefix(testSystem, 1, name), change: change}
				_, err := Push(t.Context(), a.open(t, slow, "db2"), writeFile(t, name, content), PushOptions{System: testSystem})
				if _, two := errors.AsType[*TwoPrimariesError](err); slow.change != nil || two != (what == "another") || !two && err != nil {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

// Looking ahead compares too, and leaves the refusal to the file's own push.
func TestPushAheadComparesWithSlices(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	d := newDataDir(t, "000000010000000000000001", "000000010000000000000002", "000000010000000000000003")
	odd := d.names[1]
	a.putSlice(t, odd, segmentBytes(segment(t, odd, 1<<20), testSystem, 99), 0, 5000)
	other := a.open(t, a.store, "db2")
	push := func(name string) error {
		_, _, err := PushAhead(t.Context(), other, d.file(name), PushOptions{System: testSystem}, a.ahead(d))
		return err
	}
	check(t, push(d.names[0]))
	expectTwo(t, push(odd), odd)
	if _, known := a.memory(d).Recall(d.file(odd)); known || a.has(t, d, odd) {
		t.Error("the refused file is stored, or remembered")
	}
}

// meetingStore lets the listing of slices go on once the marker is being read,
// and the other way round.
type meetingStore struct {
	storage.Store
	meet func(who string)
}

func (s meetingStore) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if key == "lifeboat.json" {
		s.meet("marker")
	}
	return s.Store.Open(ctx, key, off, n)
}

func (s meetingStore) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	s.meet("slices")
	return s.Store.List(ctx, prefix)
}

// No round trip is added to what a push waits for.
func TestPushLooksForSlicesBesideTheMarker(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000001"
	a := newArchive(t, mem.New())
	var mu sync.Mutex
	there, both := map[string]bool{}, make(chan struct{})
	meet := sync.OnceFunc(func() { close(both) })
	r, err := a.writer(meetingStore{a.store, func(who string) {
		mu.Lock()
		if there[who] = true; len(there) == 2 {
			meet()
		}
		mu.Unlock()
		select {
		case <-both:
		case <-time.After(time.Minute):
			t.Errorf("%s was waited for alone", who)
		}
	}})
	check(t, err)
	_, err = Push(t.Context(), r, writeFile(t, name, segmentBytes(segment(t, name, 1<<20), testSystem, 1)), PushOptions{System: testSystem})
	check(t, err)
	select {
	case <-both:
	default:
		t.Error("they did not meet")
	}
}
