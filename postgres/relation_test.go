package postgres_test

import (
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

func TestParseRelationPath(t *testing.T) {
	rel := func(ts, db, n uint32) postgres.RelFile {
		return postgres.RelFile{Tablespace: ts, Database: db, Number: n}
	}
	good := map[string]postgres.RelationFile{
		"base/5/1259":                             {RelFile: rel(1663, 5, 1259)},
		"base/5/1259_fsm":                         {RelFile: rel(1663, 5, 1259), Fork: postgres.ForkFSM},
		"base/5/1259_vm.2":                        {RelFile: rel(1663, 5, 1259), Fork: postgres.ForkVM, Segment: 2},
		"base/5/16384_init":                       {RelFile: rel(1663, 5, 16384), Fork: postgres.ForkInit},
		"base/5/16384.31":                         {RelFile: rel(1663, 5, 16384), Segment: 31},
		"global/1262":                             {RelFile: rel(1664, 0, 1262)},
		"global/1262_vm":                          {RelFile: rel(1664, 0, 1262), Fork: postgres.ForkVM},
		"base/4294967295/1":                       {RelFile: rel(1663, 4294967295, 1)},
		"base/5/t3_16384":                         {RelFile: rel(1663, 5, 16384), Temp: true, Backend: 3},
		"base/5/t0_16384_vm":                      {RelFile: rel(1663, 5, 16384), Fork: postgres.ForkVM, Temp: true},
		"base/5/t12_16384_fsm.10":                 {RelFile: rel(1663, 5, 16384), Fork: postgres.ForkFSM, Segment: 10, Temp: true, Backend: 12},
		"pg_tblspc/16400/PG_15_202209061/5/16401": {RelFile: rel(16400, 5, 16401)},
	}
	for path, want := range good {
		if got, ok := postgres.ParseRelationPath(path); !ok || got != want {
			t.Errorf("ParseRelationPath(%q) = %+v, %v; want %+v", path, got, ok, want)
		}
	}
	for _, path := range []string{
		"", "1259", "base/1259", "/base/5/1259", "./base/5/1259", "base/5/", "base//1259", "base/5/1259/", "base/5/x/1259",
		"base/5/PG_VERSION", "base/5/pg_filenode.map", "base/5/pg_internal.init", "base/5/pg_internal.init.123",
		"base/5/0", "base/5/01259", "base/5/1259.0", "base/5/1259.01", "base/5/1259.", "base/5/1259_", "base/5/1259_main",
		"base/5/1259_fsm_vm", "base/5/1259.1.1", "base/5/1259.1_fsm", "base/5/4294967296", "base/5/t_1259", "base/5/t3_",
		"base/5/t3", "base/5/t03_1", "base/5/12a", "base/pgsql_tmp/pgsql_tmp123.0", "global/pg_control", "global/t3_16384",
		"pg_tblspc/16400/5/16401", "pg_tblspc/16400/PG_15_202209061/16401", "pg_tblspc/x/PG_15_202209061/5/16401",
		"pg_tblspc/16400/pgsql_tmp/5/16401", "pg_wal/5/16401", "base/5/-1", "base/5/+1",
	} {
		if got, ok := postgres.ParseRelationPath(path); ok {
			t.Errorf("ParseRelationPath(%q) = %+v", path, got)
		}
	}
	if got := (postgres.RelationFile{Segment: 2}).FirstBlock(131072); got != 262144 {
		t.Errorf("the third file begins with block %d", got)
	}
}

func TestExcluded(t *testing.T) {
	for _, path := range []string{
		"postmaster.pid", "postmaster.opts", "backup_label", "tablespace_map",
		"backup_manifest", "postgresql.auto.conf.tmp", "current_logfiles.tmp", "global/pg_internal.init",
		"base/5/pg_internal.init.4711", "base/pgsql_tmp", "base/pgsql_tmp/pgsql_tmp1.0", "base/5/t3_16384", "base/5/t3_16384_fsm",
		"pg_wal/000000010000000000000001", "pg_wal/archive_status", "pg_wal/archive_status/x.ready", "pg_replslot/slot/state",
		"pg_dynshmem/x", "pg_notify/0000", "pg_serial/0000", "pg_snapshots/1", "pg_stat_tmp/db_0.stat", "pg_subtrans/0000",
		".DS_Store", "base/.DS_Store", "pg_tblspc/16400/PG_15_202209061/pgsql_tmp",
		"pg_tblspc/16400/PG_15_202209061/5/t3_16384",
	} {
		if !postgres.Excluded(path) {
			t.Errorf("%s is backed up", path)
		}
	}
	for _, path := range []string{
		"PG_VERSION", "postgresql.conf", "postgresql.auto.conf", "current_logfiles", "global/pg_control", "global/1262",
		"base/5/16384", "base/5/16384_init", "pg_wal", "pg_replslot", "pg_stat_tmp", "pg_subtrans", "pg_xact/0000",
		"pg_multixact/offsets/0000", "pg_stat/pgstat.stat", "pg_twophase/000002F1", "pg_logical/replorigin_checkpoint",
		"pg_tblspc/16400", "base/5/t3", "my.pgsql_tmp", "postmaster.pid.save", "log/postgresql.log", "standby.signal",
		"pg_commit_ts/0000", "backup_label.mine", "backup_label.old", "tablespace_map.old",
	} {
		if postgres.Excluded(path) {
			t.Errorf("%s is left out", path)
		}
	}
	for path, want := range map[string]bool{"pg_wal": true, "pg_notify": true, "x/pg_wal": false, "pg_xact": false, "base": false} {
		if got := postgres.EmptyDir(path); got != want {
			t.Errorf("EmptyDir(%s) = %v", path, got)
		}
	}
}

func TestUnlogged(t *testing.T) {
	u := postgres.UnloggedFiles([]string{"16384", "16384_init", "16384_fsm", "16384.1", "16390", "t3_16391", "PG_VERSION", "16392_init.1"})
	for name, want := range map[string]bool{
		"16384": true, "16384_fsm": true, "16384.1": true, "16384_vm": true, "16384_init": false,
		"16390": false, "t3_16391": false, "PG_VERSION": false, "163840": false, "16392": false, "t3_16384": false,
	} {
		if got := u.Excludes(name); got != want {
			t.Errorf("Excludes(%s) = %v", name, got)
		}
	}
	if postgres.UnloggedFiles(nil).Excludes("16384") {
		t.Error("a directory without unlogged relations leaves one out")
	}
}
