package repo

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage/file"
)

// rescueTools puts the age that `make tools` builds before others: the one of
// Debian 12 knows no post-quantum keys. It says why it skips.
func rescueTools(t *testing.T) {
	t.Helper()
	tools, err := filepath.Abs("../.tools/bin")
	check(t, err)
	t.Setenv("PATH", tools+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, tool := range []string{"python3", "zstd", "age"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing: install python3 and zstd, and run make tools", tool)
		}
	}
}

func rescue(t *testing.T, repository, key, out string, more ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{"../testdata/rescue/rescue.py", repository, key, out}, more...)...)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// TestRescue restores the old repositories with the script that uses nothing
// of ours.
func TestRescue(t *testing.T) {
	rescueTools(t)
	for _, name := range []string{"v1", "v1-classic"} {
		dir := filepath.Join(reposDir, name)
		var want expectation
		raw, err := os.ReadFile(filepath.Join(dir, "expect.json"))
		check(t, err)
		check(t, json.Unmarshal(raw, &want))
		for label, files := range want.Backups {
			out := filepath.Join(t.TempDir(), "out")
			text, err := rescue(t, filepath.Join(dir, "repository"), filepath.Join(dir, "keys", "recovery.key"), out, label)
			if err != nil {
				t.Fatalf("%s: %v\n%s", label, err, text)
			}
			compareTrees(t, label, rescued(t, filepath.Join(out, "data")), files)
			compareTrees(t, "WAL", plainSums(t, filepath.Join(out, "wal")), want.WAL)
			if _, err := exec.LookPath("openssl"); err == nil && strings.Contains(text, "NOT CHECKED") {
				t.Errorf("signatures were not checked: %s", text)
			}
		}
	}
}

// rescued are the sums of what is in a restored data directory, tablespaces
// through their links, and without what is not in the manifest's records.
func rescued(t *testing.T, data string) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(directory, rel string)
	walk = func(directory, rel string) {
		entries, err := os.ReadDir(directory)
		check(t, err)
		for _, e := range entries {
			p, r := filepath.Join(directory, e.Name()), filepath.Join(rel, e.Name())
			fi, err := os.Stat(p) // through the link
			check(t, err)
			switch {
			case fi.IsDir():
				if e.Type() != fs.ModeSymlink {
					out[hex.EncodeToString([]byte(r))] = ""
				}
				walk(p, r)
			case r != "backup_label":
				b, err := os.ReadFile(p)
				check(t, err)
				out[hex.EncodeToString([]byte(r))] = sumOf(b)
			}
		}
	}
	walk(data, "")
	// The script makes the tablespace a link; the manifest has a directory.
	out[hex.EncodeToString([]byte("pg_tblspc/16385"))] = ""
	return out
}

func plainSums(t *testing.T, directory string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(directory)
	check(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(directory, e.Name()))
		check(t, err)
		out[e.Name()] = sumOf(b)
	}
	return out
}

// The script refuses each bad manifest of the vectors, signed, before it writes a file; and
// what unpacks to far more than is signed, without taking the memory for it.
func TestRescueRefusesHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many programs, and nothing in it races: run in full")
	}
	rescueTools(t)
	cluster, recovery := readKeys(t, filepath.Join(vectorDir, "keys", "cluster.key")), filepath.Join(vectorDir, "keys", "recovery.key")
	keys := Keys{Cluster: cluster, Recipients: recipientsOf(t, readKeys(t, recovery))}
	says := map[string]string{
		"hostile-absolute": "leads out", "hostile-files": "KeyError", "hostile-setuid": "has mode", "hostile-size": "not whole", "hostile-tablespace-dir": "none that a tablespace has",
		"hostile-tablespace-key": "none that a tablespace has", "hostile-tablespace-name": "none that a tablespace has", "hostile-twice": "twice|has mode",
		"manifest-count": "files", "manifest-cut": "cut off|not complete", "manifest-foreign": "another backup", "manifest-format-2": "format", "manifest-hole": "not whole",
		"manifest-link": "of type", "manifest-path": "leads out",
	}
	// refuse signs a manifest and has the script read it.
	refuse := func(name string, plain io.Reader, size int64, want string, change func([]byte) []byte) {
		root, out := filepath.Join(t.TempDir(), "repository"), filepath.Join(t.TempDir(), "out")
		store, err := file.Init(root)
		check(t, err)
		marker, err := vectorBody("marker")
		check(t, err)
		check(t, store.Create(t.Context(), MarkerKey, bytes.NewReader(marker)))
		r, err := Open(t.Context(), store, keys, "evil")
		check(t, err)
		_, err = r.CreateEnvelope(t.Context(), ManifestKey(testLabel), KindManifest, plain, size)
		check(t, err)
		path := filepath.Join(root, filepath.FromSlash(ManifestKey(testLabel)))
		object, err := os.ReadFile(path)
		check(t, err)
		check(t, os.WriteFile(path, change(object), 0o600))
		text, peak := rescuePeak(t, root, recovery, out)
		if !regexp.MustCompile(want).MatchString(text) || strings.Contains(text, "Traceback") || peak > 128<<20 {
			t.Errorf("%s: %d MiB, %.500s", name, peak>>20, text)
		}
		if entries, _ := os.ReadDir(out); len(entries) > 0 {
			t.Errorf("%s: %s was made", name, entries[0].Name())
		}
	}
	same := func(b []byte) []byte { return b }
	bad := 0
	for _, v := range readVectors(t) {
		if v.head["what"] != "manifest" || v.head["expect"] == "ok" {
			continue
		}
		bad++
		if says[v.name] == "" {
			t.Errorf("%s: what must the script say?", v.name)
			continue
		}
		refuse(v.name, bytes.NewReader(v.body), int64(len(v.body)), says[v.name], same)
	}
	if bad < 10 {
		t.Errorf("%d bad manifests", bad)
	}
	const huge = 256 << 20
	refuse("a record that never ends", io.LimitReader(blanks{}, huge), huge, "too long", same)
	refuse("a bomb", io.LimitReader(blanks{}, huge), huge, "there are more than 1000", func(object []byte) []byte {
		h, n, err := parseHeader(object)
		check(t, err)
		h.Size = 1000
		h.sign(*cluster.Signing, readKeys(t, recovery).Repository, ManifestKey(testLabel))
		return append(h.line(), object[n:]...)
	})
}

// blanks reads as blanks for ever.
type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func vectorBody(name string) ([]byte, error) {
	raw, err := os.ReadFile(filepath.Join(vectorDir, name+".vector"))
	_, body, _ := bytes.Cut(raw, []byte("\n\n"))
	return body, err
}

// rescuePeak runs the script, which must fail, and returns what it printed, and how many
// bytes of memory it took at most.
func rescuePeak(t *testing.T, repository, key, out string) (text string, peak int64) {
	t.Helper()
	const program = `import atexit, re, runpy, sys
atexit.register(lambda: print("peak", re.search("VmHWM:\\s*([0-9]+)", open("/proc/self/status").read()).group(1)))
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")`
	cmd := exec.CommandContext(t.Context(), "python3", "-c", program, "../testdata/rescue/rescue.py", repository, key, out)
	raw, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("the script exits with 0: %s", raw)
	}
	_, after, _ := strings.Cut(string(raw), "peak ")
	kib, err := strconv.ParseInt(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), 10, 64)
	if err != nil {
		t.Errorf("%v: %s", err, raw)
	}
	return string(raw), kib << 10
}

// TestRescueRefuses: the script holds to the signatures and the sums.
func TestRescueRefuses(t *testing.T) {
	rescueTools(t)
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is missing: the script checks signatures with it")
	}
	source := filepath.Join(reposDir, "v1")
	find := func(root, pattern string) string {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		return found[len(found)-1]
	}
	edit := func(pattern string, change func([]byte) []byte) func(string) {
		return func(root string) {
			name := find(root, pattern)
			b, err := os.ReadFile(name)
			check(t, err)
			check(t, os.WriteFile(name, change(b), 0o600))
		}
	}
	flip := func(b []byte) []byte { b[len(b)-100] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	for name, c := range map[string]struct {
		damage func(root string)
		says   string
	}{
		"a pack with a flipped bit":     {edit("packs/*", flip), "is damaged"},
		"a manifest with a flipped bit": {edit("backups/*/manifest", flip), "not the signed ones"},
		"a truncated segment":           {edit("wal/*/*/*", cut), "not the signed ones"},
		"a header that says otherwise": {edit("backups/*/manifest", func(b []byte) []byte {
			return bytes.Replace(b, []byte("host=db1"), []byte("host=db2"), 1)
		}), "not signed"},
		"a marker that says otherwise": {edit("lifeboat.json", func(b []byte) []byte {
			return bytes.Replace(b, []byte("shop"), []byte("bank"), 1)
		}), "not signed"},
		"a missing pack": {func(root string) { check(t, os.Remove(find(root, "packs/*"))) }, "No such file"},
		"an older manifest in place of a newer": {func(root string) {
			b, err := os.ReadFile(find(root, "backups/20260131*/manifest"))
			check(t, err)
			check(t, os.WriteFile(find(root, "backups/20260201*/manifest"), b, 0o600))
		}, "not signed"},
	} {
		root, out := filepath.Join(t.TempDir(), "repository"), filepath.Join(t.TempDir(), "out")
		check(t, os.CopyFS(root, os.DirFS(filepath.Join(source, "repository"))))
		c.damage(root)
		text, err := rescue(t, root, filepath.Join(source, "keys", "recovery.key"), out)
		if err == nil || !strings.Contains(text, c.says) || strings.Contains(text, "Traceback") {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}
