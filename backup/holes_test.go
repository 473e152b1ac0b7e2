package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// summary is a block summary in the repository.
type summary struct {
	key      string
	from, to postgres.LSN
}

// blockSummaries waits until all WAL so far is summarized and no push is left that
// would make a summary again, and returns those that lie behind a position, in
// order, but for the newest.
func (b *bench) blockSummaries(t *testing.T, behind postgres.LSN) (all []summary) {
	t.Helper()
	var end postgres.LSN
	check(t, end.UnmarshalText([]byte(b.QueryString(t, "select pg_switch_wal()::text"))))
	prefix := repo.BlocksPrefix(b.system(t), 1)
	b.Eventually(t, "the summaries to reach "+end.String(), func() bool {
		all = nil
		reached := false
		ready, err := filepath.Glob(filepath.Join(b.DataDir(), "pg_wal", "archive_status", "*.ready"))
		check(t, err)
		for info, err := range b.repo.Store().List(context.Background(), prefix) {
			check(t, err)
			from, to, ok := repo.ParseBlocks(strings.TrimPrefix(info.Key, prefix))
			if ok && from > behind && to < end {
				all = append(all, summary{info.Key, from, to})
			}
			reached = reached || ok && to >= end
		}
		return reached && len(ready) == 0
	})
	if len(all) < 2 {
		t.Fatalf("only %d summaries behind %s", len(all), behind)
	}
	return all
}

func (b *bench) system(t *testing.T) postgres.SystemID {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.DataDir(), postgres.ControlPath))
	check(t, err)
	control, err := postgres.ParseControlFile(raw)
	check(t, err)
	return control.SystemID
}

// work changes the tables of the workload by some segments of 1 MiB.
func (b *bench) work(t *testing.T, n int) {
	t.Helper()
	b.Exec(t, fmt.Sprintf("create table w%d as select i, repeat('x', 200) from generate_series(1, 20000) i; update t set i = -i where i %% 50 = %d", n, n))
}

// next takes a backup that must build on the one before.
func (b *bench) next(t *testing.T, base *repo.Info) *repo.Info {
	t.Helper()
	info := b.run(t)
	if info.Base != base.Label {
		t.Fatalf("the base is %q: %s", info.Base, info.ChangesWhy)
	}
	b.checkContents(t, "by "+info.Changes, info, b.onDisk(t))
	return info
}

// A summary that is lost, with the WAL that it was made from, and one that is
// damaged: the pages are scanned, and the reason is said.
func TestHoleInTheSummaries(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	b := newBranchBench(t)
	b.Exec(t, "create table t as select i, repeat('x', 200) from generate_series(1, 10000) i")
	info := b.run(t)
	b.work(t, 1)
	if info = b.next(t, info); info.Changes != repo.ChangesBlocks {
		t.Errorf("without a hole: %s, %q", info.Changes, info.ChangesWhy)
	}

	b.work(t, 2)
	lost := b.blockSummaries(t, info.StartLSN)[1]
	check(t, b.repo.Store().Delete(context.Background(), lost.key))
	for _, lsn := range []postgres.LSN{lost.from, lost.to - 1} {
		err := os.Remove(filepath.Join(b.DataDir(), "pg_wal", postgres.SegmentAt(1, lsn, 1<<20).Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	info = b.next(t, info)
	if info.Changes != repo.ChangesScan || !strings.Contains(info.ChangesWhy, "no block summary goes on at "+lost.from.String()) {
		t.Errorf("with a summary lost: %s, %q", info.Changes, info.ChangesWhy)
	}

	b.work(t, 3)
	damaged := b.blockSummaries(t, info.StartLSN)[1]
	check(t, os.Chmod(filepath.Join(b.root, damaged.key), 0o600))
	check(t, os.Truncate(filepath.Join(b.root, damaged.key), 300))
	info = b.next(t, info)
	if info.Changes != repo.ChangesScan || !strings.Contains(info.ChangesWhy, damaged.key) {
		t.Errorf("with a damaged summary: %s, %q", info.Changes, info.ChangesWhy)
	}
}

// One of PostgreSQL's own summaries is lost: then those of the archive are used.
func TestHoleInTheWALSummaries(t *testing.T) {
	t.Parallel()
	b := newBranchBench(t)
	if b.Install.Major < 17 {
		t.Skipf("PostgreSQL %d has no WAL summaries", b.Install.Major)
	}
	b.Setting(t, "summarize_wal", "on")
	b.Exec(t, "create table t as select i, repeat('x', 200) from generate_series(1, 10000) i")
	info := b.run(t)
	for n := range 3 {
		b.work(t, n)
		b.Exec(t, "checkpoint") // ends a summary
	}
	if info = b.next(t, info); info.Changes != repo.ChangesWALSummaries {
		t.Errorf("without a hole: %s, %q", info.Changes, info.ChangesWhy)
	}
	for n := range 3 {
		b.work(t, n+3)
		b.Exec(t, "checkpoint")
	}
	written := b.QueryString(t, "select redo_lsn from pg_control_checkpoint()")
	b.Eventually(t, "the summarizer", func() bool {
		return b.QueryString(t, "select summarized_lsn >= '"+written+"' from pg_get_wal_summarizer_state()") == "t"
	})
	from := b.QueryString(t, fmt.Sprintf("select start_lsn from pg_available_wal_summaries() where start_lsn > '%s' order by start_lsn limit 1", info.StartLSN))
	var at postgres.LSN
	check(t, at.UnmarshalText([]byte(from)))
	files, err := filepath.Glob(filepath.Join(b.DataDir(), "pg_wal", "summaries", fmt.Sprintf("00000001%016X*.summary", uint64(at))))
	if err != nil || len(files) != 1 {
		t.Fatalf("the summary from %s on: %v, %v", from, files, err)
	}
	check(t, os.Remove(files[0]))
	info = b.next(t, info)
	if info.Changes != repo.ChangesBlocks || !strings.Contains(info.ChangesWhy, "no WAL summary goes on at "+from) {
		t.Errorf("with a summary lost: %s, %q", info.Changes, info.ChangesWhy)
	}
}
