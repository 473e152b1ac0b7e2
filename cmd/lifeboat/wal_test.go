package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// recovery is a copy of a site's data directory and how it is recovered.
type recovery struct {
	*site
	base   string
	system string
}

func newRecovery(t *testing.T, s3 bool) *recovery {
	t.Helper()
	r := &recovery{site: newSite(t, siteOptions{s3: s3, server: servertest.Options{WALSegmentSize: 1 << 20}})}
	r.base = filepath.Join(t.TempDir(), "base")
	r.BaseBackup(t, r.base)
	// What it needs of the WAL comes from the archive alone.
	if err := os.RemoveAll(filepath.Join(r.base, "pg_wal")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(r.base, "pg_wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.system = r.QueryString(t, "select system_identifier from pg_control_system()")
	r.Exec(t, "create table words as select i, md5(i::text) w from generate_series(1, 60000) i")
	r.Exec(t, "create table final as select 7 x")
	r.flush(t)
	return r
}

// settings recover a copy with this command line as restore_command.
func (r *recovery) settings(t *testing.T, env []string, flags string) map[string]string {
	t.Helper()
	fetch := &site{config: r.config, env: env}
	return map[string]string{"restore_command": fetch.command(t, `wal fetch %f "%p" `+flags), "hot_standby": "off"}
}

// copyBase makes a data directory that will recover.
func (r *recovery) copyBase(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(r.base)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "recovery.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// expectRecovered recovers a data directory and looks for the last row.
func (r *recovery) expectRecovered(t *testing.T, dir string) {
	t.Helper()
	c := servertest.Open(t, dir, servertest.Options{Settings: r.settings(t, r.env, "--identity "+r.identity)})
	c.WaitPromoted(t)
	if got := c.QueryString(t, "select x from final"); got != "7" {
		t.Errorf("the last row is %q", got)
	}
	if got := c.QueryString(t, "select count(*) from words"); got != "60000" {
		t.Errorf("%s rows", got)
	}
	c.Stop(t, server.Immediate)
}

// expectStopped makes sure that recovery ends with an error, without opening
// the server, and that it succeeds when the cause is gone.
func (r *recovery) expectStopped(t *testing.T, settings map[string]string, why string, repair func()) {
	t.Helper()
	dir := r.copyBase(t)
	c := servertest.Open(t, dir, servertest.Options{Settings: settings, Stopped: true})
	err := c.TryStart(t)
	if err == nil {
		t.Fatalf("the server opened with %s tables of 2", c.QueryString(t, "select count(*) from pg_class where relname in ('words', 'final')"))
	}
	exit, ok := errors.AsType[*server.ExitError](err)
	if !ok {
		t.Fatal(err)
	}
	if !strings.Contains(exit.Log, why) || !strings.Contains(exit.Log, "exit code 200") {
		t.Errorf("the server's log does not tell %q and exit code 200: %v\n%s", why, err, exit.Log)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "pg_wal", "RECOVERY*")); err != nil || len(files) > 0 {
		t.Errorf("left in pg_wal: %v %v", files, err)
	}
	if repair != nil {
		repair()
		r.expectRecovered(t, dir)
	}
}

// objects are the stored WAL segments, in order.
func (r *recovery) objects(t *testing.T) []string {
	t.Helper()
	root := filepath.Join(r.dir, "repository")
	if r.bucket != nil {
		root = filepath.Join(r.bucket.Data, "e2e")
	}
	files, err := filepath.Glob(filepath.Join(root, "wal", "*", "00000001", strings.Repeat("[0-9A-F]", 24)))
	if err != nil || len(files) < 4 {
		t.Fatalf("%d segments are archived: %v", len(files), err)
	}
	slices.Sort(files)
	return files
}

// TestRecoveryNeverMistakesAnError holds the promise that an error is never
// mistaken for the end of the archive against PostgreSQL itself.
func TestRecoveryNeverMistakesAnError(t *testing.T) {
	t.Parallel()
	r := newRecovery(t, false)
	identity := "--identity " + r.identity
	rename := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	hidden := filepath.Join(t.TempDir(), "hidden")
	objects := r.objects(t)
	middle := objects[len(objects)-2]
	marker := filepath.Join(r.dir, "repository", "lifeboat.json")

	t.Run("the end of the archive", func(t *testing.T) { r.expectRecovered(t, r.copyBase(t)) })
	t.Run("a gap", func(t *testing.T) {
		rename(middle, hidden)
		r.expectStopped(t, r.settings(t, nil, identity), "the archive has a gap", func() { rename(hidden, middle) })
	})
	t.Run("a damaged object", func(t *testing.T) {
		raw, err := os.ReadFile(middle)
		if err != nil {
			t.Fatal(err)
		}
		rename(middle, hidden)
		raw[len(raw)-100] ^= 4
		if err := os.WriteFile(middle, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		r.expectStopped(t, r.settings(t, nil, identity), "is damaged", func() { rename(hidden, middle) })
	})
	t.Run("a moved object", func(t *testing.T) {
		raw, err := os.ReadFile(objects[1])
		if err != nil {
			t.Fatal(err)
		}
		rename(middle, hidden)
		if err := os.WriteFile(middle, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		r.expectStopped(t, r.settings(t, nil, identity), "not to be trusted", func() { rename(hidden, middle) })
	})
	t.Run("no marker", func(t *testing.T) {
		rename(marker, hidden)
		r.expectStopped(t, r.settings(t, nil, identity), "no Lifeboat repository here", func() { rename(hidden, marker) })
	})
	t.Run("no repository", func(t *testing.T) {
		root := filepath.Join(r.dir, "repository")
		rename(root, hidden)
		r.expectStopped(t, r.settings(t, nil, identity), "error:", func() { rename(hidden, root) })
	})
	t.Run("another identity", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "other.key")
		r.run(t, "keygen", "--out", other)
		r.expectStopped(t, r.settings(t, nil, "--identity "+other), "does not fit", nil)
	})
	t.Run("no identity", func(t *testing.T) {
		r.expectStopped(t, r.settings(t, nil, ""), "identity", nil)
	})
	t.Run("another system", func(t *testing.T) {
		r.expectStopped(t, r.settings(t, nil, identity+" --system 7000000000000000001"), "no WAL of system", nil)
	})
	t.Run("a misspelt flag", func(t *testing.T) {
		r.expectStopped(t, r.settings(t, nil, identity+" --sytem "+r.system), "--system", nil)
	})
	t.Run("a misspelt command", func(t *testing.T) {
		s := r.settings(t, nil, identity)
		s["restore_command"] = strings.Replace(s["restore_command"], "wal fetch", "wal fecth", 1)
		r.expectStopped(t, s, "fetch", nil)
	})
}

func TestRecoveryFromS3NeverMistakesAnError(t *testing.T) {
	t.Parallel()
	r := newRecovery(t, true)
	identity := "--identity " + r.identity
	t.Run("the end of the archive", func(t *testing.T) { r.expectRecovered(t, r.copyBase(t)) })
	t.Run("refused credentials", func(t *testing.T) {
		env := slices.Clone(r.env)
		for i, e := range env {
			if strings.HasPrefix(e, "AWS_SECRET_ACCESS_KEY=") {
				env[i] = "AWS_SECRET_ACCESS_KEY=wrong"
			}
		}
		r.expectStopped(t, r.settings(t, env, identity), "credentials", nil)
	})
	t.Run("no such bucket", func(t *testing.T) {
		settings := r.settings(t, r.env, fmt.Sprintf("%s --repository 's3://not-there/e2e?endpoint=%s&path_style=true&ca_file=%s&region=us-east-1'",
			identity, r.bucket.Endpoint, r.bucket.CAFile))
		r.expectStopped(t, settings, "NoSuchBucket", nil)
	})
	t.Run("a gap", func(t *testing.T) {
		objects := r.objects(t)
		hidden := filepath.Join(t.TempDir(), "hidden")
		raw, err := os.ReadFile(objects[len(objects)-2])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(objects[len(objects)-2], hidden); err != nil {
			t.Fatal(err)
		}
		r.expectStopped(t, r.settings(t, r.env, identity), "the archive has a gap", func() {
			if err := os.WriteFile(objects[len(objects)-2], raw, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func TestFetchCommand(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.run(t, "backup") // registers the system
	s.flush(t)
	name := s.QueryString(t, "select last_archived_wal from pg_stat_archiver")
	system := s.QueryString(t, "select system_identifier from pg_control_system()")
	want, err := os.ReadFile(filepath.Join(s.DataDir(), "pg_wal", name))
	if err != nil {
		t.Fatal(err)
	}
	for what, flags := range map[string][]string{
		"by --system":              {"--system", system, "--pgdata", "/nowhere"},
		"by pgdata":                {},
		"as the only one there is": {"--pgdata", "/nowhere"},
	} {
		dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
		s.run(t, append([]string{"wal", "fetch", name, dest, "--identity", s.identity}, flags...)...)
		if got, err := os.ReadFile(dest); err != nil || string(got) != string(want) {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
	}
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	for what, test := range map[string]struct {
		code int
		args []string
	}{
		"after the end":        {1, []string{"0000000100000009000000FF", dest}},
		"no history":           {1, []string{"00000007.history", dest}},
		"before the first":     {200, []string{"000000010000000000000000", dest}},
		"no name":              {200, []string{"archive_status", dest}},
		"no path":              {200, []string{name}},
		"no directory":         {200, []string{name, filepath.Join(dest, "x")}},
		"another system":       {200, []string{name, dest, "--system", "5"}},
		"no number":            {200, []string{name, dest, "--system", "five"}},
		"a repository of none": {200, []string{"00000007.history", dest, "--repository", "file://" + t.TempDir()}},
	} {
		args := append([]string{"wal", "fetch"}, test.args...)
		code, stdout, stderr := s.exec(t, append(args, "--identity", s.identity)...)
		if code != test.code || stdout != "" || !strings.HasPrefix(stderr, "lifeboat: ") {
			t.Errorf("%s: exit code %d, want %d: %s%s", what, code, test.code, stdout, stderr)
		}
		if _, err := os.Stat(dest); err == nil {
			t.Fatalf("%s: a file is there", what)
		}
	}
}
