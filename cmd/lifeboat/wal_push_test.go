package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func TestPushCommand(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.Exec(t, "create table words as select md5(i::text) w from generate_series(1, 30000) i")
	s.flush(t)
	if got := s.QueryString(t, "select failed_count from pg_stat_archiver"); got != "0" {
		t.Errorf("archiving failed %s times\n%s", got, s.Log(t))
	}
	s.Stop(t, server.Fast)
	segments, err := filepath.Glob(filepath.Join(s.DataDir(), "pg_wal", "00000001*"))
	if err != nil || len(segments) == 0 {
		t.Fatal(err)
	}
	segment := segments[0]
	name := filepath.Base(segment)
	content, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}

	for _, path := range []string{segment, "pg_wal/" + name} { // the second relative to pgdata
		var report pushReport
		if err := json.Unmarshal([]byte(s.run(t, "wal", "push", path, "--json")), &report); err != nil {
			t.Fatal(err)
		}
		if report.Name != name || report.RawBytes != 1<<20 || len(report.SHA256) != 64 {
			t.Errorf("%s: %+v", path, report)
		}
	}
	code, stdout, stderr := s.exec(t, "wal", "push", segment)
	if code != 0 || stdout != "" || stderr != "" {
		t.Errorf("a push that succeeds writes into the server's log: %d %q %q", code, stdout, stderr)
	}

	other := filepath.Join(t.TempDir(), name)
	changed := slices.Clone(content)
	changed[len(changed)-1] ^= 1
	refused := func(what string, content []byte, code int, want ...string) {
		t.Helper()
		if err := os.WriteFile(other, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, stdout, stderr := s.exec(t, "wal", "push", other)
		if got != code || stdout != "" || strings.Count(stderr, "\n") != 2 || !strings.Contains(stderr, "hint:") {
			t.Errorf("%s: exit code %d, %q %q", what, got, stdout, stderr)
		}
		for _, w := range want {
			if !strings.Contains(stderr, w) {
				t.Errorf("%s: no word of %q: %s", what, w, stderr)
			}
		}
	}
	refused("other content", changed, 1, "two primaries", name)
	refused("zeros", make([]byte, 1<<20), 1, "zeros")
	refused("half a segment", content[:1<<19], 1, "524288")
	sysid := slices.Clone(content)
	sysid[24] ^= 1
	refused("another system's", sysid, 1, "system")

	for what, args := range map[string][]string{
		"no path":          {"wal", "push"},
		"two paths":        {"wal", "push", segment, segment},
		"no data dir":      {"wal", "push", segment, "--pgdata", t.TempDir()},
		"an unknown flag":  {"wal", "push", segment, "--forse"},
		"no cluster key":   {"wal", "push", segment, "--cluster-key", filepath.Join(s.dir, "none")},
		"no such file":     {"wal", "push", segment + "0"},
		"no repository":    {"wal", "push", segment, "--repository", "file://" + t.TempDir() + "/none"},
		"empty repository": {"wal", "push", segment, "--repository", "file://" + t.TempDir()},
	} {
		if code, _, stderr := s.exec(t, args...); code < 1 || code > 125 || !strings.Contains(stderr, "error:") {
			t.Errorf("%s: exit code %d: %s", what, code, stderr)
		}
	}
}

// A second cluster that was given the first one's configuration must not
// archive into its repository.
func TestPushOfAnotherCluster(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	other := servertest.New(t, servertest.Options{WALSegmentSize: 1 << 20, OwnSystemIdentifier: true, Settings: map[string]string{
		"archive_mode": "on", "archive_command": s.command(t, `wal push "%p"`)}})
	other.Exec(t, "create table t as select 1 x; select pg_switch_wal()")
	for other.QueryString(t, "select failed_count > 0 from pg_stat_archiver") != "t" {
		if other.QueryString(t, "select archived_count from pg_stat_archiver") != "0" {
			t.Fatal("it archived")
		}
	}
	s.flush(t)
	if got := other.QueryString(t, "select archived_count from pg_stat_archiver"); got != "0" {
		t.Errorf("it archived %s files", got)
	}
}

// A push that is killed, at whatever moment, leaves the segment in the archive
// whole or not at all, and the next one succeeds.
func TestPushKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 16 << 20}})
	s.Exec(t, "create table words as select md5(i::text) w from generate_series(1, 30000) i")
	s.Setting(t, "archive_command", "false")
	s.Exec(t, "select pg_switch_wal()")
	s.Stop(t, server.Fast)
	const name = "000000010000000000000001"
	segment := filepath.Join(s.DataDir(), "pg_wal", name)
	want, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(s.dir, "repository", "wal", "*", "00000001", name)
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	killed, absent := 0, 0
	for try := range 25 {
		cmd := exec.Command(servertest.Command(t, "lifeboat"), "wal", "push", segment, "--config", s.config)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(try)*8*time.Millisecond, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if err != nil {
			killed++
		}
		stored, globErr := filepath.Glob(object)
		if globErr != nil {
			t.Fatal(globErr)
		}
		if len(stored) == 0 {
			absent++
			if err == nil {
				t.Fatal("a push succeeded and stored nothing")
			}
		}
		s.run(t, "wal", "push", segment)
		s.run(t, "wal", "fetch", name, dest, "--identity", s.identity)
		if got, err := os.ReadFile(dest); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes are archived, not the %d of the segment: %v", len(got), len(want), err)
		}
		if stored, err = filepath.Glob(object); err != nil || len(stored) != 1 {
			t.Fatalf("%v %v", stored, err)
		}
		// What the push remembers of it goes as well.
		if err := errors.Join(os.Remove(stored[0]), os.RemoveAll(filepath.Join(s.DataDir(), wal.SpoolDir))); err != nil {
			t.Fatal(err)
		}
	}
	if killed == 0 || absent == 0 {
		t.Errorf("of 25 pushes %d were killed, %d of them in time: the test tests nothing", killed, absent)
	}
}
