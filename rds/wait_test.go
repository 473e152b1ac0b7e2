package rds

import (
	"context"
	"errors"
	"testing"
	"time"
)

// listed is an API that shows these, and nothing else.
type listed struct {
	API
	snapshots []Snapshot
	databases []*Database // what looks at one show, one after the other
}

func (x *listed) Snapshots(context.Context, Kind, string) ([]Snapshot, error) {
	return x.snapshots, nil
}

func (x *listed) Database(_ context.Context, kind Kind, id string) (*Database, error) {
	for i, d := range x.databases {
		if d.Kind == kind && d.ID == id {
			x.databases = append(x.databases[:i:i], x.databases[i+1:]...)
			return d, nil
		}
	}
	return nil, &Error{Action: "rds:Describe", Message: "not found", Err: ErrNotFound}
}

// What an earlier run began is taken up, and nothing else: a night whose snapshot is
// taken for another's has none.
func TestBegun(t *testing.T) {
	o := SnapshotOptions{Source: Source{Name: "orders", Kind: Instance, ID: "orders-prod"}, Waiting: Waiting{Now: func() time.Time { return attemptTime(own).Add(time.Hour) }}}
	for name, c := range map[string]struct {
		change func(*Snapshot)
		want   bool
	}{
		"that a run waited for":             {func(*Snapshot) {}, true},
		"that is still being made":          {func(s *Snapshot) { s.Status = "creating"; delete(s.Tags, TagWait) }, true},
		"that is finished":                  {func(s *Snapshot) { s.Tags[TagDone] = stamp(time.Now()) }, false},
		"that no run waits for":             {func(s *Snapshot) { delete(s.Tags, TagWait) }, false},
		"a copy of another region's source": {func(s *Snapshot) { s.CopyOf = "arn:aws:rds:elsewhere:1:snapshot:x" }, false},
		"that has failed":                   {func(s *Snapshot) { s.Status = "failed" }, false},
		"somebody else's":                   {func(s *Snapshot) { s.ID = "before-the-migration" }, false},
		"automated":                         {func(s *Snapshot) { s.Type = "automated" }, false},
		"of the night before": {func(s *Snapshot) {
			s.Tags[TagAttempt] = "20260130t020000z-1a2b3c4d"
			s.ID = snapshotName("orders", s.Tags[TagAttempt])
		}, false},
	} {
		s := Snapshot{Kind: Instance, ID: snapshotName("orders", own), Source: "orders-prod", Type: "manual", Status: available, Tags: Tags{TagKind: tagSnapshot, TagSource: "orders", TagAttempt: own, TagWait: "yes"}}
		c.change(&s)
		taken, err := begun(context.Background(), &listed{snapshots: []Snapshot{s}}, o)
		if err != nil || (taken != nil) != c.want {
			t.Errorf("%s: %+v, %v", name, taken, err)
		}
	}
}

// The instances of a cluster are production too.
func TestProtectedIDs(t *testing.T) {
	api := &listed{databases: []*Database{{Kind: Cluster, ID: "aurora", ResourceID: "cluster-A", Members: []Member{{ID: "a-1", Writer: true}, {ID: "gone"}, {ID: "a-2"}}},
		{Kind: Instance, ID: "a-1", ResourceID: "db-1"}, {Kind: Instance, ID: "a-2", ResourceID: "db-2"}}}
	sources := []Source{{Name: "gone", Kind: Instance, ID: "none"}, {Name: "aurora", Kind: Cluster, ID: "aurora"}}
	p, err := protectedIDs(context.Background(), func(string) (API, error) { return api, nil }, sources)
	if err != nil || len(p) != 3 || p[0] != "cluster-A" || p[1] != "db-1" || p[2] != "db-2" {
		t.Errorf("%v, %v", p, err)
	}
}

// A database that is called available before it has an address is waited for.
func TestWaitForTheAddress(t *testing.T) {
	api := &listed{databases: []*Database{{Kind: Instance, ID: "x", Status: available}, {Kind: Instance, ID: "x", Status: available, Host: "x.rds"}}}
	d, err := Waiting{Poll: time.Millisecond, Now: time.Now}.database(context.Background(), api, Instance, "x")
	if err != nil || d.Host != "x.rds" {
		t.Errorf("%+v, %v", d, err)
	}
}

// Only PostgreSQL is a source, of the kind that is configured.
func TestSourceOfAnotherEngine(t *testing.T) {
	for engine, want := range map[string]map[Kind]bool{"postgres": {Instance: true}, "aurora-postgresql": {Cluster: true}, "mysql": nil, "aurora-mysql": nil} {
		for _, kind := range []Kind{Instance, Cluster} {
			_, err := lookAtSource(context.Background(), &listed{databases: []*Database{{Kind: kind, ID: "x", Engine: engine}}}, Source{Kind: kind, ID: "x"})
			if _, other := errors.AsType[*EngineError](err); other == want[kind] || !other && err != nil {
				t.Errorf("%s as %s: %v", engine, kind, err)
			}
		}
	}
}

// The states that nothing leaves by itself end a wait at once.
func TestHopeless(t *testing.T) {
	for state, want := range map[string]bool{"failed": true, "restore-error": true, "storage-full": true, deleting: true, "deleted": true, "incompatible-restore": true, "incompatible-network": true, "inaccessible-encryption-credentials": true,
		available: false, "creating": false, "backing-up": false, "modifying": false, "rebooting": false, "storage-optimization": false, "configuring-enhanced-monitoring": false, "pending": false} {
		if hopeless(state) != want {
			t.Errorf("%s: %t", state, !want)
		}
	}
}

// answers is an API whose looks at a database come to these errors, one after the
// other; nil is one that is still being deleted.
type answers struct {
	API
	errs []error
}

func (x *answers) Database(_ context.Context, kind Kind, id string) (*Database, error) {
	err := x.errs[0]
	if len(x.errs) > 1 {
		x.errs = x.errs[1:]
	}
	return &Database{Kind: kind, ID: id, Status: deleting}, err
}

// Gone is what RDS says is not there; no other answer proves it.
func TestGone(t *testing.T) {
	clock := time.Unix(0, 0) // a second for each look
	w := Waiting{Poll: time.Microsecond, Limit: 10 * time.Second, Now: func() time.Time { clock = clock.Add(time.Second); return clock }}
	for name, c := range map[string]struct {
		errs []error
		want error
	}{
		"not there":               {[]error{nil, ErrNotFound}, nil},
		"not there, after a word": {[]error{ErrThrottled, ErrUnavailable, ErrCredentials, nil, ErrNotFound}, nil},
		"without the right":       {[]error{nil, ErrDenied}, ErrDenied},
		"out of reach for good":   {[]error{nil, ErrUnavailable}, ErrUnavailable},
	} {
		if err := w.gone(context.Background(), &answers{errs: c.errs}, Instance, "x"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for name, last := range map[string]error{"deleting for ever": nil, "without credentials": ErrCredentials} {
		if err := w.gone(context.Background(), &answers{errs: []error{last}}, Instance, "x"); err == nil {
			t.Errorf("%s: it is gone", name)
		}
	}
}

// Whatever an attempt has made, one thing of it is enough to have left something.
func TestNothingOf(t *testing.T) {
	for name, left := range map[string][]*Database{"": nil, "its instance": {{Kind: Instance, ID: stagingName(own)}}, "its cluster": {{Kind: Cluster, ID: stagingName(own)}}, "the cluster's instance": {{Kind: Instance, ID: memberName(own)}}} {
		d := &drill{api: &listed{databases: left}}
		if got := d.nothingOf(context.Background(), own); got != (name == "") {
			t.Errorf("%q is left: nothing %t", name, got)
		}
	}
	if d := (&drill{api: &answers{errs: []error{ErrDenied}}}); d.nothingOf(context.Background(), own) {
		t.Error("what may not be looked at is not there")
	}
}

// A copy is as old as its data, not as its copying; RDS tells that of instances alone.
func TestTakenOfCopies(t *testing.T) {
	at := attemptTime(own)
	for name, c := range map[string]struct {
		s    Snapshot
		want time.Time
	}{
		"a copy of a day later":   {Snapshot{CopyOf: "arn", Created: at.AddDate(0, 0, 1), Tags: Tags{TagAttempt: own}}, at},
		"a snapshot":              {Snapshot{Created: at.Add(time.Minute), Tags: Tags{TagAttempt: own}}, at.Add(time.Minute)},
		"somebody's copy":         {Snapshot{CopyOf: "arn", Created: at.AddDate(0, 0, 1)}, at.AddDate(0, 0, 1)},
		"a copy that says better": {Snapshot{CopyOf: "arn", Created: at.Add(-time.Minute), Tags: Tags{TagAttempt: own}}, at.Add(-time.Minute)},
	} {
		if got := c.s.Taken(); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
