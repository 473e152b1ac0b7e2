package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]struct {
		version string
		major   int
	}{
		"postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n": {"15.14", 15},
		"postgres (PostgreSQL) 18.4\n":                           {"18.4", 18},
		"postgres (PostgreSQL) 18beta1":                          {"18beta1", 18},
		"postgres (PostgreSQL) 19devel":                          {"19devel", 19},
		"postgres (PostgreSQL) ":                                 {},
		"postgres (PostgreSQL) devel":                            {},
		"psql 15.1":                                              {},
		"":                                                       {},
	} {
		version, major, err := parseVersion(out)
		if version != want.version || major != want.major || (err != nil) != (want.major == 0) {
			t.Errorf("%q: %q, %d, %v", out, version, major, err)
		}
	}
}

func TestFind(t *testing.T) {
	found, err := Find(0, os.Getenv("LIFEBOAT_PG_BINDIR"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Find(found.Major, found.BinDir); err != nil || again != found {
		t.Errorf("in its own directory: %+v, %v; want %+v", again, err, found)
	}

	t.Run("another version in the directory", func(t *testing.T) {
		_, err := Find(found.Major+1, found.BinDir)
		var missing *FindError
		if !errors.As(err, &missing) || len(missing.Looked) != 1 || !strings.Contains(err.Error(), found.Version) {
			t.Errorf("%v: want the one directory and its version", err)
		}
	})
	t.Run("nowhere", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := Find(99, "")
		var missing *FindError
		if !errors.As(err, &missing) || missing.Major != 99 {
			t.Fatalf("%v: want a FindError", err)
		}
		for _, place := range []string{os.Getenv("PATH"), "/usr/lib/postgresql/99/bin"} {
			if !strings.Contains(err.Error(), place) {
				t.Errorf("%v: does not name %s", err, place)
			}
		}
	})
	t.Run("PATH", func(t *testing.T) {
		dir := t.TempDir()
		for _, program := range []string{"postgres", "initdb"} {
			script := "#!/bin/sh\necho 'postgres (PostgreSQL) 99.1'\n"
			if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", dir)
		in, err := Find(99, "")
		if err != nil || in.BinDir != dir || in.Version != "99.1" {
			t.Errorf("%+v, %v; want the one in PATH, %s", in, err, dir)
		}
	})
	t.Run("pg_config", func(t *testing.T) {
		dir := t.TempDir()
		script := "#!/bin/sh\necho " + found.BinDir + "\n"
		if err := os.WriteFile(filepath.Join(dir, "pg_config"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir)
		if in, err := Find(found.Major, ""); err != nil || in != found {
			t.Errorf("%+v, %v; want %+v", in, err, found)
		}
	})
}
