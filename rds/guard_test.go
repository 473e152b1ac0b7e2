package rds

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

const own = "20260131t020000z-1a2b3c4d"

// tempted is an API that deletes whatever it is asked to, and notes it.
type tempted struct {
	API
	database *Database
	snapshot *Snapshot
	deleted  []string
}

func (x *tempted) Database(context.Context, Kind, string) (*Database, error) { return x.database, nil }
func (x *tempted) Snapshot(context.Context, Kind, string) (*Snapshot, error) { return x.snapshot, nil }
func (x *tempted) Delete(_ context.Context, _ Kind, id string, _ bool) error {
	x.deleted = append(x.deleted, id)
	return nil
}
func (x *tempted) DeleteSnapshot(_ context.Context, _ Kind, id string) error {
	x.deleted = append(x.deleted, id)
	return nil
}

func drilled() *Database {
	return &Database{Kind: Instance, ID: stagingName(own), ResourceID: "db-COPY", Status: available, Tags: Tags{TagKind: tagDrill, TagAttempt: own}}
}

// Whatever RDS shows, nothing goes but what this attempt made.
func TestNothingElseIsDeleted(t *testing.T) {
	sources := []Source{{Name: "orders", Kind: Instance, ID: "orders-prod"}, {Name: "aurora", Kind: Cluster, ID: "aurora-prod"}, {Name: "odd", Kind: Instance, ID: stagingName("20250131t020000z-1a2b3c4d")}}
	other := "20260131t020000z-99999999"
	for name, change := range map[string]func(d *Database, attempt *string){
		"production under its own name":           func(d *Database, _ *string) { d.ID = "orders-prod" },
		"production with all our tags":            func(d *Database, _ *string) { d.ID, d.ResourceID = "orders-prod", "db-PROD" },
		"production that was renamed to our name": func(d *Database, _ *string) { d.ResourceID = "db-PROD" },
		"a source whose name is ours": func(d *Database, a *string) {
			*a = "20250131t020000z-1a2b3c4d"
			d.ID = stagingName(*a)
			d.Tags[TagAttempt] = *a
		},
		"without the tag":                     func(d *Database, _ *string) { delete(d.Tags, TagKind) },
		"with another value of the tag":       func(d *Database, _ *string) { d.Tags[TagKind] = tagSnapshot },
		"without the attempt":                 func(d *Database, _ *string) { delete(d.Tags, TagAttempt) },
		"of another attempt":                  func(d *Database, _ *string) { d.Tags[TagAttempt] = other },
		"named after another attempt":         func(d *Database, _ *string) { d.ID = stagingName(other) },
		"with our prefix and a name beside":   func(d *Database, _ *string) { d.ID = stagingName(own) + "-replica" },
		"with our name in the middle":         func(d *Database, _ *string) { d.ID = "x" + stagingName(own) },
		"with our name in capitals":           func(d *Database, _ *string) { d.ID = strings.ToUpper(stagingName(own)) },
		"without a resource id":               func(d *Database, _ *string) { d.ResourceID = "" },
		"an empty attempt":                    func(d *Database, a *string) { *a = ""; d.ID = DrillPrefix; d.Tags[TagAttempt] = "" },
		"an attempt that is none":             func(d *Database, a *string) { *a = "prod"; d.ID = stagingName("prod"); d.Tags[TagAttempt] = "prod" },
		"an instance in production's cluster": func(d *Database, _ *string) { d.ID, d.Cluster = memberName(own), "aurora-prod" },
		"an instance in somebody's cluster":   func(d *Database, _ *string) { d.ID, d.Cluster = memberName(own), "somebody" },
		"a cluster that somebody put an instance in": func(d *Database, _ *string) {
			d.Kind, d.Members = Cluster, []Member{{ID: memberName(own)}, {ID: "somebody"}}
		},
	} {
		d, attempt := drilled(), own
		d.Tags = maps.Clone(d.Tags)
		change(d, &attempt)
		api := &tempted{database: d}
		_, err := deleteStaging(context.Background(), api, d.Kind, d.ID, attempt, protected{"db-PROD"}, sources)
		if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Reason == "" || len(api.deleted) > 0 {
			t.Errorf("%s: deleted %v, %v", name, api.deleted, err)
		}
	}
	api := &tempted{database: drilled()}
	if _, err := deleteStaging(context.Background(), api, Instance, stagingName(own), own, protected{"db-PROD"}, sources); err != nil || len(api.deleted) != 1 {
		t.Errorf("its own is not deleted: %v", err)
	}
}

func TestNoOtherSnapshotIsDeleted(t *testing.T) {
	source := Source{Name: "orders", Kind: Instance, ID: "orders-prod", Region: "here"}
	good := func() *Snapshot {
		return &Snapshot{Kind: Instance, ID: snapshotName("orders", own), Source: "orders-prod", Type: "manual", Status: available, Tags: Tags{TagKind: tagSnapshot, TagSource: "orders", TagAttempt: own}}
	}
	for name, change := range map[string]func(*Snapshot){
		"automated":           func(s *Snapshot) { s.Type = "automated" },
		"of another source":   func(s *Snapshot) { s.Tags[TagSource] = "bank" },
		"of another instance": func(s *Snapshot) { s.Source = "bank-prod" },
		"without our tag":     func(s *Snapshot) { delete(s.Tags, TagKind) },
		"with another name":   func(s *Snapshot) { s.ID = "before-the-migration" },
		"without an attempt":  func(s *Snapshot) { delete(s.Tags, TagAttempt) },
		"of a cluster":        func(s *Snapshot) { s.Kind = Cluster },
		"that a person named like ours": func(s *Snapshot) {
			s.Tags[TagAttempt] = "before-the-migration"
			s.ID = snapshotName("orders", "before-the-migration")
		},
	} {
		s := good()
		change(s)
		api := &tempted{snapshot: s}
		if err := deleteSnapshot(context.Background(), api, Instance, s.ID, source); err == nil || len(api.deleted) > 0 {
			t.Errorf("%s: deleted %v, %v", name, api.deleted, err)
		}
	}
	api := &tempted{snapshot: good()}
	if err := deleteSnapshot(context.Background(), api, Instance, "x", source); err != nil || len(api.deleted) != 1 {
		t.Errorf("its own is not deleted: %v", err)
	}
}

// What retention says, on plain values.
func TestSuperfluous(t *testing.T) {
	now := time.Date(2026, 2, 10, 0, 0, 0, 0, time.UTC)
	at := func(day int, status, copyOf string) Snapshot {
		attempt := now.AddDate(0, 0, -day).Format("20060102t150405z") + "-1a2b3c4d"
		return Snapshot{Kind: Instance, ID: snapshotName("orders", attempt), Source: "p", Type: "manual", Status: status, CopyOf: copyOf, Tags: Tags{TagKind: tagSnapshot, TagSource: "orders", TagAttempt: attempt}}
	}
	bad := func(s Snapshot) Snapshot { s.Tags[TagWait] = "yes"; return s }
	done := func(s Snapshot) Snapshot { s.Tags[TagDone] = stamp(now); return bad(s) }
	others := func(s Snapshot) Snapshot { s.Type = "automated"; return s }
	list := []Snapshot{at(1, available, ""), at(2, available, ""), at(3, "creating", ""), at(4, available, ""), at(9, available, ""), at(20, available, ""), at(21, "failed", "")}
	days := func(s Source, list []Snapshot, busy map[string]bool) (out []int) {
		for _, e := range superfluous(list, s, busy, now) {
			out = append(out, int(now.Sub(e.Taken).Hours()/24))
		}
		return out
	}
	base := Source{Name: "orders", Kind: Instance, ID: "p"}
	for _, c := range []struct {
		keep int
		age  time.Duration
		list []Snapshot
		busy map[string]bool
		want []int
	}{
		{0, 0, list, nil, []int{21}},
		{2, 0, list, nil, []int{4, 9, 20, 21}},
		{0, 8 * 24 * time.Hour, list, nil, []int{9, 20, 21}},
		{1, time.Hour, list, nil, []int{2, 4, 9, 20, 21}},
		{1, time.Hour, list, map[string]bool{list[4].Tags[TagAttempt]: true}, []int{2, 4, 20, 21}},
		{1, time.Hour, list[5:6], nil, nil}, // the last one stays, however old it is
		// One that was not found as it should be takes no place; it goes when its turn is.
		{1, 0, []Snapshot{bad(at(1, available, "")), done(at(2, available, "")), done(at(3, available, ""))}, nil, []int{3}},
		{1, 0, []Snapshot{done(at(1, available, "")), bad(at(2, available, "")), done(at(3, available, ""))}, nil, []int{2, 3}},
		{2, 0, []Snapshot{done(at(1, available, "")), bad(at(2, available, "")), done(at(3, available, ""))}, nil, nil},
		{0, time.Hour, []Snapshot{bad(at(1, available, "")), bad(at(2, available, ""))}, nil, nil},
		{1, 0, []Snapshot{at(1, "failed", ""), at(30, available, "")}, nil, []int{1}},
		{1, 0, []Snapshot{at(1, available, ""), at(2, deleting, "")}, nil, nil}, // it goes already
		// What is not ours takes no place either, and never goes.
		{1, 0, []Snapshot{others(at(1, available, "")), at(2, available, ""), others(at(3, available, ""))}, nil, nil},
	} {
		s := base
		s.Keep, s.KeepFor = c.keep, c.age
		got := days(s, c.list, c.busy)
		if len(got) != len(c.want) {
			t.Errorf("keep %d, for %s: %v goes, want %v", c.keep, c.age, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("keep %d, for %s: %v goes, want %v", c.keep, c.age, got, c.want)
				break
			}
		}
	}
}

// A state that nothing leaves proves that a recovery fails; somebody who deletes the
// copy does not.
func TestProvesFailure(t *testing.T) {
	for state, want := range map[string]bool{"failed": true, "incompatible-restore": true, deleting: false} {
		if got := provesFailure(&FailedError{"instance x", state}); got != want {
			t.Errorf("%s: %t", state, got)
		}
	}
}

// What is lost at least, by heartbeats each 30 seconds.
func TestAtLeast(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	for _, c := range []struct{ disaster, alive, back, interval, want int }{
		{100, 90, 10, 30, 60}, // another came by 40 and did not come back
		{100, 90, 90, 30, 0},  // the newest one came back
		{100, 60, 10, 30, 0},  // none was written for longer than an interval
		{100, 90, 80, 30, 0},  // it may have been the next one
		{100, 90, 10, 0, 0},   // how often is not known
	} {
		if got := atLeast(at(c.disaster), at(c.alive), at(c.back), time.Duration(c.interval)*time.Second); got != time.Duration(c.want)*time.Second {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if got := atLeast(at(100), time.Time{}, at(10), 30*time.Second); got != 0 {
		t.Errorf("without a heartbeat on the source: %s", got)
	}
}

func TestLongestGap(t *testing.T) {
	t0 := time.Unix(0, 0)
	w := func(begin, end int, ok bool) write {
		x := write{begun: t0.Add(time.Duration(begin) * time.Millisecond), ended: t0.Add(time.Duration(end) * time.Millisecond)}
		if !ok {
			x.err = errors.New("no")
		}
		return x
	}
	lower, upper, last, first, ok := longestGap([]write{w(0, 10, true), w(200, 210, true), w(400, 1400, false), w(1400, 1410, false), w(1600, 1650, true), w(1800, 1801, false), w(2000, 2010, true)})
	if !ok || lower != 1.01 || upper != 1.44 || !last.Equal(t0.Add(210*time.Millisecond)) || !first.Equal(t0.Add(1650*time.Millisecond)) {
		t.Errorf("%v to %v, %v to %v, %v", lower, upper, last, first, ok)
	}
	if _, _, _, _, ok := longestGap([]write{w(0, 1, false)}); ok {
		t.Error("without a write that succeeded there is a gap")
	}
}
