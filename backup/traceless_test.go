package backup_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// Changes after which old LSNs stand in pages, or none: the pages of the base
// must not come back to life.
func TestChangesWithoutNewLSNs(t *testing.T) {
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
