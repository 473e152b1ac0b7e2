package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// signContext stands before the signed bytes, so that a signature of something
// else cannot be passed off as one of evidence.
const signContext = "lifeboat-evidence-1\n"

// MaxDocument bounds a document, in bytes.
const MaxDocument = 8 << 20

// envelope is the file: the evidence and the signature of its bytes.
type envelope struct {
	Evidence  json.RawMessage `json:"evidence"`
	Key       string          `json:"key"`
	Signature string          `json:"signature"`
}

// Document is evidence as it lies in a file, with whose key it is signed. That
// the key is one to trust is for the caller to say.
type Document struct {
	Drill  Drill
	Key    repo.PublicKey
	SHA256 string // of the file: what the next document names
	Raw    []byte // the file
}

// Sign makes the file: one line of JSON and a line feed.
func Sign(d *Drill, key repo.SigningKey) (*Document, error) {
	body, err := Canonical(d)
	if err != nil {
		return nil, fmt.Errorf("write the evidence: %w", err)
	}
	raw, err := Canonical(envelope{Evidence: body, Key: key.Public().String(), Signature: key.Sign(signContext, body)})
	if err != nil {
		return nil, fmt.Errorf("write the evidence: %w", err)
	}
	return Parse(append(raw, '\n'))
}

// ErrSignature means that the signature does not fit the document: it was
// changed, or never signed by the key that it names.
var ErrSignature = errors.New("the signature does not hold")

// What decoders say would quote the file.
var (
	errNotEvidence = errors.New("not evidence: it is not JSON with evidence, key and signature")
	errNotDrill    = errors.New("not evidence of a drill: a member of it cannot be used")
)

// Parse reads a file and checks the signature by the key that the file names.
// Only the very bytes that Sign wrote are accepted (white space at the end is
// of no matter): whoever reads the same file with another program reads the
// same document. ErrSignature when it was changed. No error quotes the file.
func Parse(raw []byte) (*Document, error) {
	if len(raw) > MaxDocument {
		return nil, fmt.Errorf("not evidence: it has more than %d bytes", MaxDocument)
	}
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, errNotEvidence
	}
	if e.Evidence == nil {
		return nil, errors.New("not evidence: it holds no document")
	}
	key, err := repo.ParsePublicKey(e.Key)
	if err != nil {
		return nil, fmt.Errorf("not evidence: %w", err)
	}
	again, err := Canonical(e)
	if err != nil {
		return nil, errNotEvidence
	}
	if !bytes.Equal(bytes.TrimRight(raw, " \r\n\t"), again) || !key.Verify(signContext, e.Evidence, e.Signature) {
		return nil, ErrSignature
	}
	doc := &Document{Key: key, Raw: append(again, '\n')}
	if err := json.Unmarshal(e.Evidence, &doc.Drill); err != nil {
		return nil, errNotDrill
	}
	if doc.Drill.Schema != Schema {
		return nil, fmt.Errorf("evidence of another form; this version knows %q", Schema)
	}
	if before := doc.Drill.Previous; CheckID(doc.Drill.ID) != nil || before != nil && (CheckID(before.ID) != nil || len(before.SHA256) > 2*sha256.Size) {
		return nil, errNotDrill
	}
	doc.SHA256 = sumOf(doc.Raw)
	return doc, nil
}

// Canonical writes a value as RFC 8785 has it: members sorted, no white space,
// nothing escaped that need not be. Names of members must be ASCII.
func Canonical(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // a number is written as json.Marshal wrote it, which is ECMAScript's form
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(tree); err != nil {
		return nil, err
	}
	// encoding/json escapes these two whatever it is told.
	s := strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029").Replace(b.String())
	return []byte(strings.TrimSuffix(s, "\n")), nil
}
