package rds_test

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/rds/rdstest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// A right that the role lacks proves nothing of the copy, and nothing that was not
// read passes for read.
func TestDeepWithoutRights(t *testing.T) {
	for name, c := range map[string]struct{ sql, amcheck, blocks string }{
		"no extensions": {"drop extension amcheck; drop extension pg_prewarm", "the extension amcheck cannot be made: permission denied", "the extension pg_prewarm cannot be made: permission denied"},
		// A large object of 4 MiB lies in pg_catalog: it is not read, and that is told.
		"no rights": {"select lo_from_bytea(0, string_agg(decode(md5(i::text), 'hex'), '')) from generate_series(1, 300000) i; revoke execute on function bt_index_check(regclass, boolean) from master; revoke pg_read_all_data from master; create table orders (id int); grant select on orders to master",
			"permission denied for function", "^([5-9]|[1-9][0-9]) MiB are closed to role master"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, rdstest.Options{}, rdstest.Source{SQL: c.sql})
			s.take(t)
			d, _ := s.drill(t, func(o *rds.DrillOptions) { o.Level = evidence.Deep })
			if d.Verdict != evidence.Unknown {
				t.Errorf("the drill is %s: %v", d.Verdict, d.Reasons)
			}
			// Nothing was hydrated that was not read, and nothing is lost for want of a heartbeat.
			if d.RDS.Hydrated != nil || d.RPO.Upper != nil || d.RPO.Basis != "none" || !strings.Contains(d.RPO.Reason, "there is no heartbeat in the copy") {
				t.Errorf("hydrated %v, RPO %+v", d.RDS.Hydrated, d.RPO)
			}
			for check, detail := range map[string]string{"amcheck": c.amcheck, "every block read": c.blocks} {
				if got := checkOf(d, check); got.Verdict != evidence.Unknown || !regexp.MustCompile(detail).MatchString(got.Detail) {
					t.Errorf("%s is %s: %s; want unknown: %s", check, got.Verdict, got.Detail, detail)
				}
			}
		})
	}
}

// A role that may make no temporary tables proves nothing of the copy; a copy that
// takes no writes is none.
func TestDrillThatCannotWrite(t *testing.T) {
	for sql, want := range map[string]evidence.Verdict{
		"revoke temporary on database postgres from public":         evidence.Unknown,
		"alter role master set default_transaction_read_only to on": evidence.Failed,
	} {
		t.Run(sql, func(t *testing.T) {
			s := newSite(t, rdstest.Options{}, rdstest.Source{SQL: sql})
			s.take(t)
			d, _ := s.drill(t, nil)
			if c := checkOf(d, "server opens"); d.Verdict != want || c.Verdict != want || !strings.HasPrefix(c.Detail, "it cannot be written to: ") {
				t.Errorf("%s; %+v", d.Verdict, c)
			}
		})
	}
}

// What production allows its sessions does not end the checks of its copy.
func TestDrillOfAShortStatementTimeout(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{SQL: "alter role master set statement_timeout = '1ms'"})
	s.beat(t)
	s.take(t)
	d, err := s.drill(t, func(o *rds.DrillOptions) { o.Level = evidence.Deep })
	passed(t, d, err)
}

// Who cannot log in does not restore; a password that is gone only later is no
// failure of the copy, and is not waited for.
func TestDrillWithoutPassword(t *testing.T) {
	s := newSite(t, rdstest.Options{}, rdstest.Source{})
	s.take(t)
	s.Inject("GetSecretValue", "ThrottlingException", 1) // asked again
	for name, l := range map[string]struct {
		login rds.Login
		want  string
	}{
		"no variable": {rds.Login{Role: "master", PasswordEnv: "NONE"}, "NONE"},
		"no secret":   {rds.Login{Role: "master", Secret: "rds/none"}, "secretsmanager:GetSecretValue"},
		"no file":     {rds.Login{Role: "master", Secret: "rds/orders", CAFile: "/nowhere"}, "/nowhere"},
	} {
		dialer := s.dialer()
		dialer.Login = l.login
		d, err := s.drill(t, func(o *rds.DrillOptions) { o.Connect = dialer.Connect })
		if d.Verdict != evidence.Unknown || err == nil || !strings.Contains(err.Error(), l.want) || len(s.Calls("RestoreDBInstanceFromDBSnapshot")) > 0 {
			t.Errorf("%s: %s, %v", name, d.Verdict, err)
		}
	}
	restored := false
	d, err := s.drill(t, func(o *rds.DrillOptions) {
		o.Connect = func(d *rds.Database, region string) (probe.Conn, error) {
			c, err := s.connect(d, region)
			own := c.Password
			c.Password = func(ctx context.Context) (string, error) {
				if restored = restored || len(s.Calls("RestoreDBInstanceFromDBSnapshot")) > 0; restored {
					return "", &rds.Error{Action: "secretsmanager:GetSecretValue", Message: "no", Err: rds.ErrDenied}
				}
				return own(ctx)
			}
			return c, err
		}
	})
	if c := checkOf(d, "server opens"); err != nil || d.Verdict != evidence.Unknown || c.Verdict != evidence.Unknown || !strings.Contains(c.Detail, "secretsmanager:GetSecretValue") || c.Seconds > 10 {
		t.Errorf("%s, %v; %+v", d.Verdict, err, c)
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
