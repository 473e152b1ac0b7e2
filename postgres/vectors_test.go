package postgres_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// The vectors are WAL of each major: the start of one 1 MiB segment in
// testdata/wal/MAJOR, and what is in it in MAJOR.txt. So all majors are tested
// where just one is installed.
var makeVectors = flag.String("make-vectors", "", "write the vectors of the version under test to this directory")

// TestWALVectors reads the vectors and prints what it finds.
func TestWALVectors(t *testing.T) {
	for major := postgres.MinMajor; major <= postgres.MaxMajor; major++ {
		data := walVector(t, major)
		want, err := os.ReadFile(fmt.Sprintf("testdata/wal/%d.txt", major))
		if err != nil {
			t.Fatal(err)
		}
		if got := printWAL(t, major, data); got != string(want) {
			t.Errorf("PostgreSQL %d: the vector reads as\n%s", major, got)
		}
	}
}

func walVector(t testing.TB, major int) []byte {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("testdata/wal/%d", major))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// printWAL prints each record of a segment's start, with pages and events.
func printWAL(t *testing.T, major int, data []byte) string {
	t.Helper()
	head, err := postgres.ParseSegmentHeader(data)
	if err != nil || head.Major != major {
		t.Fatalf("%+v, %v", head, err)
	}
	r := postgres.NewWALReader(head.Start, head.SegmentSize, oneSegment(head, data))
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s\n", head.Major, head.SystemID)
	var contents postgres.Contents
	for {
		rec, err := r.Next()
		if err != nil {
			fmt.Fprintln(&b, err)
			return b.String()
		}
		d := ours(t, rec, &contents)
		ev, err := rec.Event()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s %02X tx %s, %d bytes, %d of images; %s", d.lsn, d.rmgr, rec.Info, d.xid, d.total, d.fpi, d.blocks)
		for _, ref := range contents.Blocks {
			if ref.HasImage {
				fmt.Fprintf(&b, " [image %d, method %d, hole %v %d %d]", len(ref.Image), ref.Compression, ref.HasHole, ref.HoleOffset, ref.HoleLength)
			}
		}
		if ev != nil {
			fmt.Fprintf(&b, " %T%+v", ev, ev)
		}
		b.WriteByte('\n')
	}
}

func oneSegment(head postgres.SegmentHeader, data []byte) postgres.OpenSegment {
	return func(no uint64) ([]byte, error) {
		if no == uint64(head.Start)/uint64(head.SegmentSize) {
			return data, nil
		}
		return nil, fs.ErrNotExist
	}
}

// TestMakeVectors makes the vectors; look at what changed before committing it.
func TestMakeVectors(t *testing.T) {
	if *makeVectors == "" {
		t.Skip("only with -make-vectors")
	}
	c := servertest.New(t, servertest.Options{OwnSystemIdentifier: true, WALSegmentSize: 1 * mib, Settings: map[string]string{
		"wal_level": "logical", "max_prepared_transactions": "2", "wal_keep_size": "1GB", "max_wal_size": "1GB",
		"wal_compression": "on", "autovacuum": "off", "bgwriter_delay": "10s"}})
	if c.QueryString(t, "select 'lz4' = any(enumvals) from pg_settings where name = 'wal_compression'") == "t" {
		c.Setting(t, "wal_compression", "lz4")
	}
	c.Exec(t, "create table a(i int primary key, s text); create table img(i int)")
	c.Exec(t, "insert into img select generate_series(1, 200)")
	space, err := os.MkdirTemp("/tmp", "lifeboat-space")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(space)
	round := func(name string) {
		for _, sql := range []string{
			`insert into a select i, md5(i::text) from generate_series(1, 5) i`,
			`begin; savepoint x; insert into a values (11); release x; insert into a values (12); commit`,
			`begin; create table gone(i int); rollback`,
			`begin; insert into a values (21); create table p(i int); prepare transaction 'held'`,
			`rollback prepared 'held'`,
			`begin; insert into a values (22); prepare transaction 'kept'`, `commit prepared 'kept'`,
			`select pg_create_restore_point('point ` + name + `')`,
			`select pg_logical_emit_message(true, 'lifeboat', 'beat')`,
			`create tablespace sp` + name + ` location '` + space + `'`, `drop tablespace sp` + name,
			`truncate a`,
		} {
			c.Exec(t, sql)
		}
	}
	round("one") // so that the second round logs no page images
	c.Exec(t, "select pg_switch_wal()")
	lsn, err := postgres.ParseLSN(c.QueryString(t, "select pg_current_wal_insert_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	round("two")
	c.Exec(t, "checkpoint")
	c.Exec(t, "update img set i = 0 where i = 7") // one page image
	c.Stop(t, server.Fast)

	seg := postgres.SegmentAt(1, lsn, 1*mib)
	data, err := os.ReadFile(filepath.Join(walDir(c), seg.Name()))
	if err != nil {
		t.Fatal(err)
	}
	_, end := records(t, seg.Start(), seg.Size, openDir(walDir(c), 1, seg.Size))
	data = data[:end.LSN-seg.Start()+64] // with some of the zeros that follow
	for name, b := range map[string][]byte{
		fmt.Sprint(c.Install.Major):          data,
		fmt.Sprint(c.Install.Major) + ".txt": []byte(printWAL(t, c.Install.Major, data)),
	} {
		if err := os.WriteFile(filepath.Join(*makeVectors, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
