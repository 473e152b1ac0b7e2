package report

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// Period is what a pack is about.
type Period struct {
	From, To time.Time     // To is not included
	Every    time.Duration // in which a restore was to be proven each time; 0: nobody said
	Keys     []repo.PublicKey
	Program  string // that makes the pack
}

// Manifest is manifest.json in a pack.
type Manifest struct {
	Schema  string      `json:"schema"` // lifeboat-pack-1
	Cluster string      `json:"cluster"`
	From    time.Time   `json:"from"`
	To      time.Time   `json:"to"`
	Made    time.Time   `json:"made"`
	Program string      `json:"program"`
	Keys    []string    `json:"keys"` // that the maker of the pack trusts
	Missed  []Due       `json:"missed"`
	Every   float64     `json:"every_seconds,omitempty"`
	Gap     float64     `json:"longest_gap_seconds"`
	Files   []FileInfo  `json:"files"`
	Drills  []PackDrill `json:"drills"`

	Unusable []Unusable `json:"unusable"`
	Breaks   []Unusable `json:"chain_breaks"`
}

// FileInfo is one file of a pack.
type FileInfo struct {
	Name   string `json:"name"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// PackDrill is one document of a pack.
type PackDrill struct {
	ID      string           `json:"id"`
	Verdict evidence.Verdict `json:"verdict"`
	SHA256  string           `json:"sha256"` // what the next document names
}

// PackSchema names the form of the manifest.
const PackSchema = "lifeboat-pack-1"

// Pack writes a zip file with the evidence of a period: the documents as they
// are, those that cannot be used too, a page, what they show of the controls
// that auditors ask for, and how to check all of it without Lifeboat. The bytes
// depend on the arguments alone. Give it the whole history: a break of the chain
// shows only against the documents before it. It is an error when the period is
// empty. The manifest is that of the pack.
func (h *History) Pack(w io.Writer, p Period) (*Manifest, error) {
	if !p.From.Before(p.To) {
		return nil, fmt.Errorf("the period from %s to %s is empty", utc(p.From), utc(p.To))
	}
	v := h.packView(p)
	files, err := v.files()
	if err != nil {
		return nil, fmt.Errorf("write the pack: %w", err)
	}
	m := v.manifest(files)
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the pack: %w", err)
	}
	if err := h.zip(w, append(files, packFile{"manifest.json", append(raw, '\n')})); err != nil {
		return nil, fmt.Errorf("write the pack: %w", err)
	}
	return &m, nil
}

func (h *History) zip(w io.Writer, files []packFile) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		// Stored, not deflated: then the bytes are the same whichever version
		// of a compressor made them.
		out, err := z.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Store, Modified: h.Made.UTC().Truncate(2 * time.Second)})
		if err != nil {
			return err
		}
		if _, err := out.Write(f.data); err != nil {
			return err
		}
	}
	return z.Close()
}

type packFile struct {
	name string
	data []byte
}

// packView is what the pages of a pack need.
type packView struct {
	Period  Period
	History *History // what of the history lies in the period
	Missed  []Due
	Gap     string
	gap     time.Duration
	Past    []*evidence.Drill // oldest first, all of them
	Counts  map[string]int
	Before  string // id of the document before the first one
	Partial bool   // the last span of the period is not over
	Every   string
	Charts  []chart
	Mapping []framework
}

func (h *History) packView(p Period) *packView {
	p.From, p.To = p.From.UTC(), p.To.UTC()
	in := func(id string) bool {
		t := evidence.Began(id)
		return !t.Before(p.From) && t.Before(p.To)
	}
	part := &History{Cluster: h.Cluster, Made: h.Made, Since: p.From, Trusted: h.Trusted}
	part.Drills = slices.DeleteFunc(slices.Clone(h.Drills), func(d *evidence.Document) bool { return !in(d.Drill.ID) })
	part.Unusable = slices.DeleteFunc(slices.Clone(h.Unusable), func(u Unusable) bool { return !in(u.ID) })
	part.Breaks = slices.DeleteFunc(slices.Clone(h.Breaks), func(b evidence.Break) bool { return !in(b.ID) })
	// What is yet to come cannot have been missed.
	end := p.To
	if h.Made.Before(end) {
		end = h.Made
	}
	v := &packView{Period: p, History: part, Missed: Missed(part.Drills, p.From, end, p.Every), gap: LongestGap(part.Drills, p.From, end), Counts: map[string]int{}, Charts: part.charts(), Mapping: frameworks()}
	v.Gap = evidence.Seconds(v.gap.Seconds())
	if p.Every > 0 {
		v.Every = evidence.Seconds(p.Every.Seconds())
		v.Partial = end.Sub(p.From)%p.Every != 0
	}
	for verdict, n := range part.counts() {
		v.Counts[string(verdict)] = n
	}
	for i, d := range part.Drills {
		v.Past = append(v.Past, &d.Drill)
		if i == 0 && d.Drill.Previous != nil {
			v.Before = d.Drill.Previous.ID
		}
	}
	return v
}

// files makes all files but the manifest, in the order in which they are packed.
func (v *packView) files() ([]packFile, error) {
	var files []packFile
	for name, title := range map[string]string{"index.html": "Evidence of restore drills of " + clean(v.History.Cluster), "mapping.html": "What the evidence shows of controls"} {
		var b bytes.Buffer
		if err := render(&b, name, title, v); err != nil {
			return nil, err
		}
		files = append(files, packFile{name, b.Bytes()})
	}
	slices.SortFunc(files, func(a, b packFile) int { return strings.Compare(a.name, b.name) })
	var table bytes.Buffer
	if err := v.History.CSV(&table); err != nil {
		return nil, err
	}
	files = append([]packFile{{"README.txt", []byte(v.readme())}}, append(files, packFile{"drills.csv", table.Bytes()})...)
	for _, d := range v.History.Drills {
		files = append(files, packFile{"drills/" + d.Drill.ID + ".json", d.Raw})
	}
	for _, u := range v.History.Unusable {
		if u.Raw != nil { // the manifest names the others too
			files = append(files, packFile{"unusable/" + u.ID, u.Raw})
		}
	}
	return files, nil
}

func (v *packView) manifest(files []packFile) Manifest {
	s := v.History.Summary()
	m := Manifest{
		Schema: PackSchema, Cluster: v.History.Cluster, From: v.Period.From, To: v.Period.To, Made: v.History.Made, Program: v.Period.Program,
		Keys: []string{}, Missed: append([]Due{}, v.Missed...), Every: v.Period.Every.Seconds(), Gap: v.gap.Seconds(),
		Drills: []PackDrill{}, Unusable: s.Unusable, Breaks: s.Breaks,
	}
	for _, k := range v.Period.Keys {
		m.Keys = append(m.Keys, k.String())
	}
	for _, d := range v.History.Drills {
		m.Drills = append(m.Drills, PackDrill{d.Drill.ID, verdictOf(d.Drill.Verdict), d.SHA256})
	}
	for _, f := range files {
		sum := sha256.Sum256(f.data)
		m.Files = append(m.Files, FileInfo{f.name, len(f.data), hex.EncodeToString(sum[:])})
	}
	return m
}

// readme says how to check the pack by hand. The lines are run by a test.
func (v *packView) readme() string {
	keys := "No key was given when this pack was made: ask for it, and compare it with \"key\" in each document.\n"
	if len(v.Period.Keys) > 0 {
		keys = ""
		for _, k := range v.Period.Keys {
			keys += "    " + k.String() + "\n"
		}
	}
	return fmt.Sprintf(readmeText, clean(v.History.Cluster), utc(v.Period.From), utc(v.Period.To), utc(v.History.Made), keys)
}

const readmeText = `Evidence of restore drills of cluster %s
from %s to %s, made %s

index.html     what the drills showed, which were missed, what cannot be used
mapping.html   what the evidence shows of SOC 2, ISO/IEC 27001, DORA and NIST
               SP 800-53, and what it does not show
drills.csv     one line a drill
drills/        the signed documents, as they lie in the repository
unusable/      those that are damaged, changed or not signed by a trusted key,
               as they lie there, up to 64 MiB together; no figure comes from
               them
manifest.json  SHA-256 of each file here, the documents, missed drills

The pages and the table are views. The documents count. This pack itself is not
signed, so do not take its word for anything that the documents do not say.

The keys that the maker of this pack trusts
-------------------------------------------
%s
Compare them with a copy that did not come with this pack, such as the one in
the recovery key file: whoever could make a false pack could name a false key.

How to check a document by hand
-------------------------------
A document is one line: {"evidence":{...},"key":"ed25519:...","signature":"..."}
The signature is Ed25519 (RFC 8032) over the text "lifeboat-evidence-1", a line
feed, and the bytes of the member "evidence" as they stand in the file. Key and
signature are URL-safe base64 without padding. With Python 3 and OpenSSL 3, for
one file, set F to its name first:

python3 - "$F" <<'END'
import base64, json, sys
raw = open(sys.argv[1], "rb").read().rstrip()
doc = json.loads(raw)
plain = lambda s: base64.urlsafe_b64decode(s + "=" * (-len(s) %% 4))
begin, end = b'{"evidence":', b',"key":"' + doc["key"].encode() + b'","signature":"' + doc["signature"].encode() + b'"}'
assert raw.startswith(begin) and raw.endswith(end), "not in canonical form"
open("message", "wb").write(b"lifeboat-evidence-1\n" + raw[len(begin):-len(end)])
open("signature", "wb").write(plain(doc["signature"]))
open("key.der", "wb").write(bytes.fromhex("302a300506032b6570032100") + plain(doc["key"].removeprefix("ed25519:")))
print("drill", doc["evidence"]["id"], doc["evidence"]["verdict"], "signed by", doc["key"])
END
openssl pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -in message -sigfile signature

How to check the chain
----------------------
In each document "previous" names the id and the SHA-256 (of the whole file) of
the drill before it. A document that was taken out of the row, or replaced,
shows in the next one. What was taken off the end of the row does not show here:
compare the newest id with the repository, and the dates with the schedule.

    sha256sum drills/*.json
`
