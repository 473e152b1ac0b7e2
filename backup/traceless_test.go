package backup_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// Changes after which old LSNs stand in pages, or none: the pages of the base
// must not come back to life.
func TestChangesWithoutNewLSNs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes and seals much: run in full, without the race detector")
	}
	for _, c := range []struct {
		name   string
		before []string
		after  []string
		extend string // then the file of this table is made larger by zeros, as the server does
		major  int    // from this version on
	}{
		{name: "a table is cut off and made larger again", before: []string{"create table t as select i, repeat('x', 900) from generate_series(1, 500) i"},
			after: []string{"delete from t where ctid > '(2,0)'", "vacuum t"}, extend: "t"},
		// No record names the pages that are cut off here, only how many are left.
		{name: "empty pages are cut off, and the table made larger again",
			before: []string{"create table t as select i, repeat('x', 900) from generate_series(1, 500) i", "delete from t where ctid > '(2,0)'", "vacuum (truncate false) t"},
			after:  []string{"vacuum (truncate true) t"}, extend: "t"},
		{name: "a database is replaced by another one of the same number", major: 15,
			before: []string{"create database d oid 90000 strategy file_copy", "\\c d", "create table x as select 1; create function f() returns int language sql as 'select 1'; analyze"},
			after:  []string{"drop database d", "create database d oid 90000 strategy file_copy"}},
		{name: "a database comes back to where it was", major: 15,
			before: []string{"create database d oid 90000 strategy file_copy", "\\c d", "create table x as select i from generate_series(1, 5000) i"},
			after:  []string{"drop database d", "create database d oid 90000 strategy wal_log", "\\c d", "create table x as select -i from generate_series(1, 5000) i"}},
		{name: "a table is emptied where it was made", before: []string{"select 1"},
			after: []string{"begin; create table t as select generate_series(1, 1000); truncate t; insert into t values (1); commit"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, servertest.Options{Checksums: true, Settings: map[string]string{"archive_mode": "on", "autovacuum": "off"}})
			b.archiveWithSummaries(t)
			if b.Install.Major < c.major {
				t.Skipf("PostgreSQL %d has no such statement", b.Install.Major)
			}
			b.execAll(t, c.before)
			b.run(t)
			before := b.onDisk(t)
			b.execAll(t, c.after)
			if c.extend != "" {
				path := b.QueryString(t, "select pg_relation_filepath('"+c.extend+"')")
				b.Exec(t, "checkpoint")
				check(t, os.Truncate(filepath.Join(b.DataDir(), path), int64(len(before[path]))))
			}
			kept, base, why, err := backup.Probe(context.Background(), b.repo, b.options())
			check(t, err)
			if base == nil || len(kept) < 2 {
				t.Fatalf("asked %d sources: %v", len(kept), why)
			}
			for source, all := range kept {
				b.checkKept(t, c.name+", by "+source, all, before, base)
			}
			for _, scan := range []bool{false, true} {
				o := b.options()
				o.Scan = scan
				info, err := backup.Run(context.Background(), b.repo, o)
				check(t, err)
				b.checkContents(t, c.name, info, b.onDisk(t))
			}
		})
	}
}

// Without page checksums VACUUM marks pages as all visible and leaves their LSNs
// as they were. A scan must not bring the page without the mark together with
// the visibility map that has the bit. What VACUUM did before is kept.
func TestScanWithoutChecksums(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	b := newBench(t, servertest.Options{Settings: map[string]string{"archive_mode": "on", "autovacuum": "off"}})
	b.archiveWithSummaries(t)
	b.Exec(t, "create table old as select i, repeat('x', 900) from generate_series(1, 10000) i; create table t as select i, repeat('x', 900) from generate_series(1, 500) i")
	b.Exec(t, "vacuum old")
	old, path := b.QueryString(t, "select pg_relation_size('old')"), b.QueryString(t, "select pg_relation_filepath('t')")
	b.run(t)
	b.Exec(t, "vacuum t")
	o := b.options()
	o.Scan = true
	info, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
	if size, err := strconv.ParseInt(old, 10, 64); err != nil || info.Base == "" || info.ChangedBytes > size/2 {
		t.Errorf("base %q; %d bytes changed, a table that did not has %s", info.Base, info.ChangedBytes, old)
	}
	got := b.contents(t, info.Label)
	heap, bits, marked := got[path], got[path+"_vm"], 0
	for block := 0; (block+1)*postgres.BlockSize <= len(heap); block++ {
		page := heap[block*postgres.BlockSize:]
		visible := len(bits) > 0 && bits[24+block/4]>>(block%4*2)&1 != 0
		if visible != postgres.PageAllVisible(page) {
			t.Errorf("block %d: all visible by the map: %t, by itself: %t", block, visible, !visible)
		}
		if visible && postgres.PageLSN(page) < info.StartLSN {
			marked++
		}
	}
	if marked == 0 {
		t.Errorf("of %d bytes no page is marked in the map of %d bytes, and the test says nothing", len(heap), len(bits))
	}
	if got := postgres.VisibilityPage(32671, 8192); got != 0 || postgres.VisibilityPage(32672, 8192) != 1 {
		t.Errorf("the map's first page ends before heap page 32671, or does not: %d", got)
	}
}

// execAll runs statements one by one; "\c" goes to another database.
func (b *bench) execAll(t *testing.T, statements []string) {
	t.Helper()
	conf := b.Conn(t).Config().Copy()
	for _, s := range statements {
		if len(s) > 3 && s[:3] == "\\c " {
			conf.Database = s[3:]
			continue
		}
		execOn(t, conf, s)
	}
}
