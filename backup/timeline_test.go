package backup_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// newBranchBench is a bench whose server can begin a new timeline.
func newBranchBench(t *testing.T) *bench {
	b := newBench(t, servertest.Options{WALSegmentSize: 1 << 20, Checksums: true, Settings: map[string]string{"archive_mode": "on", "autovacuum": "off"}})
	b.archiveWithSummaries(t)
	return b
}

// branch has the stopped server begin a new timeline.
func (b *bench) branch(t *testing.T) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(b.DataDir(), "standby.signal"), nil, 0o600))
	b.Start(t)
	b.Exec(t, "select pg_promote()")
	b.WaitPromoted(t)
}

// A server that was promoted goes on with the files that the base was taken of:
// what changed before and after the fork is known from the summaries of both
// timelines.
func TestBaseOfAnOlderTimeline(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	b := newBranchBench(t)
	b.Exec(t, "create table t as select i, repeat('x', 200) from generate_series(1, 10000) i")
	first := b.run(t)
	b.Exec(t, "update t set i = -i where i % 100 = 0; create table before as select 1")
	b.Stop(t, server.Fast)
	b.branch(t)
	b.Exec(t, "update t set i = -i where i % 101 = 0; create table after as select generate_series(1, 20000)")
	b.Exec(t, "checkpoint")
	info := b.run(t)
	if info.Timeline != 2 || info.Base != first.Label || info.Changes != repo.ChangesBlocks {
		t.Errorf("on timeline %s: base %q, by %s, %q", info.Timeline, info.Base, info.Changes, info.ChangesWhy)
	}
	b.checkContents(t, "on the new timeline", info, b.onDisk(t))
}

// The files go back to what they were before the last backup, as pg_rewind has
// them do, and take another branch: the backup's end is in no WAL of that.
func TestBaseOfALostBranch(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	b := newBranchBench(t)
	b.Exec(t, "create table t as select generate_series(1, 1000)")
	b.Stop(t, server.Fast)
	old := b.CopyData(t)
	b.Start(t)
	lost := b.run(t)
	b.Stop(t, server.Fast)
	b.takeBack(t, old)
	b.branch(t)
	written := func() (at postgres.LSN) {
		check(t, at.UnmarshalText([]byte(b.QueryString(t, "select pg_current_wal_lsn()::text"))))
		return at
	}
	for written() <= lost.StopLSN {
		b.Exec(t, "create table if not exists other (i int); insert into other values (1); select pg_switch_wal()")
	}
	info := b.run(t)
	if info.Source != lost.Source || info.Base != "" || !strings.Contains(info.ChangesWhy, "left timeline 1") {
		t.Errorf("source %q, base %q, %q", info.Source, info.Base, info.ChangesWhy)
	}
	b.checkContents(t, "on the other branch", info, b.onDisk(t))
}

// takeBack makes the files those of a copy, but for the one that tells which data
// directory it is.
func (b *bench) takeBack(t *testing.T, from string) {
	t.Helper()
	entries, err := os.ReadDir(b.DataDir())
	check(t, err)
	for _, e := range entries {
		if e.Name() != "PG_VERSION" {
			check(t, os.RemoveAll(filepath.Join(b.DataDir(), e.Name())))
		}
	}
	check(t, os.Remove(filepath.Join(from, "PG_VERSION")))
	if out, err := exec.Command("cp", "-a", from+"/.", b.DataDir()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
