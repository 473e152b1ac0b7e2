package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

const archiverSQL = "select pid from pg_stat_activity where backend_type = 'archiver'"

// pileUp has the server write at least n segments that it cannot archive, and
// returns the names of those that are ready.
func (s *site) pileUp(t *testing.T, n int) []string {
	t.Helper()
	s.Setting(t, "archive_command", "false")
	s.Exec(t, "create table if not exists pile (what text)")
	for {
		s.Exec(t, "insert into pile select md5(random()::text) from generate_series(1, 12000) i")
		s.Exec(t, "select pg_switch_wal()")
		if names := s.readyFiles(t); len(names) >= n {
			return names
		}
	}
}

func (s *site) readyFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.DataDir(), "pg_wal", "archive_status", "*.ready"))
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(filepath.Base(path), ".ready")
	}
	return paths
}

// archiveAgain makes the program the archive_command again.
func (s *site) archiveAgain(t *testing.T, flags string) {
	t.Helper()
	s.Setting(t, "archive_command", s.command(t, `wal push "%p" `+flags))
}

func (s *site) waitDrained(t *testing.T) {
	t.Helper()
	waitFor(t, "the backlog is drained", func() bool { return len(s.readyFiles(t)) == 0 })
}

// push runs the program as the archiver does, in the data directory.
func (s *site) push(t *testing.T, name string, flags ...string) (pushReport, error) {
	t.Helper()
	cmd := exec.Command(servertest.Command(t, "lifeboat"),
		append([]string{"wal", "push", "pg_wal/" + name, "--json", "--config", s.config}, flags...)...)
	cmd.Env, cmd.Dir = append(os.Environ(), s.env...), s.DataDir()
	out, err := cmd.Output()
	var report pushReport
	if err == nil {
		err = json.Unmarshal(out, &report)
	}
	return report, err
}

// settle waits until no file that is ready is too young to be remembered.
func (s *site) settle(t *testing.T) {
	t.Helper()
	waitFor(t, "all files are old enough", func() bool {
		for _, name := range s.readyFiles(t) {
			info, err := os.Stat(filepath.Join(s.DataDir(), "pg_wal", name))
			if err != nil || time.Since(info.ModTime()) < 100*time.Millisecond {
				return false
			}
		}
		return true
	})
}

// One call archives the whole backlog; the calls that follow need no store at
// all. Then the server goes on by itself, and everything restores.
func TestBacklogIsPushedAhead(t *testing.T) {
	for name, o := range map[string]siteOptions{"folder": {}, "s3": {s3: true}} {
		t.Run(name, func(t *testing.T) {
			o.server.WALSegmentSize = 1 << 20
			s := newSite(t, o)
			s.run(t, "backup")
			archiver := s.QueryString(t, archiverSQL)
			names := s.pileUp(t, 12)
			s.settle(t)
			report, err := s.push(t, names[0])
			if err != nil || report.Others != len(names)-1 {
				t.Fatalf("%d others of %d, %v", report.Others, len(names)-1, err)
			}

			// Nothing is asked of a store that is not there.
			from, to := filepath.Join(s.dir, "repository"), filepath.Join(s.dir, "away")
			move := func() {
				if s.bucket != nil {
					return
				}
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
				from, to = to, from
			}
			move()
			if s.bucket != nil {
				s.bucket.Pause()
			}
			for _, name := range names {
				if report, err := s.push(t, name); err != nil || !report.Existed || len(report.SHA256) != 64 || report.RawBytes != 1<<20 {
					t.Errorf("%s, remembered: %+v, %v", name, report, err)
				}
			}
			if s.bucket != nil {
				s.bucket.Resume()
			}
			move()

			want := content(t, s.Cluster)
			s.archiveAgain(t, "")
			s.waitDrained(t)
			s.flush(t)
			if now := s.QueryString(t, archiverSQL); now != archiver {
				t.Errorf("the archiver was process %s and is %s", archiver, now)
			}
			s.Kill9(t)
			c := s.restoreTo(t)
			sameContent(t, c, want)
			stopAll(t, c)
		})
	}
}

// A remembered call takes neither another data directory's word nor another
// repository's: moved there, the same files are pushed in full.
func TestMemoryIsOfOneRepository(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	names := s.pileUp(t, 3)
	s.settle(t)
	if _, err := s.push(t, names[0]); err != nil {
		t.Fatal(err)
	}
	if report, err := s.push(t, names[1]); err != nil || !report.Existed {
		t.Fatalf("%+v, %v", report, err)
	}
	other := &site{Cluster: s.Cluster, dir: t.TempDir()}
	other.config = filepath.Join(other.dir, "lifeboat.yaml")
	other.run(t, "init", "--cluster", "test", "--pgdata", s.DataDir(), "--repository", "file://"+other.dir+"/repository", "--conn", s.ConnString())
	report, err := other.push(t, names[1])
	if err != nil || report.Existed || report.Others != len(names)-1 {
		t.Errorf("in another repository: %+v, %v", report, err)
	}
}

// The memory of a push with a backlog stays within bounds, for segments of each
// size and content that does not compress.
func TestPushAheadMemory(t *testing.T) {
	for _, mib := range []int{16, 64} {
		t.Run(fmt.Sprintf("%d MiB", mib), func(t *testing.T) {
			s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: mib << 20}})
			s.Setting(t, "archive_command", "false")
			s.Exec(t, "create table noise (x bytea); alter table noise alter x set storage external")
			for len(s.readyFiles(t)) < 256/mib {
				s.Exec(t, "insert into noise select decode(string_agg(md5(random()::text), ''), 'hex') from generate_series(1, 120000) i group by i % 60")
			}
			s.settle(t)
			cmd := exec.Command(servertest.Command(t, "lifeboat"), "wal", "push", "pg_wal/"+s.readyFiles(t)[0], "--config", s.config, "--json")
			cmd.Dir = s.DataDir()
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			most := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
			t.Logf("%d MiB at most: %s", most>>20, out)
			// The program of the tests is larger than the one that users get.
			if limit := int64(112 << 20); most > limit {
				t.Errorf("it took %d MiB of memory", most>>20)
			}
		})
	}
}

// Killed at any moment, a push that looks ahead leaves only memories that are
// true; the backlog drains and restores.
func TestPushAheadKilled(t *testing.T) {
	k := &killer{sweepSite: newSweepSite(t), random: rand.New(rand.NewPCG(rand.Uint64(), 0))}
	k.run(t, "backup")
	names := k.pileUp(t, 16)
	k.settle(t)
	clean := func() {
		if err := os.RemoveAll(filepath.Join(k.DataDir(), "lifeboat.spool")); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			objects, err := filepath.Glob(filepath.Join(k.dir, "repository", "wal", "*", "*", name))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range objects {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	first := filepath.Join(k.DataDir(), "pg_wal", names[0])
	whole := measured(func() { clean(); k.run(t, "wal", "push", first) })
	killed, remembered := 0, 0
	for range *kills {
		clean()
		if k.kill(t, whole, "wal", "push", first) {
			killed++
		}
		remembered += k.checkRemembered(t)
	}
	count(t, killed)
	t.Logf("%d files were remembered after %d kills", remembered, killed)

	want := content(t, k.Cluster)
	k.archiveAgain(t, "")
	k.waitDrained(t)
	k.flush(t)
	for _, name := range names {
		if !k.archived(t, name) {
			t.Errorf("%s is not archived", name)
		}
	}
	k.Kill9(t)
	c := k.restoreTo(t)
	sameContent(t, c, want)
	stopAll(t, c)
}

// checkRemembered makes sure that what is remembered is in the archive, as
// "wal fetch" sees it.
func (k *killer) checkRemembered(t *testing.T) (remembered int) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(k.DataDir(), "lifeboat.spool", "pushed"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "new-") {
			continue
		}
		remembered++
		if !k.archived(t, e.Name()) {
			t.Errorf("%s is remembered and not archived", e.Name())
		}
	}
	return remembered
}

// archived says whether the archive holds a file of pg_wal as it is there.
func (k *killer) archived(t *testing.T, name string) bool {
	t.Helper()
	back := filepath.Join(t.TempDir(), "back")
	code, _, stderr := k.exec(t, "wal", "fetch", name, back, "--identity", k.identity)
	if code != 0 {
		t.Log(stderr)
		return false
	}
	return hashOf(t, back) == hashOf(t, filepath.Join(k.DataDir(), "pg_wal", name))
}

// The store goes away under a server that archives, and comes back: WAL stays,
// the archiver lives, and the backlog drains without a person.
func TestBacklogDrainsAfterAnOutage(t *testing.T) {
	s := newSite(t, siteOptions{s3: true, server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.run(t, "backup")
	archiver := s.QueryString(t, archiverSQL)
	s.archiveAgain(t, "--push-timeout 1s")
	s.bucket.Pause()
	s.Exec(t, "create table pile as select md5(random()::text) what from generate_series(1, 60000) i")
	s.Exec(t, "select pg_switch_wal()")
	waitFor(t, "a push has failed", func() bool {
		return s.QueryString(t, "select failed_count > 1 from pg_stat_archiver") == "t"
	})
	if n := len(s.readyFiles(t)); n < 4 {
		t.Errorf("%d files wait", n)
	}
	s.bucket.Resume()
	s.waitDrained(t)
	if now := s.QueryString(t, archiverSQL); now != archiver {
		t.Errorf("the archiver was process %s and is %s", archiver, now)
	}
	want := content(t, s.Cluster)
	s.flush(t)
	s.Kill9(t)
	c := s.restoreTo(t)
	sameContent(t, c, want)
	stopAll(t, c)
}
