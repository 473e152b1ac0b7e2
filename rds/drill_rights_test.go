package rds_test

import (
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// A right that the role lacks proves nothing of the copy, and nothing that was not
// read passes for read.
func TestDeepWithoutRights(t *testing.T) {
	for name, c := range map[string]struct{ sql, amcheck, blocks string }{
		"no extensions": {"drop extension amcheck; drop extension pg_prewarm", "the extension amcheck cannot be made: permission denied", "the extension pg_prewarm cannot be made: permission denied"},
		"no rights": {"revoke execute on function bt_index_check(regclass, boolean) from master; revoke pg_read_all_data from master; create table orders (id int); grant select on orders to master",
			"permission denied for function", "are closed to role master"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, rdstest.Options{}, rdstest.Source{SQL: c.sql})
			s.take(t)
			d, _ := s.drill(t, func(o *rds.DrillOptions) { o.Level = evidence.Deep })
			if d.Verdict != evidence.Unknown {
				t.Errorf("the drill is %s: %v", d.Verdict, d.Reasons)
			}
			for check, detail := range map[string]string{"amcheck": c.amcheck, "every block read": c.blocks} {
				if got := checkOf(d, check); got.Verdict != evidence.Unknown || !strings.Contains(got.Detail, detail) {
					t.Errorf("%s is %s: %s; want unknown: %s", check, got.Verdict, got.Detail, detail)
				}
			}
		})
	}
}

// checkOf is the check of that name; none is the zero one.
func checkOf(d *evidence.Drill, name string) evidence.Check {
	for _, c := range d.Checks {
		if c.Name == name {
			return c
		}
	}
	return evidence.Check{}
}
