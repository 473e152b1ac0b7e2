package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// manifests are the keys of the manifests among objects, sorted.
func manifests(objects map[string]string) []string {
	var out []string
	for key := range objects {
		if strings.HasPrefix(key, "backups/") && strings.HasSuffix(key, "/manifest") {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// Every kind of object is lost, cut, altered, moved and forged in turn. A
// restore that needs it is refused, and what it left cannot start; with the
// object as it was, everything is there.
func TestBadObjects(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	other := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}}) // the same system, other keys
	for _, site := range []*site{s, other} {
		site.Exec(t, "create table t as select generate_series(1, 1000) n")
		site.run(t, "backup")
		site.run(t, "backup")
		site.flush(t)
	}
	root, foreign := filepath.Join(s.dir, "repository"), filepath.Join(other.dir, "repository")
	own, theirs := s.objects(t), other.objects(t)
	labels := manifests(own)
	newest := filepath.Dir(labels[1])
	list := func(all map[string]string, prefix, suffix string) []string {
		var out []string
		for key := range all {
			if strings.HasPrefix(key, prefix) && strings.HasSuffix(key, suffix) && !strings.HasSuffix(key, ".backup") {
				out = append(out, key)
			}
		}
		slices.Sort(out)
		return out
	}
	segments := list(own, "wal/", "")
	pack := s.packOf(t, own, labels[1])
	packs := slices.DeleteFunc(list(own, "packs/", ""), func(key string) bool { return key == pack })
	for _, object := range []struct{ key, sibling, forged string }{
		{"lifeboat.json", newest + "/info", "lifeboat.json"},
		{newest + "/info", filepath.Dir(labels[0]) + "/info", list(theirs, "backups/", "/info")[1]},
		{labels[1], labels[0], manifests(theirs)[1]},
		{segments[len(segments)-1], segments[0], list(theirs, "wal/", filepath.Base(segments[len(segments)-1]))[0]},
		{pack, packs[0], list(theirs, "packs/", "")[0]},
	} {
		path := filepath.Join(root, object.key)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		flipped := slices.Clone(good)
		flipped[len(flipped)/2] ^= 0x10
		for what, bad := range map[string]func(){
			"lost":      func() { _ = os.Remove(path) },
			"empty":     func() { writeTo(t, path, nil) },
			"truncated": func() { writeTo(t, path, good[:len(good)-1]) },
			"flipped":   func() { writeTo(t, path, flipped) },
			"moved":     func() { copyTo(t, path, filepath.Join(root, object.sibling)) },
			"forged":    func() { copyTo(t, path, filepath.Join(foreign, object.forged)) },
		} {
			if what == "lost" && (strings.HasPrefix(object.key, "wal/") || strings.HasSuffix(object.key, "/info")) {
				// Without its last segment the archive ends earlier; and a
				// manifest is complete without the summary beside it.
				continue
			}
			t.Run(strings.SplitN(object.key, "/", 2)[0]+" "+filepath.Base(object.key)+" "+what, func(t *testing.T) {
				bad()
				to := filepath.Join(t.TempDir(), "to")
				if strings.HasSuffix(object.key, "/info") { // what it says stands in the manifest too
					if out := s.run(t, "restore", "--identity", s.identity, "--to", to, "--backup", filepath.Base(newest), "--dry-run"); !strings.Contains(out, object.key) {
						t.Errorf("the plan does not name the object:\n%s", out)
					}
					writeTo(t, path, good)
					return
				}
				s.refuses(t, 1, "", "restore", "--identity", s.identity, "--to", to, "--backup", filepath.Base(newest))
				if _, err := os.Lstat(filepath.Join(to, "global", "pg_control")); err == nil {
					t.Error("there is a control file")
				}
				writeTo(t, path, good)
			})
		}
	}
	s.keepsObjects(t, own)
	c := s.restoreTo(t)
	if got := c.QueryString(t, "select count(*) from t"); got != "1000" {
		t.Errorf("%s rows", got)
	}
}

// packOf is a pack that the backup needs and the other one does not: its
// control file's, which is a pack of its own and the smallest.
func (s *site) packOf(t *testing.T, objects map[string]string, manifest string) string {
	t.Helper()
	made, err := os.Stat(filepath.Join(s.dir, "repository", filepath.Dir(manifest), "manifest"))
	if err != nil {
		t.Fatal(err)
	}
	var newest string
	var at time.Time
	for key := range objects {
		if !strings.HasPrefix(key, "packs/") {
			continue
		}
		info, err := os.Stat(filepath.Join(s.dir, "repository", key))
		if err != nil {
			t.Fatal(err)
		}
		if info.ModTime().After(at) && info.ModTime().Before(made.ModTime()) {
			newest, at = key, info.ModTime()
		}
	}
	return newest
}
