package rds

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// Each thing that keeps a copy apart from production, by itself.
func TestIsolation(t *testing.T) {
	staging := Staging{SubnetGroup: "staging", SecurityGroups: []string{"sg-a", "sg-b"}}
	for fault, change := range map[string]func(*Database){
		"":                               func(*Database) {},
		"it is publicly accessible":      func(c *Database) { c.Public = true },
		"it is in subnet group":          func(c *Database) { c.SubnetGroup = "production" },
		"its security groups are sg-a":   func(c *Database) { c.SecurityGroups = []string{"sg-a"} },
		"its security groups are sg-z":   func(c *Database) { c.SecurityGroups = []string{"sg-z", "sg-a", "sg-b"} },
		"it has deletion protection":     func(c *Database) { c.Protected = true },
		"it does not carry":              func(c *Database) { delete(c.Tags, TagKind) },
		"it does not carry this attempt": func(c *Database) { c.Tags[TagAttempt] = "20250131t020000z-1a2b3c4d" },
		"it is not encrypted":            func(c *Database) { c.Encrypted = false },
		"its resource id is a source's":  func(c *Database) { c.ResourceID = "db-PROD" },
	} {
		c := drilled()
		c.SubnetGroup, c.SecurityGroups, c.Encrypted = staging.SubnetGroup, []string{"sg-b", "sg-a"}, true
		change(c)
		d := &drill{doc: &evidence.Drill{RDS: &evidence.RDS{Attempt: own}}, source: &Database{Encrypted: true}, copy: c, region: Region{Staging: staging}, protect: protected{"db-PROD"}}
		verdict, detail := d.isolated(context.Background())
		switch missing := d.doc.Fence.Missing; {
		case fault == "" && (verdict != evidence.Passed || len(missing) > 0 || len(d.doc.Fence.Proven) != 7):
			t.Errorf("as it should be: %s, %s; %+v", verdict, detail, d.doc.Fence)
		case fault != "" && (verdict != evidence.Failed || len(missing) != 1 || !strings.HasPrefix(missing[0], fault) || !strings.Contains(detail, missing[0])):
			t.Errorf("%s: %s, %s; %+v", fault, verdict, detail, d.doc.Fence)
		}
	}
}

// What differs and was not asked for fails the check; what cannot be compared proves
// nothing.
func TestConfigured(t *testing.T) {
	source := &Database{Kind: Instance, EngineVersion: "15.6", Class: "a", Storage: 20}
	for name, c := range map[string]struct {
		source *Database
		change func(*Database)
		want   evidence.Verdict
		detail string
	}{
		"the same":       {source, func(*Database) {}, evidence.Passed, "0 settings differ"},
		"as asked":       {source, func(d *Database) { d.Class = "b" }, evidence.Passed, "1 settings differ"},
		"less storage":   {source, func(d *Database) { d.Storage = 10 }, evidence.Failed, "storage is 10 GiB, the source has 20 GiB"},
		"another option": {source, func(d *Database) { d.OptionGroup = "o" }, evidence.Failed, "option group is o, the source has none"},
		"no source":      {nil, func(*Database) {}, evidence.Unknown, "nothing to compare with"},
	} {
		copied := *source
		c.change(&copied)
		d := &drill{doc: &evidence.Drill{}, source: c.source, copy: &copied, request: Restore{Version: "15.6", Class: "b"}}
		d.doc.RDS = &evidence.RDS{}
		if verdict, detail := d.configured(context.Background()); verdict != c.want || !strings.Contains(detail, c.detail) {
			t.Errorf("%s: %s, %s", name, verdict, detail)
		}
	}
}

// A failover has passed once another server has taken over and writes came back, and
// not for less.
func TestFailoverVerdicts(t *testing.T) {
	a, b, no := server{zone: "a"}, server{zone: "b"}, errors.New("no write succeeds after the failover")
	for name, c := range map[string]struct {
		now  server
		done bool
		err  error
		want evidence.Verdict
	}{
		"as it should be":         {b, true, nil, evidence.Passed},
		"writes do not come back": {b, false, no, evidence.Unknown},
		"nothing was seen":        {server{}, false, no, evidence.Unknown},
		"it stays where it was":   {a, false, &WaitError{What: "x"}, evidence.Failed},
		"it was asked and denied": {a, false, no, evidence.Unknown},
	} {
		f := &failover{o: FailoverOptions{Now: time.Now}, plan: &FailoverPlan{from: a}, now: c.now, done: c.done}
		f.Recorder = evidence.Begin(evidence.Opening{Now: time.Now})
		f.doc = &f.Drill
		f.doc.Failover, f.doc.Cleanup.Done = &evidence.Failover{}, true
		if f.conclude(c.err); f.doc.Verdict != c.want || len(f.doc.Checks) != 2 {
			t.Errorf("%s: %s, %+v", name, f.doc.Verdict, f.doc.Checks)
		}
	}
}
