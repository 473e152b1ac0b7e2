package evidence_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

// Anybody who may put into the bucket puts documents there, and who has taken a
// signing key signs them. Whatever it is, it is refused or it can be shown, and
// what is accepted is the same document again when it is read again.
func FuzzEvidence(f *testing.F) {
	signer, err := repo.NewHostKey("shop", strings.Repeat("ab", 16))
	if err != nil {
		f.Fatal(err)
	}
	key := *signer.Signing
	for _, d := range seeds() {
		doc, err := evidence.Sign(d, key)
		if err != nil {
			f.Fatal(err)
		}
		body, err := evidence.Canonical(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc.Raw)
		f.Add(body)
	}
	for _, s := range []string{
		`{"evidence":{},"key":"ed25519:AA","signature":"AA"}`, `{"Evidence":null}`, `[`, `null`, "\x1b]0;x\a",
		`{"schema":"lifeboat-drill-1","id":"20260131T020000Z-1a2b3c4d"}`,
		`{"schema":"lifeboat-drill-1","id":"20260131T020000Z-1a2b3c4d","verdict":"failed","rto":{"verdict":"failed"},"rpo":{"verdict":"failed"},"phases":[{"name":"\u001b[2J","seconds":-1e308}]}`,
		`{"schema":"lifeboat-drill-1","id":"20260131T020000Z-1a2b3c4d","started":"0001-01-01T00:00:00Z","coverage":{"backups":[{}]},"fence":{"tried":[{}]},"rds":{},"failover":{}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		read(t, raw, key)
		if body, err := evidence.Canonical(rawJSON(raw)); err == nil {
			file, err := evidence.Canonical(map[string]any{"evidence": rawJSON(body), "key": key.Public().String(), "signature": key.Sign("lifeboat-evidence-1\n", body)})
			if err != nil {
				t.Fatal(err)
			}
			read(t, file, key)
		}
	})
}

// rawJSON is JSON as it stands.
type rawJSON []byte

func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

// seeds are documents with everything in them that a document can hold.
func seeds() []*evidence.Drill {
	one, n := 1.5, int64(7)
	when := time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)
	full := sample(1)
	full.Backup, full.WAL = &evidence.Backup{Label: "20260130T020000Z-1a2b3c", Taken: when}, &evidence.WAL{Begin: "0/28", End: "0/2000000", Segments: 1}
	full.RPO = evidence.RPO{Objective: &one, Lower: &one, Upper: &one, Basis: "primary", Disaster: &when, Commit: &when, LostBytes: &n, Heartbeat: &one, Skew: &one}
	full.Phases = []evidence.Phase{{Name: evidence.PhasePlan, Seconds: 1}, {Name: evidence.PhaseFiles, Start: 1, Seconds: 2, Bytes: 3, Fetched: 2}}
	full.Fence = &evidence.Fence{Network: "isolated", Proven: []string{"x"}, Layers: []evidence.Layer{{Name: "mounts", Held: true}}, Tried: []evidence.Attempt{{What: "x", Outcome: "blocked", Error: "no"}}}
	full.Coverage = &evidence.Coverage{Backups: []evidence.Covered{{Label: "x", Taken: when, Tested: when}}, From: when, To: when}
	full.Cleanup = evidence.Cleanup{Done: true, Older: []string{"20260101T020000Z-1a2b3c4d"}}
	full.Previous = &evidence.Link{ID: "20260101T020000Z-1a2b3c4d", SHA256: strings.Repeat("ab", 32)}
	full.Measure(3, true)
	rds := sample(2)
	rds.RDS = &evidence.RDS{Source: "x", Kind: "instance", Restorable: &when, Exposure: &one, Available: &one, Differences: []evidence.Difference{{Name: "x", Source: "a", Restored: "b"}}}
	rds.Failover = &evidence.Failover{Source: "x", DowntimeLower: &one, DowntimeUpper: &one, LastWrite: &when, Addresses: []string{"::1"}}
	return []*evidence.Drill{sample(0), full, rds}
}

// read has a file parsed, and shows what was accepted in every form that there is.
func read(t *testing.T, raw []byte, key repo.SigningKey) {
	doc, err := evidence.Parse(raw)
	if err != nil {
		if s := err.Error(); len(s) > 200 || strings.ContainsFunc(s, unicode.IsControl) {
			t.Fatalf("the error is %q", s)
		}
		return
	}
	again, err := evidence.Parse(doc.Raw)
	if err != nil || again.SHA256 != doc.SHA256 || !bytes.Equal(again.Raw, doc.Raw) {
		t.Fatalf("read again it is another document: %v", err)
	}
	evidence.CheckChain([]*evidence.Document{doc, again})
	var text bytes.Buffer
	if err := report.Text(&text, &doc.Drill, nil); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(text.String(), func(r rune) bool { return unicode.IsControl(r) && r != '\n' }); i >= 0 {
		t.Fatalf("the text has a control character: %q", text.String()[max(0, i-20):])
	}
	if err := report.JUnit(io.Discard, &doc.Drill); err != nil {
		t.Fatal(err)
	}
	entries := []evidence.Entry{{ID: doc.Drill.ID, Doc: doc, Raw: doc.Raw}}
	h := report.NewHistory("shop", entries, []repo.PublicKey{key.Public()}, time.Time{}, time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC))
	for name, write := range map[string]func(io.Writer) error{
		"text":    func(w io.Writer) error { return h.Text(w, nil) },
		"page":    func(w io.Writer) error { return h.HTML(w, doc) },
		"metrics": h.Prometheus, "table": h.CSV,
	} {
		if err := write(io.Discard); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}
