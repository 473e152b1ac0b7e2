package wal

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

const testPoll = 5 * time.Millisecond

func TestWaitArchived(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		for no := uint64(3); no < 10; no++ {
			a.pushSegment(t, postgres.Segment{Timeline: 1, No: no, Size: 1 << 20}.Name())
		}
		for _, r := range [][2]postgres.LSN{{3 * mib, 10 * mib}, {3*mib + 28, 3*mib + 100}, {9*mib + 5, 10 * mib}, {20 * mib, 20 * mib}, {9 * mib, 8 * mib}} {
			if err := WaitArchived(t.Context(), a.Repo, Stretch{testSystem, 1, r[0], r[1], 1 << 20}, testPoll); err != nil {
				t.Errorf("%s to %s: %v", r[0], r[1], err)
			}
		}
		for missing, r := range map[string][2]postgres.LSN{
			"00000001000000000000000A": {3 * mib, 10*mib + 1},
			"000000010000000000000002": {2*mib + 40, 9 * mib},
			"000000010000000000000014": {20 * mib, 20*mib + 1},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			looked := a.open(t, &endsWait{Store: store, cancel: cancel, after: 3}, "db1")
			err := WaitArchived(ctx, looked, Stretch{testSystem, 1, r[0], r[1], 1 << 20}, testPoll)
			cancel()
			e, ok := errors.AsType[*MissingError](err)
			if !ok || e.Segment.Name() != missing || !e.Looked || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), missing) {
				t.Errorf("%s to %s: %v; want %s missing", r[0], r[1], err, missing)
			}
		}
		if err := WaitArchived(context.Background(), a.Repo, Stretch{testSystem, 1, 3 * mib, 4 * mib, 1 << 20}, 0); err != nil {
			t.Error(err)
		}
	})
}

// endsWait ends a wait when a segment was looked for, and not there, so many times.
type endsWait struct {
	storage.Store
	cancel context.CancelFunc
	after  int
}

func (s *endsWait) Stat(ctx context.Context, key string) (storage.Info, error) {
	info, err := s.Store.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		if s.after--; s.after == 0 {
			s.cancel()
		}
	}
	return info, err
}

// Time that ends before the store has answered does not say that WAL is missing.
func TestWaitArchivedSaysWhatItKnows(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	for _, to := range []postgres.LSN{2 * mib, 20 * mib} { // asked one by one, and listed
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := WaitArchived(ctx, a.Repo, Stretch{testSystem, 1, mib, to, 1 << 20}, testPoll)
		e, ok := errors.AsType[*MissingError](err)
		if !ok || e.Looked || !strings.Contains(err.Error(), "before it was known") {
			t.Errorf("up to %s: %v", to, err)
		}
	}
}

func TestWaitArchivedUntilItComes(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	names := []string{"000000010000000000000001", "000000010000000000000002", "000000010000000000000003"}
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		done <- WaitArchived(ctx, a.Repo, Stretch{testSystem, 1, mib, 4 * mib, 1 << 20}, testPoll)
	}()
	for i, name := range names {
		select {
		case err := <-done:
			t.Fatalf("ended with %v when %d segments were archived", err, i)
		case <-time.After(10 * testPoll): // it has looked by now, and may not end
		}
		a.pushSegment(t, name)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A store that fails is an error at once: nobody waits for a 403 to pass.
func TestWaitArchivedSurfacesErrors(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	for _, to := range []postgres.LSN{2 * mib, 20 * mib} { // asked one by one, and listed
		broken := fault.New(a.store, fault.Fault{At: 3, Err: storage.ErrDenied}) // the first two open the repository
		r := a.open(t, broken, "db1")
		err := WaitArchived(context.Background(), r, Stretch{testSystem, 1, mib, to, 1 << 20}, testPoll)
		if !errors.Is(err, storage.ErrDenied) || !broken.Fired() {
			t.Errorf("up to %s: %v", to, err)
		}
	}
}

// A long range costs one listing, and one header a segment.
func TestWaitArchivedIsCheap(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	for no := uint64(1); no <= 40; no++ {
		a.pushSegment(t, postgres.Segment{Timeline: 1, No: no, Size: 1 << 20}.Name())
	}
	counted := fault.New(a.store, fault.Fault{})
	r := a.open(t, counted, "db1")
	before := counted.Ops()
	if err := WaitArchived(context.Background(), r, Stretch{testSystem, 1, mib, 41 * mib, 1 << 20}, testPoll); err != nil {
		t.Fatal(err)
	}
	if n := counted.Ops() - before; n != 1+40 {
		t.Errorf("%d operations", n)
	}
}

// What bears the name of a segment and is not it is no WAL, and is not waited for:
// whatever it is, and wherever it lies between the two positions.
func TestWaitArchivedOverJunk(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		for no := uint64(1); no <= 8; no++ {
			a.pushSegment(t, postgres.Segment{Timeline: 1, No: no, Size: 1 << 20}.Name())
		}
		key := func(no uint64) string {
			return repo.WALKey(testSystem, walName(t, postgres.Segment{Timeline: 1, No: no, Size: 1 << 20}.Name()))
		}
		good := rawObject(t, a.store, key(5))
		other := rawObject(t, a.store, key(6))
		larger := newArchive(t, mem.New())
		larger.push(t, "000000010000000000000005", segmentBytes(segment(t, "000000010000000000000005", 2<<20), testSystem, 1))
		for name, junk := range map[string][]byte{
			"nothing":                    {},
			"bytes of the same length":   bytes.Repeat([]byte("x"), len(good)),
			"another segment":            other,
			"of another repository":      rawObject(t, larger.store, key(5)),
			"nothing after the header":   good[:bytes.IndexByte(good, '\n')+1],
			"an altered header, resized": append([]byte("{"), good...),
		} {
			replaceObject(t, a.store, key(5), junk)
			for _, r := range [][2]postgres.LSN{{mib, 9 * mib}, {5 * mib, 6 * mib}, {4 * mib, 7 * mib}} { // listed, and asked one by one
				err := WaitArchived(t.Context(), a.Repo, Stretch{testSystem, 1, r[0], r[1], 1 << 20}, testPoll)
				bad, ok := errors.AsType[*BadSegmentError](err)
				if !ok || bad.Object != key(5) || bad.Segment.No != 5 || !strings.Contains(err.Error(), key(5)) {
					t.Errorf("%s, from %s to %s: %v", name, r[0], r[1], err)
				}
			}
			if err := WaitArchived(t.Context(), a.Repo, Stretch{testSystem, 1, 6 * mib, 9 * mib, 1 << 20}, testPoll); err != nil {
				t.Errorf("%s, behind it: %v", name, err)
			}
		}
		// Signed, and of another size than the segments of this cluster.
		replaceObject(t, a.store, key(5), good)
		if err := WaitArchived(t.Context(), a.Repo, Stretch{testSystem, 1, 10 * mib, 12 * mib, 2 << 20}, testPoll); err == nil || !strings.Contains(err.Error(), "segments here have") {
			t.Errorf("of another size: %v", err)
		}
	})
}
