package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// observed has a check write down which rows a restored server has.
func (s *site) observed(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(s.dir, "observed")
	s.configure(t, fmt.Sprintf(`  checks:
    - {name: observer, command: [psql, --no-psqlrc, -qAt, -c, select n from t order by n, -o, %s]}
`, path))
	return path
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// The backup and the time that were asked for are those that are drilled, as
// the rows on the restored server show.
func TestDrillPick(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{Settings: map[string]string{"track_commit_timestamp": "on"}}})
	seen := s.observed(t)
	s.Exec(t, "create table t (n int)")
	insert := func(from, to int) {
		for n := from; n < to; n++ {
			s.Exec(t, fmt.Sprintf("insert into t values (%d)", n))
		}
	}
	insert(0, 5)
	s.run(t, "backup")
	insert(5, 10)
	// The commit that recovery stops before is the first record of a segment.
	conn := s.Conn(t)
	for _, sql := range []string{"begin", "insert into t values (10)", "flush", "commit"} {
		if sql == "flush" {
			s.flush(t)
		} else if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	insert(11, 15)
	s.run(t, "backup")
	insert(15, 25)
	s.flush(t)
	labels := s.labels(t)
	committed := func(until time.Time) []string {
		t.Helper()
		rows := s.QueryString(t, fmt.Sprintf("select coalesce(string_agg(n::text, ' ' order by n), '') from t where pg_xact_commit_timestamp(xmin) <= '%s'", until.Format(time.RFC3339Nano)))
		return strings.Fields(rows)
	}
	all := committed(time.Now().Add(time.Hour))

	for _, label := range labels {
		d := s.drilled(t, exitOK, "--pick", label)
		if got := readLines(t, seen); d.Verdict != evidence.Passed || d.Backup.Label != label || !slices.Equal(got, all) || len(got) != 25 {
			t.Errorf("--pick %s: %s, backup %s, rows %v", label, d.Verdict, d.Backup.Label, got)
		}
	}
	picked := map[string]bool{}
	for range 12 {
		d := s.drilled(t, exitOK, "--pick", "random", "--level", "quick")
		picked[d.Backup.Label] = true
		if d.Backup.Picked != "random" {
			t.Errorf("picked: %s", d.Backup.Picked)
		}
		if len(picked) == len(labels) {
			break
		}
	}
	if len(picked) != len(labels) {
		t.Errorf("12 random picks of %v came to %v", labels, picked)
	}
	if code, _, stderr := s.exec(t, "drill", "--identity", s.identity, "--staging", t.TempDir(), "--pick", "20200101T000000Z-000000"); exitCode(code) != exitMissed || !strings.Contains(stderr, "hint: \"lifeboat backups\" lists") {
		t.Errorf("a backup that is not there: %d\n%s", code, stderr)
	}

	// Between the commits of rows 9 and 10, so from the first backup though the
	// second is the newest.
	at := s.QueryString(t, "select to_char(min(pg_xact_commit_timestamp(xmin)) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from t where n = 9")
	d := s.drilled(t, exitOK, "--target-time", at)
	if got := readLines(t, seen); d.Target.Kind != "time" || d.Backup.Label != labels[0] || len(got) != 10 {
		t.Errorf("--target-time %s: %+v from %s, rows %v", at, d.Target, d.Backup.Label, got)
	}
	if d.RPO.Basis != "none" || d.RPO.Upper != nil {
		t.Errorf("a loss is said to be measured: %+v", d.RPO)
	}
	for range 3 {
		d := s.drilled(t, exitOK, "--target-time", "random", "--pick", labels[0])
		if got, want := readLines(t, seen), committed(d.Target.Time); !d.Target.Random || d.Target.Time.IsZero() || !slices.Equal(got, want) || len(got) < 5 {
			t.Errorf("random %+v: rows %v, want %v", d.Target, got, want)
		}
	}
}

// A backup that the policy keeps without the WAL after it is drilled to its own end.
func TestDrillOfAnOldBackup(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	seen := s.observed(t)
	s.Exec(t, "create table t (n int); insert into t values (1)")
	s.run(t, "backup")
	old := s.labels(t)[0]
	between := segments(t, filepath.Join(s.dir, "repository"))
	s.Exec(t, "insert into t values (2)")
	for range 3 {
		s.flush(t)
	}
	s.run(t, "backup")
	s.flush(t)
	all := slices.Sorted(maps.Keys(segments(t, filepath.Join(s.dir, "repository"))))
	gap := all[len(between)+1]
	paths, err := filepath.Glob(filepath.Join(s.dir, "repository", "wal", "*", "*", gap))
	if err != nil || len(paths) != 1 || os.Remove(paths[0]) != nil {
		t.Fatal(paths, err)
	}
	s.drilled(t, exitMissed, "--pick", old)
	s.env = append(s.env, "LIFEBOAT_EXPIRE_KEEP_LAST=2", "LIFEBOAT_EXPIRE_PITR_WINDOW=1ms")
	d := s.drilled(t, exitOK, "--pick", old, "--rpo", "1h")
	if got := readLines(t, seen); d.Target.Kind != "immediate" || d.Backup.Label != old || d.RPO.Upper != nil || d.RPO.Objective != nil || !slices.Equal(got, []string{"1"}) {
		t.Errorf("%+v %+v %+v, rows %v", d.Target, d.Backup, d.RPO, got)
	}
	if d := s.drilled(t, exitOK); d.Target.Kind != "end" || d.Backup.Label == old || len(readLines(t, seen)) != 2 {
		t.Errorf("the newest: %+v %+v", d.Target, d.Backup)
	}
}

// labels are those of all backups, oldest first.
func (s *site) labels(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, "repository", "backups"))
	if err != nil {
		t.Fatal(err)
	}
	return names(entries)
}

// A drill, its evidence and all that reads it work with a bucket too.
func TestDrillS3(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{s3: true})
	s.run(t, "backup")
	s.flush(t)
	first, second := s.drilled(t, exitOK), s.drilled(t, exitOK, "--rpo", "1h")
	if second.Previous == nil || second.Previous.ID != first.ID {
		t.Errorf("linked to %+v", second.Previous)
	}
	if out := s.run(t, "report"); !strings.Contains(out, first.ID) || !strings.Contains(out, second.ID) {
		t.Errorf("the report: %s", out)
	}
	pack := filepath.Join(t.TempDir(), "pack.zip")
	s.run(t, append([]string{"evidence", "pack", "--out", pack}, days(1)...)...)
	files := filesBelow(t, filepath.Join(unzipped(t, pack), "drills"))
	if len(files) != 2 {
		t.Fatalf("in the pack: %v", files)
	}
	s.run(t, append([]string{"evidence", "verify"}, files...)...)
}

// Deep reads everything; a cluster without checksums can pass too, and what
// they would have shown stays unknown.
func TestDrillDeep(t *testing.T) {
	t.Parallel()
	for _, checksums := range []bool{true, false} {
		t.Run(fmt.Sprint(checksums), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, siteOptions{server: servertest.Options{Checksums: checksums}})
			s.Exec(t, "create table t (n int primary key); insert into t select generate_series(1, 1000)")
			s.run(t, "backup")
			s.flush(t)
			d := s.drilled(t, exitOK, "--level", "deep", "--rto", "1h")
			want := evidence.Unknown
			if checksums {
				want = evidence.Passed
			}
			if c := checkOf(t, d, "checksums"); c.Verdict != want || c.Required != checksums {
				t.Errorf("checksums: %+v", c)
			}
			for _, name := range []string{"amcheck", "dump"} {
				if c := checkOf(t, d, name); c.Verdict != evidence.Passed || !c.Required {
					t.Errorf("%+v", c)
				}
			}
		})
	}
}

// Staging that cannot be used is found before anything is fetched; nothing is
// proven by it.
func TestDrillStagingUnusable(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.run(t, "backup")
	s.flush(t)
	dir := t.TempDir()
	file, closed := filepath.Join(dir, "file"), filepath.Join(dir, "closed")
	writeFile(t, file, "")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	before := fingerprint(t, dir)
	for _, staging := range []string{filepath.Join(dir, "missing"), file, closed} {
		code, stdout, stderr := s.exec(t, "drill", "--identity", s.identity, "--staging", staging)
		if exitCode(code) != exitUnknown || !strings.Contains(stderr, staging) || !strings.Contains(stderr, "hint: name an existing directory") {
			t.Errorf("%s: exit code %d\n%s%s", staging, code, stdout, stderr)
		}
		if d := s.newestEvidence(t); d.Verdict != evidence.Unknown || !d.Cleanup.Done || d.Backup != nil {
			t.Errorf("%s: %s, %+v, %+v", staging, d.Verdict, d.Cleanup, d.Backup)
		}
	}
	if fingerprint(t, dir) != before {
		t.Error("something was left")
	}
}

// A newest backup that cannot be restored is a failure, whichever part of it is
// broken; the older one, which is whole, does not take its place.
func TestDrillFallsBackToNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Exec(t, "create table t as select 1 n")
	s.run(t, "backup")
	s.flush(t)
	old := s.labels(t)[0]
	packs := filepath.Join(s.dir, "repository", "packs")
	before := map[string]bool{}
	for _, p := range filesBelow(t, packs) {
		before[p] = true
	}
	s.Exec(t, "insert into t select generate_series(1, 1000)")
	s.run(t, "backup")
	s.flush(t)
	newest := s.labels(t)[1]
	newPacks := slices.DeleteFunc(filesBelow(t, packs), func(p string) bool { return before[p] })
	if len(newPacks) == 0 {
		t.Fatal("the second backup has no pack of its own")
	}
	manifest := filepath.Join(s.dir, "repository", "backups", newest, "manifest")
	for what, path := range map[string]string{"pack": newPacks[0], "manifest": manifest} {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		broken := slices.Clone(whole)
		broken[len(broken)/2] ^= 1
		replaceFile(t, path, broken)
		d := s.drilled(t, exitMissed)
		if d.Verdict != evidence.Failed || d.Backup != nil && d.Backup.Label != newest || !strings.Contains(d.Reasons[0], filepath.Base(filepath.Dir(path))) && !strings.Contains(d.Reasons[0], filepath.Base(path)) {
			t.Errorf("%s is broken: %s of %+v, %q", what, d.Verdict, d.Backup, d.Reasons)
		}
		if d := s.drilled(t, exitOK, "--pick", old); d.Backup.Label != old {
			t.Errorf("--pick %s: %+v", old, d.Backup)
		}
		replaceFile(t, path, whole)
	}
	s.drilled(t, exitOK)
}

func replaceFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The name of the staging directory may be anything that a directory's may.
func TestDrillStagingNames(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	spaces := t.TempDir()
	for _, name := range []string{`it's "here" \ and, = # %p $HOME ends`, strings.Repeat("long", 40)} {
		t.Run(name[len(name)-4:], func(t *testing.T) {
			space := filepath.Join(spaces, name[len(name)-4:])
			if err := os.Mkdir(space, 0o700); err != nil {
				t.Fatal(err)
			}
			s.Exec(t, "create tablespace "+name[len(name)-4:]+" location '"+space+"'")
			s.Exec(t, "create table in_"+name[len(name)-4:]+" tablespace "+name[len(name)-4:]+" as select 1")
			s.run(t, "backup")
			s.flush(t)
			staging := filepath.Join(t.TempDir(), name)
			if err := os.Mkdir(staging, 0o700); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := s.exec(t, "drill", "--identity", s.identity, "--staging", staging, "--level", "deep")
			d := s.newestEvidence(t)
			if c := checkOf(t, d, "fence"); c.Verdict != evidence.Passed || d.Fence.Files != "isolated" || d.Verdict == evidence.Failed {
				t.Errorf("exit code %d, %+v\n%s%s", code, c, stdout, stderr)
			}
			if left, err := os.ReadDir(staging); err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}
