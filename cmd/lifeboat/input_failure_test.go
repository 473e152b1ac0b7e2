package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// refuses runs the program and expects this exit code, one line that says what
// is wrong, one hint, and no result.
func (s *site) refuses(t *testing.T, code int, want string, args ...string) {
	t.Helper()
	got, stdout, stderr := s.exec(t, args...)
	var errs, hints []string
	for line := range strings.Lines(stderr) {
		if rest, ok := strings.CutPrefix(line, "lifeboat: error: "); ok {
			errs = append(errs, rest)
		}
		if rest, ok := strings.CutPrefix(line, "lifeboat: hint: "); ok {
			hints = append(hints, rest)
		}
	}
	if got != code || len(errs) != 1 || len(hints) != 1 || !strings.Contains(strings.Join(errs, ""), want) {
		t.Errorf("lifeboat %s:\nexit code %d, want %d with one line of %q and one hint\n%s%s", strings.Join(args, " "), got, code, want, stdout, stderr)
	}
}

// objects are the files of a repository in a directory with their hashes; leases
// and unfinished writes come and go.
func (s *site) objects(t *testing.T) map[string]string {
	t.Helper()
	root := filepath.Join(s.dir, "repository")
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(path, root+"/")
		if err != nil || e.IsDir() || strings.HasPrefix(rel, "leases/") || strings.HasPrefix(rel, "~tmp/") {
			return err
		}
		raw, err := os.ReadFile(path)
		out[rel] = fmt.Sprintf("%x", sha256.Sum256(raw))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// keepsObjects fails the test when an object that was there is not any more,
// or is another one.
func (s *site) keepsObjects(t *testing.T, before map[string]string) {
	t.Helper()
	now := s.objects(t)
	for key, hash := range before {
		if now[key] != hash {
			t.Errorf("%s was %.8s and is %.8q", key, hash, now[key])
		}
	}
}

// newestSegment is the path in pg_wal of the last archived segment.
func (s *site) newestSegment(t *testing.T) string {
	t.Helper()
	return filepath.Join(s.DataDir(), "pg_wal", s.QueryString(t, "select max(last_archived_wal) from pg_stat_archiver"))
}

func copyTo(t *testing.T, to, from string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeTo(t, to, raw)
}

// writeTo replaces a file, whoever may still have the old one open.
func writeTo(t *testing.T, path string, raw []byte) {
	t.Helper()
	_ = os.Remove(path)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// absent makes sure that a refused restore has not made its directory.
func absent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("%s was made", path)
		_ = os.RemoveAll(path)
	}
}

// Each mistake of a person is one line of what is wrong and one hint, with the
// right exit code; the repository and the directory stay as they were.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	other := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20, OwnSystemIdentifier: true}})
	for _, site := range []*site{s, other} {
		site.Exec(t, "create table t as select generate_series(1, 1000) n")
		site.run(t, "backup")
		site.flush(t)
	}
	elsewhere := "file://" + filepath.Join(other.dir, "repository")
	stranger := filepath.Join(s.dir, "stranger.key")
	s.run(t, "keygen", "--out", stranger)
	before, beforeOther := s.objects(t), other.objects(t)
	segment := s.newestSegment(t)
	to := filepath.Join(s.dir, "to")
	dest := filepath.Join(s.dir, "RECOVERYXLOG")
	restore := func(flags ...string) []string { return append([]string{"restore", "--to", to}, flags...) }
	fetch := func(flags ...string) []string {
		return append([]string{"wal", "fetch", filepath.Base(segment), dest}, flags...)
	}

	t.Run("identities", func(t *testing.T) {
		s.refuses(t, 2, "identity is not set", restore()...)
		s.refuses(t, 2, "there is no file", restore("--identity", filepath.Join(s.dir, "none.key"))...)
		s.refuses(t, 1, "does not fit", restore("--identity", stranger)...)
		s.refuses(t, 1, "", restore("--identity", other.identity)...)
		s.refuses(t, 2, "neither an age identity", restore("--identity", filepath.Join(s.DataDir(), "postgresql.conf"))...)
		s.refuses(t, 200, "identity", fetch()...)
		s.refuses(t, 200, "does not fit", fetch("--identity", stranger)...)
		s.refuses(t, 200, "", fetch("--identity", other.identity)...)
	})
	t.Run("another cluster's repository", func(t *testing.T) {
		s.refuses(t, 1, "", "backup", "--repository", elsewhere)
		s.refuses(t, 1, "", "backups", "--repository", elsewhere)
		s.refuses(t, 1, "", "wal", "push", segment, "--repository", elsewhere)
		s.refuses(t, 1, "", restore("--identity", s.identity, "--repository", elsewhere)...)
		s.refuses(t, 200, "", fetch("--identity", s.identity, "--repository", elsewhere)...)
		s.refuses(t, 2, "has another repository", "init", "--cluster", "test", "--pgdata", s.DataDir(), "--conn", s.ConnString(), "--repository", elsewhere)
		// Our keys, and another server's files.
		s.refuses(t, 1, "", "backup", "--pgdata", other.DataDir())
		s.refuses(t, 1, "system", "wal", "push", other.newestSegment(t))
	})
	t.Run("no archiving", func(t *testing.T) {
		off := servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20})
		s.refuses(t, 1, "archive_mode is off", "backup", "--pgdata", off.DataDir(), "--conn", off.ConnString())
		s.refuses(t, 1, "connect to the server", "backup", "--conn", "host="+t.TempDir())
	})
	t.Run("no repository", func(t *testing.T) {
		for _, url := range []string{"file://" + filepath.Join(s.dir, "none"), "file://" + t.TempDir()} {
			s.refuses(t, 1, "", "backup", "--repository", url)
			s.refuses(t, 1, "", "wal", "push", segment, "--repository", url)
			s.refuses(t, 1, "", restore("--identity", s.identity, "--repository", url)...)
			s.refuses(t, 200, "", fetch("--identity", s.identity, "--repository", url)...)
		}
	})
	t.Run("segments", func(t *testing.T) {
		raw, err := os.ReadFile(segment)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), filepath.Base(segment))
		change := func(i int) []byte { c := slices.Clone(raw); c[i] ^= 1; return c }
		for what, content := range map[string][]byte{
			"another magic": change(0), "another timeline": change(4), "another address": change(10), "another system": change(24),
			"another segment size": change(34), "short": raw[:len(raw)-1], "long": append(slices.Clone(raw), 0), "empty": nil,
			"other content": change(len(raw) - 1),
		} {
			writeTo(t, path, content)
			t.Log(what)
			s.refuses(t, 1, "", "wal", "push", path)
		}
	})
	t.Run("directories", func(t *testing.T) {
		full := filepath.Join(t.TempDir(), "full")
		writeTo(t, filepath.Join(mustMkdir(t, full, 0o700), "precious"), []byte("x"))
		s.refuses(t, 1, "is not empty", "restore", "--identity", s.identity, "--to", full)
		if left, err := os.ReadDir(full); err != nil || len(left) != 1 {
			t.Errorf("left in the directory: %v, %v", left, err)
		}
		s.refuses(t, 1, "running server", "restore", "--identity", s.identity, "--to", s.DataDir())
		closed := mustMkdir(t, filepath.Join(t.TempDir(), "closed"), 0o500)
		s.refuses(t, 1, "no rights", "restore", "--identity", s.identity, "--to", filepath.Join(closed, "data"))
		file := filepath.Join(t.TempDir(), "file")
		writeTo(t, file, nil)
		s.refuses(t, 1, "not a directory", "restore", "--identity", s.identity, "--to", file)
		s.refuses(t, 1, "not a directory", "restore", "--identity", s.identity, "--to", filepath.Join(file, "data"))
	})
	t.Run("no rights in the repository", func(t *testing.T) {
		root := filepath.Join(s.dir, "repository")
		for _, name := range []string{"~tmp", "lifeboat.json", "wal"} {
			path := filepath.Join(root, name)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0); err != nil {
				t.Fatal(err)
			}
			if name == "~tmp" { // where nothing is written nothing is missed
				s.refuses(t, 1, "permission denied", "backup")
			} else {
				s.refuses(t, 1, "permission denied", restore("--identity", s.identity)...)
				s.refuses(t, 200, "permission denied", fetch("--identity", s.identity)...)
			}
			if err := os.Chmod(path, info.Mode().Perm()); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a file of the database that cannot be read", func(t *testing.T) {
		path := filepath.Join(s.DataDir(), s.QueryString(t, "select pg_relation_filepath('t')"))
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		// What has not changed is not read.
		s.refuses(t, 1, "permission denied", "backup", "--full")
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	absent(t, to)
	absent(t, dest)
	s.keepsObjects(t, before)
	other.keepsObjects(t, beforeOther)
	if backups := manifests(s.objects(t)); len(backups) != 1 {
		t.Errorf("backups after all this: %v", backups)
	}
	c := s.restoreTo(t)
	if got := c.QueryString(t, "select count(*) from t"); got != "1000" {
		t.Errorf("%s rows", got)
	}
}

func mustMkdir(t *testing.T, path string, mode fs.FileMode) string {
	t.Helper()
	if err := os.Mkdir(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// A store that refuses: every command says so in one line, and wal fetch never
// in the words that end recovery.
func TestBadStore(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.flush(t)
	segment := s.newestSegment(t)
	for _, c := range []struct {
		status     int
		code, want string
	}{
		{404, "NoSuchBucket", "NoSuchBucket"},
		{403, "AccessDenied", "AccessDenied"},
		{400, "ExpiredToken", "ExpiredToken"},
		{403, "InvalidAccessKeyId", "InvalidAccessKeyId"},
		{403, "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
		{501, "NotImplemented", "NotImplemented"},
	} {
		t.Run(c.code, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/xml")
				w.WriteHeader(c.status)
				_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>told by the test</Message></Error>", c.code)
			}))
			defer web.Close()
			remote := *s
			remote.env = append(slices.Clone(s.env), "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=top-secret", "AWS_SESSION_TOKEN=t", "AWS_EC2_METADATA_DISABLED=true")
			url := "s3://bucket/x?endpoint=" + web.URL + "&path_style=true&region=us-east-1"
			to := filepath.Join(t.TempDir(), "to")
			remote.refuses(t, 1, c.want, "backup", "--repository", url)
			remote.refuses(t, 1, c.want, "backups", "--repository", url)
			remote.refuses(t, 1, c.want, "wal", "push", segment, "--repository", url)
			remote.refuses(t, 1, c.want, "restore", "--to", to, "--identity", s.identity, "--repository", url)
			remote.refuses(t, 200, c.want, "wal", "fetch", filepath.Base(segment), to, "--identity", s.identity, "--repository", url)
			remote.refuses(t, 200, c.want, "wal", "fetch", "00000002.history", to, "--identity", s.identity, "--repository", url)
			absent(t, to)
		})
	}
}

// While one backup runs another is told so with exit code 75 at once, and the
// first is not disturbed.
func TestBackupWhileAnotherRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	gate := filepath.Join(s.dir, "gate")
	s.Setting(t, "archive_command", "while [ ! -e "+gate+" ]; do sleep 0.05; done; "+s.command(t, `wal push "%p"`))
	first := exec.Command(servertest.Command(t, "lifeboat"), "backup", "--config", s.config)
	var out strings.Builder
	first.Stdout, first.Stderr = &out, &out
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Process.Kill() }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if held, err := filepath.Glob(filepath.Join(s.dir, "repository", "leases", "backup", "*")); err == nil && len(held) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the first backup took no lease within a minute\n%s", out.String())
		}
	}
	s.refuses(t, 75, "backup", "backup")
	writeTo(t, gate, nil)
	if err := first.Wait(); err != nil {
		t.Fatalf("the first backup: %v\n%s", err, out.String())
	}
	if got := manifests(s.objects(t)); len(got) != 1 {
		t.Errorf("manifests: %v", got)
	}
	s.Stop(t, server.Fast)
}
