package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

func TestLoadIndex(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		ix, err := LoadIndex(ctx, a.Repo, testSystem)
		if err != nil || len(ix.Timelines()) != 0 || ix.SegmentSize() != 0 {
			t.Fatalf("an empty archive: %v, timelines %v", err, ix.Timelines())
		}
		for _, name := range []string{"000000010000000000000FFF", "000000010000000100000000", "000000010000000100000003",
			"0000000A0000000100000003"} {
			a.pushSegment(t, name)
		}
		a.push(t, "0000000A.history", []byte("1\t1/380000\tno recovery target specified\n"))
		a.push(t, "000000010000000100000004.partial", segmentBytes(segment(t, "000000010000000100000004", 1<<20), testSystem, 1))
		a.push(t, "000000010000000100000003.00000028.backup", []byte("START WAL LOCATION\n"))
		for _, foreign := range []string{"00000001/notes.txt", "0000000A/000000010000000100000003", "README",
			"00000001/000000010000000100000005.d/1-2", "00000001/000000010000000100000006.gz"} {
			if err := store.Create(ctx, repo.SystemWALPrefix(testSystem)+foreign, bytes.NewReader([]byte("x"))); err != nil {
				t.Fatal(err)
			}
		}
		ix, err = LoadIndex(ctx, a.Repo, testSystem)
		if err != nil {
			t.Fatal(err)
		}
		if got := ix.Timelines(); !slices.Equal(got, []postgres.Timeline{1, 10}) {
			t.Errorf("timelines %v", got)
		}
		if ix.SegmentSize() != 1<<20 || ix.Foreign() != 5 || ix.System() != testSystem {
			t.Errorf("segments of %d bytes, %d foreign objects", ix.SegmentSize(), ix.Foreign())
		}
		ranges := []Range{{1, 0xFFF00000, 0x1_00100000}, {1, 0x1_00300000, 0x1_00400000}}
		if got := ix.Ranges(1); !slices.Equal(got, ranges) {
			t.Errorf("ranges %v, want %v", got, ranges)
		}
		if n := ix.Ranges(1)[0].Segments(1 << 20); n != 2 {
			t.Errorf("%d segments in the first range", n)
		}
		if seg, ok := ix.Newest(1); !ok || seg.Name() != "000000010000000100000003" {
			t.Errorf("newest of timeline 1: %v %t", seg, ok)
		}
		if _, ok := ix.Newest(2); ok || len(ix.Ranges(2)) != 0 || len(ix.Partials(2)) != 0 {
			t.Error("timeline 2 is not there")
		}
		if got := ix.Partials(1); !slices.Equal(got, []string{"000000010000000100000004"}) {
			t.Errorf("partial segments %v", got)
		}
		seg := segment(t, "000000010000000100000003", 1<<20)
		size, ok := ix.ObjectSize(seg)
		if info, err := store.Stat(ctx, repo.WALKey(testSystem, walName(t, seg.Name()))); err != nil || !ok || size != info.Size {
			t.Errorf("the object of %s has %d bytes, the store says %d %v", seg, size, info.Size, err)
		}
		if ix.Has(seg.Next()) || ix.HasHistory(1) || !ix.HasHistory(10) {
			t.Error("what is there, and what is not")
		}
		h, err := ix.History(10)
		if err != nil || len(h.Entries) != 1 || h.Entries[0].Switch != 0x1_00380000 {
			t.Errorf("history of timeline 10: %v %v", h, err)
		}
		if h, err := ix.History(1); err != nil || len(h.Entries) != 0 || h.Timeline != 1 {
			t.Errorf("history of timeline 1: %v %v", h, err)
		}
	})
}

// An index is also needed where nothing can be decrypted. What then cannot be
// known is an error when it is asked for.
func TestLoadIndexWithoutIdentity(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	a.pushSegment(t, "000000010000000000000001")
	a.push(t, "00000002.history", []byte("1\t0/180000\tx\n"))
	ix, err := LoadIndex(context.Background(), a.open(t, a.store, "db1"), testSystem)
	if err != nil || !ix.HasHistory(2) {
		t.Fatal(err)
	}
	if _, err := ix.History(2); !errors.Is(err, repo.ErrWrongIdentity) && !errors.Is(err, repo.ErrNoIdentity) {
		t.Errorf("history: %v", err)
	}
	if _, err := ix.Path(LatestTimeline, 1, 0x100028); err == nil {
		t.Error("a path through a history that cannot be read")
	}
	if p, err := ix.Path(CurrentTimeline, 1, 0x100028); err != nil || p.Timeline != 1 {
		t.Errorf("the current timeline needs no history file: %v", err)
	}
}

// One damaged segment does not hide the others, whichever it is.
func TestLoadIndexBesideDamagedSegments(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newArchive(t, mem.New())
	var names []string
	for no := range 12 {
		names = append(names, fmt.Sprintf("0000000100000000000000%02X", no+1))
		a.pushSegment(t, names[no])
	}
	damage := func(name string) {
		t.Helper()
		key := repo.WALKey(testSystem, walName(t, name))
		if err := errors.Join(a.store.Delete(ctx, key), a.store.Create(ctx, key, strings.NewReader("not an envelope"))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{names[11], names[0], names[5]} {
		damage(name)
		ix, err := LoadIndex(ctx, a.Repo, testSystem)
		if err != nil || ix.SegmentSize() != 1<<20 || len(ix.Ranges(1)) != 1 || ix.Ranges(1)[0].Segments(1<<20) != 12 {
			t.Fatalf("with %s damaged: %+v, %v", name, ix, err)
		}
	}
	for _, name := range names {
		damage(name)
	}
	if _, err := LoadIndex(ctx, a.Repo, testSystem); !repo.AboutObject(err) {
		t.Errorf("with all damaged: %v", err)
	}
}

func TestLoadIndexOfMissingRepository(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	if err := a.store.Delete(context.Background(), repo.MarkerKey); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIndex(context.Background(), a.Repo, testSystem); !errors.Is(err, repo.ErrNoRepository) {
		t.Errorf("%v", err)
	}
}

// A name that no segment of the archive's size has is no segment's: anybody can put
// one there, and it hides nothing.
func TestLoadIndexOfMixedSizes(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	a.pushSegment(t, "000000010000000000000FFF")
	seg := segment(t, "000000010000000100000001", 16<<20)
	a.push(t, seg.Name(), segmentBytes(seg, testSystem, 1))
	ix, err := LoadIndex(context.Background(), a.Repo, testSystem)
	if err != nil || ix.Foreign() != 1 || len(ix.Ranges(1)) != 1 || !ix.HasWhole(seg) {
		t.Errorf("%+v, %v", ix, err)
	}
}

func TestLoadIndexRefusesForgedHistory(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	a.pushSegment(t, "000000010000000000000001")
	a.push(t, "00000002.history", []byte("1\t0/180000\tx\n"))
	a.push(t, "00000003.history", []byte("1\t0/180000\tx\n"))
	moved := rawObject(t, a.store, repo.WALKey(testSystem, walName(t, "00000002.history")))
	replaceObject(t, a.store, repo.WALKey(testSystem, walName(t, "00000003.history")), moved)
	ix, err := LoadIndex(context.Background(), a.Repo, testSystem)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ix.Path(LatestTimeline, 1, 0x100028)
	if _, ok := errors.AsType[*repo.UntrustedError](err); !ok {
		t.Errorf("latest, over a forged history file: %v", err)
	}
	if p, err := ix.Path(TimelineID(2), 1, 0x100028); err != nil || p.Timeline != 2 {
		t.Errorf("another timeline: %v", err)
	}
}
