package wal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// flaky is a store whose Create fails at first and then now and then, sometimes
// after it has stored the object.
type flaky struct {
	storage.Store
	rnd   chan *rand.Rand // holds the one there is
	share float64         // of the calls that fail
	calls atomic.Int64
	fails atomic.Int64
}

func newFlaky(store storage.Store, seed uint64, share float64) *flaky {
	f := &flaky{Store: store, rnd: make(chan *rand.Rand, 1), share: share}
	f.rnd <- rand.New(rand.NewPCG(seed, 7))
	return f
}

var errFlaky = errors.New("the store is out of sorts")

func (f *flaky) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	rnd := <-f.rnd
	fail, after := rnd.Float64() < f.share || f.calls.Add(1) == 1, rnd.IntN(2) == 0
	f.rnd <- rnd
	if fail && !after {
		f.fails.Add(1)
		return errFlaky
	}
	err := f.Store.Create(ctx, key, body)
	if fail && err == nil {
		f.fails.Add(1)
		return errFlaky
	}
	return err
}

// archived is how far the store holds the WAL of timeline 1 from begin on.
func archived(t *testing.T, a *archive, begin postgres.LSN) postgres.LSN {
	t.Helper()
	at := begin
	for seg := postgres.SegmentAt(1, begin, 1<<20); ; seg = seg.Next() {
		if _, err := a.store.Stat(context.Background(), repo.WALKey(testSystem, walName(t, seg.Name()))); err == nil {
			at = seg.End()
			continue
		}
		all, err := listSlices(context.Background(), a.Repo, testSystem, 1, seg.Name())
		check(t, err)
		_, held := chain(all)
		if held < 1<<20 {
			return at + postgres.LSN(held)
		}
		at = seg.End()
	}
}

// A tail never calls durable what the store does not hold, whatever fails, and
// in the end the store holds all of it, byte for byte.
func TestTailNeverAhead(t *testing.T) {
	t.Parallel()
	const begin, total = 3 * mib, 5<<20 + 12345
	for name, policy := range map[string]tailPolicy{
		"at once":    {atOnce: true},
		"by time":    {interval: 2 * time.Millisecond, size: 1 << 20},
		"by size":    {interval: time.Hour, size: 100_000},
		"only whole": {interval: time.Hour, size: 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			rnd := rand.New(rand.NewPCG(seed, 1))
			a := newArchive(t, mem.New())
			store := newFlaky(a.store, seed, 0.4)
			var wal []byte
			for seg := postgres.SegmentAt(1, begin, 1<<20); len(wal) < total; seg = seg.Next() {
				wal = append(wal, segmentBytes(seg, testSystem, 1)...)
			}
			wal = wal[:total]
			var w waiting
			tl := newTail(a.open(t, store, "db1"), testSystem, 1<<20, policy, w.wake)
			ctx := context.Background()
			check(t, tl.begin(ctx, 1, begin, begin))
			clock, before := time.Unix(1800000000, 0), tl.durable()
			for sent := 0; sent < total || tl.outstanding(); {
				if sent < total && !tl.full() {
					n := min(1+rnd.IntN(40_000), total-sent)
					check(t, tl.add(ctx, begin+postgres.LSN(sent), wal[sent:sent+n]))
					sent += n
				} else {
					tl.force()
					w.sleep(ctx, time.Millisecond)
					clock = clock.Add(time.Second) // past any pause
				}
				if err := tl.collect(clock); err != nil && !errors.Is(err, errFlaky) {
					t.Fatal(err)
				}
				tl.step(ctx, clock)
				clock = clock.Add(time.Millisecond)
				if d := tl.durable(); d != before {
					before = d
					if d > archived(t, a, begin) || d > tl.received() {
						t.Fatalf("durable to %s, the store holds the WAL to %s", d, archived(t, a, begin))
					}
				}
			}
			tl.removing.Wait()
			if tl.durable() != begin+total || archived(t, a, begin) != begin+total {
				t.Errorf("durable to %s, the store holds %s, sent to %s", tl.durable(), archived(t, a, begin), begin+postgres.LSN(total))
			}
			if store.fails.Load() == 0 {
				t.Error("nothing failed, so nothing was tried")
			}
			sameWAL(t, a, begin, wal)
		})
	}
}

// sameWAL fetches the archived segments and compares them.
func sameWAL(t *testing.T, a *archive, begin postgres.LSN, want []byte) {
	t.Helper()
	for seg := postgres.SegmentAt(1, begin, 1<<20); len(want) > 0; seg = seg.Next() {
		n := min(len(want), 1<<20)
		got := a.fetch(t, seg.Name())
		if !bytes.Equal(got[:n], want[:n]) || bytes.ContainsFunc(got[n:], func(r rune) bool { return r != 0 }) {
			t.Errorf("%s is not what was sent", seg)
		}
		want = want[n:]
	}
}

// Many slices of one segment become few, and say the same.
func TestTailMerges(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	var w waiting
	tl := newTail(a.Repo, testSystem, 1<<20, tailPolicy{atOnce: true}, w.wake)
	ctx := context.Background()
	check(t, tl.begin(ctx, 1, 3*mib, 3*mib))
	b := segmentBytes(segment(t, "000000010000000000000003", 1<<20), testSystem, 1)
	const step, slices = 100, 3 * mergeAt
	for i := range slices {
		check(t, tl.add(ctx, 3*mib+postgres.LSN(i*step), b[i*step:(i+1)*step]))
		for tl.outstanding() || tl.merging {
			tl.step(ctx, time.Unix(1800000000, 0))
			w.sleep(ctx, 20*time.Millisecond)
			check(t, tl.collect(time.Unix(1800000000, 0)))
		}
	}
	left, err := listSlices(ctx, a.Repo, testSystem, 1, "000000010000000000000003")
	check(t, err)
	if len(left) > mergeAt+3 {
		t.Errorf("%d slices are left of %d", len(left), slices)
	}
	sameWAL(t, a, 3*mib, b[:step*slices])
}

// A new timeline's first segment is not stored before it holds what the old
// one's does.
func TestTailWaitsForTheSwitchPoint(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	var w waiting
	tl := newTail(a.Repo, testSystem, 1<<20, tailPolicy{atOnce: true}, w.wake)
	ctx := context.Background()
	const at = 3*mib + 5000
	check(t, tl.begin(ctx, 2, 3*mib, at))
	b := segmentBytes(segment(t, "000000020000000000000003", 1<<20), testSystem, 1)
	now := time.Unix(1800000000, 0)
	check(t, tl.add(ctx, 3*mib, b[:4999]))
	tl.force()
	tl.step(ctx, now)
	if tl.slicing != nil || tl.outstanding() {
		t.Error("a slice that ends before the switch point is being stored")
	}
	check(t, tl.add(ctx, 3*mib+4999, b[4999:5001]))
	tl.step(ctx, now)
	for tl.outstanding() {
		w.sleep(ctx, 20*time.Millisecond)
		check(t, tl.collect(now))
	}
	if tl.durable() != at+1 {
		t.Errorf("durable to %s", tl.durable())
	}
}

// Two servers that write different WAL under one name are told apart for good.
func TestTailConflict(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	a.pushSegment(t, "000000010000000000000003")
	var w waiting
	tl := newTail(a.open(t, a.store, "db2"), testSystem, 1<<20, tailPolicy{interval: time.Hour, size: 1 << 30}, w.wake)
	ctx := context.Background()
	check(t, tl.begin(ctx, 1, 3*mib, 3*mib))
	check(t, tl.add(ctx, 3*mib, segmentBytes(segment(t, "000000010000000000000003", 1<<20), testSystem, 2)))
	now := time.Unix(1800000000, 0)
	tl.step(ctx, now)
	w.sleep(ctx, time.Minute)
	err := tl.collect(now)
	conflict, ok := errors.AsType[*TwoPrimariesError](err)
	if !ok || !lasting(err) || conflict.HaveHost != "db1" || conflict.Host != "db2" {
		t.Errorf("got %v", err)
	}
	if tl.durable() != 3*mib {
		t.Errorf("durable to %s", tl.durable())
	}
}

// A server that was put back writes other WAL where slices are already: that is
// no second version of them.
func TestTailComparesWithEarlierSlices(t *testing.T) {
	t.Parallel()
	const name = "000000010000000000000003"
	b := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
	for what, c := range map[string]struct {
		sent []byte
		ok   bool
	}{"the same": {b, true}, "other WAL": {segmentBytes(segment(t, name, 1<<20), testSystem, 2), false}} {
		t.Run(what, func(t *testing.T) {
			a := newArchive(t, mem.New())
			a.putSlice(t, name, b, 0, 1000)
			a.putSlice(t, name, b, 1000, 3000)
			var w waiting
			tl := newTail(a.open(t, a.store, "db2"), testSystem, 1<<20, tailPolicy{atOnce: true}, w.wake)
			ctx := context.Background()
			check(t, tl.begin(ctx, 1, 3*mib, 3*mib))
			// Nothing is known to be durable before it has arrived, and of a slice
			// before all of it has.
			for sent, durable := range map[int]postgres.LSN{0: 0, 900: 0, 1000: 1000, 2999: 1000, 3000: 3000, 3001: 3000} {
				if !c.ok {
					continue
				}
				tl := newTail(a.open(t, a.store, "db2"), testSystem, 1<<20, tailPolicy{atOnce: true}, w.wake)
				check(t, tl.begin(ctx, 1, 3*mib, 3*mib))
				check(t, tl.add(ctx, 3*mib, c.sent[:sent]))
				if tl.durable() != 3*mib+durable || tl.outstanding() != (sent > 3000) {
					t.Errorf("%d bytes have arrived: durable to %s, outstanding %t", sent, tl.durable(), tl.outstanding())
				}
			}
			err := tl.add(ctx, 3*mib, c.sent[:5000])
			if !c.ok && tl.durable() != 3*mib {
				t.Errorf("durable to %s", tl.durable())
			}
			if conflict, ok := errors.AsType[*TwoPrimariesError](err); ok == c.ok || ok && conflict.HaveHost != "db1" {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Under a whole segment that is archived no slice is stored, which no restore would
// look at, and nothing is called durable: also where it comes after the first.
func TestTailStoresNothingUnderWholeSegments(t *testing.T) {
	t.Parallel()
	const first, second = "000000010000000000000003", "000000010000000000000004"
	for what, behind := range map[string]bool{"as the server, which is past it": false, "of another branch": true} {
		for _, name := range []string{first, second} {
			t.Run(name+" "+what, func(t *testing.T) {
				a := newArchive(t, mem.New())
				a.pushSegment(t, name)
				var w waiting
				tl := newTail(a.open(t, a.store, "db2"), testSystem, 1<<20, tailPolicy{atOnce: true}, w.wake)
				tl.behind = func(_ context.Context, seg postgres.Segment) bool { return behind && seg.Name() == name }
				now := time.Unix(1800000000, 0)
				store := func(to postgres.LSN, sent []byte) error {
					if err := tl.add(t.Context(), to, sent); err != nil {
						return err
					}
					for tl.outstanding() {
						tl.step(t.Context(), now)
						w.sleep(t.Context(), 20*time.Millisecond)
						if err := tl.collect(now); err != nil {
							return err
						}
					}
					return nil
				}
				err := tl.begin(t.Context(), 1, 3*mib, 3*mib)
				begin := postgres.LSN(3 * mib)
				if name == second && err == nil {
					err, begin = store(begin, segmentBytes(segment(t, first, 1<<20), testSystem, 1)), 4*mib
				}
				b := segmentBytes(segment(t, name, 1<<20), testSystem, 1)
				if err == nil {
					err = store(begin, b[:5000])
				}
				if two, ok := errors.AsType[*TwoPrimariesError](err); ok != behind || ok && (!lasting(err) || two.HaveHost != "db1") {
					t.Fatalf("got %v", err)
				}
				if n := len(archivedSlices(t, a.Repo, name)); n > 0 || tl.durable() > begin {
					t.Errorf("%d slices are there, durable to %s", n, tl.durable())
				}
				if behind {
					return
				}
				check(t, store(begin+5000, b[5000:]))
				if tl.durable() != begin+mib {
					t.Errorf("complete, durable to %s", tl.durable())
				}
			})
		}
	}
}

// orderedStore fails the test when something of a segment is stored before all
// WAL before it is there.
type orderedStore struct {
	storage.Store
	t     *testing.T
	a     *archive
	begin postgres.LSN
}

func (s orderedStore) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	rest := key[len(repo.WALPrefix(testSystem, 1)):]
	seg := segment(s.t, rest[:24], 1<<20)
	behind := archived(s.t, s.a, s.begin) < seg.Start()
	if behind { // slices may just be giving way to their whole segment: look again
		behind = archived(s.t, s.a, s.begin) < seg.Start()
	}
	if behind {
		s.t.Errorf("%s is stored, and not all WAL before it is there", rest)
	}
	return s.Store.Create(ctx, key, body)
}

// Whatever the moment at which all is lost: what the archive holds has no gap,
// at which a restore would have to stop.
func TestTailLeavesNoGap(t *testing.T) {
	t.Parallel()
	const begin, total = 3 * mib, 6<<20 + 12345
	for name, policy := range map[string]tailPolicy{
		"at once":    {atOnce: true},
		"by time":    {interval: 2 * time.Millisecond, size: 1 << 20},
		"only whole": {interval: time.Hour, size: 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t, mem.New())
			store := orderedStore{newFlaky(a.store, 1, 0.2), t, a, begin}
			var w waiting
			tl := newTail(a.open(t, store, "db1"), testSystem, 1<<20, policy, w.wake)
			ctx := context.Background()
			check(t, tl.begin(ctx, 1, begin, begin))
			clock := time.Unix(1800000000, 0)
			var rest []byte
			for seg := postgres.SegmentAt(1, begin, 1<<20); len(rest) < total; seg = seg.Next() {
				rest = append(rest, segmentBytes(seg, testSystem, 1)...)
			}
			for len(rest) > 0 || tl.outstanding() {
				if n := min(len(rest), 100_000); n > 0 && !tl.full() {
					check(t, tl.add(ctx, tl.received(), rest[:n]))
					rest = rest[n:]
				} else {
					w.sleep(ctx, 20*time.Millisecond)
				}
				if len(rest) == 0 {
					tl.force()
				}
				_ = tl.collect(clock) // the store is flaky
				tl.step(ctx, clock)
				clock = clock.Add(time.Millisecond)
			}
			tl.removing.Wait()
		})
	}
}
