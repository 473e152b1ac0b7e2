package repo

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Statements, keys/<serial>, say who signs: one that is trusted adds another, or
// retires one. So a recovery key file, which names the signer of its day, believes
// what later ones sign, and nobody has to touch it.
//
// They are read in the order of their numbers, and the store creates each number
// once. So what was said first counts, and who steals a retired key cannot say
// anything before that. docs/adr/014 tells what this protects and what not;
// docs/adr/020 how bytes that no signer vouches for are kept from deciding anything.

const (
	keysPrefix       = "keys/"
	statementContext = "lifeboat-keys-1\n"
	statementDigits  = 8
	maxStatement     = 1 << 20 // bytes
	maxStatements    = 1000    // that count
)

// Statement is what one signer says of another.
type Statement struct {
	Format     int         `json:"format"`
	Repository string      `json:"repository"`
	Cluster    string      `json:"cluster"`
	Number     int         `json:"number"` // as in the key, from 1
	Made       time.Time   `json:"made"`
	Signer     string      `json:"signer"`            // who says it
	Adds       string      `json:"adds,omitempty"`    // a signer to be trusted
	Retires    *Retirement `json:"retires,omitempty"` // or one to be trusted no more
}

// Retirement says up to where a retired signer is believed: statements up to a
// number, WAL up to a segment of each timeline, and nothing else.
type Retirement struct {
	Signer     string   `json:"signer"`
	Statements int      `json:"statements"`
	WAL        []WALCut `json:"wal"`
}

// WALCut is the last segment of a timeline, and with it its history file, for
// which a retired signer is believed.
type WALCut struct {
	System   postgres.SystemID `json:"system"`
	Timeline postgres.Timeline `json:"timeline"`
	Last     string            `json:"last"` // 24 digits; "" for the history file alone
}

// RetiredKeyError says that this host would sign with a key that is retired:
// nobody would believe it, so nothing is stored.
type RetiredKeyError struct{ Signer string }

func (e *RetiredKeyError) Error() string {
	return fmt.Sprintf("the cluster key of this host, %s, is retired: what it signs is not believed", e.Signer)
}

// signedStatement is the object: the statement as it stands there, and the
// signature of those very bytes.
type signedStatement struct {
	Statement json.RawMessage `json:"statement"`
	Signature string          `json:"signature"`
}

func (s signedStatement) bytes() []byte {
	return fmt.Appendf(nil, "{\"statement\":%s,\"signature\":\"%s\"}\n", s.Statement, s.Signature)
}

func statementKey(number int) string {
	return fmt.Sprintf("%s%0*d", keysPrefix, statementDigits, number)
}

// SignersPrefix is where the statements lie, for who copies a repository.
const SignersPrefix = keysPrefix

func (s Statement) marshal(key SigningKey) []byte {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // plain strings and numbers always marshal
	}
	return signedStatement{raw, encode64(ed25519.Sign(key.key, append([]byte(statementContext), raw...)))}.bytes()
}

// parsedStatement is one that its signer has signed; whether it counts is for trust.
// Of one of another format only the number and the signer are known.
type parsedStatement struct {
	Statement
	signer  PublicKey
	subject PublicKey // added or retired
	later   bool      // of a format that this program does not know
}

// parseStatement reads what lies under a key. What its signer has not signed for this
// repository and this key is an error, whatever format it claims to be of.
func parseStatement(key string, raw []byte, m Marker) (parsedStatement, error) {
	var p parsedStatement
	var s signedStatement
	corrupt := func(reason string, err error) (parsedStatement, error) {
		return p, &CorruptError{key, reason, err}
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return corrupt("not JSON", err)
	}
	if !bytes.Equal(s.bytes(), raw) {
		return corrupt("not in its one form", nil)
	}
	if err := json.Unmarshal(s.Statement, &p.Statement); err != nil {
		return corrupt("not a statement", err)
	}
	if statementKey(p.Number) != key {
		return corrupt("it has another number", nil)
	}
	var err error
	if p.signer, err = ParsePublicKey(p.Signer); err != nil {
		return corrupt("not a statement", err)
	}
	sig, err := decode64(s.Signature, ed25519.SignatureSize)
	if err != nil {
		return corrupt("not a statement", err)
	}
	if p.Repository != m.Repository || p.Cluster != m.Cluster {
		return p, &UntrustedError{key, "it is of another cluster or repository"}
	}
	if !ed25519.Verify(p.signer.key, append([]byte(statementContext), s.Statement...), sig) {
		return p, &UntrustedError{key, "its signature does not hold"}
	}
	if p.later = p.Format != Format; p.later {
		return p, nil
	}
	subject := p.Adds
	if p.Retires != nil {
		subject = p.Retires.Signer
	}
	if p.subject, err = ParsePublicKey(subject); err != nil {
		return corrupt("not a statement", err)
	}
	if (p.Adds == "") == (p.Retires == nil) || p.Retires != nil && p.subject.Equal(p.signer) {
		return corrupt("it says neither or both, or retires its own signer", nil)
	}
	return p, nil
}
