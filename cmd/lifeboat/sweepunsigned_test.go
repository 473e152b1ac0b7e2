package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// sweptKinds are names that are free in a repository, for each kind of object: one that
// sorts behind the genuine ones. %s stands for the system.
var sweptKinds = map[string]string{
	"systems/<system>":                                "systems/7999999999999999999",
	"backups/<label>/manifest":                        "backups/20990131T020000Z-1a2b3c/manifest",
	"backups/<label>/info":                            "backups/20990131T020000Z-1a2b3c/info",
	"backups/<label>/fingerprints":                    "backups/20990131T020000Z-1a2b3c/fingerprints",
	"backups/<label>/adoption":                        "backups/20990131T020000Z-1a2b3c/adoption",
	"backups/<label>/part-<number>":                   "backups/20990131T020000Z-1a2b3c/part-000001",
	"packs/<id>":                                      "packs/" + strings.Repeat("f", 64),
	"wal/<system>/<timeline>/<name>":                  "wal/%s/00000001/0000000100000000000000F0",
	"wal/<system>/<timeline>/<segment>.d/<from>-<to>": "wal/%s/00000001/0000000100000000000000F1.d/00000000-00001000",
	"blocks/<system>/<timeline>/<from>-<to>":          "blocks/%s/00000001/00000000F0000000-00000000F1000000",
	"pins/<label>/<generation>":                       "pins/20990131T020000Z-1a2b3c/000001",
	"checks/<id>/summary":                             "checks/20990131T020000Z-1a2b3c4d/summary",
	"checks/<id>/part-<n>":                            "checks/20990131T020000Z-1a2b3c4d/part-000001",
	"keys/<serial>":                                   "keys/00000777",
	"drills/<id>":                                     "drills/20990131T020000Z-1a2b3c4d",
	"leases/<name>/<generation>":                      "leases/backup/18446744073709551614",
}

// sweptCommands are run after each attack. Words in capitals are filled in.
var sweptCommands = [][]string{
	{"wal", "push", "SEGMENT"}, {"wal", "fetch", "NAME", "OUT"}, {"backups"}, {"verify"},
	{"restore", "--dry-run", "--identity", "IDENTITY", "--to", "OUT"}, {"expire", "--dry-run", "--keep-last", "1"}, {"key", "status"}, {"lease", "status"},
}

// Whatever who can only put stores under names that are free, every command ends as if it
// were not there, or with an error about that object; archiving goes on in any case.
func TestSweepUnsigned(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Exec(t, "create table t as select generate_series(1, 1000) n")
	label := s.backup(t)
	s.flush(t)
	s.run(t, "backup", "pin", label, "--reason", "audit")
	s.run(t, "verify")
	w := s.prepareSweep(t, label)
	w.hold(t)

	attacks := map[string]func(genuine []byte) []byte{
		"junk":              func([]byte) []byte { return []byte("junk\n") },
		"empty":             func([]byte) []byte { return nil },
		"of another name":   func(g []byte) []byte { return g },
		"of a later format": func([]byte) []byte { return []byte(`{"statement":{"format":2},"signature":"AA"}` + "\n") },
	}
	// A case that fails without any attack would show nothing.
	want := w.outcomes(t, w.fresh(t, "clean"))
	for i, o := range want {
		if o.code != 0 {
			t.Errorf("%q without an attack: exit code %d\n%s", sweptCommands[i], o.code, o.text)
		}
	}
	for what, content := range attacks {
		for _, kinds := range w.groups() {
			dir := w.fresh(t, strings.ReplaceAll(kinds[0]+what, "/", "_"))
			var names []string
			for _, kind := range kinds {
				key := strings.ReplaceAll(sweptKinds[kind], "%s", w.system)
				w.plant(t, dir, key, content(w.genuine[kind]))
				names = append(names, nameIn(key))
			}
			for i, got := range w.outcomes(t, dir) {
				named := slices.ContainsFunc(names, func(name string) bool { return strings.Contains(got.text, name) })
				if knownGap(kinds, sweptCommands[i], got) {
					continue
				}
				if archives := i == 0; got.code != want[i].code && (archives || !named) {
					t.Errorf("%s under %s, %q: exit code %d, not %d\n%s", what, kinds, strings.Join(sweptCommands[i], " "), got.code, want[i].code, got.text)
				}
			}
			os.RemoveAll(dir)
		}
	}
}

// groups are the kinds that are attacked together: the WAL, and all others; and each alone
// with LIFEBOAT_SOAK.
func (w *swept) groups() [][]string {
	all := slices.Sorted(maps.Keys(sweptKinds))
	if os.Getenv("LIFEBOAT_SOAK") == "" {
		at := slices.IndexFunc(all, isWAL)
		return [][]string{all[:at], all[at:]}
	}
	return slices.Collect(slices.Chunk(all, 1))
}

func isWAL(kind string) bool { return strings.HasPrefix(kind, "wal/") }

// knownGap is what docs/threats.md owns to: a name behind the end of the archive looks like
// a gap to a restore, which then asks for a target before it and does not name the object.
func knownGap(kinds []string, command []string, got sweptOutcome) bool {
	return isWAL(kinds[0]) && command[0] == "restore" && got.code == 1 && strings.Contains(got.text, "there is a gap in the WAL")
}

// The sweep has every kind of object that FORMAT.md names, but for the marker, which is
// there already.
func TestSweepUnsignedIsWhole(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "repo", "FORMAT.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "## Keys of objects")
	table, _, _ := strings.Cut(rest, "Behind the key")
	found := 0
	for _, m := range regexp.MustCompile("`([a-z]+/<[^`]*)`").FindAllStringSubmatch(table, -1) {
		found++
		if sweptKinds[m[1]] == "" {
			t.Errorf("the sweep does not attack %s", m[1])
		}
	}
	if found != len(sweptKinds) {
		t.Errorf("%d kinds in FORMAT.md, %d in the sweep", found, len(sweptKinds))
	}
}

// nameIn is the part of a key by which people know the object.
func nameIn(key string) string {
	parts := strings.Split(key, "/")
	if parts[0] == "backups" || parts[0] == "pins" || parts[0] == "checks" {
		return parts[1]
	}
	return parts[len(parts)-1]
}

// swept is a repository that is copied for each case.
type swept struct {
	*site
	base, system, segment, name string
	genuine                     map[string][]byte
}

func (s *site) prepareSweep(t *testing.T, label string) *swept {
	t.Helper()
	w := &swept{site: s, base: filepath.Join(s.dir, "repository"), genuine: map[string][]byte{}}
	w.system = s.QueryString(t, "select system_identifier::text from pg_control_system()")
	last := s.QueryString(t, "select last_archived_wal from pg_stat_archiver")
	dir := filepath.Join(w.base, "wal", w.system, "00000001")
	raw, err := os.ReadFile(filepath.Join(s.DataDir(), "pg_wal", last))
	if err != nil {
		t.Fatal(err)
	}
	// The segment that comes next, as far as the repository knows.
	w.segment = filepath.Join(s.dir, last)
	if err := os.WriteFile(w.segment, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Stop(t, server.Immediate)
	if err := os.Remove(filepath.Join(dir, last)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.name = entries[0].Name()
	for kind := range sweptKinds {
		top, _, _ := strings.Cut(kind, "/")
		_ = filepath.WalkDir(filepath.Join(w.base, top), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && (w.genuine[kind] == nil || filepath.Base(path) == filepath.Base(kind)) {
				w.genuine[kind], _ = os.ReadFile(path)
			}
			return nil
		})
	}
	return w
}

// hold makes sure that nothing of the site changes the repository meanwhile.
func (w *swept) hold(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(w.DataDir(), "postmaster.pid")); err == nil {
		t.Fatal("the server runs")
	}
}

func (w *swept) fresh(t *testing.T, name string) string {
	dir := filepath.Join(w.dir, "cases", name)
	if err := os.CopyFS(dir, os.DirFS(w.base)); err != nil {
		t.Error(err)
	}
	return dir
}

// plant stores the object as somebody does who writes files into the directory.
func (w *swept) plant(t *testing.T, dir, key string, content []byte) {
	path := filepath.Join(dir, filepath.FromSlash(key))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Error(err)
	}
	old := time.Now().Add(-time.Minute)
	_ = os.Chtimes(path, old, old)
}

type sweptOutcome struct {
	code int
	text string
}

func (w *swept) outcomes(t *testing.T, dir string) []sweptOutcome {
	out := filepath.Join(dir+".out", "x")
	_ = os.MkdirAll(filepath.Dir(out), 0o700)
	defer os.RemoveAll(filepath.Dir(out))
	fill := map[string]string{"SEGMENT": w.segment, "NAME": w.name, "OUT": out, "IDENTITY": w.identity}
	var all []sweptOutcome
	for _, command := range sweptCommands {
		args := slices.Clone(command)
		for i, a := range args {
			if f, ok := fill[a]; ok {
				args[i] = f
			}
		}
		if command[0] == "wal" && command[1] == "fetch" {
			args = append(args, "--identity", w.identity)
		}
		code, stdout, stderr := w.exec(t, append(args, "--repository", "file://"+dir)...)
		all = append(all, sweptOutcome{code, fmt.Sprint(stdout, stderr)})
		_ = os.Remove(out)
	}
	return all
}
