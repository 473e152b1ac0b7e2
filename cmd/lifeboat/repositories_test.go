package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// severalSite is a site with two directories as repositories, near and far.
type severalSite struct {
	*site
	near, far string // the directories
}

func newSeveralSite(t *testing.T, o siteOptions) *severalSite {
	t.Helper()
	s := &severalSite{site: newSite(t, o)}
	s.near, s.far = filepath.Join(s.dir, "repository"), filepath.Join(s.dir, "far")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	list := fmt.Sprintf("repositories:\n  - name: near\n    url: file://%s\n  - name: far\n    url: file://%s\n", s.near, s.far)
	single := fmt.Sprintf("repository: file://%s\n", s.near)
	if !strings.Contains(string(text), single) {
		t.Fatalf("no %q in\n%s", single, text)
	}
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(text), single, list, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.run(t, "init"); !strings.Contains(out, s.far) {
		t.Fatalf("init did not make the second repository: %s", out)
	}
	return s
}

// away takes a repository's directory away until back is called.
func away(t *testing.T, dir string) (back func()) {
	t.Helper()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
	}
}

// segments are the names of the whole segments in a repository.
func segments(t *testing.T, dir string) map[string]bool {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "wal", "*", "*", "????????????????????????"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, p := range paths {
		names[filepath.Base(p)] = true
	}
	return names
}

// One repository is down: the other goes on receiving, the server is told by name,
// and keeps its WAL; then the one that was down gets all it missed.
func TestRepositoryDown(t *testing.T) {
	t.Parallel()
	s := newSeveralSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.flush(t)
	for name, down := range map[string]string{"far": s.far, "near": s.near} {
		up := map[string]string{"far": s.near, "near": s.far}[name]
		back := away(t, down)
		var wanted []string
		// Again and again: from the second time on the file that the server asks for
		// is known to be in the other repository.
		for range 3 {
			for range 3 {
				s.Exec(t, "select pg_logical_emit_message(false, 'test', 'some')")
				wanted = append(wanted, s.QueryString(t, "select pg_walfile_name(pg_switch_wal())"))
			}
			waitFor(t, "the other repository has all", func() bool {
				have := segments(t, up)
				return !slices.ContainsFunc(wanted, func(w string) bool { return !have[w] })
			})
		}
		if got := s.QueryString(t, "select last_archived_wal from pg_stat_archiver"); got >= wanted[0] {
			t.Errorf("%s is down, and %s is said to be archived", name, got)
		}
		code, _, stderr := s.exec(t, "wal", "push", "pg_wal/"+wanted[0])
		if code != 1 || !strings.Contains(stderr, "push: 1 of 2 repositories failed: "+name+": ") || strings.Count(stderr, "\n") != 2 {
			t.Errorf("push with %s down: exit code %d, %s", name, code, stderr)
		}
		back()
		s.waitArchived(t, wanted[len(wanted)-1])
		have := segments(t, down)
		for _, w := range wanted {
			if !have[w] {
				t.Errorf("%s is said to be archived, and is not in %s", w, name)
			}
		}
	}
}

// A repository that takes connections and says nothing costs the calls that wait for
// it, and not the other repository: that gets meanwhile what becomes ready.
func TestRepositoryHangs(t *testing.T) {
	t.Parallel()
	s := newSeveralSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.flush(t)
	addr, _ := silent(t)
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	hanging := strings.Replace(string(text), "file://"+s.far, "s3://bucket/far?region=us-east-1&path_style=true&endpoint=http://"+addr, 1)
	if err := os.WriteFile(s.config, []byte(hanging), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env = []string{"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x"}
	s.Setting(t, "archive_command", s.command(t, `wal push --store-timeout 20s "%p"`))
	var wanted []string
	began := time.Now()
	for range 4 {
		s.Exec(t, "select pg_logical_emit_message(false, 'test', 'some')")
		wanted = append(wanted, s.QueryString(t, "select pg_walfile_name(pg_switch_wal())"))
		waitFor(t, "the other repository has it", func() bool { return segments(t, s.near)[wanted[len(wanted)-1]] })
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("four segments took %v: they waited for the repository that hangs", took)
	}
	if got := s.QueryString(t, "select last_archived_wal from pg_stat_archiver"); got >= wanted[0] {
		t.Errorf("%s is said to be archived", got)
	}
}

// Backups go to each; one repository that fails does not stop the other; restore
// takes the nearest that has all, and a failure is told by name.
func TestSeveralRepositories(t *testing.T) {
	t.Parallel()
	s := newSeveralSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20, Checksums: true}})
	s.Exec(t, variety)
	var taken []backupReport
	if err := json.Unmarshal([]byte(s.run(t, "backup", "--json")), &taken); err != nil {
		t.Fatal(err)
	}
	if len(taken) != 2 || taken[0].Repository != "near" || taken[1].Repository != "far" || taken[0].Label == taken[1].Label {
		t.Fatalf("%+v", taken)
	}
	noon := s.mark(t, "noon")
	s.flush(t)

	// What comes after is in the far one only.
	back := away(t, s.near)
	s.Exec(t, "insert into marks (name) values ('only far')")
	late := content(t, s.Cluster)
	s.Exec(t, "select pg_logical_emit_message(false, 'test', 'flush')")
	last := s.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
	waitFor(t, "the far one has the last segment", func() bool { return segments(t, s.far)[last] })
	code, out, stderr := s.exec(t, "backups", "--json")
	var listed []backupReport
	if err := json.Unmarshal([]byte(out), &listed); err != nil || code != 1 || len(listed) != 2 || listed[0].Error == "" || listed[1].Label != taken[1].Label {
		t.Errorf("backups with near down: %d %v %s %s", code, err, out, stderr)
	}
	s.Stop(t, server.Immediate)

	plan := func(args ...string) restoreReport {
		t.Helper()
		var r restoreReport
		out := s.run(t, append([]string{"restore", "--dry-run", "--json", "--to", filepath.Join(t.TempDir(), "x"), "--identity", s.identity}, args...)...)
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	t.Run("near is down", func(t *testing.T) {
		r := s.restoreTo(t)
		sameContent(t, r, late)
		stopAll(t, r)
		if p := plan(); p.Repository != "far" || len(p.PassedOver) != 1 || !strings.Contains(p.PassedOver[0].Reason, "may hold newer WAL") {
			t.Errorf("%+v", p)
		}
	})
	back()
	t.Run("near got less", func(t *testing.T) {
		if p := plan(); p.Repository != "far" || len(p.PassedOver) != 1 || p.PassedOver[0].Repository != "near" {
			t.Errorf("%+v", p)
		}
		r := s.restoreTo(t)
		sameContent(t, r, late)
		stopAll(t, r)
	})
	t.Run("near has all for the target", func(t *testing.T) {
		if p := plan(noon["lsn"].flags...); p.Repository != "near" || p.Plan.Label != taken[0].Label {
			t.Errorf("%+v", p)
		}
		r := s.restoreTo(t, noon["lsn"].flags...)
		sameContent(t, r, noon["lsn"].content)
		stopAll(t, r)
	})
	t.Run("by name", func(t *testing.T) {
		if p := plan("--repository", "near"); p.Repository != "" || p.Plan.Label != taken[0].Label {
			t.Errorf("%+v", p)
		}
		if code, _, stderr := s.exec(t, "backups", "--repository", "nearby"); code != 2 || !strings.Contains(stderr, "near, far") {
			t.Errorf("%d %s", code, stderr)
		}
	})
	t.Run("near lacks a pack", func(t *testing.T) {
		packs, err := filepath.Glob(filepath.Join(s.near, "packs", "*"))
		if err != nil || len(packs) == 0 {
			t.Fatal(packs, err)
		}
		defer away(t, packs[0])()
		p := plan(noon["lsn"].flags...)
		if p.Repository != "far" || p.Plan.Label != taken[1].Label || len(p.PassedOver) != 1 || !strings.Contains(p.PassedOver[0].Reason, filepath.Base(packs[0])) {
			t.Errorf("%+v", p)
		}
		r := s.restoreTo(t, noon["lsn"].flags...)
		sameContent(t, r, noon["lsn"].content)
		stopAll(t, r)
	})
	t.Run("near lacks a segment", func(t *testing.T) {
		paths, err := filepath.Glob(filepath.Join(s.near, "wal", "*", "*", plan("--repository", "near").Plan.WAL.First))
		if err != nil || len(paths) != 1 {
			t.Fatal(paths, err)
		}
		if err := os.Remove(paths[0]); err != nil {
			t.Fatal(err)
		}
		if p := plan(noon["lsn"].flags...); p.Repository != "far" || len(p.PassedOver) != 1 || !strings.Contains(p.PassedOver[0].Reason, "gap") {
			t.Errorf("%+v", p)
		}
	})
}

// A fetch asks the next repository when one fails, and says "not in the archive"
// only when every one has proven it.
func TestFetchFromSeveral(t *testing.T) {
	t.Parallel()
	s := newSeveralSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.flush(t)
	s.Exec(t, "select pg_logical_emit_message(false, 'test', 'x')")
	only := s.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
	s.waitArchived(t, only)
	s.Stop(t, server.Fast)
	after := "0000000100000000000000F0"
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	fetch := func(want int, name, text string) {
		t.Helper()
		os.Remove(dest)
		code, _, stderr := s.exec(t, "wal", "fetch", name, dest, "--identity", s.identity)
		_, err := os.Stat(dest)
		if code != want || (err == nil) != (want == 0) || !strings.Contains(stderr, text) {
			t.Errorf("fetch %s: exit code %d, want %d, %v: %s", name, code, want, err, stderr)
		}
	}
	fetch(0, only, "")
	fetch(1, after, "not in the archive")
	for _, down := range []string{s.near, s.far} {
		back := away(t, down)
		fetch(0, only, "")
		fetch(200, after, "fetch "+after+": 1 of 2 repositories failed")
		back()
	}
	backNear, backFar := away(t, s.near), away(t, s.far)
	fetch(200, only, "2 of 2 repositories failed")
	backNear()
	backFar()
	// The nearest has lost its last segment: the other has it.
	paths, _ := filepath.Glob(filepath.Join(s.near, "wal", "*", "*", only))
	if len(paths) != 1 || os.Remove(paths[0]) != nil {
		t.Fatal(paths)
	}
	fetch(0, only, "")
	// A repository that was made later and holds nothing yet ends no recovery, and
	// keeps none from its end.
	if err := os.RemoveAll(filepath.Join(s.near, "wal")); err != nil {
		t.Fatal(err)
	}
	fetch(0, only, "")
	fetch(1, after, "not in the archive")
	if err := os.RemoveAll(filepath.Join(s.far, "wal")); err != nil {
		t.Fatal(err)
	}
	fetch(200, after, "no WAL of system")
}

// The first of several says nothing: it is given up, and the second is served.
func TestSilentRepositoryHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	s := newSeveralSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.run(t, "backup")
	addr, _ := silent(t)
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	hanging := strings.Replace(string(text), "file://"+s.near, "s3://bucket/near?region=us-east-1&path_style=true&endpoint=http://"+addr, 1)
	if err := os.WriteFile(s.config, []byte(hanging), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env = []string{"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "LIFEBOAT_STORE_TIMEOUT=2s"}
	s.Setting(t, "archive_command", "true") // the near one would hold it up
	for _, args := range [][]string{{"verify"}, {"expire", "--dry-run", "--keep-last", "1"}, {"backup", "--wal-timeout", "1s"}} {
		code, out, stderr := s.exec(t, args...)
		if code == 0 || !strings.Contains(stderr, "no sign of life from the store for 2s") || !strings.Contains(out+stderr, "far") {
			t.Errorf("%v: exit code %d, %s%s", args, code, out, stderr)
		}
	}
}

// Expiry and checks go to each repository: what is wrong in one is told by its name,
// and stops no other.
func TestExpireAndVerifyEach(t *testing.T) {
	t.Parallel()
	s := newSeveralSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.run(t, "backup")
	s.run(t, "backup")
	kept := func(dir string) int {
		paths, err := filepath.Glob(filepath.Join(dir, "backups", "*", "manifest"))
		if err != nil {
			t.Fatal(err)
		}
		return len(paths)
	}
	verify := func(want int, text string, args ...string) (reports []verifyReport) {
		t.Helper()
		code, out, stderr := s.exec(t, append([]string{"verify", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &reports); err != nil {
			t.Fatal(err, out, stderr)
		}
		if code != want || !strings.Contains(stderr, text) || len(reports) != 2 || reports[0].Name != "near" || reports[1].Name != "far" {
			t.Errorf("verify %v: exit code %d, want %d: %s %+v", args, code, want, stderr, reports)
		}
		return reports
	}
	for _, r := range verify(0, "", "--read") {
		if len(r.Backups) != 2 || r.Done.Objects == 0 {
			t.Errorf("%+v", r)
		}
	}

	back := away(t, s.far)
	if r := verify(4, "far: "); r[0].Error != "" || r[1].Error == "" || len(r[0].Backups) != 2 {
		t.Errorf("%+v", r)
	}
	code, out, stderr := s.exec(t, "expire", "--keep-last", "1")
	if code != 1 || !strings.Contains(stderr, "expire: 1 of 2 repositories failed: far: ") || !strings.Contains(out, "Repository far, file://"+s.far+"\nunknown: ") {
		t.Errorf("expire with far away: exit code %d, %s%s", code, out, stderr)
	}
	back()
	if kept(s.near) != 1 || kept(s.far) != 2 {
		t.Errorf("%d are left in near, %d in far", kept(s.near), kept(s.far))
	}
	var expired []expireReport
	if err := json.Unmarshal([]byte(s.run(t, "expire", "--keep-last", "1", "--json")), &expired); err != nil {
		t.Fatal(err)
	}
	if len(expired) != 2 || expired[0].Removed.Backups != 0 || expired[1].Removed.Backups != 1 || expired[1].Name != "far" || kept(s.far) != 1 {
		t.Errorf("%+v, %d are left in far", expired, kept(s.far))
	}

	packs, err := filepath.Glob(filepath.Join(s.far, "packs", "*"))
	if err != nil || len(packs) == 0 || os.Chmod(packs[0], 0o600) != nil || os.Truncate(packs[0], 100) != nil {
		t.Fatal(packs, err)
	}
	if r := verify(1, "verify: 1 of 2 repositories failed: far: "); len(r[0].Findings) != 0 || len(r[1].Findings) == 0 {
		t.Errorf("%+v", r)
	}
}
