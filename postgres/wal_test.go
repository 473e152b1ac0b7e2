package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

var walSettings = map[string]string{
	"wal_level": "logical", "max_prepared_transactions": "10", "wal_keep_size": "2GB", "max_wal_size": "2GB",
	"wal_compression": "on", "wal_consistency_checking": "btree", "track_commit_timestamp": "on",
}

// TestWALAgainstServer reads the WAL of a busy server, record by record, next
// to what the server's own tools say of it.
func TestWALAgainstServer(t *testing.T) {
	for _, size := range []postgres.SegmentSize{1 * mib, 16 * mib} {
		t.Run(fmt.Sprintf("%dMiB", size/mib), func(t *testing.T) {
			c := servertest.New(t, servertest.Options{WALSegmentSize: int(size), Checksums: true, Settings: walSettings})
			start := firstSegment(t, c, size).Start()
			workload(t, c)

			var want []dumped
			if _, err := os.Stat(c.Install.Path("pg_waldump")); err == nil {
				c.Stop(t, server.Fast)
				want = dumpWAL(t, c, walDir(c), 1, start)
			} else if c.Install.Major >= 15 {
				want = inspectWAL(t, c, start)
				c.Stop(t, server.Fast)
			} else {
				t.Logf("PostgreSQL %d has neither pg_waldump here nor pg_walinspect: only what the workload did is looked for", c.Install.Major)
				c.Stop(t, server.Fast)
			}
			checkEvents(t, c.Install.Major, compareWAL(t, c, size, start, want))
		})
	}
}

// checkEvents looks for what the workload made, some of it word by word.
func checkEvents(t *testing.T, major int, events []postgres.Event) {
	t.Helper()
	kinds, said := map[string]int{}, map[string]bool{}
	var second uint32
	for _, ev := range events {
		kinds[strings.TrimPrefix(fmt.Sprintf("%T", ev), "postgres.")]++
		switch ev := ev.(type) {
		case postgres.LogicalMessage:
			said[fmt.Sprintf("%s, %s, %v, %d", ev.Prefix, ev.Content[:min(11, len(ev.Content))], ev.Transactional, len(ev.Content))] = true
		case postgres.RestorePoint:
			said[ev.Name] = time.Since(ev.Time) < time.Hour
		case postgres.TransactionPrepare:
			said["prepared "+ev.GID] = ev.XID != 0 && ev.Database != 0 && time.Since(ev.Time) < time.Hour
			second = ev.XID
		case postgres.TransactionEnd:
			if ev.Prepared {
				said[fmt.Sprintf("%s committed: %v, of the last prepared: %v, dropped %d", ev.GID, ev.Committed, ev.XID == second, len(ev.Dropped))] = true
			}
			if time.Since(ev.Time) > time.Hour || time.Since(ev.Time) < 0 {
				t.Errorf("transaction %d ended at %s", ev.XID, ev.Time)
			}
		case postgres.TablespaceCreate:
			said[filepath.Base(ev.Path)] = ev.OID >= 16384
		}
	}
	wanted := []string{"TransactionEnd", "TransactionPrepare", "RestorePoint", "TablespaceCreate", "TablespaceDrop",
		"CheckpointEvent", "SegmentSwitch", "BackupEnd", "ParameterChange", "DatabaseCreate", "DatabaseDrop",
		"StorageCreate", "StorageTruncate", "LogicalMessage", "FullPageWritesChange"}
	if major >= 17 {
		wanted = append(wanted, "CheckpointRedo")
	}
	for _, kind := range wanted {
		if kinds[kind] == 0 {
			t.Errorf("no %s in %v", kind, kinds)
		}
	}
	for _, s := range []string{
		"lifeboat, a heartbeat, true, 11", "lifeboat, , false, 0", "big, 01234567890, false, 3000000", "before the change",
		"prepared first prepared", "prepared second", `odd \ place`,
		"first prepared committed: true, of the last prepared: true, dropped 0",
		"second committed: false, of the last prepared: true, dropped 1",
	} {
		if !said[s] {
			t.Errorf("no %q among %v", s, said)
		}
	}
}

// workload makes records of many kinds.
func workload(t *testing.T, c *servertest.Cluster) {
	t.Helper()
	c.Pgbench(t, "-i", "-s", "1", "-q")
	c.Pgbench(t, "-n", "-c", "2", "-t", "200")
	space := filepath.Join(t.TempDir(), `odd \ place`)
	if err := os.Mkdir(space, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		fmt.Sprintf(`create tablespace elsewhere location '%s'`, space),
		`create table far(i int primary key, j jsonb, p point, s text) tablespace elsewhere`,
		`insert into far select i, jsonb_build_object('k', i, 't', md5(i::text)), point(i, i), repeat(md5(i::text), 200) from generate_series(1, 2000) i`,
		`create index on far using gin(j); create index on far using gist(p); create index on far using spgist(p);
		 create index on far using hash(i); create index on far using brin(i); create index on far(s) where i < 0`,
		`begin; savepoint a; insert into far values (-1); savepoint b; insert into far values (-2); release b; rollback to a;
		 insert into far values (-3); savepoint c; insert into far values (-4); commit`,
		`begin; create table gone(i int); insert into gone select 1; rollback`,
		`begin; insert into far values (-5); prepare transaction 'first prepared'`,
		`commit prepared 'first prepared'`,
		`begin; insert into far values (-6); create table alsogone(i int); prepare transaction 'second'`,
		`rollback prepared 'second'`,
		`select pg_create_restore_point('before the change')`,
		`select pg_logical_emit_message(true, 'lifeboat', 'a heartbeat')`,
		`select pg_logical_emit_message(false, 'lifeboat', '')`,
		`create unlogged table u(i int); insert into u select 1; create sequence sq; select nextval('sq')`,
		`delete from far where i > 100 or i < 0`,
		`vacuum far`,
		`truncate pgbench_history; drop table u`,
		`create database copy`,
		`drop database copy`,
		`checkpoint`,
		`update pgbench_accounts set filler = 'new' where aid % 100 = 0`,
		`select pg_switch_wal()`,
		`insert into pgbench_history select 1, 1, i, 1, now(), 'x' from generate_series(1, 20000) i`,
		// One record of some segments.
		`select pg_logical_emit_message(false, 'big', repeat('0123456789', 300000))`,
		`drop table far`,
		`drop tablespace elsewhere`,
		`checkpoint`,
	} {
		c.Exec(t, sql)
	}
	if c.Install.Major >= 15 {
		c.Exec(t, "create database copy strategy file_copy")
		if c.QueryString(t, "select 'lz4' = any(enumvals) from pg_settings where name = 'wal_compression'") == "t" {
			c.Setting(t, "wal_compression", "lz4")
		}
	}
	c.Setting(t, "full_page_writes", "off")
	c.Exec(t, "checkpoint")
	c.Setting(t, "full_page_writes", "on")
	c.Setting(t, "max_connections", "50")
	c.Restart(t)
	c.Exec(t, "update pgbench_accounts set filler = 'again' where aid % 50 = 0")
	startAndStopBackup(t, c)
	c.Exec(t, "insert into pgbench_history select 1, 1, i, 1, now(), 'y' from generate_series(1, 500) i")
}

// startAndStopBackup does what a base backup does on the server, and returns
// the backup label and the tablespace map.
func startAndStopBackup(t *testing.T, c *servertest.Cluster) (label, tablespaces string) {
	t.Helper()
	start, stop := "select pg_backup_start('by hand', true)", "select labelfile, spcmapfile from pg_backup_stop(false)"
	if c.Install.Major < 15 {
		start, stop = "select pg_start_backup('by hand', true, false)", "select labelfile, spcmapfile from pg_stop_backup(false, false)"
	}
	conn := c.Conn(t)
	if _, err := conn.Exec(context.Background(), start); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(context.Background(), stop).Scan(&label, &tablespaces); err != nil {
		t.Fatal(err)
	}
	return label, tablespaces
}

// compareWAL reads the WAL from start and compares it with want, if there is
// any, up to the last record of want. It returns the events.
func compareWAL(t *testing.T, c *servertest.Cluster, size postgres.SegmentSize, start postgres.LSN, want []dumped) []postgres.Event {
	t.Helper()
	var events []postgres.Event
	r := postgres.NewWALReader(start, size, openDir(walDir(c), 1, size))
	var contents postgres.Contents
	n, compressed, wrong := 0, 0, 0
	var end postgres.LSN
	for {
		rec, err := r.Next()
		if err != nil {
			checkEnd(t, err, end)
			break
		}
		got := ours(t, rec, &contents)
		for _, b := range contents.Blocks {
			if b.Compression != postgres.CompressionNone {
				compressed++
			}
		}
		ev, err := rec.Event()
		if err != nil {
			t.Fatal(err)
		}
		if ev != nil {
			if m, ok := ev.(postgres.LogicalMessage); ok {
				m.Content = bytes.Clone(m.Content)
				ev = m
			}
			events = append(events, ev)
		}
		if end != 0 && rec.LSN < end {
			t.Fatalf("record at %s, after one that ended at %s", rec.LSN, end)
		}
		end = rec.End
		if n < len(want) {
			desc := want[n].desc
			want[n].desc = ""
			if got != want[n] && wrong < 20 {
				t.Errorf("record %d:\n got %+v\nwant %+v", n, got, want[n])
				wrong++
			}
			if !agrees(desc, describe(ev)) && wrong < 20 {
				t.Errorf("record %d, at %s:\n got %s\nwant %s", n, got.lsn, describe(ev), desc)
				wrong++
			}
		}
		n++
	}
	t.Logf("%d records, %d to compare with, %d compressed images, %d events", n, len(want), compressed, len(events))
	if len(want) > n || n < 20000 {
		t.Errorf("%d records were read, %d were wanted", n, len(want))
	}
	if want != nil && len(want) < 20000 {
		t.Errorf("only %d records to compare with", len(want))
	}
	if compressed == 0 {
		t.Error("no compressed page image was read")
	}
	if r.Major() != c.Install.Major || r.SystemID() == 0 || r.Position() != end {
		t.Errorf("major %d, system %d, position %s", r.Major(), r.SystemID(), r.Position())
	}
	return events
}

// checkEnd wants the end of valid WAL right behind the last record, where a
// stopped server's WAL ends.
func checkEnd(t *testing.T, err error, end postgres.LSN) {
	t.Helper()
	var e *postgres.EndOfWAL
	if !errors.As(err, &e) || !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if e.LSN != end || e.Kind == postgres.EndInvalid {
		t.Errorf("%v; the last record ended at %s", err, end)
	}
}

func walDir(c *servertest.Cluster) string { return filepath.Join(c.DataDir(), "pg_wal") }

// openDir opens segments in a directory, those of the newest timeline up to tl.
func openDir(dir string, tl postgres.Timeline, size postgres.SegmentSize) postgres.OpenSegment {
	return func(no uint64) ([]byte, error) {
		for at := tl; at > 0; at-- {
			b, err := os.ReadFile(filepath.Join(dir, postgres.Segment{Timeline: at, No: no, Size: size}.Name()))
			if !errors.Is(err, fs.ErrNotExist) {
				return b, err
			}
		}
		return nil, fs.ErrNotExist
	}
}

func firstSegment(t testing.TB, c *servertest.Cluster, size postgres.SegmentSize) postgres.Segment {
	t.Helper()
	entries, err := os.ReadDir(walDir(c))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries { // in the order of the names
		if s, err := postgres.ParseSegment(e.Name(), size); err == nil {
			return s
		}
	}
	t.Fatal("no WAL segment")
	return postgres.Segment{}
}
