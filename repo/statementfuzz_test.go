package repo

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"
	"time"
)

// fixedSigner is the same in each process: what a seed says is signed in all of them.
func fixedSigner(b byte) SigningKey {
	return SigningKey{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))}
}

// FuzzStatement puts an object under a name of keys/ into a repository in which one
// signer has added a second and retired a third. Whatever it is, nobody is believed
// whom those two have not named, and nobody is retired.
func FuzzStatement(f *testing.F) {
	m := Marker{Repository: strings.Repeat("ab", 16), Cluster: "shop"}
	first, second, third, thief := fixedSigner(1), fixedSigner(2), fixedSigner(3), fixedSigner(4)
	say := func(number int, by SigningKey, change func(*Statement)) []byte {
		s := Statement{Format: Format, Repository: m.Repository, Cluster: m.Cluster, Number: number, Made: time.Unix(1, 0).UTC(),
			Signer: by.Public().String(), Adds: thief.Public().String()}
		change(&s)
		return s.marshal(by)
	}
	adds := func(k SigningKey) func(*Statement) { return func(s *Statement) { s.Adds = k.Public().String() } }
	retires := func(k SigningKey) func(*Statement) {
		return func(s *Statement) {
			s.Adds, s.Retires = "", &Retirement{Signer: k.Public().String(), Statements: 2, WAL: []WALCut{{System: 7, Timeline: 1, Last: strings.Repeat("0", 24)}}}
		}
	}
	genuine := map[string][]byte{
		statementKey(1): say(1, first, adds(second)),
		statementKey(2): say(2, first, adds(third)),
		statementKey(3): say(3, second, retires(third)),
	}
	for key, raw := range genuine {
		f.Add(key, raw)
		f.Add(statementKey(4), raw) // moved
	}
	f.Add(statementKey(4), say(4, thief, func(*Statement) {}))
	f.Add(statementKey(4), say(4, thief, retires(first)))
	f.Add(statementKey(4), say(4, thief, func(s *Statement) { s.Format = 2 }))
	f.Add(statementKey(4), say(4, thief, func(s *Statement) { s.Signer = first.Public().String() }))
	f.Add(statementKey(4), say(4, third, func(*Statement) {})) // retired
	f.Add(statementKey(4), say(4, thief, func(s *Statement) { s.Cluster = "bank" }))
	f.Add(statementKey(4), say(4, thief, func(s *Statement) { s.Retires = &Retirement{Signer: s.Adds} }))
	for _, s := range []string{"", "{}", "null", "[]", `{"statement":{"format":2},"signature":"AA"}` + "\n", `{"statement":null,"signature":""}` + "\n",
		`{"statement":{"number":4,"signer":"x"},"signature":"AA"}` + "\n", `{"statement":` + strings.Repeat("[", 1000)} {
		f.Add(statementKey(4), []byte(s))
	}
	f.Add(m.signpost(1200, first), []byte{})
	f.Add(m.signpost(1200, thief), []byte{})
	f.Add(statementKey(1201)+m.signpost(1200, first)[len(statementKey(1)):], []byte{})
	f.Add("keys/99999999-", []byte{})

	var said []parsedStatement
	for _, key := range []string{statementKey(1), statementKey(2), statementKey(3)} {
		p, err := parseStatement(key, genuine[key], m)
		check(f, err)
		said = append(said, p)
	}
	anchors := []PublicKey{first.Public()}
	want := newTrust(anchors, said)
	if len(want.keys) != 3 || len(want.cuts) != 1 || want.pointed(m, m.signpost(1200, first)) != 1200 {
		f.Fatalf("%d signers, %d cuts", len(want.keys), len(want.cuts))
	}
	f.Fuzz(func(t *testing.T, key string, raw []byte) {
		if n := want.pointed(m, key); n != 0 && key != m.signpost(n, first) && key != m.signpost(n, second) {
			t.Errorf("%q points to %d", key, n)
		}
		p, err := parseStatement(key, raw, m)
		if err != nil {
			if !refused(err) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if statementKey(p.Number) != key {
			t.Errorf("%q says that it is number %d", key, p.Number)
		}
		if bytes.Equal(genuine[key], raw) {
			return
		}
		at, _ := slices.BinarySearchFunc(said, p.Number, func(s parsedStatement, n int) int { return s.Number - n })
		for what, all := range map[string][]parsedStatement{
			"beside":          slices.Insert(slices.Clone(said), at, p),
			"in the place of": append(slices.Clone(said[:at]), append([]parsedStatement{p}, said[min(at+1, len(said)):]...)...),
		} {
			got := newTrust(anchors, all)
			for _, k := range got.keys {
				if !slices.ContainsFunc(want.keys, k.Equal) {
					t.Errorf("%s what is genuine it adds %s", what, k)
				}
			}
			for signer := range got.cuts {
				if want.cuts[signer] == nil {
					t.Errorf("%s what is genuine it retires %s", what, signer)
				}
			}
			if len(got.later) > 0 || what == "beside" && (len(got.keys) != len(want.keys) || len(got.cuts) != len(want.cuts)) {
				t.Errorf("%s what is genuine it counts: %+v", what, got)
			}
		}
	})
}
