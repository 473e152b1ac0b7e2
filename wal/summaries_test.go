package wal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/wal/blocks"
)

// listed calls a function before the second listing of block summaries.
type listed struct {
	storage.Store
	times int
	then  func()
}

func (l *listed) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	if l.times++; l.times == 2 && l.then != nil {
		l.then()
	}
	return l.Store.List(ctx, prefix)
}

// A checkpoint may remove a segment as soon as it is archived, and the next one
// may not be archived yet. A record that begins in the one and ends in the other
// is then neither in a summary nor in pg_wal. It must not cost a scan.
func TestRecordBetweenArchivedAndNot(t *testing.T) {
	t.Parallel()
	c := servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20, Settings: map[string]string{"wal_keep_size": "64MB"}})
	c.Exec(t, "create table words as select i, md5(i::text) w from generate_series(1, 80000) i")
	c.Exec(t, "select pg_switch_wal()")
	control, err := ReadControl(context.Background(), c.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	var at postgres.LSN
	if err := at.UnmarshalText([]byte(c.QueryString(t, "select pg_current_wal_lsn()::text"))); err != nil {
		t.Fatal(err)
	}
	last := postgres.SegmentAt(1, at, 1<<20).No - 1

	store := &listed{Store: mem.New()}
	a := newArchive(t, store)
	from := postgres.LSN(0)
	ask := func(r *repo.Repo, dataDir, rests string) (*blocks.Set, blocks.Collected, error) {
		store.times = 0
		return blocks.Collect(context.Background(), r, blocks.Range{System: control.SystemID, Size: 1 << 20, Path: postgres.History{Timeline: 1}.Path(),
			From: from, To: postgres.LSN(last+1) << 20, WALDir: filepath.Join(dataDir, "pg_wal"), RestDir: rests, Workers: 1})
	}

	// All but the last two are archived, and removed.
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "pg_wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	sums := newSummaries(a.Repo, dir)
	archive := func(no uint64) (*summary, postgres.LSN) {
		seg := postgres.Segment{Timeline: 1, No: no, Size: 1 << 20}
		raw, err := os.ReadFile(filepath.Join(c.DataDir(), "pg_wal", seg.Name()))
		if err != nil {
			t.Fatal(err)
		}
		m := sums.begin(seg)
		m.make(context.Background(), bytes.NewReader(raw))
		to := m.made.To
		if !m.store(context.Background(), control.SystemID) || m.made != nil {
			t.Fatalf("the summary of %s was not stored, or is still held in memory", seg)
		}
		return m, to
	}
	_, from = archive(last - 5)
	archive(last - 4)
	archive(last - 3)
	if m, _ := archive(last - 2); m.rest == nil || m.rest.LSN == m.seg.End() {
		t.Fatalf("no record goes on behind %s, and the test says nothing", m.seg)
	}
	for no := last - 1; no <= last; no++ {
		name := postgres.Segment{Timeline: 1, No: no, Size: 1 << 20}.Name()
		if err := os.Link(filepath.Join(c.DataDir(), "pg_wal", name), filepath.Join(dir, "pg_wal", name)); err != nil {
			t.Fatal(err)
		}
	}

	want, got, err := ask(newArchive(t, mem.New()).Repo, c.DataDir(), "")
	if err != nil || got.Summaries != 0 || want.Pages() == 0 {
		t.Fatal(got, err)
	}
	check := func(what string, set *blocks.Set, got blocks.Collected, err error, summaries int) {
		t.Helper()
		if err != nil || got.Summaries != summaries || !sameSet(want, set) {
			t.Errorf("%s: %+v, %v; the same pages: %t", what, got, err, err == nil && sameSet(want, set))
		}
	}
	set, got, err := ask(a.Repo, dir, RestDir(dir))
	check("with the rest", set, got, err, 3)

	if _, _, err = ask(a.Repo, dir, ""); !errors.As(err, new(*blocks.HoleError)) || !errors.Is(err, io.EOF) || store.times < 3 {
		t.Errorf("without the rest, after %d listings: %v", store.times, err)
	}
	store.then = func() { archive(last - 1) }
	set, got, err = ask(a.Repo, dir, "")
	check("the summary comes late", set, got, err, 4)
}

// sameSet compares sets of less than a million pages a fork.
func sameSet(a, b *blocks.Set) bool {
	runs := func(s *blocks.Set, f blocks.Fork) []blocks.Run { return slices.Collect(s.Changed(f, 0, 1<<20)) }
	differ := func(f blocks.Fork) bool { return !slices.Equal(runs(a, f), runs(b, f)) }
	return slices.Equal(a.Forks(), b.Forks()) && !slices.ContainsFunc(a.Forks(), differ)
}

// How long the summary of a segment takes that holds inserts and updates.
func BenchmarkSummarize(b *testing.B) {
	c := servertest.New(b, servertest.Options{WALSegmentSize: 16 << 20, Settings: map[string]string{"wal_keep_size": "1GB"}})
	c.Exec(b, "create table words as select i, md5(i::text) w from generate_series(1, 300000) i; create index on words (i); checkpoint")
	for range 10 {
		c.Exec(b, "update words set w = md5(w) where hashint4(i) % 10 = 0")
	}
	name := c.QueryString(b, "select pg_walfile_name(pg_current_wal_lsn() - 40000000)")
	file, err := os.Open(filepath.Join(c.DataDir(), "pg_wal", name))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	b.SetBytes(16 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if made, _, err := blocks.Summarize(segment(b, name, 16<<20), file, nil); err != nil || made.Set.Pages() == 0 {
			b.Fatal(err)
		}
	}
}
