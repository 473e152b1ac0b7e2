package repo

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// openStatement reads a vector of a statement and follows it, alone.
func openStatement(v vector, r *Repo) ([]byte, error) {
	p, err := parseStatement(v.head["key"], v.body, r.marker)
	if err != nil {
		return nil, err
	}
	who := newTrust(r.trusted, []parsedStatement{p})
	if err := r.knowsAll(who); err != nil {
		return nil, err
	}
	if len(who.statements) == 0 {
		return nil, &UntrustedError{v.head["key"], "it does not count"}
	}
	return json.Marshal(p.Statement)
}

// statement makes statements that add a signer.
func (m vectorMaker) statement(adds PublicKey) func(by SigningKey, change func(*Statement)) []byte {
	return func(by SigningKey, change func(*Statement)) []byte {
		s := Statement{Format: 1, Repository: m.w.cluster.Repository, Cluster: "shop", Number: 1, Made: testTime, Signer: by.Public().String(), Adds: adds.String()}
		if change != nil {
			change(&s)
		}
		return s.marshal(by)
	}
}

// statements writes the vectors of statements.
func (m vectorMaker) statements() {
	other, err := NewClusterKey("shop", m.w.cluster.Repository)
	check(m.t, err)
	own := *m.w.cluster.Signing
	make := m.statement(other.Signing.Public())
	write := func(name, expect, about string, body []byte) {
		m.write(name, "statement", expect, about, body, "key", statementKey(1))
	}
	good := make(own, nil)
	write("statement", "ok", "a signer is added", good)
	write("statement-retires", "ok", "a signer is retired", make(own, func(s *Statement) {
		s.Adds, s.Retires = "", &Retirement{Signer: other.Signing.Public().String(), Statements: 0,
			WAL: []WALCut{{postgres.SystemID(7000000000000000001), 1, "000000010000000000000007"}, {postgres.SystemID(7000000000000000001), 2, ""}}}
	}))
	write("statement-altered", "untrusted", "of another time than was signed", bytes.Replace(good, []byte("2026-01-31"), []byte("2026-01-30"), 1))
	write("statement-unknown", "untrusted", "by a signer that nobody trusts", make(*other.Signing, nil))
	write("statement-foreign", "untrusted", "of another repository", make(own, func(s *Statement) { s.Repository = "00000000000000000000000000000000" }))
	write("statement-number", "corrupt", "with another number than its key", make(own, func(s *Statement) { s.Number = 2 }))
	write("statement-blank", "corrupt", "a blank that is not signed", append(bytes.Clone(good), ' '))
	write("statement-format-2", "format", "of a later format", make(own, func(s *Statement) { s.Format = 2 }))
}

// laterStatements are those that claim a later format.
func (m vectorMaker) laterStatements() {
	other, err := NewClusterKey("shop", m.w.cluster.Repository)
	check(m.t, err)
	make := m.statement(other.Signing.Public())
	write := func(name, expect, about string, body []byte) {
		m.write(name, "statement", expect, about, body, "key", statementKey(1))
	}
	write("statement-format-2-unsigned", "corrupt", "of a later format, and nobody has signed it", []byte("{\"statement\":{\"format\":2},\"signature\":\"AA\"}\n"))
	write("statement-format-2-unknown", "untrusted", "of a later format, by a signer that nobody trusts", make(*other.Signing, func(s *Statement) { s.Format = 2 }))
	forged := bytes.Replace(make(*m.w.cluster.Signing, nil), []byte(`"format":1`), []byte(`"format":2`), 1)
	write("statement-format-2-forged", "untrusted", "made to be of a later format after it was signed", forged)
	write("statement-retires-itself", "corrupt", "its own signer is retired", make(*m.w.cluster.Signing, func(s *Statement) {
		s.Adds, s.Retires = "", &Retirement{Signer: s.Signer, WAL: []WALCut{}}
	}))
}

// TestMakeStatementVectors writes them, where they are missing, with the keys of the
// other vectors.
func TestMakeStatementVectors(t *testing.T) {
	m := vectorMaker{t, &world{cluster: readKeys(t, filepath.Join(vectorDir, "keys", "cluster.key"))}, vectorDir}
	for first, write := range map[string]func(){"statement": m.statements, "statement-format-2-unsigned": m.laterStatements} {
		_, err := os.Stat(filepath.Join(vectorDir, first+".vector"))
		switch {
		case err != nil && *update:
			write()
		case err != nil:
			t.Error(err)
		}
	}
}
