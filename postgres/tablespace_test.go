package postgres_test

import (
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

func TestTablespacePath(t *testing.T) {
	const at = "pg_tblspc/16400/"
	const in = at + "PG_15_202209061/"
	for path, want := range map[string]struct{ path, file bool }{
		"pg_tblspc/16400":            {true, false},
		in[:len(in)-1]:               {true, false},
		in + "5":                     {true, false},
		in + "5/16384":               {true, true},
		in + "5/16384_fsm.1":         {true, true},
		in + "5/t3_16384":            {true, true},
		in + "5/PG_VERSION":          {true, true},
		in + "5/pg_filenode.map":     {true, true},
		in + "5/pg_internal.init":    {true, true},
		in + "5/pg_internal.init.77": {true, true},
		in + "5/pg_internal.init.x":  {true, false},
		in + "5/authorized_keys":     {true, false},
		in + "5/16384.so":            {true, false},
		in + "5/.ssh/16384":          {true, false},
		in + "PG_VERSION":            {true, false},
		in + "pgsql_tmp/pgsql_tmp1":  {true, false},
		at + "authorized_keys":       {},
		at + ".ssh/5/16384":          {},
		at + "PG_15":                 {},
		at + "PG_15_202209061.d/5/1": {},
		at + "PG_x_202209061/5/1":    {},
		"pg_tblspc/x":                {},
		"pg_tblspc/016400":           {},
		"pg_tblspc/16400/":           {},
		"pg_tblspc":                  {},
		"base/5/16384":               {false, true}, // no path below pg_tblspc
	} {
		if got := postgres.TablespacePath(path); got != want.path {
			t.Errorf("TablespacePath(%q) = %v", path, got)
		}
		if got := postgres.TablespaceFile(path); got != want.file {
			t.Errorf("TablespaceFile(%q) = %v", path, got)
		}
	}
	if dir := at + postgres.TablespaceDir(18, 202506291); !postgres.TablespacePath(dir) {
		t.Errorf("%s is none", dir)
	}
}
