package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
	"github.com/lifeboat-dr/lifeboat/wal"
)

const archiverSQL = "select pid from pg_stat_activity where backend_type = 'archiver'"

// pileUp has the server write at least n segments that it cannot archive, and
// returns the names of those that are ready.
func (s *site) pileUp(t *testing.T, n int) []string {
	t.Helper()
	s.Setting(t, "archive_command", "false")
	s.Exec(t, "create table if not exists pile (what text)")
	// A push that is still at work would look ahead at what is written now.
	s.Exec(t, "insert into pile values ('')")
	s.Exec(t, "select pg_switch_wal()")
	s.Eventually(t, "the archiver fails", func() bool {
		return s.QueryString(t, "select last_failed_time > coalesce(last_archived_time, '-infinity') from pg_stat_archiver") == "t"
	})
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
	t.Parallel()
	for name, o := range map[string]siteOptions{"directory": {}, "s3": {s3: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
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
				segment := filepath.Ext(name) == "" // the history file of the backup may be among them
				if report, err := s.push(t, name); err != nil || !report.Existed || len(report.SHA256) != 64 || segment != (report.RawBytes == 1<<20) {
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

// The memory of a push with a backlog stays within bounds: for segments of each
// size, content that does not compress, and a store so far away that all that
// may be on its way is. A push may take 96 MiB.
func TestPushAheadMemory(t *testing.T) {
	t.Parallel()
	const ofTests = 8 << 20 // what this program takes more, as the tests are in it
	for _, c := range []struct {
		mib   int
		noise int64 // every how many bytes are random; 0: it is WAL
		far   time.Duration
	}{{mib: 16, noise: 1}, {mib: 64, noise: 1}, {mib: 16, noise: 2, far: 100 * time.Millisecond}, {mib: 16}} {
		t.Run(fmt.Sprintf("%d MiB, noise 1/%d, %v away", c.mib, c.noise, c.far), func(t *testing.T) {
			s := newSite(t, siteOptions{s3: c.far > 0, server: servertest.Options{WALSegmentSize: c.mib << 20}})
			names := s.backlog(t, 256/c.mib, c.noise)
			var flags []string
			if c.far > 0 {
				proxy, err := s3test.StartProxy(s.bucket.Addr, s3test.ProxyOptions{Delay: c.far / 2})
				if err != nil {
					t.Fatal(err)
				}
				defer proxy.Close()
				flags = []string{"--s3-endpoint", "https://" + proxy.Addr()}
			}
			cmd := exec.Command(servertest.Command(t, "lifeboat"), append([]string{"wal", "push", "pg_wal/" + names[0], "--config", s.config, "--json"}, flags...)...)
			cmd.Env, cmd.Dir = append(os.Environ(), s.env...), s.DataDir()
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			peak := peakMemory(cmd.Process.Pid)
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			most := <-peak
			t.Logf("%d MiB at most: %s", most>>20, &out)
			if most > 96<<20+ofTests {
				t.Errorf("it took %d MiB of memory", most>>20)
			}
		})
	}
}

// peakMemory looks at a process until it ends, and then sends its peak of
// resident memory in bytes. What wait4 tells has this process as its floor.
func peakMemory(pid int) <-chan int64 {
	peak := make(chan int64, 1)
	go func() {
		var most int64
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, after, found := strings.Cut(string(status), "VmHWM:")
			if err != nil || !found {
				peak <- most
				return
			}
			var kib int64
			_, _ = fmt.Sscan(after, &kib)
			most = max(most, kib<<10)
			time.Sleep(time.Millisecond)
		}
	}()
	return peak
}

// backlog is segments that wait to be archived, full of WAL or, with noise, of
// what fakeBacklog makes.
func (s *site) backlog(t *testing.T, n int, noise int64) []string {
	t.Helper()
	if noise > 0 {
		return s.fakeBacklog(t, n, noise)
	}
	s.Setting(t, "archive_command", "false")
	s.Exec(t, "create table accounts as select i, repeat('x', 80) filler from generate_series(1, 500000) i")
	s.Exec(t, "create unique index on accounts (i)")
	for len(s.readyFiles(t)) < n {
		s.Exec(t, "update accounts set filler = md5(i::text)")
	}
	return s.readyFiles(t)
}

// fakeBacklog stops the server and makes segments that it would want archived,
// with a true header and else, every so many bytes, random ones.
func (s *site) fakeBacklog(t *testing.T, n int, noise int64) (names []string) {
	t.Helper()
	first := s.pileUp(t, 1)[0]
	s.Stop(t, server.Immediate)
	path := filepath.Join(s.DataDir(), "pg_wal", first)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	seg, err := postgres.ParseSegment(first, postgres.SegmentSize(info.Size()))
	if err != nil {
		t.Fatal(err)
	}
	header, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{})
	for range n {
		content := make([]byte, info.Size())
		for at := int64(0); at < info.Size(); at += 4096 * noise {
			_, _ = random.Read(content[at : at+4096])
		}
		copy(content, header[:postgres.SegmentHeaderSize])
		binary.LittleEndian.PutUint64(content[8:], uint64(seg.Start()))
		wal := filepath.Join(s.DataDir(), "pg_wal")
		if err := errors.Join(os.WriteFile(filepath.Join(wal, seg.Name()), content, 0o600),
			os.WriteFile(filepath.Join(wal, "archive_status", seg.Name()+".ready"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		names = append(names, seg.Name())
		seg = seg.Next()
	}
	s.settle(t)
	return names
}

// The store goes away under a server that archives, and comes back: WAL stays,
// the archiver lives, and the backlog drains without a person.
func TestBacklogDrainsAfterAnOutage(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{s3: true, server: servertest.Options{WALSegmentSize: 1 << 20}})
	s.run(t, "backup")
	archiver := s.QueryString(t, archiverSQL)
	s.archiveAgain(t, "--store-timeout 1s")
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

// What was fetched ahead before a promotion goes with the first push after it.
func TestPushClearsWhatWasFetched(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{server: servertest.Options{WALSegmentSize: 1 << 20}})
	fetched := filepath.Join(s.DataDir(), wal.SpoolDir, "fetch")
	if err := os.MkdirAll(fetched, 0o700); err != nil {
		t.Fatal(err)
	}
	writeTo(t, filepath.Join(fetched, "000000010000000000000009"), []byte("left behind"))
	s.flush(t)
	if _, err := os.Lstat(fetched); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
