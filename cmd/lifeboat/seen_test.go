package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// watched is a site whose repository is looked at by several hosts, each with a
// memory of its own.
type watched struct {
	*site
	hosts string // directories of state
}

// newWatched makes one; on S3 the test's server keeps the objects as files.
func newWatched(t *testing.T, onS3 bool) *watched {
	t.Helper()
	return &watched{newSite(t, siteOptions{s3: onS3}), filepath.Join(t.TempDir(), "state")}
}

// repository is the directory in which the objects are files.
func (w *watched) repository() string {
	if w.bucket != nil {
		return filepath.Join(w.bucket.Data, "e2e")
	}
	return filepath.Join(w.dir, "repository")
}

// on runs the program as a host does and expects an exit code.
func (w *watched) on(t *testing.T, host string, want exitCode, args ...string) (stdout, stderr string) {
	t.Helper()
	args = append(args, "--config", w.config, "--state", filepath.Join(w.hosts, host))
	code, stdout, stderr := runProgram(t, w.dir, w.env, args...)
	if exitCode(code) != want {
		t.Errorf("host %s, lifeboat %s: exit code %d, want %d\n%s%s", host, strings.Join(args, " "), code, want, stdout, stderr)
	}
	return stdout, stderr
}

// goneBack expects every command that looks to say so, and to name the object.
func (w *watched) goneBack(t *testing.T, host, object string, commands ...[]string) {
	t.Helper()
	for _, args := range commands {
		stdout, stderr := w.on(t, host, exitMissed, args...)
		if !strings.Contains(stdout+stderr, "gone back") || !strings.Contains(stdout+stderr, object) || !strings.Contains(stderr, "hint: ") || strings.Contains(stdout, "Not due") {
			t.Errorf("lifeboat %s does not say that %s is gone:\n%s%s", strings.Join(args, " "), object, stdout, stderr)
		}
	}
}

func (w *watched) labels(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.repository(), "backups"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(w.repository(), repo.ManifestKey(e.Name()))); err == nil {
			out = append(out, e.Name())
		}
	}
	return out
}

// put stores what somebody without any key may put.
func (w *watched) put(t *testing.T, key, content string) {
	t.Helper()
	path := filepath.Join(w.repository(), key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// away takes objects out of the repository, and puts them back with the function that
// it returns.
func (w *watched) away(t *testing.T, keys ...string) (back func()) {
	t.Helper()
	safe := t.TempDir()
	for i, key := range keys {
		if err := os.Rename(filepath.Join(w.repository(), key), filepath.Join(safe, string(rune('a'+i)))); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		for i, key := range keys {
			if err := os.Rename(filepath.Join(safe, string(rune('a'+i))), filepath.Join(w.repository(), key)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// newest is the last name of a directory of the repository.
func (w *watched) newest(t *testing.T, dir string, fits func(name string) bool) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.repository(), dir))
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for _, e := range entries {
		if fits(e.Name()) {
			last = max(last, e.Name())
		}
	}
	return dir + "/" + last
}

// rolledBack is a site with two backups and a drill, which two hosts have seen.
type rolledBack struct {
	*watched
	taken                       []string
	system, segment             string // keys under wal/
	drill, due, verify, reports []string
	look                        [][]string // commands
}

func newRolledBack(t *testing.T, onS3 bool) *rolledBack {
	t.Helper()
	w := newWatched(t, onS3)
	r := &rolledBack{watched: w, verify: []string{"verify"}, reports: []string{"report"},
		drill: []string{"drill", "--level", "quick", "--identity", w.identity, "--staging", t.TempDir()}}
	r.due = append(slices.Clone(r.drill), "--due", "7d")
	r.look = [][]string{r.verify, {"backups"}, {"wal", "status"}}
	for range 2 {
		w.run(t, "backup")
		w.flush(t)
	}
	r.taken = w.labels(t)
	r.system = w.newest(t, "wal", func(string) bool { return true })
	r.segment = w.newest(t, r.system+"/00000001", func(name string) bool { return len(name) == 24 })
	// Two hosts see it, one of them drills.
	for _, args := range append(r.look, r.drill, r.due, r.reports) {
		w.on(t, "drills", exitOK, args...)
	}
	w.on(t, "database", exitOK, r.verify...)
	return r
}

// A repository from which the newest was removed says so on every host that has seen
// it, until that is accepted; what expiry on another host removes, what somebody puts
// who has no key, and a memory that is lost, say nothing.
func TestRepositoryGoneBack(t *testing.T) {
	t.Parallel()
	w := newRolledBack(t, false)
	w.rollBack(t)
	w.rememberNothingElse(t)
}

func TestBucketGoneBack(t *testing.T) {
	t.Parallel()
	newRolledBack(t, true).rollBack(t)
}

// rollBack takes away the newest of each kind.
func (w *rolledBack) rollBack(t *testing.T) {
	document := w.newest(t, "drills", func(string) bool { return true })
	t.Run("evidence", func(t *testing.T) {
		back := w.away(t, document)
		w.goneBack(t, "drills", document, w.verify, []string{"backups"}, w.reports)
		w.on(t, "another", exitOK, w.verify...) // a host that has not seen it
		w.goneBack(t, "drills", document, w.due)
		back()
		w.on(t, "drills", exitOK, w.verify...)
		w.on(t, "drills", exitOK, w.drill...)
	})
	t.Run("WAL", func(t *testing.T) {
		back := w.away(t, w.segment)
		w.goneBack(t, "drills", w.segment, append(w.look, w.drill)...)
		w.goneBack(t, "database", w.segment, w.look...)
		w.on(t, "a third", exitOK, w.verify...) // a host that has not seen it
		back()
	})
	t.Run("backup", func(t *testing.T) {
		manifest := repo.ManifestKey(w.taken[1])
		back := w.away(t, manifest)
		w.goneBack(t, "drills", manifest, append(w.look, w.drill)...)
		w.goneBack(t, "database", manifest, w.look...)
		out, _ := w.on(t, "drills", exitMissed, "wal", "status", "--json")
		var said walStatusReport
		if err := json.Unmarshal([]byte(out), &said); err != nil || len(said.Gone) != 1 || said.Gone[0].Object != manifest {
			t.Errorf("%v\n%s", err, out)
		}
		w.on(t, "a fourth", exitOK, w.verify...) // a host that has not seen it
		w.on(t, "drills", exitOK, "verify", "--accept-rollback")
		w.on(t, "drills", exitOK, w.verify...)
		w.goneBack(t, "database", manifest, w.verify) // which has accepted nothing
		back()
		for _, host := range []string{"drills", "database"} {
			w.on(t, host, exitOK, w.verify...)
		}
	})
}

// rememberNothingElse is what is not to be told.
func (w *rolledBack) rememberNothingElse(t *testing.T) {
	t.Run("junk", func(t *testing.T) {
		junk := []string{repo.ManifestKey("99990101T000000Z-000000"), "drills/99990101T000000Z-00000000", "keys/00000001",
			w.system + "/00000001/0000000100000000000000F0", w.system + "/00000099/0000009900000000000000F0"}
		for _, key := range junk {
			w.put(t, key, "lifeboat/1 junk\n")
		}
		w.on(t, "drills", exitFailed, w.verify...)
		w.on(t, "drills", exitOK, w.reports...)
		w.away(t, junk...)
		for _, args := range append(w.look, w.reports) {
			w.on(t, "drills", exitOK, args...)
		}
	})
	t.Run("memory", func(t *testing.T) {
		files, err := filepath.Glob(filepath.Join(w.hosts, "drills", "*", "seen.*"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		if err := os.WriteFile(files[0], []byte("AGE-SECRET-KEY-1"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr := w.on(t, "drills", exitOK, w.verify...)
		if strings.Count(stderr, "warning: "+files[0]) != 1 || strings.Contains(stderr, "SECRET") {
			t.Errorf("%s", stderr)
		}
		back := w.away(t, w.segment)
		w.goneBack(t, "drills", w.segment, w.verify) // remembered again
		if err := os.RemoveAll(filepath.Join(w.hosts, "drills")); err != nil {
			t.Fatal(err)
		}
		w.on(t, "drills", exitOK, w.verify...)
		back()
		w.put(t, "../nowhere", "a file") // where nothing can be written
		_, stderr = runElsewhere(t, w.watched, filepath.Join(w.dir, "nowhere", "state"))
		if strings.Count(stderr, "warning: ") != 1 {
			t.Errorf("%s", stderr)
		}
	})
	t.Run("expiry", func(t *testing.T) {
		for range 2 {
			w.run(t, "backup")
			w.flush(t)
		}
		w.on(t, "drills", exitOK, w.verify...)
		w.run(t, "backup")
		w.flush(t)
		w.on(t, "expires", exitOK, "expire", "--keep-last", "1")
		if left := w.labels(t); len(left) != 1 {
			t.Fatalf("expire left %v", left)
		}
		for _, host := range []string{"drills", "database"} {
			for _, args := range w.look {
				w.on(t, host, exitOK, args...)
			}
		}
	})
}

// A database host on which only backups ran knows the one that it took last: when that
// is gone, "backups" says so, and the next backup warns and is taken all the same.
func TestBackupIsRemembered(t *testing.T) {
	t.Parallel()
	w := newWatched(t, false)
	for range 2 {
		w.on(t, "database", exitOK, "backup")
		w.flush(t)
	}
	manifest := repo.ManifestKey(w.labels(t)[1])
	back := w.away(t, manifest)
	w.goneBack(t, "database", manifest, []string{"backups"})
	w.on(t, "another", exitOK, "backups")
	_, stderr := w.on(t, "database", exitOK, "backup")
	if !strings.Contains(stderr, "warning: the repository has gone back: "+manifest) {
		t.Errorf("the backup says nothing:\n%s", stderr)
	}
	back()
	w.flush(t)
	w.on(t, "database", exitOK, "backups")
}

// A statement on who signs that a host has seen is removed.
func TestStatementGoneBack(t *testing.T) {
	t.Parallel()
	w := newWatched(t, false)
	w.run(t, "backup")
	w.flush(t)
	w.run(t, "key", "rotate", "--new-cluster-key")
	w.on(t, "database", exitOK, "backups")
	statement := w.newest(t, "keys", func(string) bool { return true })
	back := w.away(t, statement)
	for _, args := range [][]string{{"verify"}, {"backups"}, {"wal", "status"}} {
		stdout, stderr := w.on(t, "database", exitMissed, args...)
		if !strings.Contains(stdout+stderr, statement) {
			t.Errorf("%q does not name %s:\n%s%s", args, statement, stdout, stderr)
		}
	}
	back()
	w.on(t, "database", exitOK, "backups")
}

// One byte of an info object is flipped, and its manifest is whole: every command
// knows the backup, and a warning names the object.
func TestFlippedInfo(t *testing.T) {
	t.Parallel()
	w := newWatched(t, false)
	w.run(t, "backup")
	w.flush(t)
	label := w.labels(t)[0]
	info := filepath.Join(w.repository(), repo.InfoKey(label))
	raw, err := os.ReadFile(info)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	if err := os.Chmod(info, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(info, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := w.on(t, "a", exitOK, "backups", "--json")
	var listed []listedBackup
	if err := json.Unmarshal([]byte(before), &listed); err != nil || len(listed) != 1 || listed[0].Reaches != "end" || listed[0].Error != "" {
		t.Errorf("%v\n%s", err, before)
	}
	restored := filepath.Join(t.TempDir(), "restored")
	for _, args := range [][]string{
		{"backups"}, {"wal", "status"}, {"restore", "--dry-run", "--to", restored, "--identity", w.identity},
		{"restore", "--dry-run", "--to", restored, "--identity", w.identity, "--backup", label},
	} {
		stdout, stderr := w.on(t, "a", exitOK, args...)
		if !strings.Contains(stdout+stderr, repo.InfoKey(label)) || strings.Contains(stdout, "no backup") {
			t.Errorf("lifeboat %s does not name the object:\n%s%s", strings.Join(args, " "), stdout, stderr)
		}
	}
	stdout, _ := w.on(t, "a", exitFailed, "verify")
	if !strings.Contains(stdout, "info-damaged: "+repo.InfoKey(label)) {
		t.Errorf("verify:\n%s", stdout)
	}
	w.on(t, "a", exitOK, "drill", "--level", "quick", "--identity", w.identity, "--staging", t.TempDir())
	w.run(t, "backup", "pin", label)
	w.run(t, "expire", "--keep-last", "1")
	w.run(t, "backup")
}

// The newest manifest is junk, or forged: a restore is refused, and says with which
// command line it goes on.
func TestNewestManifestNotBelieved(t *testing.T) {
	t.Parallel()
	newestNotBelieved(t, newWatched(t, false))
}

func TestNewestManifestInBucketNotBelieved(t *testing.T) {
	t.Parallel()
	newestNotBelieved(t, newWatched(t, true))
}

func newestNotBelieved(t *testing.T, w *watched) {
	t.Helper()
	for range 2 {
		w.run(t, "backup")
		w.flush(t)
	}
	labels := w.labels(t)
	restored := filepath.Join(t.TempDir(), "restored")
	args := []string{"restore", "--dry-run", "--to", restored, "--identity", w.identity}
	refused := func(key, older string) {
		t.Helper()
		_, stderr := w.on(t, "a", exitFailed, args...)
		for _, want := range []string{key, older, "hint: ", "lifeboat restore --dry-run --to " + restored, "--backup " + older} {
			if !strings.Contains(stderr, want) {
				t.Errorf("it does not say %q:\n%s", want, stderr)
			}
		}
		w.on(t, "a", exitOK, append(slices.Clone(args), "--backup", older)...)
	}
	junk := repo.ManifestKey("99990101T000000Z-000000")
	w.put(t, junk, "lifeboat/1 junk\n")
	refused(junk, labels[1])
	// A drill tries what a restore would, and finds it out.
	stdout, stderr := w.on(t, "a", exitMissed, "drill", "--level", "quick", "--identity", w.identity, "--staging", t.TempDir())
	if !strings.Contains(stdout+stderr, junk) {
		t.Errorf("the drill does not name the object:\n%s%s", stdout, stderr)
	}
	w.away(t, junk)
	w.put(t, "backups/zzz/manifest", "junk") // no name of a backup decides anything
	w.on(t, "a", exitOK, args...)

	// The header is the signed one, and what follows is not.
	newest := filepath.Join(w.repository(), repo.ManifestKey(labels[1]))
	raw, err := os.ReadFile(newest)
	if err == nil {
		raw[len(raw)-1] ^= 1
		err = os.WriteFile(newest, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	refused(repo.ManifestKey(labels[1]), labels[0])
}

func runElsewhere(t *testing.T, w *watched, state string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := runProgram(t, w.dir, w.env, "verify", "--config", w.config, "--state", state)
	if code != 0 {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	return stdout, stderr
}
