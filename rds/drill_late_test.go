package rds_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// A request that RDS is slow to answer is asked again; what comes of it after the
// drill has ended is found and deleted.
func TestAnswersThatComeLate(t *testing.T) {
	for name, c := range map[string]struct {
		timeout time.Duration
		asked   int
	}{"asked again": {8 * time.Second, 2}, "after the end": {3 * time.Second, 1}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, rdstest.Options{Create: 6 * time.Second}, rdstest.Source{NoServer: true})
			s.take(t)
			s.Stall("RestoreDBInstanceFromDBSnapshot", 5*time.Second)
			d, _ := s.drill(t, func(o *rds.DrillOptions) {
				o.Timeout, o.Asking, o.Waiting.Poll = c.timeout, 4*time.Second, 500*time.Millisecond
			})
			reasons := strings.Join(d.Reasons, "; ")
			if d.Verdict != evidence.Unknown || !strings.Contains(reasons, "did not end within") || len(s.Calls("RestoreDBInstanceFromDBSnapshot")) != c.asked {
				t.Errorf("%s: %s; %d calls", d.Verdict, reasons, len(s.Calls("RestoreDBInstanceFromDBSnapshot")))
			}
			if len(s.Calls("DeleteDBInstance")) == 0 || !d.Cleanup.Done || !slices.Equal(s.Names(home), []string{"orders-prod"}) {
				t.Errorf("clean-up %+v, there is %v", d.Cleanup, s.Names(home))
			}
		})
	}
}

// A cluster that gets its instance while it is to be deleted keeps neither.
func TestInstanceThatComesLate(t *testing.T) {
	s := newSite(t, rdstest.Options{Hold: true}, rdstest.Source{NoServer: true, Cluster: true})
	s.take(t)
	api, err := s.cloud.RDS(home)
	if err != nil {
		t.Fatal(err)
	}
	added := false
	d, _ := s.drill(t, func(o *rds.DrillOptions) {
		o.Timeout, o.CleanUp = 5*time.Second, time.Minute
		o.Waiting.Observe = func(p rds.Progress) {
			id, ours := strings.CutPrefix(p.What, "cluster ")
			if p.State != "busy" || !ours || added {
				return
			}
			added = true
			c, err := api.Database(context.Background(), rds.Cluster, id)
			if err != nil {
				t.Error(err)
				return
			}
			s.SetStatus(t, home, id, "available")
			if _, err := api.AddInstance(context.Background(), rds.Restore{ID: id + "-1", Class: "db.t4g.medium", Engine: c.Engine, Staging: s.source.Staging, Tags: c.Tags}, id); err != nil {
				t.Error(err)
			}
		}
	})
	if !added || !d.Cleanup.Done || len(s.Names(home)) != 2 {
		t.Errorf("added %t, clean-up %+v, there is %v", added, d.Cleanup, s.Names(home))
	}
}

// A token that runs out while the drill waits proves nothing of the copy. Once it is
// renewed, the copy is deleted; if it is not, what is left is told.
func TestTokenRunsOut(t *testing.T) {
	for name, c := range map[string]struct {
		calls int
		done  bool
		want  evidence.Verdict
	}{"renewed": {12, true, evidence.Unknown}, "for good": {1 << 20, false, evidence.Failed}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, rdstest.Options{Create: 2 * time.Second}, rdstest.Source{NoServer: true})
			s.take(t)
			expired := false
			d, err := s.drill(t, func(o *rds.DrillOptions) {
				o.CleanUp = 30 * time.Second
				if !c.done {
					o.CleanUp = time.Second
				}
				o.Waiting.Observe = func(rds.Progress) {
					if !expired && len(s.Calls("RestoreDBInstanceFromDBSnapshot")) > 0 {
						expired = true
						s.Inject("", "ExpiredToken", c.calls)
					}
				}
			})
			if !errors.Is(err, rds.ErrCredentials) || d.Verdict != c.want || !strings.Contains(strings.Join(d.Reasons, "; "), "ExpiredToken") {
				t.Errorf("%s: %v; %v", d.Verdict, d.Reasons, err)
			}
			if d.Cleanup.Done != c.done || (len(s.Names(home)) == 1) != c.done || !c.done && !strings.Contains(d.Cleanup.Detail, "ExpiredToken") {
				t.Errorf("clean-up %+v, there is %v", d.Cleanup, s.Names(home))
			}
		})
	}
}

// Between the cluster and its instance a drill is interrupted: neither stays.
func TestInterruptedBeforeTheInstance(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{NoServer: true, Cluster: true})
	s.take(t)
	s.Stall("CreateDBInstance", 3*time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d, _ := s.drillIn(t, ctx, func(o *rds.DrillOptions) {
		o.Waiting.Observe = func(rds.Progress) {
			if len(s.Calls("RestoreDBClusterFromSnapshot")) > 0 {
				time.AfterFunc(2*time.Second, cancel) // while the instance is asked for
			}
		}
	})
	if d.Verdict != evidence.Unknown || len(s.Calls("CreateDBInstance")) != 1 || !d.Cleanup.Done || len(s.Names(home)) != 2 {
		t.Errorf("%s, clean-up %+v, there is %v", d.Verdict, d.Cleanup, s.Names(home))
	}
}
