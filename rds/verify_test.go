package rds

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
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

// What differs from the source is told, and whether it was asked for.
func TestDifferences(t *testing.T) {
	source := Database{Kind: Instance, EngineVersion: "15.6", Class: "a", ParameterGroup: "production", OptionGroup: "o", SubnetGroup: "n", SecurityGroups: []string{"s"}, Storage: 20, StorageType: "gp3", Encrypted: true, RetentionDays: 7}
	restore := Restore{Version: "15.6", Class: "b", Staging: Staging{ParameterGroup: "orders", ClusterParameterGroup: "cluster", OptionGroup: "p", SubnetGroup: "m", SecurityGroups: []string{"r"}}}
	for name, c := range map[string]struct {
		kind    Kind
		change  func(*Database)
		unasked []string
	}{
		"as asked":                      {Instance, func(*Database) {}, nil},
		"a group that begins the same":  {Instance, func(d *Database) { d.ParameterGroup = "orders-test" }, []string{"parameter group"}},
		"of Aurora":                     {Cluster, func(d *Database) { d.ParameterGroup = "cluster, orders" }, nil},
		"another group of the instance": {Cluster, func(d *Database) { d.ParameterGroup = "cluster, default" }, []string{"parameter group"}},
		"the rest": {Instance, func(d *Database) {
			d.EngineVersion, d.Class, d.OptionGroup, d.SubnetGroup, d.SecurityGroups = "15.7", "c", "q", "l", []string{"q"}
			d.Storage, d.StorageType, d.IOPS, d.Encrypted, d.MultiAZ, d.Protected, d.RetentionDays = 10, "gp2", 1, false, true, true, 9
		}, []string{"engine version", "class", "option group", "subnet group", "security groups", "storage", "storage type", "IOPS", "encryption", "Multi-AZ", "deletion protection", "backup retention"}},
	} {
		s, copied := source, source
		s.Kind = c.kind
		copied.Class, copied.ParameterGroup, copied.OptionGroup, copied.SubnetGroup, copied.SecurityGroups, copied.RetentionDays = "b", "orders", "p", "m", []string{"r"}, 1
		c.change(&copied)
		var unasked []string
		all := differences(&s, &copied, restore)
		for _, x := range all {
			if !x.Asked {
				unasked = append(unasked, x.Name)
			}
		}
		if !slices.Equal(unasked, c.unasked) || len(all) < 6 {
			t.Errorf("%s: %v of %+v were not asked for, want %v", name, unasked, all, c.unasked)
		}
	}
}

// A copy that is not encrypted while its source is fails a check that is required.
func TestEncryptionIsHeldTo(t *testing.T) {
	for _, c := range []struct {
		source, snapshot, copied, ok bool
	}{{true, true, true, true}, {true, true, false, false}, {false, true, false, false}, {false, false, false, true}} {
		d := &drill{doc: &evidence.Drill{}, source: &Database{Encrypted: c.source}, want: Snapshot{Encrypted: c.snapshot}, copy: &Database{Encrypted: c.copied}}
		d.doc.RDS = &evidence.RDS{}
		if _, detail := d.isolated(context.Background()); strings.Contains(detail, "it is not encrypted") == c.ok {
			t.Errorf("%+v: %s", c, detail)
		}
	}
}
