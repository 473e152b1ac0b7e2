package report_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

// quarter is the pack of a period in which drills failed, some weeks had none,
// and one document was damaged.
func quarter(t *testing.T) []byte {
	t.Helper()
	key := newKey(t)
	drills := season(40, passed)
	drills = append(drills[:8], drills[14:]...) // nothing ran for 12 days
	entries := chain(t, key, drills...)
	entries[20] = evidence.Entry{ID: entries[20].ID, Err: evidence.ErrSignature, Raw: []byte("no document")}
	h := report.NewHistory("shop", entries, []repo.PublicKey{key.Public()}, time.Time{}, began.Add(time.Hour))
	return written(t, func(w io.Writer) error {
		_, err := h.Pack(w, report.Period{From: began.AddDate(0, 0, -70), To: began.AddDate(0, 0, 20), Every: 7 * 24 * time.Hour, Keys: []repo.PublicKey{key.Public()}, Program: "lifeboat 1.2.0"})
		return err
	})
}

func unpacked(t *testing.T, pack []byte) map[string][]byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if out[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestPack(t *testing.T) {
	files := unpacked(t, quarter(t))
	var m report.Manifest
	if err := json.Unmarshal(files["manifest.json"], &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Files) != len(files)-1 {
		t.Errorf("the manifest has %d files, the pack %d", len(m.Files), len(files))
	}
	for _, f := range m.Files {
		sum := sha256.Sum256(files[f.Name])
		if hex.EncodeToString(sum[:]) != f.SHA256 || len(files[f.Name]) != f.Bytes {
			t.Errorf("%s is not what the manifest says", f.Name)
		}
	}
	for _, d := range m.Drills {
		doc, err := evidence.Parse(files["drills/"+d.ID+".json"])
		if err != nil || doc.SHA256 != d.SHA256 {
			t.Errorf("%s: %v", d.ID, err)
		}
	}
	if got := files["unusable/"+m.Unusable[0].ID]; string(got) != "no document" {
		t.Errorf("the document that cannot be used is enclosed as %q", got)
	}
	// 70 days are over of 90: days 8 to 20 have nothing.
	if len(m.Missed) != 1 || len(m.Unusable) != 1 || len(m.Breaks) != 1 || m.Gap < 12*86400 || m.Gap > 17*86400 {
		t.Errorf("missed %v, unusable %v, breaks %v, gap %v", m.Missed, m.Unusable, m.Breaks, m.Gap)
	}
	for _, want := range []string{m.Unusable[0].ID, "is there and cannot be used", "no restore drill"} {
		if !strings.Contains(string(files["index.html"]), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for _, want := range []string{"A1.3", "8.13", "(7)", "CP-9(1)", "CP-9(2)", "CP-10", "Does not show"} {
		if !strings.Contains(string(files["mapping.html"]), want) {
			t.Errorf("the mapping does not say %q", want)
		}
	}
}

func TestPackIsDeterministic(t *testing.T) {
	h := history(t, season(5, passed)...)
	p := report.Period{From: began.AddDate(0, -1, 0), To: began.AddDate(0, 0, 1), Every: 24 * time.Hour}
	pack := func(w io.Writer) error {
		_, err := h.Pack(w, p)
		return err
	}
	if !bytes.Equal(written(t, pack), written(t, pack)) {
		t.Error("two packs of the same differ")
	}
	p.To = p.From
	if _, err := h.Pack(io.Discard, p); err == nil {
		t.Error("an empty period was packed")
	}
}

// The lines of the README must do what it says, with nothing of ours, and must
// notice a change.
func TestReadmeByHand(t *testing.T) {
	for _, program := range []string{"python3", "openssl", "sh"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (scripts/packages): the lines of the README are not run", program)
		}
	}
	files := unpacked(t, quarter(t))
	_, lines, _ := strings.Cut(string(files["README.txt"]), "name first:\n\n")
	lines, _, _ = strings.Cut(lines, "\n\n")
	script := "set -e\n" + lines + "\n"
	run := func(document []byte) (string, error) {
		directory := t.TempDir()
		if err := os.WriteFile(filepath.Join(directory, "drill.json"), document, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir, cmd.Env = directory, append(os.Environ(), "F=drill.json")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	id := regexp.MustCompile(`drills/\S+\.json`).FindString(string(files["manifest.json"]))
	if out, err := run(files[id]); err != nil || !strings.Contains(out, "Verified Successfully") {
		t.Errorf("the lines of the README fail: %v\n%s\n%s", err, out, script)
	}
	changed := bytes.Replace(files[id], []byte(`"cluster":"shop"`), []byte(`"cluster":"bank"`), 1)
	if out, err := run(changed); err == nil || bytes.Equal(changed, files[id]) {
		t.Errorf("a changed document passes: %s", out)
	}
}
