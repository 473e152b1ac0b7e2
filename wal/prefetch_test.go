package wal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/wal/queue"
)

// filled is a queue that is filled from an archive of six segments.
type filled struct {
	*archive
	*queue.Queue
	dir     string
	names   []string
	content map[string][]byte
}

func newFilled(t *testing.T) *filled {
	t.Helper()
	f := &filled{archive: newArchive(t, mem.New()), content: map[string][]byte{}}
	seg := segment(t, "000000010000000000000001", 1<<20)
	for range 6 {
		f.names = append(f.names, seg.Name())
		f.content[seg.Name()] = f.pushSegment(t, seg.Name())
		seg = seg.Next()
	}
	dataDir := t.TempDir()
	f.dir = filepath.Join(dataDir, SpoolDir, "fetch")
	q, err := queue.New(dataDir, postgres.ControlFile{SystemID: testSystem, WALSegmentSize: 1 << 20}, "here")
	if err != nil {
		t.Fatal(err)
	}
	f.Queue = q
	return f
}

// fill empties the queue, has PostgreSQL ask for the first two segments, and
// fills it with the next four.
func (f *filled) fill(t *testing.T, store storage.Store) (int, error) {
	t.Helper()
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	for _, name := range f.names[:2] {
		if _, err := f.Asked(walName(t, name), true); err != nil {
			t.Fatal(err)
		}
	}
	open := func(ctx context.Context) (queue.Source, error) {
		r, err := repo.Open(ctx, store, f.keys(f.identity), "db1")
		return PrefetchSource(r, testSystem, 2), err
	}
	return f.Fill(context.Background(), open, 0)
}

// expectWhole makes sure that each file of the queue is a segment as it was
// archived, and returns their names.
func (f *filled) expectWhole(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() == "asked" || e.Name() == "filling" {
			continue
		}
		names = append(names, e.Name())
		got, err := os.ReadFile(filepath.Join(f.dir, e.Name()))
		if err != nil || f.content[e.Name()] == nil || !bytes.Equal(got, f.content[e.Name()]) {
			t.Errorf("the queue holds %s with %d other bytes, %v", e.Name(), len(got), err)
		}
	}
	return names
}

// What the store breaks, cuts or does not answer never gets a segment's name.
func TestFillUnderFaults(t *testing.T) {
	t.Parallel()
	f := newFilled(t)
	sweep(t, func(_ fault.Mode, broken func(storage.Store) *fault.Store) (*fault.Store, error) {
		s := broken(f.store)
		_, err := f.fill(t, s)
		return s, err
	}, func(_ fault.Mode, fired string, err error) {
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s failed, and the fill said %v", fired, err)
		}
		f.expectWhole(t)
	})
	if n, err := f.fill(t, f.store); n != 4 || err != nil || len(f.expectWhole(t)) != 4 {
		t.Errorf("without a fault: %d fetched, %v", n, err)
	}
}

func TestFillRefusesDamage(t *testing.T) {
	t.Parallel()
	f := newFilled(t)
	key := repo.WALKey(testSystem, walName(t, f.names[3]))
	raw := rawObject(t, f.store, key)
	for i, off := range offsets(raw) {
		if i%7 != 0 && off != len(raw)-1 {
			continue
		}
		flipped := slices.Clone(raw)
		flipped[off] ^= 1 << (off % 8)
		replaceObject(t, f.store, key, flipped)
		n, err := f.fill(t, f.store)
		if err == nil || n > 3 || slices.Contains(f.expectWhole(t), f.names[3]) {
			t.Errorf("a bit of byte %d flipped: %d fetched, %v", off, n, err)
		}
	}
}

// A fill ends where the archive does, or where only slices of a segment, or a
// partial one, are.
func TestFillEndsWithTheArchive(t *testing.T) {
	t.Parallel()
	f := newFilled(t)
	if err := f.store.Delete(context.Background(), repo.WALKey(testSystem, walName(t, f.names[3]))); err != nil {
		t.Fatal(err)
	}
	f.push(t, f.names[3]+".partial", f.content[f.names[3]])
	n, err := f.fill(t, f.store)
	names := f.expectWhole(t)
	if n == 0 || err != nil || !slices.Contains(names, f.names[2]) || slices.Contains(names, f.names[3]) {
		t.Errorf("%d fetched, %v: %v", n, err, names)
	}
}

// What is signed can still be wrong, when it was pushed by something else.
func TestFillChecksTheHeader(t *testing.T) {
	t.Parallel()
	for what, seg := range map[string]postgres.Segment{
		"another place": segment(t, "000000010000000000000009", 1<<20),
		"another size":  segment(t, "000000010000000000000004", 2<<20),
	} {
		f := newFilled(t)
		key := repo.WALKey(testSystem, walName(t, f.names[3]))
		content := segmentBytes(seg, testSystem, 1)
		if err := f.store.Delete(context.Background(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := f.CreateEnvelope(context.Background(), key, repo.KindWAL, bytes.NewReader(content), int64(len(content))); err != nil {
			t.Fatal(err)
		}
		_, err := f.fill(t, f.store)
		if err == nil || slices.Contains(f.expectWhole(t), f.names[3]) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
