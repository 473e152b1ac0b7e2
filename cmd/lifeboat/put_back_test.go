package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// snapshot keeps the data directory as it is now, as that of a machine does;
// putBack goes back to it. The server stops for either, and runs after it.
func (s *site) snapshot(t *testing.T) string {
	t.Helper()
	s.Stop(t, server.Fast)
	dir := s.CopyData(t)
	s.Start(t)
	return dir
}

func (s *site) putBack(t *testing.T, snapshot string) {
	t.Helper()
	s.Stop(t, server.Fast)
	if err := os.RemoveAll(s.DataDir()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", snapshot, s.DataDir()).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.Start(t)
}

// A server that was put back is behind its archive. That is no proof that
// nothing would be lost: what it has since written is nowhere else. One that is
// idle since it ended its segment is as far as the archive, and it is one.
func TestLossOfServerThatWasPutBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, smallSegments())
	s.grow(t, 1)
	s.run(t, "backup")
	yesterday := s.snapshot(t)
	s.grow(t, 6)
	s.Exec(t, "checkpoint") // so that the server is quiet
	s.flush(t)
	r, _ := s.statusOf(t, 0, "--identity", s.identity)
	if e := r.Exposure; e.Archived != e.Server || e.Bytes == nil || *e.Bytes != 0 || e.Most == nil || *e.Most != 0 {
		t.Errorf("idle, the exposure is %+v", e)
	}
	if d := s.drilled(t, exitOK, "--rpo", "1h"); !d.RPO.Zero || *d.RPO.LostBytes != 0 {
		t.Errorf("idle, the RPO is %+v", d.RPO)
	}

	s.putBack(t, yesterday)
	s.Exec(t, "create table today as select 1 n")
	r, _ = s.statusOf(t, 0, "--identity", s.identity)
	if e := r.Exposure; e.Archived <= e.Server || e.Bytes != nil || e.Most != nil || !strings.Contains(e.Unknown, "ahead of the server") {
		t.Errorf("put back, the exposure is %+v", e)
	}
	d := s.drilled(t, exitUnknown, "--rpo", "1h")
	if o := d.RPO; o.Zero || o.Upper != nil || o.LostBytes != nil || o.Verdict != evidence.Unknown || !strings.Contains(o.Reason, "ahead of the server") {
		t.Errorf("put back, the RPO is %+v", o)
	}
}

// A standby is promoted and cannot archive, and the old primary lives on. As long
// as what comes back is before they parted, all that the new one has committed
// since is after it; when the old one has archived more, nobody can tell.
func TestLossOfPrimaryOfAnotherBranch(t *testing.T) {
	t.Parallel()
	s := newSite(t, smallSegments())
	s.run(t, "backup")
	two := s.standby(t, "two")
	s.grow(t, 1)
	s.caughtUp(t, two)
	two.Exec(t, "alter system set archive_command = '/bin/false'")
	two.Exec(t, "select pg_reload_conf()")
	promote(t, two)
	two.Exec(t, "insert into t values (2)")
	d := s.drilled(t, exitOK, "--rpo", "1h", "--conn", two.ConnString())
	if o := d.RPO; o.Upper == nil || o.LostBytes == nil || !strings.Contains(o.Reason, "timeline 2") {
		t.Errorf("of one that descends, the RPO is %+v", o)
	}
	s.grow(t, 2)
	d = s.drilled(t, exitUnknown, "--rpo", "1h", "--conn", two.ConnString())
	if o := d.RPO; o.Zero || o.Upper != nil || o.LostBytes != nil || o.Verdict != evidence.Unknown || !strings.Contains(o.Reason, "two branches") {
		t.Errorf("of another branch, the RPO is %+v", o)
	}
}
