package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/verify/check"
	"github.com/lifeboat-dr/lifeboat/verify/selftest"
)

// checkStore runs a check on a store with the keys.
func checkStore(t *testing.T, store storage.Store, keys repo.Keys, read bool) (*check.Result, error) {
	t.Helper()
	r, err := repo.Open(context.Background(), store, keys, "drill1")
	if err != nil {
		return nil, err
	}
	// In an hour, so that nothing is waited for that is still on its way.
	return check.Run(context.Background(), r, check.Options{Read: read, Now: func() time.Time { return time.Now().Add(time.Hour) }, Host: "drill1"})
}

// Each breakage of the drill's selftest that lies in the repository gives its
// finding, with the backup that it spoils, with an identity and without.
func TestVerifyFindsEveryDamage(t *testing.T) {
	t.Parallel()
	s := newSweepSite(t)
	label, err := s.takeBackup(s.store)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		s.flush(t)
	}
	damages, err := selftest.Damages(t.Context(), selftest.Scratch{Store: s.store, Keys: s.keys})
	if err != nil {
		t.Fatal(err)
	}
	// What is found by names and sizes, what by reading, what with an identity.
	want := map[string][3]check.Code{
		"nothing":                                    {"", "", ""},
		"a pack is missing":                          {check.PackMissing, check.PackMissing, check.PackMissing},
		"a bit of a pack is flipped":                 {"", check.PackDamaged, check.PackDamaged},
		"a pack is truncated":                        {check.PackSize, check.PackSize, check.PackSize},
		"the manifest is forged":                     {check.ManifestUntrusted, check.ManifestUntrusted, check.ManifestUntrusted},
		"WAL is missing before the consistent point": {check.WALMissing, check.WALMissing, check.WALMissing},
		"WAL is missing after the consistent point":  {check.WALGap, check.WALGap, check.WALGap},
		"WAL of a wrong timeline":                    {"", "", check.WALDamaged},
	}
	for _, d := range damages {
		codes, known := want[d.Name]
		if d.Name == "an identity that does not fit" {
			res, err := checkStore(t, d.Store, d.Keys, true)
			if err != nil || len(res.Findings) != 0 || len(res.Unproven) == 0 {
				t.Errorf("%s: %v, %+v", d.Name, err, res)
			}
			continue
		}
		if !known {
			t.Errorf("%s: no finding is expected of it", d.Name)
		}
		host := repo.Keys{Cluster: d.Keys.Cluster, Recipients: d.Keys.Recipients}
		for i, how := range []struct {
			keys repo.Keys
			read bool
		}{{d.Keys, false}, {host, true}, {d.Keys, true}} {
			if d.Name == "WAL of a wrong timeline" && i < 2 {
				continue // its signature is good, and what is in it is not read
			}
			res, err := checkStore(t, d.Store, how.keys, how.read)
			if err != nil {
				t.Errorf("%s: %v", d.Name, err)
				continue
			}
			if codes[i] == "" {
				for _, f := range res.Findings {
					t.Errorf("%s (%d): %s %s: %s", d.Name, i, f.Code, f.Object, f.Problem)
				}
				continue
			}
			j := slices.IndexFunc(res.Findings, func(f *check.Finding) bool { return f.Code == codes[i] })
			if j < 0 {
				t.Errorf("%s (%d): not found among %d findings", d.Name, i, len(res.Findings))
				continue
			}
			f := res.Findings[j]
			if !slices.Contains(f.Backups, label) || f.Points == "" || f.Do == "" || f.Object == "" || res.Backups[0].OK {
				t.Errorf("%s (%d): %+v", d.Name, i, f)
			}
			if strings.HasPrefix(string(f.Code), "pack-") && (len(f.Files) == 0 || f.FileCount < int64(len(f.Files))) {
				t.Errorf("%s (%d): it spoils no files: %+v", d.Name, i, f)
			}
		}
	}
	s.findsSmallDamage(t, label)
	s.findsAWrongFrame(t, label)
}

// findsAWrongFrame has a manifest say of a frame what is not in it, in a pack whose
// bytes are those of its name: only who opens frames can find that.
func (s *sweepSite) findsAWrongFrame(t *testing.T, label string) {
	t.Helper()
	store := s.copyStore(t, []string{""}, "")
	r := s.repo(t, store)
	var files []repo.FileEntry
	m, err := r.OpenManifestEach(t.Context(), label, func(_ int, f repo.FileEntry) { files = append(files, f) })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	w := r.NewManifestWriter()
	defer w.Close()
	spoilt := ""
	for p, err := range m.Packs() {
		if err != nil {
			t.Fatal(err)
		}
		if spoilt == "" {
			spoilt, p.Frames[0].Sum = repo.PackKey(p.ID), strings.Repeat("0", len(p.Frames[0].Sum))
		}
		if err := w.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	info := m.Info
	info.Label = label[:len(label)-6] + "ffffff"
	if err := w.Commit(t.Context(), &info, files); err != nil {
		t.Fatal(err)
	}
	host := repo.Keys{Cluster: s.keys.Cluster, Recipients: s.keys.Recipients}
	if res, err := checkStore(t, store, host, true); err != nil || len(res.Findings) != 0 {
		t.Errorf("a wrong frame, without an identity: %v, %+v", err, res)
	}
	res, err := checkStore(t, store, s.keys, true)
	if err != nil || len(res.Findings) != 1 || res.Findings[0].Code != check.FrameDamaged || res.Findings[0].Object != spoilt || !slices.Contains(res.Findings[0].Backups, info.Label) {
		t.Errorf("a wrong frame: %v, %+v", err, res)
	}
}

// findsSmallDamage spoils one object beside backups and WAL after another.
func (s *sweepSite) findsSmallDamage(t *testing.T, label string) {
	t.Helper()
	if err := s.repo(t, s.store).SetPin(t.Context(), repo.Pin{Label: label, Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	var segment string
	for info, err := range s.store.List(t.Context(), repo.ArchivePrefix) {
		if err != nil {
			t.Fatal(err)
		}
		segment = info.Key // the last one
	}
	for _, c := range []struct {
		key   string
		want  check.Code
		spoil bool // the backup
	}{
		{repo.InfoKey(label), check.InfoDamaged, false},
		{repo.PinsPrefix + label + "/000001", check.PinDamaged, false},
		{"systems/" + strings.Split(segment, "/")[1], check.SystemDamaged, false},
		{segment, check.WALDamaged, true},
		{repo.ManifestKey(label), check.ManifestDamaged, true},
	} {
		store := s.copyStore(t, []string{""}, "")
		if _, err := store.Stat(t.Context(), c.key); err != nil {
			t.Errorf("%s: there is nothing to spoil: %v", c.key, err)
			continue
		}
		if err := errors.Join(store.Delete(t.Context(), c.key), store.Create(t.Context(), c.key, strings.NewReader("garbage"))); err != nil {
			t.Fatal(err)
		}
		res, err := checkStore(t, store, s.keys, true)
		if err != nil {
			t.Errorf("%s: %v", c.key, err)
			continue
		}
		j := slices.IndexFunc(res.Findings, func(f *check.Finding) bool { return f.Code == c.want })
		if j < 0 || slices.Contains(res.Findings[j].Backups, label) != c.spoil || res.Findings[j].Do == "" {
			t.Errorf("%s: %d findings, %s at %d", c.key, len(res.Findings), c.want, j)
		}
	}
}

// A store that fails is an error: never ok, and never "missing".
func TestVerifyWithAFailingStore(t *testing.T) {
	t.Parallel()
	s := newSweepSite(t)
	if _, err := s.takeBackup(s.store); err != nil {
		t.Fatal(err)
	}
	s.flush(t)
	for _, mode := range []fault.Mode{fault.Before, fault.Truncate} {
		failed := 0
		for n := int64(1); ; n++ {
			f := fault.New(s.store, fault.Fault{At: n, Mode: mode, Err: storage.ErrUnavailable})
			res, err := checkStore(t, f, s.keys, true)
			if !f.Fired() {
				if err != nil || len(res.Findings) != 0 {
					t.Fatalf("without a fault: %v, %+v", err, res.Findings)
				}
				break
			}
			failed++
			if err == nil && !strings.Contains(f.FiredAt(), "checks/") {
				t.Errorf("%v %s: no error, %d findings", mode, f.FiredAt(), len(res.Findings))
			}
		}
		if failed < 10 {
			t.Errorf("%v: only %d operations failed", mode, failed)
		}
	}
}

// The command as a user meets it: codes, JSON, samples, going on.
func TestVerifyCommand(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.run(t, "backup")
	s.flush(t)
	s.flush(t)
	for _, wrong := range [][]string{{"verify", "--sample", "5%"}, {"verify", "--read", "--sample", "5"}, {"verify", "--read", "--sample", "0%"},
		{"verify", "--read", "--since", "soon"}, {"verify", "--read", "--seed", "x"}, {"verify", "all"}} {
		if code, _, stderr := s.exec(t, wrong...); code != 2 || !strings.Contains(stderr, "hint:") {
			t.Errorf("lifeboat %s: %d %s", strings.Join(wrong, " "), code, stderr)
		}
	}
	out := s.run(t, "verify")
	t.Logf("\n%s", out)
	if !strings.Contains(out, "no findings") {
		t.Errorf("verify: %s", out)
	}
	read := func(flags ...string) verifyReport {
		t.Helper()
		var v verifyReport
		if err := json.Unmarshal([]byte(s.run(t, append([]string{"verify", "--read", "--json"}, flags...)...)), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	all := read()
	if all.Done.Objects == 0 || all.Done != all.Wanted || all.Recorded == "" || all.Identity {
		t.Errorf("a full read: %+v", all)
	}
	// What was hashed is left out, but not where more can be proven.
	if again := read("--since", "1h"); again.Skipped != all.Wanted || again.Done.Objects != 0 {
		t.Errorf("since an hour ago: %+v", again)
	}
	if opened := read("--since", "1h", "--identity", s.identity); opened.Skipped.Objects != 0 || opened.Frames == 0 || opened.Done != opened.Wanted {
		t.Errorf("with an identity: %+v", opened)
	}
	if again := read("--since", "1h", "--identity", s.identity); again.Skipped != again.Wanted {
		t.Errorf("with an identity, again: %+v", again)
	}
	if some := read("--sample", "10%", "--seed", "7"); some.Done.Objects == 0 || some.Done.Objects >= all.Done.Objects || some.Seed != 7 {
		t.Errorf("a sample: %+v", some)
	}

	// An object of somebody else is told and is no finding; a segment that is
	// gone is one.
	if err := os.WriteFile(filepath.Join(s.dir, "repository", "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.run(t, "verify"); !strings.Contains(out, "README") {
		t.Errorf("an object of somebody else: %s", out)
	}
	segments, err := filepath.Glob(filepath.Join(s.dir, "repository", "wal", "*", "00000001", "????????????????????????"))
	if err != nil || len(segments) < 3 {
		t.Fatal(segments, err)
	}
	if err := os.Remove(segments[len(segments)-2]); err != nil {
		t.Fatal(err)
	}
	s.ageRepository(t) // else it may still be on its way
	code, stdout, stderr := s.exec(t, "verify")
	t.Logf("\n%s%s", stdout, stderr)
	if code != 1 || !strings.Contains(stdout, "wal-gap") || !strings.Contains(stdout, s.byTime(t)[0]) || !strings.Contains(stderr, "hint:") {
		t.Errorf("a gap: exit code %d\n%s%s", code, stdout, stderr)
	}
	if err := os.Rename(filepath.Join(s.dir, "repository"), filepath.Join(s.dir, "away")); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := s.exec(t, "verify"); code != 4 {
		t.Errorf("without a store: exit code %d %s", code, stderr)
	}
}
