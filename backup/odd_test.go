package backup_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
)

func TestTablespaces(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	outside := filepath.Join(t.TempDir(), "ts")
	check(t, os.Mkdir(outside, 0o700))
	b.Exec(t, "create tablespace outside location '"+outside+"'")
	b.Psql(t, "-c", "set allow_in_place_tablespaces = on", "-c", "create tablespace inside location ''")
	b.Exec(t, "create table o (x int) tablespace outside; insert into o values (1); create table i (x int) tablespace inside; insert into i values (1)")
	b.Exec(t, "checkpoint")
	// What another cluster keeps in the same place is not ours.
	check(t, os.Mkdir(filepath.Join(outside, "PG_9.6_201608131"), 0o700))
	check(t, os.WriteFile(filepath.Join(outside, "PG_9.6_201608131", "1"), []byte("x"), 0o600))
	// Nor is what somebody has put among its files, which no restore writes.
	var warned []string
	for _, table := range []string{"o", "i"} {
		dir := filepath.Dir(filepath.Join(b.DataDir(), b.QueryString(t, "select pg_relation_filepath('"+table+"')")))
		check(t, os.WriteFile(filepath.Join(dir, "authorized_keys"), []byte("x"), 0o600))
	}
	o := b.options()
	o.Warn = func(s string) { warned = append(warned, s) }
	info, err := backup.Run(t.Context(), b.repo, o)
	check(t, err)
	if len(warned) != 2 || !strings.Contains(warned[0], "authorized_keys: it lies in the directory of a tablespace") {
		t.Errorf("%q", warned)
	}

	if len(info.Tablespaces) != 2 {
		t.Fatalf("tablespaces: %+v", info.Tablespaces)
	}
	for _, ts := range info.Tablespaces {
		if ts.InPlace == (ts.Path == outside) {
			t.Errorf("tablespace %+v", ts)
		}
	}
	got := b.contents(t, info.Label)
	for _, table := range []string{"o", "i"} {
		path := b.QueryString(t, "select pg_relation_filepath('"+table+"')")
		if len(got[path]) != 8192 {
			t.Errorf("table %s: %d bytes at %s", table, len(got[path]), path)
		}
	}
	for path := range got {
		if strings.Contains(path, "PG_9.6") || strings.Contains(path, "authorized_keys") {
			t.Errorf("%s is not this cluster's", path)
		}
	}
	if !strings.Contains(info.TablespaceMap, outside) {
		t.Errorf("tablespace_map is %q", info.TablespaceMap)
	}
}

// A tablespace whose disk is not mounted, while the server runs on: what is in it is
// not left out in silence. A database on another disk is followed there.
func TestLostTablespace(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	dir := t.TempDir()
	outside, away := filepath.Join(dir, "ts"), filepath.Join(dir, "away")
	check(t, os.Mkdir(outside, 0o700))
	b.Exec(t, "create tablespace outside location '"+outside+"'")
	b.Exec(t, "create table o tablespace outside as select 1 x; checkpoint")
	try := func(what string) {
		t.Helper()
		_, err := backup.Run(context.Background(), b.repo, b.options())
		if lost, ok := errors.AsType[*backup.LostTablespaceError](err); !ok || lost.Path != outside {
			t.Errorf("%s: %v", what, err)
		}
	}
	check(t, backup.CheckTablespaces(context.Background(), b.ConnString(), []repo.Tablespace{{OID: 1, Path: "/dropped"}}, nil)) // dropped since it was listed
	check(t, os.Rename(outside, away))
	try("without its directory")
	check(t, os.Mkdir(outside, 0o700))
	try("with the empty directory on which it is mounted")
	check(t, os.Remove(outside))
	check(t, os.Rename(away, outside))
	b.Stop(t, server.Fast)
	base := filepath.Join(b.DataDir(), "base")
	check(t, os.Rename(filepath.Join(base, "1"), away))
	check(t, os.Symlink(away, filepath.Join(base, "1")))
	b.Start(t)
	info := b.run(t)
	if got := b.contents(t, info.Label); len(got["base/1/PG_VERSION"]) == 0 || len(got[b.QueryString(t, "select pg_relation_filepath('o')")]) != 8192 {
		t.Error("the database behind the link, or the tablespace, is not in the backup")
	}
}

func TestLinkedWALDir(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{Stopped: true})
	elsewhere := filepath.Join(t.TempDir(), "wal")
	inside := filepath.Join(b.DataDir(), "pg_wal")
	check(t, os.Rename(inside, elsewhere))
	check(t, os.Symlink(elsewhere, inside))
	b.Start(t)
	info := b.run(t)
	got := b.contents(t, info.Label)
	if _, ok := got["pg_wal/archive_status"]; !ok {
		t.Error("pg_wal/archive_status is not in the backup")
	}
	for path := range got {
		if strings.HasPrefix(path, "pg_wal/0") {
			t.Errorf("%s is in the backup", path)
		}
	}
}

// damage changes bytes of a table's file behind the server's back.
func damage(t *testing.T, b *bench, path string, off int64, change []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(b.DataDir(), path), os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	_, err = f.WriteAt(change, off)
	check(t, err)
}

func TestBadPages(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{Checksums: true})
	b.Exec(t, "create table a as select generate_series(1, 5000) x; create table z as select generate_series(1, 5000) x; checkpoint")
	a := b.QueryString(t, "select pg_relation_filepath('a')")
	z := b.QueryString(t, "select pg_relation_filepath('z')")
	damage(t, b, a, 3*8192+5000, []byte("damage"))
	// A header that claims to be from the far future must not excuse the page.
	damage(t, b, z, 1*8192, []byte{0xff, 0xff, 0, 0, 1, 2, 3, 4})
	info := b.run(t)
	if info.BadCount != 2 {
		t.Fatalf("%d bad pages, want 2: %+v", info.BadCount, info.BadPages)
	}
	found := map[string]uint32{}
	for _, p := range info.BadPages {
		found[p.Path] = p.Block
	}
	if found[a] != 3 || found[z] != 1 {
		t.Errorf("bad pages %+v, want block 3 of %s and block 1 of %s", info.BadPages, a, z)
	}
	labels, err := b.repo.Backups(context.Background())
	check(t, err)
	if len(labels) != 1 {
		t.Error("the backup was not kept")
	}
}

// A bad page of a map is told again for as long as it is bad, though nothing of
// its relation has changed and its content is that of the base.
func TestBadPageOfAMapIsToldAgain(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	b := newBench(t, servertest.Options{Checksums: true, Settings: map[string]string{"archive_mode": "on", "autovacuum": "off"}})
	b.archiveWithSummaries(t)
	b.Exec(t, "create table a as select generate_series(1, 5000) x")
	b.Exec(t, "vacuum a")
	b.Exec(t, "checkpoint")
	path := b.QueryString(t, "select pg_relation_filepath('a')") + "_vm"
	damage(t, b, path, 5000, []byte("damage"))
	for _, scan := range []bool{false, false, true, true} {
		o := b.options()
		o.Scan = scan
		info, err := backup.Run(context.Background(), b.repo, o)
		check(t, err)
		if info.BadCount != 1 || info.BadPages[0].Path != path {
			t.Errorf("after base %q, by %s: %d bad pages, %+v", info.Base, info.Changes, info.BadCount, info.BadPages)
		}
	}
}

func TestTwoBackupsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	o := b.options()
	var once sync.Once
	var second error
	o.Observe = func(backup.Progress) {
		once.Do(func() { _, second = backup.Run(context.Background(), b.repo, b.options()) })
	}
	_, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
	if _, ok := errors.AsType[*repo.LeasedError](second); !ok {
		t.Errorf("the second backup ended with %v, want a LeasedError", second)
	}
	b.run(t) // the lease was given back
}

// onFirstCopy runs f once, when the list of files is made and copying begins.
func onFirstCopy(o *backup.Options, f func()) {
	var once sync.Once
	o.Observe = func(p backup.Progress) {
		if p.Phase == "copy" {
			once.Do(f)
		}
	}
}

func TestFilesChangeWhileCopied(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	at := func(name string) string { return filepath.Join(b.DataDir(), name) }
	const mib = 1 << 20
	whole := bytes.Repeat([]byte("0123456789abcdef"), 4*mib/16)
	for _, name := range []string{"zz_gone", "zz_gone_large", "zz_grows", "zz_shrinks"} {
		check(t, os.WriteFile(at(name), whole, 0o600))
	}
	check(t, os.WriteFile(at("zz_gone"), []byte("small"), 0o600))
	check(t, os.WriteFile(at("zz_grows"), []byte("small"), 0o600))
	o := b.options()
	o.Jobs = 1
	onFirstCopy(&o, func() {
		check(t, os.Remove(at("zz_gone")))
		check(t, os.Remove(at("zz_gone_large")))
		check(t, os.Truncate(at("zz_shrinks"), mib+7))
		check(t, os.WriteFile(at("zz_grows"), []byte("small and more"), 0o600))
	})
	info, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
	got := b.contents(t, info.Label)
	for _, gone := range []string{"zz_gone", "zz_gone_large"} {
		if _, ok := got[gone]; ok {
			t.Errorf("%s is in the backup", gone)
		}
	}
	if string(got["zz_grows"]) != "small and more" {
		t.Errorf("zz_grows is %q: it was cut off", got["zz_grows"])
	}
	shrunk := append(bytes.Clone(whole[:mib+7]), make([]byte, 3*mib-7)...)
	if !bytes.Equal(got["zz_shrinks"], shrunk) {
		t.Error("zz_shrinks is not what was left of it, with zeros behind")
	}
}

func TestServerDiesDuringTheCopy(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	o := b.options()
	onFirstCopy(&o, func() { b.Kill9(t) })
	if _, err := backup.Run(context.Background(), b.repo, o); err == nil {
		t.Fatal("a backup was made although the server died")
	}
	labels, err := b.repo.Backups(context.Background())
	check(t, err)
	if len(labels) != 0 {
		t.Errorf("backups %v exist", labels)
	}
}

func TestForeignDataDirectory(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	other := servertest.New(t, servertest.Options{OwnSystemIdentifier: true, Stopped: true})
	copied := servertest.New(t, servertest.Options{Stopped: true}) // same identifier, other files
	for name, dir := range map[string]string{"another system": other.DataDir(), "a copy": copied.DataDir(), "no data directory": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			o := b.options()
			o.DataDir = dir
			_, err := backup.Run(context.Background(), b.repo, o)
			if _, ok := errors.AsType[*backup.MismatchError](err); !ok {
				t.Errorf("got %v, want a MismatchError", err)
			}
		})
	}
}
