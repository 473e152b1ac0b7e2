package main

import (
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// drilled runs a drill and returns its evidence.
func (s *site) drilled(t *testing.T, want exitCode, args ...string) evidence.Drill {
	t.Helper()
	staging := t.TempDir()
	args = append([]string{"drill", "--json", "--identity", s.identity, "--staging", staging}, args...)
	code, stdout, stderr := s.exec(t, args...)
	if exitCode(code) != want {
		t.Fatalf("drill: exit code %d, want %d\n%s%s", code, want, stdout, stderr)
	}
	var d evidence.Drill
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	if left, err := os.ReadDir(staging); err != nil || len(left) > 0 || !d.Cleanup.Done {
		t.Errorf("left in staging: %v %v; %+v", left, err, d.Cleanup)
	}
	return d
}

func checkOf(t *testing.T, d evidence.Drill, name string) evidence.Check {
	t.Helper()
	i := slices.IndexFunc(d.Checks, func(c evidence.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("there is no check %q among %+v", name, d.Checks)
	}
	return d.Checks[i]
}

// configure adds lines to the configuration.
func (s *site) configure(t *testing.T, lines string) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(text), "\ndrill:\n", "\ndrill:\n"+lines, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fingerprint is the hash of all that lies below a directory: names, modes, content.
func fingerprint(t *testing.T, dirs ...string) string {
	t.Helper()
	h := sha256.New()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			fmt.Fprintln(h, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
			if info.Mode().IsRegular() {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				h.Write(data)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// A drill on the production host, while the WAL makes tablespaces at
// production's own paths: what is there is replayed behind the fence, and not a
// byte of production changes.
func TestDrillTouchesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	old, made := filepath.Join(s.dir, "old"), filepath.Join(s.dir, "made")
	for _, dir := range []string{old, made} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.Exec(t, "create tablespace old location '"+old+"'")
	s.Exec(t, "create table in_old tablespace old as select i from generate_series(1, 1000) i")
	s.run(t, "backup")
	s.Exec(t, "create tablespace made location '"+made+"'")
	s.Exec(t, "create table in_made tablespace made as select i from generate_series(1, 1000) i; update in_old set i = i + 1; drop table in_old")
	s.flush(t)
	s.Stop(t, server.Fast)
	before := fingerprint(t, s.DataDir(), old, made)
	s.configure(t, `  checks:
    - name: the new tablespace holds its rows
      sql: select count(*) from in_made
      expect: 1000
    - {name: an advisory one, sql: select false, required: false}
    - name: a program
      command: [psql, -Atc, "select 'program'"]
`)
	page, junit, prom := filepath.Join(s.dir, "r.html"), filepath.Join(s.dir, "r.xml"), filepath.Join(s.dir, "r.prom")
	d := s.drilled(t, exitOK, "--html", page, "--junit", junit, "--prometheus", prom)
	if after := fingerprint(t, s.DataDir(), old, made); after != before {
		t.Error("production was changed")
	}
	if d.Verdict != evidence.Passed || d.Fence == nil || d.Fence.Network != "isolated" || d.Fence.Files != "isolated" {
		t.Errorf("%s, fence %+v", d.Verdict, d.Fence)
	}
	if c := checkOf(t, d, "an advisory one"); c.Verdict != evidence.Failed || c.Required {
		t.Errorf("%+v", c)
	}
	if c := checkOf(t, d, "a program"); c.Verdict != evidence.Passed || c.Detail != "program" {
		t.Errorf("%+v", c)
	}
	if d.RPO.Basis != "archive" || d.RPO.Zero || d.RPO.Reason == "" {
		t.Errorf("the primary is down, and the RPO is %+v", d.RPO)
	}
	for _, path := range []string{page, junit, prom} {
		if text, err := os.ReadFile(path); err != nil || len(text) < 100 {
			t.Errorf("%s: %d bytes, %v", path, len(text), err)
		}
	}
	if text, _ := os.ReadFile(junit); xml.Unmarshal(text, new(struct{ XMLName xml.Name })) != nil {
		t.Errorf("not XML: %s", text)
	}
}

// What is broken by a change of one byte, or of one drill, is told.
func TestDrillEvidence(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Exec(t, "create table t as select 1 x")
	s.run(t, "backup")
	s.flush(t)
	first := s.drilled(t, exitOK, "--level", "quick")
	second := s.drilled(t, exitOK, "--rpo", "1h", "--rto", "1h")
	if len(second.Phases) < 6 || second.RTO.Achieved == nil || second.RPO.Upper == nil || !second.RPO.Zero {
		t.Errorf("measured: %+v, %+v, %+v", second.Phases, second.RTO, second.RPO)
	}
	if second.Previous == nil || second.Previous.ID != first.ID {
		t.Errorf("the second is linked to %+v, not to %s", second.Previous, first.ID)
	}
	drills := filepath.Join(s.dir, "repository", "drills")
	a, b := filepath.Join(drills, first.ID), filepath.Join(drills, second.ID)
	s.run(t, "evidence", "verify", a, b)

	// Not due; and due.
	if out := s.run(t, "drill", "--identity", s.identity, "--due", "1d"); !strings.Contains(out, "Not due") {
		t.Errorf("--due 1d says %q", out)
	}
	if entries, _ := os.ReadDir(drills); len(entries) != 2 {
		t.Errorf("%d documents", len(entries))
	}

	// An objective that is missed.
	missed := s.drilled(t, exitMissed, "--rto", "1ms")
	if missed.RTO.Verdict != evidence.Failed || missed.RTO.Costliest == "" || !strings.Contains(missed.Reasons[0], "RTO objective missed") {
		t.Errorf("%+v %v", missed.RTO, missed.Reasons)
	}
	out := s.run(t, "report")
	for _, id := range []string{first.ID, second.ID, missed.ID} {
		if !strings.Contains(out, id) {
			t.Errorf("the report lacks %s:\n%s", id, out)
		}
	}

	// Without the key nothing is trusted; a changed document is bad.
	copied := filepath.Join(t.TempDir(), "copy.json")
	text, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, copied, string(text))
	if code, out, _ := runProgram(t, t.TempDir(), s.env, "evidence", "verify", copied); exitCode(code) != exitUnknown || !strings.Contains(out, "UNKNOWN") {
		t.Errorf("without the key: %d, %s", code, out)
	}
	writeFile(t, copied, strings.Replace(string(text), `"verdict":"passed"`, `"verdict":"failed"`, 1))
	if code, out, _ := s.exec(t, "evidence", "verify", copied); exitCode(code) != exitFailed || !strings.Contains(out, "BAD") {
		t.Errorf("changed: %d, %s", code, out)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
