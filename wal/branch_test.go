package wal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/wal/blocks"
)

// Where the newer timeline's copy of the segment in which it began is gone, the
// older one's is right up to there, and of another branch behind it: a hole. So
// it is with what a push kept of that segment.
func TestWALOfAnotherBranchFillsNoHole(t *testing.T) {
	t.Parallel()
	c := servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20, Settings: map[string]string{"wal_keep_size": "64MB"}})
	c.Exec(t, "create table words as select i, md5(i::text) w from generate_series(1, 80000) i")
	seg := segment(t, c.QueryString(t, "select pg_walfile_name(pg_current_wal_lsn() - 3000000)"), 1<<20)
	raw, err := os.ReadFile(filepath.Join(c.DataDir(), "pg_wal", seg.Name()))
	if err != nil {
		t.Fatal(err)
	}
	control, err := ReadControl(t.Context(), c.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	kept := filepath.Join(dir, "pg_wal", seg.Name())
	put := func(path string, b []byte) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	a := newArchive(t, mem.New())
	ask := func(from, fork, to postgres.LSN) error {
		set, got, err := blocks.Collect(context.Background(), a.Repo, blocks.Range{System: control.SystemID, Size: seg.Size,
			Path: []postgres.TimelineSpan{{Timeline: 1, End: fork}, {Timeline: 2, Begin: fork, End: postgres.EndOfTime}},
			From: from, To: to, WALDir: filepath.Join(dir, "pg_wal"), RestDir: RestDir(dir), Workers: 1})
		if err == nil && set.Pages() == 0 {
			t.Error("nothing was read, and the test says nothing")
		}
		if got.WALBytes >= int64(seg.Size) {
			t.Errorf("%d bytes were read, which is not piece by piece", got.WALBytes)
		}
		return err
	}
	holeAt := func(what string, err error, at postgres.LSN) {
		t.Helper()
		if hole, ok := errors.AsType[*blocks.HoleError](err); !ok || hole.At != at {
			t.Errorf("%s: %v, want a hole at %s", what, err, at)
		}
	}

	put(kept, raw)
	fork, to := recordAt(t, seg, raw, seg.Start()+300<<10), recordAt(t, seg, raw, seg.Start()+700<<10)
	if err := ask(seg.Start(), to, to); err != nil {
		t.Errorf("before the fork: %v", err)
	}
	holeAt("the segment", ask(seg.Start(), fork, to), fork)

	_, rest, err := blocks.Summarize(seg, bytes.NewReader(raw), nil)
	if err != nil || rest.LSN <= rest.From+postgres.LSN(len(raw)/1000) {
		t.Fatalf("what is left of %s begins at %s, its record at %s, and the test says nothing: %v", seg, rest.From, rest.LSN, err)
	}
	text, err := json.Marshal(rest)
	if err != nil {
		t.Fatal(err)
	}
	put(filepath.Join(RestDir(dir), seg.Name()), text)
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	if err := ask(rest.From, seg.End(), rest.LSN); err != nil {
		t.Errorf("of a rest before the fork: %v", err)
	}
	holeAt("the rest", ask(rest.From, rest.LSN-8, rest.LSN), rest.From)
}

// recordAt is where the first record at or behind a position begins.
func recordAt(t *testing.T, seg postgres.Segment, raw []byte, at postgres.LSN) postgres.LSN {
	t.Helper()
	wr := postgres.NewWALReader(seg.Start(), seg.Size, func(uint64) ([]byte, error) { return raw, nil })
	for {
		rec, err := wr.Next()
		if err != nil {
			t.Fatal(err)
		}
		if rec.LSN >= at {
			return rec.LSN
		}
	}
}
