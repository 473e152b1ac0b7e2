package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// rotate runs key rotate and returns its report.
func (s *site) rotate(t *testing.T, args ...string) rotateReport {
	t.Helper()
	var r rotateReport
	if err := json.Unmarshal([]byte(s.run(t, append([]string{"key", "rotate", "--json"}, args...)...)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// opens says whether a restore of a backup with an identity can be made.
func (s *site) opens(t *testing.T, label, identity string) bool {
	t.Helper()
	code, out, stderr := s.exec(t, "restore", "--backup", label, "--target-immediate", "--identity", identity, "--to", filepath.Join(t.TempDir(), "x"))
	if code != 0 && !strings.Contains(stderr, "does not fit") {
		t.Errorf("restore of %s: exit code %d: %s%s", label, code, out, stderr)
	}
	return code == 0
}

func (s *site) backup(t *testing.T, flags ...string) string {
	t.Helper()
	var b backupReport
	if err := json.Unmarshal([]byte(s.run(t, append([]string{"backup", "--json"}, flags...)...)), &b); err != nil {
		t.Fatal(err)
	}
	return b.Label
}

// What a new and a retired recipient can open, before and after.
func TestRotateRecipients(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	second := filepath.Join(s.dir, "second.key")
	var made struct{ File, Recipient string }
	if err := json.Unmarshal([]byte(s.run(t, "keygen", "--out", second, "--json")), &made); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	first := s.backup(t)
	r := s.rotate(t, "--add-recipient", made.Recipient, "--reseal")
	if len(r.Recipients) != 2 || r.Recipients[1] != made.Recipient || r.Resealed < 3 {
		t.Errorf("%d recipients, %d objects sealed again", len(r.Recipients), r.Resealed)
	}
	both := s.backup(t)
	if s.opens(t, first, second) {
		t.Error("a new recipient opens data of a backup from before")
	}
	if !s.opens(t, first, s.identity) || !s.opens(t, both, s.identity) || !s.opens(t, both, second) {
		t.Error("a recipient does not open what was sealed to it")
	}
	// Metadata of the older one was sealed again to both.
	if code, out, stderr := runProgram(t, s.dir, s.env, "backups", "--identity", second, "--repository", "file://"+filepath.Join(s.dir, "repository")); code != 0 || !strings.Contains(out, first) {
		t.Errorf("%d %s%s", code, out, stderr)
	}

	var cfg configReport
	if err := json.Unmarshal([]byte(s.run(t, "config", "--json")), &cfg); err != nil {
		t.Fatal(err)
	}
	s.rotate(t, "--retire-recipient", r.Recipients[0])
	after := s.backup(t, "--full")
	url := "file://" + filepath.Join(s.dir, "copy")
	if !s.copyTo(t, url, first).Others || s.copyTo(t, url, after).Others {
		t.Error("a copy does not say to whom it is sealed")
	}
	if s.opens(t, after, s.identity) || !s.opens(t, after, second) || !s.opens(t, first, s.identity) {
		t.Error("a retired recipient opens what came after, or not what came before")
	}
	// Every other line of the file is as it was, and its mode too.
	now, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(string(before), r.Recipients[0], made.Recipient, 1); string(now) != want {
		t.Errorf("the configuration is now\n%s", now)
	}
	if info, err := os.Stat(s.config); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}

	for text, args := range map[string][]string{
		"it is the only recipient": {"--retire-recipient", made.Recipient},
		"it is none of the":        {"--retire-recipient", r.Recipients[0]},
		"cannot be mixed":          {"--add-recipient", testRecipient},
		"not an age recipient":     {"--add-recipient", "age1nonsense"},
		"secret":                   {"--add-recipient", "AGE-SECRET-KEY-1QQQ"},
		"one step at a time":       {"--new-cluster-key", "--retire-cluster-key"},
		"nothing to do":            {},
		"has no predecessor":       {"--retire-cluster-key"},
	} {
		if code, _, stderr := s.exec(t, append([]string{"key", "rotate"}, args...)...); code != 2 || !strings.Contains(stderr, text) || strings.Contains(stderr, "1QQQ") {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
}

// A cluster key is replaced while the server archives; the recovery key of the
// first day restores all of it; the old key signs nothing more.
func TestRotateClusterKey(t *testing.T) {
	t.Parallel()
	s := newSeveralSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Exec(t, "create table t (n int)")
	s.Exec(t, "insert into t values (1)")
	var taken []backupReport
	if err := json.Unmarshal([]byte(s.run(t, "backup", "--json")), &taken); err != nil {
		t.Fatal(err)
	}
	s.run(t, "backup", "pin", taken[0].Label, "--reason", "audit")
	s.flush(t)
	key := filepath.Join(s.dir, "test-cluster.key")
	old, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(s.dir, "stale.key")
	if err := os.WriteFile(stale, old, 0o600); err != nil {
		t.Fatal(err)
	}

	// One repository is down: nothing is changed here, and the next run goes on.
	back := away(t, s.far)
	if code, _, stderr := s.exec(t, "key", "rotate", "--new-cluster-key"); code != 1 || !strings.Contains(stderr, "far: ") {
		t.Errorf("%d %s", code, stderr)
	}
	if now, _ := os.ReadFile(key); string(now) != string(old) {
		t.Error("the cluster key is another although not all repositories know it")
	}
	back()
	r := s.rotate(t, "--new-cluster-key")
	now, _ := os.ReadFile(key)
	if string(now) == string(old) || !strings.Contains(string(now), r.ClusterKey) {
		t.Error("the cluster key is the old one")
	}
	if code, _, stderr := s.exec(t, "key", "rotate", "--retire-cluster-key"); code != 1 || !strings.Contains(stderr, "still signs") {
		t.Errorf("a key that still signs is retired: %d %s", code, stderr)
	}
	s.Exec(t, "insert into t values (2)")
	s.flush(t)
	// A host that has the old key only goes on, as long as it is not retired.
	last := s.QueryString(t, "select last_archived_wal from pg_stat_archiver")
	s.run(t, "wal", "push", "pg_wal/"+last, "--cluster-key", stale)
	retired := s.rotate(t, "--retire-cluster-key")
	if len(retired.Retired) != 1 || retired.Resealed == 0 {
		t.Errorf("%+v", retired)
	}
	text, _ := os.ReadFile(key)
	if strings.Contains(string(text), retired.Retired[0]) || strings.Count(string(text), "AGE-SECRET-KEY") != 2 {
		t.Error("the cluster key file still holds something of the old one")
	}
	s.Exec(t, "insert into t values (3)")
	s.flush(t)
	if code, _, stderr := s.exec(t, "wal", "push", "pg_wal/"+last, "--cluster-key", stale); code != 1 || !strings.Contains(stderr, "is retired") {
		t.Errorf("a push with the retired key: %d %s", code, stderr)
	}
	if code, _, stderr := s.exec(t, "backup", "--cluster-key", stale); code != 1 || !strings.Contains(stderr, "is retired") {
		t.Errorf("a backup with the retired key: %d %s", code, stderr)
	}

	var status keyReport
	if err := json.Unmarshal([]byte(s.run(t, "key", "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	for _, k := range status.Repositories {
		if len(k.Signers) != 2 || len(k.Ignored) != 0 || k.Signers[0].State != "retired" || k.Signers[1].State != "trusted" || len(k.Signers[0].WAL) != 1 {
			t.Errorf("%+v", k)
		}
	}
	if out := s.run(t, "backups", "--json"); !strings.Contains(out, "audit") {
		t.Errorf("the pin is gone: %s", out)
	}
	s.run(t, "verify") // nothing is damaged, pins neither
	s.Stop(t, server.Immediate)
	for _, name := range []string{"near", "far"} {
		c := s.restoreTo(t, "--repository", name) // with the recovery key of the first day
		if got := c.QueryString(t, "select string_agg(n::text, ' ' order by n) from t"); got != "1 2 3" {
			t.Errorf("from %s came back %q", name, got)
		}
		stopAll(t, c)
	}
	t.Run("rescue script", func(t *testing.T) { s.rescue(t, rescueTools(t)) })
	// A copy takes the statements with it, and is believed like the original.
	url := "file://" + filepath.Join(s.dir, "copy")
	s.run(t, "copy", "--to", url, "--all-wal")
	c := s.restoreTo(t, "--repository", url)
	if got := c.QueryString(t, "select count(*) from t"); got != "3" {
		t.Errorf("%s rows came back from the copy", got)
	}
	stopAll(t, c)
}
