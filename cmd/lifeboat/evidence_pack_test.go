package main

import (
	"archive/zip"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

// unzipped puts the files of a zip file into a directory.
func unzipped(t *testing.T, path string) string {
	t.Helper()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	dir := t.TempDir()
	if err := os.CopyFS(dir, z); err != nil {
		t.Fatal(err)
	}
	return dir
}

// days is a period that ends with today, in UTC.
func days(n int) []string {
	today := time.Now().UTC()
	return []string{"--from", today.AddDate(0, 0, -n).Format(time.DateOnly), "--to", today.Format(time.DateOnly)}
}

// A pack holds what speaks against its maker: drills that failed, those that
// were missed, and a damaged document as it is.
func TestEvidencePack(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.run(t, "backup")
	s.flush(t)
	passed := s.drilled(t, exitOK)
	missed := s.drilled(t, exitMissed, "--rto", "1ms")
	quick := s.drilled(t, exitOK, "--level", "quick")
	damaged := s.drilled(t, exitOK, "--level", "quick")
	path := filepath.Join(s.dir, "repository", "drills", damaged.ID)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(text[:len(text)-20]))

	out := filepath.Join(t.TempDir(), "pack.zip")
	args := slices.Concat([]string{"evidence", "pack", "--every", "1d", "--out", out}, days(2))
	var r packReport
	if err := json.Unmarshal([]byte(s.run(t, append(args, "--json")...)), &r); err != nil {
		t.Fatal(err)
	}
	// Two days are over and had nothing; today is not.
	if r.Drills != 3 || r.Passed != 2 || r.Failed != 1 || r.Unknown != 0 || r.Missed == nil || *r.Missed != 2 || r.Unusable != 1 || r.Breaks != 0 || !r.KeysTrusted {
		t.Errorf("%+v", r)
	}
	if info, err := os.Stat(out); err != nil || info.Mode() != 0o600 || info.Size() != int64(r.Bytes) || !strings.HasSuffix(hashOf(t, out), " "+r.SHA256) {
		t.Errorf("%v %v, and the report says %+v", info, err, r)
	}

	dir := unzipped(t, out)
	var m report.Manifest
	raw, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil || json.Unmarshal(raw, &m) != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	verdicts := map[string]evidence.Verdict{}
	for _, d := range m.Drills {
		verdicts[d.ID] = d.Verdict
	}
	if len(m.Missed) != 2 || verdicts[passed.ID] != evidence.Passed || verdicts[missed.ID] != evidence.Failed || verdicts[quick.ID] != evidence.Passed {
		t.Errorf("missed %v, drills %v", m.Missed, verdicts)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "unusable", damaged.ID)); err != nil || string(got) != string(text[:len(text)-20]) {
		t.Errorf("the damaged document is enclosed as %q, %v", got, err)
	}
	files, err := fs.Glob(os.DirFS(dir), "drills/*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("%v %v", files, err)
	}
	verify := []string{"evidence", "verify"}
	for _, f := range files {
		verify = append(verify, filepath.Join(dir, f))
	}
	s.run(t, verify...)

	// Never over another file; and what is left out shows, here and in the next.
	if code, _, stderr := s.exec(t, args...); exitCode(code) != exitUsage || !strings.Contains(stderr, "exists already") {
		t.Errorf("over another file: %d, %s", code, stderr)
	}
	if err := os.Remove(filepath.Join(s.dir, "repository", "drills", missed.ID)); err != nil {
		t.Fatal(err)
	}
	args[slices.Index(args, out)] = filepath.Join(t.TempDir(), "again.zip")
	text2 := s.run(t, args...)
	for _, want := range []string{"2: 2 passed, 0 failed, 0 unknown", "Missed    2\n", "breaks in the chain: 1"} {
		if !strings.Contains(text2, want) {
			t.Errorf("it does not say %q:\n%s", want, text2)
		}
	}
}
