package evidence_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

func newKey(t *testing.T) repo.SigningKey {
	t.Helper()
	k, err := repo.NewHostKey("shop", strings.Repeat("ab", 16))
	if err != nil {
		t.Fatal(err)
	}
	return *k.Signing
}

func sample(second int) *evidence.Drill {
	began := time.Date(2026, 1, 31, 2, 0, second, 0, time.UTC)
	upper := 1.25e-7
	return &evidence.Drill{
		Schema: evidence.Schema, ID: evidence.NewID(began), Repository: strings.Repeat("ab", 16), Cluster: "shop",
		Started: began, Ended: began.Add(time.Minute), Level: evidence.Standard, Verdict: evidence.Passed,
		RPO:    evidence.RPO{Upper: &upper},
		Checks: []evidence.Check{{Name: "a <b> & \u2028 \\u2028 ü", Required: true, Verdict: evidence.Passed}},
	}
}

// Another program must be able to check the signature: it needs the bytes of
// the member "evidence" and nothing of ours.
func TestSignatureHoldsForOthers(t *testing.T) {
	key := newKey(t)
	doc, err := evidence.Sign(sample(0), key)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Evidence  json.RawMessage
		Key       string
		Signature string
	}
	if err := json.Unmarshal(doc.Raw, &file); err != nil {
		t.Fatal(err)
	}
	public, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(file.Key, "ed25519:"))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.RawURLEncoding.DecodeString(file.Signature)
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(public, append([]byte("lifeboat-evidence-1\n"), file.Evidence...), signature) {
		t.Error("the signature does not hold")
	}
	if !bytes.Contains(doc.Raw, []byte("a <b> & \u2028 \\\\u2028 ü")) {
		t.Errorf("the text is not written as RFC 8785 has it: %s", doc.Raw)
	}
}

func TestParseRefusesChanges(t *testing.T) {
	doc, err := evidence.Sign(sample(0), newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	raw := string(doc.Raw)
	for name, changed := range map[string]string{
		"a verdict":            strings.Replace(raw, `"verdict":"passed"`, `"verdict":"failed"`, 1),
		"white space inside":   strings.Replace(raw, `"cluster":`, `"cluster": `, 1),
		"a member twice":       strings.Replace(raw, `"cluster":"shop"`, `"cluster":"bank","cluster":"shop"`, 1),
		"a member outside":     strings.Replace(raw, `{"evidence"`, `{"comment":"x","evidence"`, 1),
		"another key":          strings.Replace(raw, doc.Key.String(), newKey(t).Public().String(), 1),
		"the signature's end":  strings.Replace(raw, `"}`+"\n", `A"}`, 1),
		"something behind it":  raw + "{}",
		"an escape of a plain": strings.Replace(raw, `"shop"`, `"\u0073hop"`, 1),
	} {
		if changed == raw {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := evidence.Parse([]byte(changed)); err == nil {
			t.Errorf("%s was changed, and it was accepted", name)
		}
	}
	if _, err := evidence.Parse([]byte(raw + "\n \n")); err != nil {
		t.Errorf("white space at the end: %v", err)
	}
	if _, err := evidence.Parse([]byte(strings.Replace(raw, `"verdict":"passed"`, `"verdict":"unknown"`, 1))); !errors.Is(err, evidence.ErrSignature) {
		t.Errorf("a change is told as %v", err)
	}
}

// What stands in a document that cannot be used is somebody else's text.
func TestParseQuotesNothing(t *testing.T) {
	key := newKey(t)
	const canary = "somebody-elses-text"
	for name, file := range map[string]string{
		"no JSON": canary, "another key": `{"evidence":{},"key":"` + canary + `","signature":""}`,
		"a signature": `{"evidence":{},"key":"` + key.Public().String() + `","signature":"` + canary + `"}`,
	} {
		if _, err := evidence.Parse([]byte(file)); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, body := range []string{
		`{"schema":"` + canary + `"}`, `{"schema":"lifeboat-drill-1","started":"` + canary + `"}`, `{"` + canary + `":1}`,
		`{"schema":"lifeboat-drill-1","id":"` + canary + `"}`, `{"rpo":"` + canary + `"}`, `"` + canary + `"`,
	} {
		signed, err := evidence.Canonical(json.RawMessage(body))
		if err != nil {
			t.Fatal(err)
		}
		file := `{"evidence":` + string(signed) + `,"key":"` + key.Public().String() + `","signature":"` + key.Sign("lifeboat-evidence-1\n", signed) + `"}`
		if _, err := evidence.Parse([]byte(file)); err == nil || errors.Is(err, evidence.ErrSignature) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", body, err)
		}
	}
	if err := putAs(t, key, canary); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("of another repository: %v", err)
	}
}

// putAs stores a document of a repository and says how the history of another one
// takes it.
func putAs(t *testing.T, key repo.SigningKey, repository string) error {
	t.Helper()
	store, d := mem.New(), sample(0)
	d.Repository = repository
	doc, err := evidence.Put(t.Context(), store, d, key)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := evidence.History(t.Context(), store, strings.Repeat("ab", 16), time.Time{}, nil)
	if err != nil || len(entries) != 1 || entries[0].ID != doc.Drill.ID {
		t.Fatalf("the history has %d entries: %v", len(entries), err)
	}
	return entries[0].Err
}

func TestChain(t *testing.T) {
	ctx, store, key := context.Background(), mem.New(), newKey(t)
	var docs []*evidence.Document
	for i := range 4 {
		d, err := evidence.Put(ctx, store, sample(i/2), key) // two begin in the same second
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, d)
	}
	if docs[0].Drill.Previous != nil || docs[3].Drill.Previous.SHA256 != docs[2].SHA256 {
		t.Fatalf("the links are %+v and %+v", docs[0].Drill.Previous, docs[3].Drill.Previous)
	}
	history, err := evidence.History(ctx, store, strings.Repeat("ab", 16), time.Time{}, nil)
	if err != nil || len(history) != 4 {
		t.Fatalf("the history has %d entries: %v", len(history), err)
	}
	if foreign, err := evidence.History(ctx, store, strings.Repeat("cd", 16), time.Time{}, nil); err != nil || foreign[0].Err == nil {
		t.Errorf("documents of another repository are accepted: %v", err)
	}
	if breaks := evidence.CheckChain(docs); len(breaks) > 0 {
		t.Errorf("the whole chain: %v", breaks)
	}
	if breaks := evidence.CheckChain(docs[1:]); len(breaks) > 0 {
		t.Errorf("its end: %v", breaks)
	}
	without := []*evidence.Document{docs[3], docs[0], docs[1]}
	if breaks := evidence.CheckChain(without); len(breaks) != 1 || breaks[0].ID != docs[3].Drill.ID {
		t.Errorf("one was taken out: %v", breaks)
	}
	forged := sample(2)
	forged.ID, forged.Previous = docs[2].Drill.ID, docs[2].Drill.Previous
	forged.Verdict = evidence.Failed
	other, err := evidence.Sign(forged, key)
	if err != nil {
		t.Fatal(err)
	}
	if breaks := evidence.CheckChain([]*evidence.Document{docs[0], docs[1], other, docs[3]}); len(breaks) != 1 {
		t.Errorf("one was replaced: %v", breaks)
	}
}

func TestNothingPassesByDefault(t *testing.T) {
	ok := evidence.Check{Name: "a", Required: true, Verdict: evidence.Passed}
	one, two := 1.0, 2.0
	for name, c := range map[string]struct {
		drill  evidence.Drill
		done   bool
		faults []string
		want   evidence.Verdict
	}{
		"nothing":             {evidence.Drill{}, true, nil, evidence.Unknown},
		"only advisory":       {evidence.Drill{Checks: []evidence.Check{{Name: "a", Verdict: evidence.Passed}}}, true, nil, evidence.Unknown},
		"no verdict":          {evidence.Drill{Checks: []evidence.Check{ok, {Name: "b", Required: true}}}, true, nil, evidence.Unknown},
		"one passed":          {evidence.Drill{Checks: []evidence.Check{ok}}, true, nil, evidence.Passed},
		"advisory failed":     {evidence.Drill{Checks: []evidence.Check{ok, {Name: "b", Verdict: evidence.Failed}}}, true, nil, evidence.Passed},
		"required failed":     {evidence.Drill{Checks: []evidence.Check{ok, {Name: "b", Required: true, Verdict: evidence.Failed}}}, true, nil, evidence.Failed},
		"a fault":             {evidence.Drill{Checks: []evidence.Check{ok}}, true, []string{"a gap"}, evidence.Failed},
		"RTO not measured":    {evidence.Drill{Checks: []evidence.Check{ok}, RTO: evidence.RTO{Objective: &two}}, false, nil, evidence.Unknown},
		"RTO met":             {evidence.Drill{Checks: []evidence.Check{ok}, RTO: evidence.RTO{Objective: &two}}, true, nil, evidence.Passed},
		"RTO missed":          {evidence.Drill{Checks: []evidence.Check{ok}, RTO: evidence.RTO{Objective: &one}}, true, nil, evidence.Failed},
		"RPO not known":       {evidence.Drill{Checks: []evidence.Check{ok}, RPO: evidence.RPO{Objective: &one}}, true, nil, evidence.Unknown},
		"RPO met":             {evidence.Drill{Checks: []evidence.Check{ok}, RPO: evidence.RPO{Objective: &two, Upper: &one}}, true, nil, evidence.Passed},
		"RPO missed":          {evidence.Drill{Checks: []evidence.Check{ok}, RPO: evidence.RPO{Objective: &one, Upper: &two}}, true, nil, evidence.Failed},
		"RPO at least missed": {evidence.Drill{Checks: []evidence.Check{ok}, RPO: evidence.RPO{Objective: &one, Lower: &two}}, true, nil, evidence.Failed},
	} {
		c.drill.Measure(1.5, c.done)
		c.drill.Judge(c.faults...)
		if c.drill.Verdict != c.want {
			t.Errorf("%s: %s (%v), want %s", name, c.drill.Verdict, c.drill.Reasons, c.want)
		}
		if (c.drill.Verdict == evidence.Passed) != (len(c.drill.Reasons) == 0) {
			t.Errorf("%s: %s for the reasons %v", name, c.drill.Verdict, c.drill.Reasons)
		}
	}
}
