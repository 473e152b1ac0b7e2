package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// TestExcludedAsServerDoes compares the files that the rules leave with those
// that the server itself backs up, by its backup manifest.
func TestExcludedAsServerDoes(t *testing.T) {
	needOwnProgram(t, "pg_basebackup")
	c := servertest.New(t, servertest.Options{Settings: map[string]string{
		"wal_level": "logical", "archive_mode": "on", "archive_command": "true"}}) // else no backup history file stays
	space := filepath.Join(t.TempDir(), "space")
	if err := os.Mkdir(space, 0o700); err != nil {
		t.Fatal(err)
	}
	c.Exec(t, fmt.Sprintf("create tablespace far location '%s'", space))
	c.Exec(t, `create table a(i int primary key, s text); create unlogged table u(i int primary key, s text);
		create unlogged table uf(i int primary key) tablespace far; create table f(i int) tablespace far;
		insert into u select i, md5(i::text) from generate_series(1, 20000) i; insert into uf select 1;
		insert into a select i, md5(i::text) from generate_series(1, 20000) i; insert into f select 1`)
	c.Exec(t, "vacuum a")
	c.Exec(t, "vacuum u")
	c.QueryString(t, "select pg_create_logical_replication_slot('slot', 'test_decoding')")
	c.Exec(t, "checkpoint")
	// A session with temporary tables lives on while the backup runs.
	conn := c.Conn(t)
	for _, sql := range []string{"create temp table mine as select generate_series(1, 10000) i", "create index on mine(i)",
		"create temp table minefar(i int) tablespace far", "insert into minefar select 1"} {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	plantLitter(t, c, space)

	got := includedFiles(t, c)
	backup := t.TempDir()
	c.Program(t, "pg_basebackup", "-D", backup, "-X", "none", "-c", "fast", "-T", space+"="+filepath.Join(t.TempDir(), "moved"))
	want := manifestFiles(t, backup)
	if !slices.Equal(got, want) {
		for _, path := range got {
			if !slices.Contains(want, path) {
				t.Errorf("not left out: %s", path)
			}
		}
		for _, path := range want {
			if !slices.Contains(got, path) {
				t.Errorf("left out: %s", path)
			}
		}
	}
	if len(want) < 900 {
		t.Errorf("the server backed up %d files only", len(want))
	}
	checkLabel(t, c, backup, space)
}

// plantLitter adds what a crash, another cluster or another program leaves.
func plantLitter(t *testing.T, c *servertest.Cluster, space string) {
	t.Helper()
	dirs := []string{"base/pgsql_tmp", "pg_dynshmem", "pg_stat_tmp", "pg_notify", "log"}
	files := []string{"base/pgsql_tmp/pgsql_tmp1234.0", "backup_label.old", "tablespace_map.old", "backup_manifest",
		"postgresql.auto.conf.tmp", "current_logfiles.tmp", "base/1/pg_internal.init.99", "base/1/t7_16999", "base/1/t7_16999_fsm.1",
		"pg_stat_tmp/x", "pg_dynshmem/x", "log/kept", "base/1/notes.kept", "base/1/t7_kept", "base/1/16777_init", "base/1/16777"}
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(c.DataDir(), d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(c.DataDir(), f), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(space, "PG_14_202107181", "5"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(space, "PG_14_202107181", "5", "16500"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// includedFiles walks the data directory by the package's rules.
func includedFiles(t *testing.T, c *servertest.Cluster) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.DataDir(), postgres.ControlPath))
	if err != nil {
		t.Fatal(err)
	}
	control, err := postgres.ParseControlFile(data)
	if err != nil {
		t.Fatal(err)
	}
	versionDir := postgres.TablespaceDir(c.Install.Major, control.CatalogVersion)
	var list []string
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := os.ReadDir(filepath.Join(c.DataDir(), dir))
		if err != nil {
			t.Fatal(err)
		}
		names := make([]string, len(entries))
		for i, e := range entries {
			names[i] = e.Name()
		}
		var unlogged postgres.Unlogged
		if _, ok := postgres.ParseRelationPath(dir + "/1"); ok && dir != "global" {
			unlogged = postgres.UnloggedFiles(names)
		}
		for _, e := range entries {
			path := strings.TrimPrefix(dir+"/"+e.Name(), "./")
			switch {
			case postgres.Excluded(path) || unlogged.Excludes(e.Name()):
			case dir == "pg_tblspc":
				walk(path + "/" + versionDir)
			case e.IsDir():
				walk(path)
			default:
				list = append(list, path)
			}
		}
	}
	walk(".")
	slices.Sort(list)
	return list
}

func manifestFiles(t *testing.T, backup string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(backup, "backup_manifest"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Files []struct{ Path string } }
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range m.Files {
		if f.Path != postgres.BackupLabelFile && f.Path != postgres.TablespaceMapFile {
			list = append(list, f.Path)
		}
	}
	slices.Sort(list)
	return list
}

// checkLabel reads the label that the server made.
func checkLabel(t *testing.T, c *servertest.Cluster, backup, space string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(backup, postgres.BackupLabelFile))
	if err != nil {
		t.Fatal(err)
	}
	l, err := postgres.ParseBackupLabel(data)
	if err != nil {
		t.Fatal(err)
	}
	want := postgres.SegmentAt(1, l.Start, 16*mib).Name()
	if l.StartSegment != want || l.Checkpoint < l.Start || l.From != "primary" || l.FromStandby() || l.Method != "streamed" ||
		l.StartTimeline != 1 || l.Label != "pg_basebackup base backup" || l.StartTime == "" {
		t.Errorf("%+v of\n%s", l, data)
	}
	// What the server hands out for the map names the tablespace's directory.
	label, text := startAndStopBackup(t, c)
	if l, err := postgres.ParseBackupLabel([]byte(label)); err != nil || l.Label != "by hand" {
		t.Errorf("%+v, %v of\n%s", l, err, label)
	}
	checkHistoryFile(t, c)
	links, err := postgres.ParseTablespaceMap([]byte(text))
	if err != nil || len(links) != 1 || links[0].Path != space || links[0].OID < 16384 {
		t.Errorf("%+v, %v of\n%s", links, err, text)
	}
	if got := postgres.MarshalTablespaceMap(links); string(got) != text {
		t.Errorf("the map %q became %q", text, got)
	}
}

// checkHistoryFile reads the backup history file that the last backup left.
func checkHistoryFile(t *testing.T, c *servertest.Cluster) {
	t.Helper()
	entries, err := os.ReadDir(walDir(c))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		name, err := postgres.ParseWALName(e.Name())
		if err != nil || name.Kind != postgres.WALBackup {
			continue
		}
		n++
		data, err := os.ReadFile(filepath.Join(walDir(c), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		l, err := postgres.ParseBackupLabel(data)
		if err != nil || l.Stop <= l.Start || l.StopTimeline != 1 || l.StopTime == "" || len(l.StopSegment) != 24 {
			t.Errorf("%s: %+v, %v", e.Name(), l, err)
		}
		if want := postgres.BackupHistoryName(1, l.Start, 16*mib); want != e.Name() || name.Segment != l.StartSegment {
			t.Errorf("%s of a backup that should be %s", e.Name(), want)
		}
	}
	if n == 0 {
		t.Error("no backup history file")
	}
}
