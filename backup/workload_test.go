package backup_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// workload does, step by step, what a server does to its files.
type workload struct {
	*bench
	rnd       *rand.Rand
	version   int
	tables    []string
	databases []string
	prepared  []string
	spaces    int
	names     int

	cutAndCopy string // a table, large at the last backup
}

func newWorkload(t *testing.T, b *bench, seed uint64) *workload {
	w := &workload{bench: b, rnd: rand.New(rand.NewPCG(seed, 17))}
	fmt.Sscan(b.QueryString(t, "select current_setting('server_version_num')"), &w.version)
	for range 2 {
		dir := filepath.Join(t.TempDir(), "ts")
		check(t, os.Mkdir(dir, 0o700))
		w.spaces++
		b.Exec(t, fmt.Sprintf("create tablespace ts%d location '%s'", w.spaces, dir))
	}
	w.createTable(t)
	w.createTable(t)
	return w
}

func (w *workload) name(kind string) string {
	w.names++
	return fmt.Sprintf("%s%d", kind, w.names)
}

func (w *workload) exec(t *testing.T, format string, args ...any) {
	t.Helper()
	w.Exec(t, fmt.Sprintf(format, args...))
}

func pick[T any](w *workload, from []T) T { return from[w.rnd.IntN(len(from))] }

func (w *workload) table() string { return pick(w, w.tables) }

func (w *workload) createTable(t *testing.T) {
	name := w.name("t")
	w.exec(t, `create table %[1]s (id bigserial, a int, b text, c int[], p point, s int4range);
		insert into %[1]s (a, b, c, p, s) select i, repeat(md5(i::text), 1 + i %% 9), array[i %% 50, i %% 7], point(i, i %% 100), int4range(i, i + 5)
		from generate_series(1, %[2]d) i`, name, 100+w.rnd.IntN(3000))
	w.tables = append(w.tables, name)
}

// step does one or several things and returns what.
func (w *workload) step(t *testing.T) string {
	t.Helper()
	did := ""
	if w.cutAndCopy != "" && slices.Contains(w.tables, w.cutAndCopy) {
		did += " copied into what was cut off"
		w.exec(t, "delete from %s where ctid > '(2,0)'", w.cutAndCopy)
		w.exec(t, "vacuum %s", w.cutAndCopy)
		rows := strings.Repeat(strings.Repeat("y", 700)+"\n", 100+w.rnd.IntN(200))
		conn := w.Conn(t)
		_, err := conn.PgConn().CopyFrom(context.Background(), strings.NewReader(rows), "copy "+w.cutAndCopy+" (b) from stdin")
		check(t, err)
		check(t, conn.Close(context.Background()))
	}
	w.cutAndCopy = ""
	for range 1 + w.rnd.IntN(3) {
		kinds := w.kinds()
		k := pick(w, kinds)
		if k.do(t) {
			did += " " + k.name
		}
	}
	return did
}

type kind struct {
	name string
	do   func(t *testing.T) bool // false when it could not be done now
}

func (w *workload) sql(name, format string) kind {
	return kind{name, func(t *testing.T) bool {
		w.exec(t, format, w.table(), w.rnd.IntN(1000), w.name("i"))
		return true
	}}
}

func (w *workload) kinds() []kind {
	return []kind{
		w.sql("insert", "insert into %[1]s (a, b, c, p, s) select i, 'x', array[i], point(i, 1), int4range(i, i + 1) from generate_series(1, %[2]d) i"),
		w.sql("update", "update %[1]s set a = a + 1, b = b || 'y' where a %% 17 = %[2]d %% 17"),
		w.sql("update in place", "update %[1]s set a = a where id %% 101 = %[2]d %% 101"),
		w.sql("delete", "delete from %[1]s where a %% 13 = %[2]d %% 13"),
		w.sql("vacuum", "vacuum %[1]s"),
		w.sql("vacuum freeze", "vacuum (freeze, analyze) %[1]s"),
		w.sql("vacuum full", "vacuum full %[1]s"),
		{"cut off", func(t *testing.T) bool {
			table := w.table()
			w.exec(t, "delete from %s where ctid > '(2,0)'", table)
			w.exec(t, "vacuum %s", table)
			return true
		}},
		// From PostgreSQL 16 on COPY makes a table larger by many pages at once,
		// of which the last stay empty, and no WAL tells of those.
		{"cut off and copied into", func(t *testing.T) bool {
			table := w.table()
			w.exec(t, "insert into %s (b) select repeat('z', 700) from generate_series(1, 2000)", table)
			w.exec(t, "checkpoint")
			w.cutAndCopy = table
			return true
		}},
		w.sql("truncate", "truncate %[1]s; insert into %[1]s (a, b) select i, 'after' from generate_series(1, %[2]d) i"),
		w.sql("truncate in its transaction", "begin; truncate %[1]s; insert into %[1]s (a) select generate_series(1, %[2]d); commit"),
		w.sql("btree", "create index %[3]s on %[1]s (a, id)"),
		w.sql("gin", "create index %[3]s on %[1]s using gin (c)"),
		w.sql("gist", "create index %[3]s on %[1]s using gist (p)"),
		w.sql("gist of ranges", "create index %[3]s on %[1]s using gist (s)"),
		w.sql("spgist", "create index %[3]s on %[1]s using spgist (p)"),
		w.sql("brin", "create index %[3]s on %[1]s using brin (a) with (pages_per_range = 4)"),
		w.sql("hash", "create index %[3]s on %[1]s using hash (a)"),
		w.sql("reindex", "reindex table %[1]s"),
		w.sql("unlogged and back", "alter table %[1]s set unlogged; insert into %[1]s (a) values (%[2]d); alter table %[1]s set logged"),
		w.sql("rewritten", "alter table %[1]s alter column a type bigint; alter table %[1]s alter column a type int using (a %% 1000000)"),
		w.sql("undone", "begin; update %[1]s set a = a + 1; create table u as select 1; rollback"),
		w.sql("undone in part", "begin; savepoint s; update %[1]s set a = 0 where id < %[2]d; rollback to s; insert into %[1]s (a) values (1); commit"),
		w.sql("toast", "insert into %[1]s (b) select string_agg(md5((i * %[2]d)::text), '') from generate_series(1, 2000) i"),
		w.sql("sequence", "select nextval('%[1]s_id_seq') from generate_series(1, 100); select setval('%[1]s_id_seq', 100000 + %[2]d)"),
		w.sql("large object", "select lo_from_bytea(0, decode(repeat('ab', 100000 + %[2]d), 'hex')); select lo_put(oid, 5000, '\\x00112233') from (select oid from pg_largeobject_metadata limit 2) o"),
		w.sql("large object gone", "select lo_unlink(oid) from (select oid from pg_largeobject_metadata limit 1) o /* %[1]s */"),
		w.sql("selected", "select count(*) from %[1]s where a > %[2]d"),
		w.sql("materialized", "create materialized view m%[3]s as select * from %[1]s; refresh materialized view m%[3]s; drop materialized view m%[3]s"),
		w.sql("checkpoint", "checkpoint /* %[1]s */"),
		{"create table", func(t *testing.T) bool {
			if len(w.tables) > 8 {
				return false
			}
			w.createTable(t)
			return true
		}},
		{"drop table", func(t *testing.T) bool {
			if len(w.tables) < 3 {
				return false
			}
			i := w.rnd.IntN(len(w.tables))
			w.exec(t, "drop table %s cascade", w.tables[i])
			w.tables = append(w.tables[:i], w.tables[i+1:]...)
			return true
		}},
		{"drop indexes", func(t *testing.T) bool {
			w.exec(t, `do $$ declare i regclass; begin for i in select indexrelid from pg_index where indrelid = '%s'::regclass and not indisprimary loop execute 'drop index ' || i; end loop; end $$`, w.table())
			return true
		}},
		{"set tablespace", func(t *testing.T) bool {
			w.exec(t, "alter table %s set tablespace %s", w.table(), pick(w, []string{"ts1", "ts2", "pg_default"}))
			return true
		}},
		{"create database by copying files", func(t *testing.T) bool { return w.createDatabase(t, "file_copy") }},
		{"create database by WAL", func(t *testing.T) bool { return w.createDatabase(t, "wal_log") }},
		{"drop database", func(t *testing.T) bool {
			if len(w.databases) == 0 {
				return false
			}
			w.exec(t, "drop database %s", w.databases[0])
			w.databases = w.databases[1:]
			return true
		}},
		// The pages of the new one are older than the last backup, and lie where
		// others lay.
		{"database replaced", func(t *testing.T) bool {
			if len(w.databases) == 0 || w.version < 150000 {
				return false
			}
			name := w.databases[0]
			oid := w.QueryString(t, fmt.Sprintf("select oid from pg_database where datname = '%s'", name))
			w.exec(t, "drop database %s", name)
			w.exec(t, "create database %s oid %s strategy file_copy", name, oid)
			return true
		}},
		{"database moved", func(t *testing.T) bool {
			if len(w.databases) == 0 {
				return false
			}
			w.exec(t, "alter database %s set tablespace %s", pick(w, w.databases), pick(w, []string{"ts1", "ts2", "pg_default"}))
			return true
		}},
		{"in another database", func(t *testing.T) bool {
			if len(w.databases) == 0 {
				return false
			}
			conf := w.Conn(t).Config().Copy()
			conf.Database = pick(w, w.databases)
			execOn(t, conf, "create table if not exists x (i int); insert into x select generate_series(1, 500); delete from x where i % 3 = 0")
			return true
		}},
		{"prepare", func(t *testing.T) bool {
			if len(w.prepared) > 2 {
				return false
			}
			id, table := w.name("p"), w.name("t")
			// Of its own: what is prepared holds locks.
			w.exec(t, "begin; create table %[2]s (id bigserial, a int, b text, c int[], p point, s int4range); insert into %[2]s (a) select generate_series(1, 300); prepare transaction '%[1]s'", id, table)
			w.prepared = append(w.prepared, id)
			return true
		}},
		{"finish what is prepared", func(t *testing.T) bool {
			if len(w.prepared) == 0 {
				return false
			}
			w.exec(t, "%s prepared '%s'", pick(w, []string{"commit", "rollback"}), w.prepared[0])
			w.prepared = w.prepared[1:]
			return true
		}},
		{"crash", func(t *testing.T) bool {
			if w.rnd.IntN(3) > 0 {
				return false
			}
			w.Kill9(t)
			w.Start(t)
			return true
		}},
		{"restart", func(t *testing.T) bool {
			if w.rnd.IntN(3) > 0 {
				return false
			}
			w.Stop(t, server.Fast)
			w.Start(t)
			return true
		}},
	}
}

// createDatabase gives a database, every other time, the number of one that
// was dropped: its files come to lie where those of the other lay.
func (w *workload) createDatabase(t *testing.T, strategy string) bool {
	if len(w.databases) > 1 {
		return false
	}
	name, how := w.name("d"), ""
	if w.version >= 150000 {
		how = " strategy " + strategy
		if oid := 90000 + w.rnd.IntN(2); w.QueryString(t, fmt.Sprintf("select 1 from pg_database where oid = %d", oid)) == "" {
			how += fmt.Sprintf(" oid %d", oid)
		}
	}
	w.exec(t, "create database %s%s", name, how)
	w.databases = append(w.databases, name)
	return true
}
