package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// steering are texts that do something to a terminal, and what is left of them.
var steering = map[string]struct{ text, shown string }{
	"a colour that hides":     {"a\x1b[8mb", `a\u001b[8mb`},
	"the title of the window": {"a\x1b]0;evil\x07b", `a\u001b]0;evil\u0007b`},
	"a device control string": {"a\x1bP+q\x1b\\\\b", `a\u001bP+q\u001b\\b`},
	"C1, CSI":                 {"a\u009b2Jb", `a\u009b2Jb`},
	"C1, OSC":                 {"a\u009d0;x\u009cb", `a\u009d0;x\u009cb`},
	"the cursor up":           {"a\x1b[1A\x1b[2Kb", `a\u001b[1A\u001b[2Kb`},
	"backspaces":              {"a\b\b\bb", `a\u0008\u0008\u0008b`},
	"right to left":           {"a\u202efdp.exeb", `a\u202efdp.exeb`},
	"an isolate":              {"a\u2066b\u2069", `a\u2066b\u2069`},
	"a line separator":        {"a\u2028b", `a\u2028b`},
	"DEL":                     {"a\x7fb", `a\u007fb`},
	"what is no matter":       {"Grüße, 日本語, עברית\tb\n", "Grüße, 日本語, עברית\tb\n"},
	"our own colours":         {"\x1b[31merror\x1b[0m", "\x1b[31merror\x1b[0m"},
	"half a character":        {"a\xc3", "a\xc3"},
}

func TestCleaner(t *testing.T) {
	t.Parallel()
	for name, c := range steering {
		var out bytes.Buffer
		if n, err := (cleaner{w: &out}).Write([]byte(c.text)); err != nil || n != len(c.text) || out.String() != c.shown {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
	// A bar goes back to the start of its line, on stderr alone.
	for _, bar := range []bool{true, false} {
		var out bytes.Buffer
		_, err := (cleaner{w: &out, bar: bar}).Write([]byte("\rx"))
		if kept := out.String() == "\rx"; err != nil || kept != bar {
			t.Errorf("%q", out.String())
		}
	}
}

// What comes from the bucket, or from whoever has the cluster key, steers no terminal: in
// names of objects, in reasons, in who holds a lease, in what a backup says of itself.
func TestNothingPrintedSteersTheTerminal(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	evil := ""
	for _, c := range steering {
		if c.shown != c.text {
			evil += c.text
		}
	}
	label := s.now(t)
	for _, key := range []string{"packs/" + evil, "backups/" + evil, "backups/" + label + "/" + evil, "wal/1/00000001/" + evil, "systems/" + evil, "x" + evil} {
		s.plant(t, strings.ReplaceAll(key, "/"+evil, "/"+strings.ReplaceAll(evil, "/", "")), evil)
	}
	lease, err := json.Marshal(map[string]any{"holder": evil, "token": "t", "since": time.Now(), "expires": time.Now().Add(time.Hour)})
	must(t, err)
	s.plant(t, "leases/backup/00000000000000000001", string(lease))
	must(t, s.repo.SetPin(t.Context(), repo.Pin{Label: label, Reason: evil[:min(len(evil), repo.MaxPinReason)], By: evil, Made: time.Now()}))
	info := repo.Info{Format: 1, Label: label, Cluster: "shop", Repository: s.keys.Cluster.Repository, System: 7, Timeline: 1, StartLSN: 1, StopLSN: 2,
		Host: evil, Program: evil, BackupLabel: evil, Owner: evil, ChangesWhy: evil, Base: evil, Source: evil, SegSize: 1 << 20, BlockSize: 8192, Files: 1, Packs: 0}
	head, err := json.Marshal(info)
	must(t, err)
	file, err := json.Marshal(repo.FileEntry{Type: repo.Regular, Path: evil + "/x", Mode: 0o600})
	must(t, err)
	text := fmt.Sprintf("%s\n%s\n{\"end\":true,\"files\":1,\"packs\":0}\n", head, file)
	_, err = s.repo.CreateEnvelope(t.Context(), repo.ManifestKey(label), repo.KindManifest, strings.NewReader(text), int64(len(text)))
	must(t, err)
	for _, args := range [][]string{{"backups"}, {"verify"}, {"verify", "--read"}, {"expire", "--dry-run", "--keep-last", "1"}, {"lease", "status"}, {"wal", "status"}, {"key", "status"},
		{"restore", "--dry-run", "--to", filepath.Join(s.dir, "restored")}, {"copy", evil, "--to", "file://" + filepath.Join(s.dir, "copy")}, {"report"}, {"backups", evil}, {evil}} {
		for _, form := range [][]string{nil, {"--json"}} {
			got := s.run(append(args, form...)...)
			if strings.ContainsFunc(got.text(), func(r rune) bool { return repo.Steers(r) && r != '\n' && r != '\t' }) {
				t.Errorf("%q %v: %q", args, form, got.text())
			}
			if form != nil && got.stdout != "" && !json.Valid([]byte(got.stdout)) {
				t.Errorf("%q: no JSON: %q", args, got.stdout)
			}
		}
	}
}

// now is the label of a backup that begins now.
func (s *bareSite) now(t *testing.T) string {
	t.Helper()
	return time.Now().UTC().Format("20060102T150405Z") + "-000000"
}
