package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// The largest segment that PostgreSQL knows goes to the archive and comes back.
func TestPushFetchOfOneGiB(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it writes 2 GiB; make test runs it without the race detector")
	}
	const size = 1 << 30
	name := "000000010000000000000003"
	a := newArchive(t, newFileStore(t))
	seg := segment(t, name, size)
	path := filepath.Join(t.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Mostly a hole: a start, and a little at each end of what can be cut.
	small := seg
	small.Size = 1 << 20
	head := segmentBytes(small, testSystem, 1)
	binary.LittleEndian.PutUint64(head[8:], uint64(seg.Start()))
	binary.LittleEndian.PutUint32(head[32:], size)
	for _, off := range []int64{0, 512<<20 - 100, size - 1<<20} {
		if _, err := f.WriteAt(head, off); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := Push(context.Background(), a.Repo, path, PushOptions{System: testSystem, SegmentSize: size})
	if err != nil {
		t.Fatal(err)
	}
	if stored.Header.Size != size {
		t.Errorf("%d bytes are stored", stored.Header.Size)
	}
	r := a.open(t, a.store, "db2", a.identity)
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	if err := Fetch(context.Background(), r, testSystem, walName(t, name), dest); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, path, dest)
	// The same name with another size is not of this cluster.
	if _, err := Push(context.Background(), a.Repo, path, PushOptions{System: testSystem, SegmentSize: 16 << 20}); err == nil {
		t.Error("a segment of 1 GiB was taken from a cluster with 16 MiB")
	}
}

func sameFiles(t *testing.T, one, two string) {
	t.Helper()
	var files [2]*os.File
	var buf [2][]byte
	for i, path := range []string{one, two} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i], buf[i] = f, make([]byte, 4<<20)
	}
	for off := int64(0); ; {
		n, err := io.ReadFull(files[0], buf[0])
		m, _ := io.ReadFull(files[1], buf[1])
		if !bytes.Equal(buf[0][:n], buf[1][:m]) {
			t.Fatalf("the files differ behind %d", off)
		}
		if err != nil {
			return
		}
		off += int64(n)
	}
}

// Without its history file a timeline that is in use is not passed over: the
// newest commits are on it.
func TestPathWithoutHistory(t *testing.T) {
	t.Parallel()
	a := newArchive(t, newFileStore(t))
	for _, name := range []string{"000000010000000000000001", "000000010000000000000002", "000000020000000000000002", "000000020000000000000003"} {
		a.pushSegment(t, name)
	}
	ix, err := LoadIndex(context.Background(), a.open(t, a.store, "db2", a.identity), testSystem)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := ix.Path(LatestTimeline, 1, 1<<20); err == nil {
		t.Errorf("recovery would end on timeline %s", p.Timeline)
	}
	for _, target := range []TimelineTarget{CurrentTimeline, TimelineID(1)} {
		if p, err := ix.Path(target, 1, 1<<20); err != nil || p.Timeline != 1 {
			t.Errorf("%s: %v, %v", target, p.Timeline, err)
		}
	}
	// A server that was promoted before it was archived has no history here.
	if p, err := ix.Path(LatestTimeline, 2, 3<<20); err != nil || p.Timeline != postgres.Timeline(2) {
		t.Errorf("a backup on timeline 2: %v, %v", p.Timeline, err)
	}
}
