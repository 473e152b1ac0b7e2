package rds

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// Each thing that a snapshot is held to, by itself.
func TestVerifySnapshot(t *testing.T) {
	source := &Database{Kind: Instance, ResourceID: "db-A", Engine: "postgres", Encrypted: true, Storage: 20}
	for field, change := range map[string]func(*Snapshot){
		"":                     func(*Snapshot) {},
		"resource id":          func(s *Snapshot) { s.ResourceID = "db-B" },
		"engine":               func(s *Snapshot) { s.Engine = "mysql" },
		"encryption":           func(s *Snapshot) { s.Encrypted = false },
		"size":                 func(s *Snapshot) { s.Storage = 21 },
		"size that is unknown": func(s *Snapshot) { s.Storage = 0 },
		" of before it grew":   func(s *Snapshot) { s.Storage = 15 },
	} {
		s := &Snapshot{ID: "x", ResourceID: "db-A", Engine: "postgres", Encrypted: true, Storage: 20}
		change(s)
		mismatched(t, field, verifySnapshot(s, source))
	}
}

// Each thing that a copy is held to, by itself.
func TestVerifyCopy(t *testing.T) {
	to := Region{Name: "there", KMSKey: "arn:aws:kms:there:1:key/k"}
	of := &Snapshot{ID: "x", ARN: "arn:x", Engine: "postgres", EngineVersion: "15.6", Storage: 20, Encrypted: true}
	for field, change := range map[string]func(*Snapshot){
		"":               func(*Snapshot) {},
		"source":         func(s *Snapshot) { s.CopyOf = "arn:y" },
		"engine":         func(s *Snapshot) { s.Engine = "mysql" },
		"engine version": func(s *Snapshot) { s.EngineVersion = "15.5" },
		"size":           func(s *Snapshot) { s.Storage = 19 },
		"encryption":     func(s *Snapshot) { s.Encrypted = false },
		"KMS key":        func(s *Snapshot) { s.KMSKey = "arn:aws:kms:there:1:key/other" },
	} {
		c := *of
		c.CopyOf, c.KMSKey = of.ARN, to.KMSKey
		change(&c)
		mismatched(t, field, verifyCopy(&c, of, to))
	}
}

// mismatched wants an error about a field; about none if the text begins otherwise.
func mismatched(t *testing.T, want string, err error) {
	t.Helper()
	m, ok := errors.AsType[*MismatchError](err)
	if free := want == "" || want[0] == ' '; ok == free || ok && !strings.HasPrefix(want, m.Field) {
		t.Errorf("%q: %v", want, err)
	}
}
