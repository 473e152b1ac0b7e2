package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/file"
)

// statusOf runs "wal status --json" and returns the report on the only system.
func (s *site) statusOf(t *testing.T, wantCode int, flags ...string) (r systemReport, stderr string) {
	t.Helper()
	code, stdout, stderr := s.exec(t, append([]string{"wal", "status", "--json"}, flags...)...)
	var report walStatusReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || len(report.Systems) != 1 {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if code != wantCode {
		_, text, _ := s.exec(t, append([]string{"wal", "status"}, flags...)...)
		t.Errorf("exit code %d, want %d\n%s%s", code, wantCode, text, stderr)
	}
	return report.Systems[0], stderr
}

// object is the path of an archived file, in a directory as repository.
func (s *site) object(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "repository", "wal", "*", "*", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", name, found, err)
	}
	return found[0]
}

func (s *site) lose(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(s.object(t, name)); err != nil {
		t.Fatal(err)
	}
}

// grow writes a few segments and archives them; it returns the first new one.
func (s *site) grow(t *testing.T, segments int) string {
	t.Helper()
	first := ""
	for range segments {
		s.Exec(t, "create table if not exists t (n int); insert into t values (1)")
		if first == "" {
			first = s.QueryString(t, "select pg_walfile_name(pg_current_wal_lsn())")
		}
		s.flush(t)
	}
	return first
}

func smallSegments() siteOptions {
	return siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}}
}

// The figures of a healthy archive, with and without an identity, with and
// without a server, and from the repository and the identity alone.
func TestWALStatus(t *testing.T) {
	t.Parallel()
	s := newSite(t, smallSegments())
	s.grow(t, 1)
	s.run(t, "backup")
	s.grow(t, 2)
	s.Exec(t, "insert into t values (2)")
	s.flush(t)
	s.Exec(t, "checkpoint") // so that the server is quiet

	r, _ := s.statusOf(t, 0, "--identity", s.identity)
	if len(r.Gaps) != 0 || len(r.Windows) != 1 || len(r.Timelines) != 1 || len(r.Timelines[0].Ranges) != 1 {
		t.Fatalf("%+v", r)
	}
	w, now := r.Windows[0], time.Now()
	if w.EndTime == nil || now.Sub(*w.EndTime) > time.Minute || !w.EndTime.After(w.BeginTime) || w.EndLSN != r.Timelines[0].Ranges[0].End {
		t.Errorf("the window is %+v", w)
	}
	if r.Newest.Time == nil || !r.Newest.Time.Equal(*w.EndTime) {
		t.Errorf("the newest commit is %+v", r.Newest)
	}
	e := r.Exposure
	if e.Bytes == nil || *e.Bytes <= 0 || *e.Bytes > 1<<20 || e.Most == nil || *e.Most <= 0 || *e.Most > 60 || *e.Least != 0 {
		t.Errorf("the exposure is %+v", e)
	}
	// Heartbeats bound it from below as well.
	r, _ = s.statusOf(t, 0, "--identity", s.identity, "--heartbeat", "1ms")
	if e := r.Exposure; e.Least == nil || *e.Least <= 0 || *e.Most < *e.Least {
		t.Errorf("with heartbeats the exposure is %+v", e)
	}

	r, _ = s.statusOf(t, 0)
	if r.Newest.Time != nil || r.Newest.Unknown != noIdentity || r.Windows[0].EndTime != nil || r.Exposure.Most != nil || r.Exposure.Bytes == nil {
		t.Errorf("without an identity: %+v", r)
	}

	s.Stop(t, server.Fast)
	r, _ = s.statusOf(t, 0, "--identity", s.identity)
	if r.Exposure.Bytes != nil || r.Exposure.Most != nil || !strings.Contains(r.Exposure.Unknown, "not reached") || r.Newest.Time == nil {
		t.Errorf("with the server down: %+v", r.Exposure)
	}

	// A bare machine has neither configuration nor cluster key.
	alone := *s
	alone.config = filepath.Join(t.TempDir(), "none.yaml")
	if err := os.WriteFile(alone.config, []byte("repository: file://"+filepath.Join(s.dir, "repository")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, _ = alone.statusOf(t, 0, "--identity", s.identity, "--conn", "host=/nowhere"); len(r.Windows) != 1 || r.Windows[0].EndTime == nil {
		t.Errorf("from the repository and the identity alone: %+v", r)
	}
}

// A gap that a backup needs is a failure that names the first missing segment;
// one before the oldest backup is none.
func TestWALStatusGaps(t *testing.T) {
	t.Parallel()
	s := newSite(t, smallSegments())
	unused := nextSegment(t, s.grow(t, 3))
	s.run(t, "backup")
	s.lose(t, unused)
	r, _ := s.statusOf(t, 0, "--identity", s.identity)
	if len(r.Gaps) != 1 || r.Gaps[0].State != gapUnused || r.Gaps[0].First != unused || len(r.Gaps[0].NeededBy) != 0 {
		t.Errorf("a hole before the backup: %+v", r.Gaps)
	}

	lost := s.grow(t, 5)
	next := nextSegment(t, lost)
	s.lose(t, lost)
	s.lose(t, next)
	r, stderr := s.statusOf(t, 1, "--identity", s.identity)
	var g gapReport
	for _, g = range r.Gaps {
		if g.State == gapLoss {
			break
		}
	}
	if g.First != lost || g.Last != next || g.Segments != 2 || len(g.NeededBy) != 1 || g.Next-g.Held != 2<<20 {
		t.Errorf("the gap is %+v", g)
	}
	for _, want := range []string{"lifeboat: error:", lost, "cannot be recovered past " + g.Held.String(), "lifeboat: hint: what can still be restored is every moment from"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr lacks %q:\n%s", want, stderr)
		}
	}
	if w := r.Windows[0]; len(r.Windows) != 1 || w.EndLSN != g.Held || w.EndTime == nil {
		t.Errorf("what can still be restored: %+v", r.Windows)
	}

	// A backup after the gap has its own window; the older one still has the gap.
	s.run(t, "backup")
	s.grow(t, 1)
	r, _ = s.statusOf(t, 1, "--identity", s.identity)
	if len(r.Windows) != 2 || r.Windows[1].EndLSN <= r.Windows[0].EndLSN || r.Windows[1].EndTime == nil {
		t.Errorf("windows: %+v", r.Windows)
	}
	// Once the cluster was upgraded the policy goes by backups of the new one, and
	// wants no WAL after those of before.
	store, err := file.New(filepath.Join(s.dir, "repository"))
	if err != nil {
		t.Fatal(err)
	}
	upgraded, err := repo.Open(t.Context(), store, s.readKeys(t), "db1")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Hour)
	m := upgraded.NewManifestWriter()
	defer m.Close()
	info := repo.Info{Label: at.UTC().Format("20060102T150405Z") + "-000000", System: r.System + 1, Timeline: 1, StartLSN: 0x100028, StopLSN: 0x100100,
		StartTime: at, StopTime: at, SegSize: 1 << 20, BlockSize: 8192}
	if err := m.Commit(t.Context(), &info, nil); err != nil {
		t.Fatal(err)
	}
	first := postgres.Segment{Timeline: 1, No: 1, Size: 1 << 20} // without which the backup would be damaged, and count for nothing
	raw := waltest.SegmentBytes(first, info.System, 1)
	if _, err := upgraded.CreateEnvelope(t.Context(), repo.WALKey(info.System, waltest.Name(t, first.Name())), repo.KindWAL, bytes.NewReader(raw), int64(len(raw))); err != nil {
		t.Fatal(err)
	}
	if r, _ = s.statusOf(t, 0, "--keep-last", "2"); slices.ContainsFunc(r.Gaps, func(g gapReport) bool { return g.State != gapUnused }) {
		t.Errorf("gaps of the cluster before an upgrade: %+v", r.Gaps)
	}
}

// A backup without the WAL that makes it consistent cannot be restored at all.
func TestWALStatusBackupWithoutWAL(t *testing.T) {
	t.Parallel()
	s := newSite(t, smallSegments())
	s.run(t, "backup")
	last := s.QueryString(t, "select last_archived_wal from pg_stat_archiver")
	if len(last) != 24 {
		last = last[:24]
	}
	s.lose(t, last)
	r, stderr := s.statusOf(t, 1)
	if len(r.Windows) != 0 || len(r.Unusable) != 1 || len(r.Gaps) != 1 || r.Gaps[0].First != last {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(stderr, "nothing can be restored") {
		t.Errorf("stderr: %s", stderr)
	}
}

// What the server has and is still to archive is no loss.
func TestWALStatusPending(t *testing.T) {
	t.Parallel()
	s := newSite(t, smallSegments())
	s.run(t, "backup")
	s.Exec(t, "create table if not exists t (n int)")
	first := s.QueryString(t, "select pg_walfile_name(pg_current_wal_lsn())")
	s.Setting(t, "archive_command", "false")
	s.Exec(t, "select pg_reload_conf()")
	for range 2 {
		s.Exec(t, "insert into t values (1)")
		s.Exec(t, "select pg_switch_wal()")
	}
	second := s.QueryString(t, "select max(left(name, 24)) from pg_ls_archive_statusdir() where name like '%.ready'")
	if second <= first {
		t.Fatalf("%s waits, not before %s", second, first)
	}
	// From elsewhere: a push in pg_wal would look ahead, and bring the first too.
	content, err := os.ReadFile(filepath.Join(s.DataDir(), "pg_wal", second))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), second)
	if err := os.WriteFile(copied, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, "wal", "push", copied)
	r, _ := s.statusOf(t, 0, "--identity", s.identity)
	if len(r.Gaps) != 1 || r.Gaps[0].State != gapPending || r.Gaps[0].First != first {
		t.Errorf("the gaps are %+v", r.Gaps)
	}
	s.Stop(t, server.Immediate) // nobody can tell any more
	s.statusOf(t, 1, "--identity", s.identity)
}

// The timelines of a failover: where the new one left the old one, an old
// primary that goes on, and a host without an identity.
func TestWALStatusTimelines(t *testing.T) {
	t.Parallel()
	s := newSite(t, smallSegments())
	s.run(t, "backup")
	s.grow(t, 2)
	old := s.grow(t, 2)
	s.Exec(t, "select pg_create_restore_point('fork')")
	s.flush(t)
	c := s.restoreTo(t, "--target-name", "fork", "--target-action", "promote")
	c.Exec(t, "insert into t values (3)")
	name := c.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
	for _, file := range []string{"00000002.history", name} {
		s.run(t, "wal", "push", filepath.Join(c.DataDir(), "pg_wal", file), "--pgdata", c.DataDir())
	}
	beyond := s.grow(t, 3) // the old primary does not know
	s.lose(t, nextSegment(t, beyond))

	here := []string{"--pgdata", c.DataDir(), "--conn", c.ConnString()}
	r, _ := s.statusOf(t, 0, append(here, "--identity", s.identity)...)
	if len(r.Timelines) != 2 || r.Timelines[1].Parent != 1 || r.Timelines[1].Switch == 0 {
		t.Fatalf("timelines: %+v", r.Timelines)
	}
	if len(r.Gaps) != 1 || r.Gaps[0].State != gapUnused || len(r.Windows) != 1 || r.Windows[0].Timeline != 2 {
		t.Errorf("gaps %+v, windows %+v", r.Gaps, r.Windows)
	}
	if e := r.Exposure; e.Timeline != 2 || e.Bytes == nil || *e.Bytes > 2<<20 {
		t.Errorf("the exposure is %+v", e)
	}
	// The data directory has the history file, and its hash is the archived one.
	r, _ = s.statusOf(t, 0, here...)
	if len(r.Windows) != 1 || r.Windows[0].Timeline != 2 {
		t.Errorf("without an identity, with the data directory: %+v", r)
	}
	// Without either, nobody knows which way recovery goes.
	if err := os.Remove(filepath.Join(c.DataDir(), "pg_wal", "00000002.history")); err != nil {
		t.Fatal(err)
	}
	r, stderr := s.statusOf(t, 4, here...)
	if len(r.Unusable) != 1 || r.Timelines[1].Unknown == "" || !strings.Contains(stderr, "is not known") {
		t.Errorf("%+v\n%s", r, stderr)
	}
	// The old primary is told apart, and a gap before the switch counts.
	s.lose(t, old)
	r, _ = s.statusOf(t, 1, "--identity", s.identity)
	if r.Exposure.Bytes != nil || !strings.Contains(r.Exposure.Unknown, "no restore leads there") {
		t.Errorf("the exposure of an old primary: %+v", r.Exposure)
	}
	if len(r.Notes) == 0 || !strings.Contains(r.Notes[0], "old primary") || len(r.Gaps) != 2 || r.Gaps[0].State != gapLoss || r.Gaps[0].First != old {
		t.Errorf("notes %q, gaps %+v", r.Notes, r.Gaps)
	}
	// So it does while the backup before it is the one that leads to the new timeline,
	// though the policy would go by a later one of the old primary.
	s.run(t, "backup")
	r, _ = s.statusOf(t, 1, "--identity", s.identity, "--keep-last", "1")
	if len(r.Gaps) != 2 || r.Gaps[0].State != gapLoss || r.Gaps[0].First != old || r.Gaps[1].State != gapUnused {
		t.Errorf("gaps %+v", r.Gaps)
	}
}

func nextSegment(t *testing.T, name string) string {
	t.Helper()
	seg, err := postgres.ParseSegment(name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return seg.Next().Name()
}

// With a stream, slices count, and everything that is acknowledged by the slot
// is no exposure.
func TestWALStatusSlices(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20, Settings: map[string]string{"wal_level": "replica"}}})
	st := s.stream(t, "--create-slot")
	s.Exec(t, "create table t as select 1 n")
	s.run(t, "backup")
	s.Exec(t, "insert into t values (2)")
	s.Exec(t, "checkpoint")
	eventually(t, "nothing to be exposed", func() bool {
		r, _ := s.statusOf(t, 0, "--identity", s.identity)
		e := r.Exposure
		ranges := r.Timelines[0].Ranges
		return e.Most != nil && *e.Most == 0 && *e.Bytes == 0 && ranges[len(ranges)-1].InSlices && r.Newest.Time != nil
	})
	st.stop(t)
}

// Before the first segment is complete, its slices are all that there is.
func TestWALStatusSlicesAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	st := s.stream(t, "--create-slot")
	s.Exec(t, "create table t as select 1 n")
	s.Exec(t, "checkpoint") // so that the server is quiet
	s.waitDurable(t, s.QueryString(t, "select pg_current_wal_flush_lsn()"))
	st.stop(t)
	id := s.QueryString(t, "select system_identifier from pg_control_system()")
	flags := []string{"--system", id, "--identity", s.identity}
	// Without a backup nothing can be restored, which is a failure.
	r, _ := s.statusOf(t, 1, flags...)
	if len(r.Timelines) != 1 || len(r.Timelines[0].Ranges) != 1 || !r.Timelines[0].Ranges[0].InSlices {
		t.Fatalf("%+v", r)
	}
	if e := r.Exposure; e.Bytes == nil || *e.Bytes != 0 || e.Archived != r.Timelines[0].Ranges[0].End || r.Newest.Time == nil || len(r.Windows) != 0 {
		t.Errorf("%+v", r)
	}
	// The data directory tells the segment size as well, else it is unknown.
	r, _ = s.statusOf(t, 1, flags[:2]...)
	if len(r.Timelines[0].Ranges) != 1 || r.Exposure.Bytes == nil {
		t.Errorf("without an identity: %+v", r)
	}
	r, _ = s.statusOf(t, 1, append(flags[:2:2], "--pgdata", t.TempDir())...)
	if len(r.Timelines[0].Ranges) != 0 || !strings.Contains(strings.Join(r.Notes, "\n"), "no whole one") {
		t.Errorf("with neither: %+v", r)
	}
}

// A server in recovery tells what it has replayed; its primary may be further
// on, so it is never proven that nothing would be lost.
func TestWALStatusStandby(t *testing.T) {
	t.Parallel()
	s := newSite(t, smallSegments())
	s.run(t, "backup")
	s.grow(t, 1)
	s.Exec(t, "select pg_create_restore_point('here')")
	s.flush(t)
	dir := filepath.Join(t.TempDir(), "restored")
	s.run(t, "restore", "--to", dir, "--identity", s.identity, "--target-name", "here", "--target-action", "pause")
	c := servertest.Open(t, dir, servertest.Options{})
	eventually(t, "recovery to pause", func() bool { return c.QueryString(t, "select pg_get_wal_replay_pause_state()") == "paused" })
	r, _ := s.statusOf(t, 0, "--identity", s.identity, "--conn", c.ConnString())
	e := r.Exposure
	if !e.Standby || e.Timeline != 1 || e.Server == 0 || e.Server > e.Archived || *e.Bytes != 0 || e.Most == nil || *e.Most <= 0 || *e.Least != 0 {
		t.Errorf("the exposure is %+v", e)
	}
}
