package main

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// ageRepository makes everything in a file repository look as if it had been
// stored a week ago, as far as the store's clock is concerned.
func (s *site) ageRepository(t *testing.T) {
	t.Helper()
	week := time.Now().Add(-7 * 24 * time.Hour)
	err := filepath.WalkDir(filepath.Join(s.dir, "repository"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(path, "/leases/") {
			return err
		}
		return os.Chtimes(path, week, week)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// byTime are the labels in the order in which the backups ended: several can begin
// within one second, and then only chance orders the labels.
func (s *site) byTime(t *testing.T) []string {
	t.Helper()
	var reports []backupReport
	if err := json.Unmarshal([]byte(s.run(t, "backups", "--json")), &reports); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(reports, func(a, b backupReport) int { return cmp.Compare(a.StopLSN, b.StopLSN) })
	var out []string
	for _, r := range reports {
		out = append(out, r.Label)
	}
	return out
}

// From the first backup to the last: what the policy does not keep goes, what is
// pinned stays, and what is left restores to the same rows.
func TestExpireEndToEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20, Settings: map[string]string{"autovacuum": "off"}}})
	s.Exec(t, "create table shop as select i from generate_series(1, 1000) i")
	for range 4 {
		s.run(t, "backup")
		s.Exec(t, "insert into shop select i from generate_series(1, 1000) i")
		s.flush(t)
		s.flush(t)
	}
	want := content(t, s.Cluster)
	before := s.byTime(t)

	// Nothing is guessed, and wrong words are refused.
	for _, wrong := range [][]string{{"expire"}, {"expire", "--keep-last", "-1"}, {"expire", "--keep-last", "x"}, {"expire", "now", "--keep-last", "1"},
		{"backup", "pin"}, {"backup", "pin", "x"}, {"backup", "pin", before[0], "--until", "yesterday"}, {"backup", "pin", before[0], "--until", "2001-01-01"}, {"backup", "pins"}} {
		if code, _, stderr := s.exec(t, wrong...); code != 2 || !strings.Contains(stderr, "hint:") {
			t.Errorf("lifeboat %s: exit code %d\n%s", strings.Join(wrong, " "), code, stderr)
		}
	}
	if code, _, stderr := s.exec(t, "backup", "unpin", before[0]); code != 1 || !strings.Contains(stderr, "not pinned") {
		t.Errorf("unpinned what is not pinned: %d %s", code, stderr)
	}
	if code, _, stderr := s.exec(t, "backup", "pin", "20200101T000000Z-1a2b3c"); code != 1 || !strings.Contains(stderr, "no backup") {
		t.Errorf("pinned what is not there: %d %s", code, stderr)
	}
	s.run(t, "backup", "pin", before[0], "--until", "2999-12-31", "--reason", "the audit of 2026")

	s.ageRepository(t)
	plan := s.run(t, "expire", "--dry-run", "--keep-last", "2")
	t.Logf("\n%s", plan)
	for _, words := range []string{"pinned until 2999-12-31: the audit of 2026", "the newest that is restorable", "no rule keeps it", "would be removed: 1 backup"} {
		if !strings.Contains(plan, words) {
			t.Errorf("the plan does not say %q:\n%s", words, plan)
		}
	}
	if got := s.byTime(t); !slices.Equal(got, before) {
		t.Fatalf("a dry run left %v of %v", got, before)
	}
	var report expireReport
	if err := json.Unmarshal([]byte(s.run(t, "expire", "--keep-last", "2", "--json")), &report); err != nil {
		t.Fatal(err)
	}
	if report.Removed.Backups != 1 || report.Removed.Packs.Objects == 0 || report.Removed.WAL.Objects == 0 || report.Removed.Bytes == 0 {
		t.Errorf("removed %+v", report.Removed)
	}
	if got, want := s.byTime(t), []string{before[0], before[2], before[3]}; !slices.Equal(got, want) {
		t.Fatalf("%v are left, not %v", got, want)
	}
	again := s.run(t, "expire", "--keep-last", "2")
	t.Logf("\n%s", again)
	if !strings.Contains(again, "removed: 0 backups, nothing of packs, of WAL nothing, of block summaries nothing, of backups that crashed nothing") {
		t.Errorf("a second run found more:\n%s", again)
	}

	s.run(t, "verify", "--read", "--keep-last", "2")
	listed := s.run(t, "backups")
	t.Logf("\n%s", listed)
	for _, words := range []string{"REACHES", "now, read", "to the end", "itself", before[0] + ": pinned until 2999-12-31", "the audit of 2026"} {
		if !strings.Contains(listed, words) {
			t.Errorf("the list does not say %q:\n%s", words, listed)
		}
	}
	for line := range strings.SplitSeq(listed, "\n") {
		if len(line) > 120 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	// The gap that was made is no loss, as long as the policy is known.
	if code, _, stderr := s.exec(t, "wal", "status", "--keep-last", "2"); code != 0 {
		t.Errorf("wal status after it: exit code %d %s", code, stderr)
	}
	if code, _, _ := s.exec(t, "wal", "status"); code != 1 {
		t.Errorf("wal status without the policy: exit code %d", code)
	}

	// Nor does a drill of a random backup take the pinned one, which ends before it.
	for range 4 {
		s.run(t, "drill", "--level", "quick", "--pick", "random", "--identity", s.identity, "--keep-last", "2", "--staging", t.TempDir())
	}

	// The newest restores to the end, the pinned one to its own end.
	c := s.restoreTo(t)
	sameContent(t, c, want)
	stopAll(t, c)
	c = s.restoreTo(t, "--backup", before[0], "--target-immediate", "--target-action", "promote")
	if n := c.QueryString(t, "select count(*)::text from shop"); n != "1000" {
		t.Errorf("the pinned backup holds %s rows", n)
	}
	stopAll(t, c)

	s.run(t, "backup", "unpin", before[0])
	s.run(t, "expire", "--keep-last", "2")
	if got, want := s.byTime(t), before[2:]; !slices.Equal(got, want) {
		t.Errorf("%v are left, not %v", got, want)
	}
}
