package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/wal"
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

func TestPushCommand(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Exec(t, "create table words as select md5(i::text) w from generate_series(1, 30000) i")
	s.flush(t)
	if got := s.QueryString(t, "select failed_count from pg_stat_archiver"); got != "0" {
		t.Errorf("archiving failed %s times\n%s", got, s.Log(t))
	}
	s.Stop(t, server.Fast)
	segments, err := filepath.Glob(filepath.Join(s.DataDir(), "pg_wal", "00000001*"))
	if err != nil || len(segments) == 0 {
		t.Fatal(err)
	}
	segment := segments[0]
	name := filepath.Base(segment)
	content, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}

	for _, path := range []string{segment, "pg_wal/" + name} { // the second relative to pgdata
		var report pushReport
		if err := json.Unmarshal([]byte(s.run(t, "wal", "push", path, "--json")), &report); err != nil {
			t.Fatal(err)
		}
		if report.Name != name || report.RawBytes != 1<<20 || len(report.SHA256) != 64 {
			t.Errorf("%s: %+v", path, report)
		}
	}
	code, stdout, stderr := s.exec(t, "wal", "push", segment)
	if code != 0 || stdout != "" || stderr != "" {
		t.Errorf("a push that succeeds writes into the server's log: %d %q %q", code, stdout, stderr)
	}

	other := filepath.Join(t.TempDir(), name)
	changed := slices.Clone(content)
	changed[len(changed)-1] ^= 1
	refused := func(what string, content []byte, code int, want ...string) {
		t.Helper()
		if err := os.WriteFile(other, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, stdout, stderr := s.exec(t, "wal", "push", other)
		if got != code || stdout != "" || strings.Count(stderr, "\n") != 2 || !strings.Contains(stderr, "hint:") {
			t.Errorf("%s: exit code %d, %q %q", what, got, stdout, stderr)
		}
		for _, w := range want {
			if !strings.Contains(stderr, w) {
				t.Errorf("%s: no word of %q: %s", what, w, stderr)
			}
		}
	}
	refused("other content", changed, 1, "two primaries", name)
	refused("zeros", make([]byte, 1<<20), 1, "zeros")
	refused("half a segment", content[:1<<19], 1, "524288")
	sysid := slices.Clone(content)
	sysid[24] ^= 1
	refused("another system's", sysid, 1, "system")

	for what, args := range map[string][]string{
		"no path":          {"wal", "push"},
		"two paths":        {"wal", "push", segment, segment},
		"no data dir":      {"wal", "push", segment, "--pgdata", t.TempDir()},
		"an unknown flag":  {"wal", "push", segment, "--forse"},
		"no cluster key":   {"wal", "push", segment, "--cluster-key", filepath.Join(s.dir, "none")},
		"no such file":     {"wal", "push", segment + "0"},
		"no repository":    {"wal", "push", segment, "--repository", "file://" + t.TempDir() + "/none"},
		"empty repository": {"wal", "push", segment, "--repository", "file://" + t.TempDir()},
	} {
		if code, _, stderr := s.exec(t, args...); code < 1 || code > 125 || !strings.Contains(stderr, "error:") {
			t.Errorf("%s: exit code %d: %s", what, code, stderr)
		}
	}
}

// A second cluster that was given the first one's configuration must not
// archive into its repository.
func TestPushOfAnotherCluster(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	other := servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20, OwnSystemIdentifier: true, Settings: map[string]string{
		"archive_mode": "on", "archive_command": s.command(t, `wal push "%p"`)}})
	other.Exec(t, "create table t as select 1 x; select pg_switch_wal()")
	for other.QueryString(t, "select failed_count > 0 from pg_stat_archiver") != "t" {
		if other.QueryString(t, "select archived_count from pg_stat_archiver") != "0" {
			t.Fatal("it archived")
		}
	}
	s.flush(t)
	if got := other.QueryString(t, "select archived_count from pg_stat_archiver"); got != "0" {
		t.Errorf("it archived %s files", got)
	}
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
		"no folder":            {200, []string{name, filepath.Join(dest, "x")}},
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

// A push that is killed, at whatever moment, leaves the segment in the archive
// whole or not at all, and the next one succeeds.
func TestPushKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 16 << 20}})
	s.Exec(t, "create table words as select md5(i::text) w from generate_series(1, 30000) i")
	s.Setting(t, "archive_command", "false")
	s.Exec(t, "select pg_switch_wal()")
	s.Stop(t, server.Fast)
	const name = "000000010000000000000001"
	segment := filepath.Join(s.DataDir(), "pg_wal", name)
	want, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(s.dir, "repository", "wal", "*", "00000001", name)
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	killed, absent := 0, 0
	for try := range 25 {
		cmd := exec.Command(servertest.Command(t, "lifeboat"), "wal", "push", segment, "--config", s.config)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(try)*8*time.Millisecond, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if err != nil {
			killed++
		}
		stored, globErr := filepath.Glob(object)
		if globErr != nil {
			t.Fatal(globErr)
		}
		if len(stored) == 0 {
			absent++
			if err == nil {
				t.Fatal("a push succeeded and stored nothing")
			}
		}
		s.run(t, "wal", "push", segment)
		s.run(t, "wal", "fetch", name, dest, "--identity", s.identity)
		if got, err := os.ReadFile(dest); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes are archived, not the %d of the segment: %v", len(got), len(want), err)
		}
		if stored, err = filepath.Glob(object); err != nil || len(stored) != 1 {
			t.Fatalf("%v %v", stored, err)
		}
		// What the push remembers of it goes as well.
		if err := errors.Join(os.Remove(stored[0]), os.RemoveAll(filepath.Join(s.DataDir(), wal.SpoolDir))); err != nil {
			t.Fatal(err)
		}
	}
	if killed == 0 || absent == 0 {
		t.Errorf("of 25 pushes %d were killed, %d of them in time: the test tests nothing", killed, absent)
	}
}
