package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// A relation larger than 1 GiB is several files, and the page checksums of the
// later ones count on from the first. The first file is made long with a hole:
// pages of zeros are new ones to PostgreSQL, which goes on behind them.
func TestRelationOverOneGiB(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{Checksums: true}})
	s.Exec(t, "create table big (n int, x text); alter table big alter x set storage external; insert into big values (0, 'the first page')")
	big := filepath.Join(s.DataDir(), s.QueryString(t, "select pg_relation_filepath('big')"))
	s.Stop(t, server.Fast)
	if err := os.Truncate(big, 1<<30); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	const fill = "insert into big select i, repeat(md5(i::text), 40) from generate_series(%d, %d) i"
	s.Exec(t, fmt.Sprintf(fill, 1, 10000)+"; checkpoint")
	if second, err := os.Stat(big + ".1"); err != nil || second.Size() < 10<<20 {
		t.Fatalf("the relation has no second file: %v", err)
	}
	s.run(t, "backup")
	s.Exec(t, fmt.Sprintf(fill, 10001, 11000))
	want := content(t, s.Cluster)
	const size = "select pg_relation_size('big')"
	wantSize := s.QueryString(t, size)
	s.flush(t)
	s.Kill9(t)

	c := s.restoreTo(t)
	sameContent(t, c, want)
	if got := c.QueryString(t, size); got != wantSize {
		t.Errorf("%s bytes, want %s", got, wantSize)
	}
	c.Stop(t, server.Fast)
	c.Checksums(t)
}

// Backup, archive and restore with each size of a WAL segment; 1 GiB is pushed
// and fetched in wal's TestPushFetchOfOneGiB.
func TestWALSegmentSizes(t *testing.T) {
	t.Parallel()
	for _, mib := range []int{1, 16, 64} {
		t.Run(fmt.Sprintf("%d MiB", mib), func(t *testing.T) {
			s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: mib << 20}})
			if got := s.QueryString(t, "select setting from pg_settings where name = 'wal_segment_size'"); got != fmt.Sprint(mib<<20) {
				t.Fatalf("wal_segment_size is %s", got)
			}
			s.Exec(t, "create table t as select i, md5(i::text) from generate_series(1, 20000) i")
			s.run(t, "backup")
			s.Exec(t, "insert into t select i, md5(i::text) from generate_series(1, 20000) i")
			at := s.QueryString(t, "select pg_current_wal_insert_lsn()")
			half := content(t, s.Cluster)
			s.Exec(t, "insert into t select i, 'later' from generate_series(1, 20000) i")
			all := content(t, s.Cluster)
			s.flush(t)
			s.Kill9(t)
			c := s.restoreTo(t, "--target-lsn", at, "--target-action", "promote")
			sameContent(t, c, half)
			stopAll(t, c)
			c = s.restoreTo(t)
			sameContent(t, c, all)
			stopAll(t, c)
		})
	}
}

// modes are the modes of all that lies below dir but pg_wal's content and what
// a server makes when it starts.
func modes(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	out := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		out[strings.TrimPrefix(path, dir)] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A data directory as administrators build them, end to end: pg_wal elsewhere,
// the data directory itself reached through a link, a tablespace behind a
// relative link to a link, one in place, one whose name begins like another's,
// access for the group (initdb -g).
func TestRestoreOfLinkedDataDirectory(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	elsewhere := filepath.Join(base, "wal")
	var linked string
	s := newSite(t, siteOptions{initdb: func(dataDir string) {
		inside := filepath.Join(dataDir, "pg_wal")
		check := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		check(os.Rename(inside, elsewhere))
		check(os.Symlink(elsewhere, inside))
		for name, mode := range modes(t, dataDir) {
			check(os.Chmod(dataDir+name, mode.Perm()|mode.Perm()&0o700>>3&0o050))
		}
		linked = filepath.Join(base, "linked")
		check(os.Symlink(dataDir, linked))
	}})
	ts := mustMkdir(t, filepath.Join(base, "ts"), 0o700)
	real := mustMkdir(t, filepath.Join(base, "ts2"), 0o700)
	for name, to := range map[string]string{"one": real, "two": "one"} {
		if err := os.Symlink(to, filepath.Join(base, name)); err != nil {
			t.Fatal(err)
		}
	}
	two := filepath.Join(base, "two")
	s.Exec(t, "create tablespace plain location '"+ts+"'")
	s.Exec(t, "create tablespace behind location '"+two+"'")
	s.Psql(t, "-c", "set allow_in_place_tablespaces = on", "-c", "create tablespace inside location ''")
	for _, name := range []string{"plain", "behind", "inside", "pg_default"} {
		s.Exec(t, "create table in_"+name+" tablespace "+name+" as select generate_series(1, 500) n")
	}
	s.run(t, "backup", "--pgdata", linked)
	want := content(t, s.Cluster)
	s.flush(t)

	// The production server still lives in both.
	to := filepath.Join(base, "restored")
	s.refuses(t, 1, "is not empty", "restore", "--identity", s.identity, "--to", to)
	s.refuses(t, 1, "is not empty", "restore", "--identity", s.identity, "--to", to, "--tablespace", ts+"="+filepath.Join(base, "ts3"))
	absent(t, to)
	flags := []string{"restore", "--identity", s.identity, "--to", to,
		"--tablespace", ts + "=" + filepath.Join(base, "new"), "--tablespace", two + "=" + filepath.Join(base, "new2")}
	s.run(t, flags...)
	restored := modes(t, to)
	for name, mode := range restored {
		want := fs.FileMode(0o640)
		if mode.IsDir() {
			want = 0o750
		}
		if mode.Perm() != want {
			t.Errorf("%s has mode %v", name, mode)
		}
	}
	if st, err := os.Lstat(filepath.Join(to, "pg_wal")); err != nil || !st.IsDir() {
		t.Errorf("pg_wal is %v, %v", st.Mode(), err)
	}
	c := s.open(t, to)
	sameContent(t, c, want)
	if got := c.QueryString(t, "show data_directory_mode"); got != "0750" {
		t.Errorf("data_directory_mode is %s", got)
	}
	if got := c.QueryString(t, "select string_agg(pg_tablespace_location(oid), ' ' order by spcname) from pg_tablespace where oid > 16000 and spcname <> 'inside'"); got != filepath.Join(base, "new2")+" "+filepath.Join(base, "new") {
		t.Errorf("tablespaces at %s", got)
	}
	sameContent(t, s.Cluster, want)
	stopAll(t, c)
}

// Everything that a restore needs is in the repository and in the recovery key:
// no configuration, no cluster key, no file of the lost host.
func TestRestoreOnABareMachine(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Exec(t, "create table t as select generate_series(1, 1000) n")
	s.run(t, "backup")
	s.Exec(t, "insert into t values (0)")
	want := content(t, s.Cluster)
	s.flush(t)
	s.Kill9(t)
	bare := t.TempDir()
	copyTo(t, filepath.Join(bare, "key"), s.identity)
	if err := os.Rename(filepath.Join(s.dir, "repository"), filepath.Join(bare, "moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(bare, "data")
	cmd := s.Cmd(t, servertest.Command(t, "lifeboat"), "restore", "--to", to, "--identity", filepath.Join(bare, "key"), "--repository", "file://"+filepath.Join(bare, "moved"))
	cmd.Dir = bare
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := s.open(t, to)
	sameContent(t, c, want)
	stopAll(t, c)
}

// The marker is lost, as a lifecycle rule may delete what is oldest: recovery
// refuses to guess, init writes the same one again, and all is there.
func TestMarkerIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Exec(t, "create table t as select generate_series(1, 1000) n")
	s.run(t, "backup")
	s.flush(t)
	want := content(t, s.Cluster)
	marker := filepath.Join(s.dir, "repository", "lifeboat.json")
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "to")
	s.refuses(t, 1, "no Lifeboat repository", "restore", "--to", to, "--identity", s.identity)
	s.refuses(t, 1, "no Lifeboat repository", "backup")
	s.run(t, "init", "--cluster", "test", "--pgdata", s.DataDir(), "--conn", s.ConnString(), "--repository", "file://"+filepath.Join(s.dir, "repository"))
	s.run(t, "backup")
	c := s.restoreTo(t)
	sameContent(t, c, want)
	stopAll(t, c)
}

// What stands in a table or a WAL record is nowhere in the repository to read,
// nor is a key.
func TestNothingIsStoredInClear(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	// No two lines are alike, so that nothing can be compressed away.
	s.Exec(t, "create table card_numbers as select 'card-number-' || md5(random()::text) n from generate_series(1, 2000)")
	s.run(t, "backup")
	s.Exec(t, "insert into card_numbers select 'card-number-' || md5(random()::text) n from generate_series(1, 2000)")
	s.Exec(t, "select pg_create_restore_point('card-number-point')")
	s.flush(t)
	hidden := []string{"card-number-", "card_numbers", "AGE-SECRET-KEY", "PRIVATE", s.DataDir(), "pg_control", "START WAL LOCATION"}
	for key := range s.objects(t) {
		raw, err := os.ReadFile(filepath.Join(s.dir, "repository", key))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range hidden {
			if strings.Contains(string(raw), word) {
				t.Errorf("%s holds %q", key, word)
			}
		}
	}
}

// A page that stays bad: the command fails and names it, in the document of
// --json as well, and the backup is kept and restores.
func TestBadPageIsToldAndKept(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{Checksums: true}})
	s.Exec(t, "create table good as select generate_series(1, 1000) n; create table bad as select generate_series(1, 1000) n; checkpoint")
	path := s.QueryString(t, "select pg_relation_filepath('bad')")
	f, err := os.OpenFile(filepath.Join(s.DataDir(), path), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 8192+4000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s.refuses(t, 1, "block 1 of "+path, "backup")
	code, stdout, stderr := s.exec(t, "backup", "--json")
	if code != 1 || !strings.Contains(stdout, path) || !strings.Contains(stderr, "lifeboat: error: ") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if !strings.Contains(s.run(t, "backups"), "bad") {
		t.Error("the list of backups does not tell of the bad page")
	}
	s.flush(t)
	c := s.restoreTo(t)
	if got := c.QueryString(t, "select count(*) from good"); got != "1000" {
		t.Errorf("%s rows", got)
	}
	stopAll(t, c)
}

// A cluster that was upgraded is another PostgreSQL system, which counts its
// WAL from the start again. What was archived before stays within reach.
func TestUpgradedClusterKeepsItsOldArchive(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	fill := func(c *servertest.Cluster, what string) map[string]string {
		c.Exec(t, "create table t as select '"+what+"' || i as what from generate_series(1, 500) i")
		return content(t, c)
	}
	s.run(t, "backup")
	before := fill(s.Cluster, "before")
	old := s.QueryString(t, "select system_identifier from pg_control_system()")
	s.flush(t)
	s.Stop(t, server.Fast)

	after := &site{dir: s.dir, config: s.config, identity: s.identity}
	after.Cluster = servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20, OwnSystemIdentifier: true, Stopped: true})
	flags := []string{"--pgdata", after.DataDir(), "--conn", after.ConnString()}
	after.Setting(t, "archive_mode", "on")
	after.Setting(t, "archive_command", s.command(t, `wal push "%p" --pgdata `+after.DataDir()))
	after.Start(t)
	s.run(t, append([]string{"backup"}, flags...)...)
	now := fill(after.Cluster, "after")
	after.flush(t)

	c := s.restoreTo(t)
	sameContent(t, c, now)
	stopAll(t, c)
	c = s.restoreTo(t, "--system", old)
	sameContent(t, c, before)
	stopAll(t, c)
}
