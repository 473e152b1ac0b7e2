package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

var rdsNoon = time.Date(2026, 2, 10, 12, 0, 0, 0, time.UTC)

// newDrillRun is a run at noon whose output is kept.
func newDrillRun(source rds.Source) (*rdsDrillRun, *bytes.Buffer) {
	var out bytes.Buffer
	a := &app{ui: &ui{stdout: &out, stderr: &out}, now: func() time.Time { return rdsNoon }}
	return &rdsDrillRun{rdsRun: &rdsRun{app: a, source: source}, due: 24 * time.Hour, options: rds.DrillOptions{From: rds.FromLatest, Level: evidence.Deep}}, &out
}

// A drill is not due while one like it has passed lately: each thing that makes it
// another one.
func TestRDSDrillDue(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*evidence.Drill)
		due    bool
	}{
		"one like it":              {func(*evidence.Drill) {}, false},
		"of another source":        {func(x *evidence.Drill) { x.RDS.Source = "bank" }, true},
		"in another region":        {func(x *evidence.Drill) { x.RDS.Region = "eu-west-1" }, true},
		"from automated backups":   {func(x *evidence.Drill) { x.RDS.From = rds.FromLatestTime }, true},
		"that failed":              {func(x *evidence.Drill) { x.Verdict = evidence.Failed }, true},
		"that proved nothing":      {func(x *evidence.Drill) { x.Verdict = evidence.Unknown }, true},
		"of a lower level":         {func(x *evidence.Drill) { x.Level = evidence.Standard }, true},
		"of a day ago":             {func(x *evidence.Drill) { x.Ended = rdsNoon.Add(-24 * time.Hour) }, true},
		"of a server of one's own": {func(x *evidence.Drill) { x.RDS = nil }, true},
	} {
		d, out := newDrillRun(rds.Source{Name: "orders", Region: "eu-central-1"})
		x := evidence.Drill{ID: "x", Level: evidence.Deep, Verdict: evidence.Passed, Ended: rdsNoon.Add(-23 * time.Hour), RDS: &evidence.RDS{Source: "orders", Region: "eu-central-1", From: d.options.Origin()}}
		c.change(&x)
		done, err := d.notDue(&report.History{Drills: []*evidence.Document{{Drill: x}}})
		if err != nil || done == c.due || done != strings.HasPrefix(out.String(), "Not due: drill x of orders") {
			t.Errorf("%s: done %t, %v: %s", name, done, err, out)
		}
	}
}

// What earlier drills left is looked for where it is: in the region of this one.
func TestRDSLeftByRegion(t *testing.T) {
	d, _ := newDrillRun(rds.Source{Name: "orders", Region: "eu-central-1"})
	h := &report.History{}
	for id, region := range map[string]string{"here": "eu-central-1", "there": "eu-west-1"} {
		h.Drills = append(h.Drills, &evidence.Document{Drill: evidence.Drill{ID: id, RDS: &evidence.RDS{Region: region, Attempt: "attempt-" + id}}})
	}
	for region, want := range map[string]rds.Left{"": {ID: "here", Attempt: "attempt-here"}, "eu-west-1": {ID: "there", Attempt: "attempt-there"}} {
		d.options.Region = region
		if got := d.left(h); !slices.Equal(got, []rds.Left{want}) {
			t.Errorf("in %q: %+v", region, got)
		}
	}
}

// Each verdict has a code of its own, whatever the cause says.
func TestRDSVerdictsAreCodes(t *testing.T) {
	for verdict, want := range map[evidence.Verdict]exitCode{evidence.Passed: 0, evidence.Failed: exitMissed, evidence.Unknown: exitUnknown} {
		for _, cause := range []error{nil, &rds.Error{Action: "rds:X", Message: "no", Err: rds.ErrDenied}} {
			if verdict == evidence.Passed && cause != nil {
				continue
			}
			d, _ := newDrillRun(rds.Source{})
			err := d.tell(context.Background(), &evidence.Document{Drill: evidence.Drill{Verdict: verdict, RDS: &evidence.RDS{}}}, cause, nil, "drill")
			if code, _ := classify(err); err == nil && want != 0 || err != nil && code != want {
				t.Errorf("%s because of %v: %v, code %d; want %d", verdict, cause, err, code, want)
			}
		}
	}
	d, _ := newDrillRun(rds.Source{})
	wrote := errors.New("the page could not be written")
	if err := d.tell(context.Background(), &evidence.Document{Drill: evidence.Drill{Verdict: evidence.Passed, RDS: &evidence.RDS{}}}, nil, wrote, "drill"); err != wrote {
		t.Errorf("what could not be written is lost: %v", err)
	}
}

// Each warning by itself, and none of a source that is as it should be.
func TestRDSWarnings(t *testing.T) {
	for want, change := range map[string]func(*rds.Status){
		"":                              func(*rds.Status) {},
		"no automated backups":          func(s *rds.Status) { s.Database.Restorable = time.Time{} },
		"it is publicly accessible":     func(s *rds.Status) { s.Database.Public = true },
		"no standby":                    func(s *rds.Status) { s.Database.MultiAZ = false },
		"no deletion protection":        func(s *rds.Status) { s.Database.Protected = false },
		"no snapshot in eu-west-1":      func(s *rds.Status) { s.Regions[1].Newest = nil },
		"no KMS key for eu-west-1":      func(s *rds.Status) { s.Regions[1].Key = false },
		"no other region is configured": func(s *rds.Status) { s.Source.DR = nil },
		" a region that is not known":   func(s *rds.Status) { s.Regions[1].Newest, s.Regions[1].Err = nil, errors.New("no answer") },
	} {
		newest := &rds.Snapshot{ID: "x", Created: rdsNoon.Add(-time.Hour)}
		s := &rds.Status{Source: rds.Source{Name: "orders", Region: "eu-central-1", DR: []rds.Region{{Name: "eu-west-1"}}}, Exposure: 5 * time.Minute,
			Database: &rds.Database{Status: "available", MultiAZ: true, Encrypted: true, Protected: true, Restorable: rdsNoon.Add(-5 * time.Minute)},
			Regions:  []rds.RegionStatus{{Region: "eu-central-1", Newest: newest}, {Region: "eu-west-1", Newest: newest, Key: true}}}
		change(s)
		r := newRDSStatus(s, rdsNoon)
		text, none := strings.Join(r.Warnings, "; "), want == "" || want[0] == ' '
		if none && text != "" || !none && (len(r.Warnings) != 1 || !strings.HasPrefix(text, want)) {
			t.Errorf("%q: %q", want, r.Warnings)
		}
		if known := !s.Database.Restorable.IsZero(); (r.Exposure != nil) != known || known && *r.Exposure != 300 || *r.Regions[0].Age != 3600 {
			t.Errorf("%q: exposure %v, age %v", want, r.Exposure, r.Regions[0].Age)
		}
	}
}

// A dry run deletes nothing; what could not be deleted is told, and is no success.
func TestRDSExpire(t *testing.T) {
	t.Parallel()
	c := newCloudSite(t, rdstest.Options{}, rdstest.Source{NoServer: true})
	for range 3 { // two are kept
		c.must(t, "rds", "snapshot", "--wait")
	}
	if out := c.must(t, "rds", "expire", "--dry-run"); !strings.HasPrefix(out, "Would delete lifeboat-orders-") || len(c.SnapshotNames("eu-central-1")) != 3 {
		t.Errorf("a dry run says\n%s", out)
	}
	c.Inject("DeleteDBSnapshot", "AccessDenied", 1)
	if code, out, stderr := c.exec(t, "rds", "expire"); code != 1 || !strings.HasPrefix(out, "NOT deleted lifeboat-orders-") || !strings.Contains(stderr, "rds:DeleteDBSnapshot") {
		t.Errorf("without the right it exits with %d: %s%s", code, out, stderr)
	}
	if out := c.must(t, "rds", "expire"); !strings.HasPrefix(out, "Deleted lifeboat-orders-") || len(c.SnapshotNames("eu-central-1")) != 2 {
		t.Errorf("it says\n%s; there is %v", out, c.SnapshotNames("eu-central-1"))
	}
}

// A source that could not be asked for is not one that is not there.
func TestRDSUnknownIsNotMissing(t *testing.T) {
	for want, s := range map[string]*rds.Status{"missing": {}, "unknown": {Err: rds.ErrDenied}, "available": {Database: &rds.Database{Status: "available"}}} {
		if r := newRDSStatus(s, rdsNoon); r.State != want || (r.Error != "") != (s.Err != nil) || r.Exposure != nil {
			t.Errorf("%s: %+v", want, r)
		}
	}
}
