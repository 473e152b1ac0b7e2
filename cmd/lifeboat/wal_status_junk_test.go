package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What bears the name of a segment and is not it is no WAL: "wal status", "verify"
// and "backups" end before it, and remember what they have read.
func TestWALStatusJunk(t *testing.T) {
	t.Parallel()
	s := newSite(t, smallSegments())
	s.run(t, "backup")
	middle := s.grow(t, 3)
	state := []string{"--state", filepath.Join(t.TempDir(), "state"), "--identity", s.identity}
	r, _ := s.statusOf(t, 0, state...)
	if r.Headers.Read == 0 || r.Headers.Read != r.Headers.Objects || r.Headers.Unchecked != 0 || r.Headers.Bad != 0 {
		t.Errorf("the first look: %+v", r.Headers)
	}
	end := r.Windows[0].EndLSN
	if r, _ = s.statusOf(t, 0, state...); r.Headers.Read != 0 || r.Headers.Checked != r.Headers.Objects {
		t.Errorf("the second look: %+v", r.Headers)
	}
	if r, _ = s.statusOf(t, 4, "--identity", s.identity, "--state", filepath.Join(t.TempDir(), "none"), "--headers-within", "1ns"); r.Headers.Unchecked == 0 || r.Windows[0].Unchecked == 0 {
		t.Errorf("without time: %+v", r.Headers)
	}

	last := r.Timelines[0].Ranges[0].Last
	dir := filepath.Dir(s.object(t, last))
	var junk []string
	for range 3 {
		last = nextSegment(t, last)
		junk = append(junk, filepath.Join(dir, last))
		if err := os.WriteFile(junk[len(junk)-1], []byte("junk"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, stderr := s.statusOf(t, 1, state...)
	if r.Headers.Bad != 3 || len(r.Windows) != 1 || r.Windows[0].EndLSN != end || len(r.Gaps) != 1 || r.Gaps[0].Problem == "" || !strings.Contains(stderr, "find out who can write") {
		t.Errorf("junk after the end: %+v, %+v\n%s", r.Headers, r.Gaps, stderr)
	}
	if code, stdout, _ := s.exec(t, append([]string{"verify"}, state...)...); code != 1 || strings.Count(stdout, "wal-damaged") != 3 {
		t.Errorf("verify exits with %d:\n%s", code, stdout)
	}
	for _, path := range junk {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}

	// The same size, and the old times: the kernel's change time tells.
	path := s.object(t, middle)
	info, err := os.Stat(path)
	if err == nil {
		err = os.WriteFile(path, bytes.Repeat([]byte("x"), int(info.Size())), 0o600)
	}
	if err == nil {
		err = os.Chtimes(path, info.ModTime(), info.ModTime())
	}
	if err != nil {
		t.Fatal(err)
	}
	r, _ = s.statusOf(t, 1, state...)
	if r.Headers.Bad != 1 || len(r.Windows) != 1 || r.Windows[0].EndLSN >= end || len(r.Gaps) != 1 || r.Gaps[0].First != middle {
		t.Errorf("junk in the middle: %+v, %+v, %+v", r.Headers, r.Windows, r.Gaps)
	}
	if code, stdout, _ := s.exec(t, append([]string{"backups"}, state[:2]...)...); code != 0 || strings.Contains(stdout, "to the end") {
		t.Errorf("backups exits with %d:\n%s", code, stdout)
	}
}
