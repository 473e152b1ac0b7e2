package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// twoTimelines is the WAL of a server and of a copy of it that was promoted
// while the server went on: timeline 2 leaves timeline 1 within a segment.
type twoTimelines struct {
	system postgres.SystemID
	dir    string // all WAL files
	start  postgres.LSN
	end1   postgres.LSN // of timeline 1
	end2   postgres.LSN // of timeline 2
	base   string       // a data directory as it was at start
	lost   string       // a table that only timeline 1 has
}

func makeTwoTimelines(t *testing.T, segmentSize int) twoTimelines {
	t.Helper()
	w := twoTimelines{dir: t.TempDir(), base: filepath.Join(t.TempDir(), "base"), lost: "after_the_switch"}
	settings := map[string]string{"archive_mode": "on", "archive_command": "cp %p " + w.dir + "/%f", "wal_level": "replica"}
	one := servertest.New(t, servertest.Options{WALSegmentSize: segmentSize, Settings: settings})
	one.Exec(t, "create table words as select i, md5(i::text) w from generate_series(1, 20000) i")
	one.BaseBackup(t, w.base)
	copyDir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copyDir, os.DirFS(w.base)); err != nil {
		t.Fatal(err)
	}
	control, err := ReadControl(context.Background(), w.base)
	if err != nil {
		t.Fatal(err)
	}
	w.system, w.start = control.SystemID, control.CheckpointCopy.Redo
	one.Exec(t, "insert into words select i, md5(i::text) from generate_series(1, 30000) i")
	one.Exec(t, "create table before_the_switch (x int)")
	one.Exec(t, "select pg_create_restore_point('switch')")
	one.Exec(t, "create table "+w.lost+" as select generate_series(1, 30000) x")
	w.end1 = switchSegment(t, one, w.dir)

	two := recoverCopy(t, copyDir, map[string]string{"restore_command": "cp " + w.dir + "/%f %p", "recovery_target_name": "switch",
		"recovery_target_action": "promote", "archive_mode": "on", "archive_command": "cp %p " + w.dir + "/%f"})
	two.Exec(t, "create table on_timeline_two as select generate_series(1, 30000) x")
	w.end2 = switchSegment(t, two, w.dir)
	one.Stop(t, server.Immediate)
	two.Stop(t, server.Immediate)
	return w
}

// recoverCopy starts archive recovery in a data directory and waits for its end.
func recoverCopy(t *testing.T, dir string, settings map[string]string) *servertest.Cluster {
	t.Helper()
	for name, mode := range map[string]os.FileMode{"recovery.signal": 0o600, ".": 0o700} {
		path := filepath.Join(dir, name)
		if name != "." {
			if err := os.WriteFile(path, nil, mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	c := servertest.Open(t, dir, servertest.Options{Settings: settings})
	c.WaitPromoted(t)
	return c
}

// switchSegment ends the segment and waits until it is archived.
func switchSegment(t *testing.T, c *servertest.Cluster, dir string) postgres.LSN {
	t.Helper()
	lsn, err := postgres.ParseLSN(c.QueryString(t, "select pg_current_wal_insert_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	name := c.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
	for deadline := time.Now().Add(time.Minute); c.QueryString(t, "select coalesce(max(last_archived_wal), '') from pg_stat_archiver") < name; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s was not archived within a minute\n%s", name, c.Log(t))
		}
	}
	if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	return lsn
}

// pushAll pushes the files that keep lets through.
func (w twoTimelines) pushAll(t *testing.T, r *repo.Repo, keep func(name string) bool) {
	t.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !keep(e.Name()) {
			continue
		}
		if _, err := Push(context.Background(), r, filepath.Join(w.dir, e.Name()), PushOptions{System: w.system}); err != nil {
			t.Fatal(err)
		}
	}
}

func everything(string) bool { return true }

// records reads to the end of what a reader has.
func records(t *testing.T, rd *postgres.WALReader) (lines []string, end postgres.LSN, err error) {
	t.Helper()
	for {
		rec, err := rd.Next()
		if err != nil {
			return lines, end, err
		}
		lines = append(lines, fmt.Sprintf("%s %d %d %d", rec.LSN, rec.Timeline, rec.Rmgr, rec.Info))
		end = rec.End
	}
}

// TestReader shares one pair of servers among its parts.
func TestReader(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("reads all again for each fault, in one goroutine: run in full, without the race detector")
	}
	w := makeTwoTimelines(t, 1<<20)
	for name, test := range map[string]func(*testing.T, twoTimelines){
		"follows timelines": testReaderFollowsTimelines,
		"stops at a switch": testReaderStopsAtSwitch,
		"reports gaps":      testReaderReportsGapsAndErrors,
		"under faults":      testReaderUnderFaults,
	} {
		t.Run(name, func(t *testing.T) { test(t, w) })
	}
}

// fromFiles reads the same WAL from the files themselves, those of the newer
// timeline first.
func (w twoTimelines) fromFiles(t *testing.T, size postgres.SegmentSize, timelines ...postgres.Timeline) []string {
	t.Helper()
	rd := postgres.NewWALReader(w.start, size, func(no uint64) ([]byte, error) {
		for _, tl := range timelines {
			b, err := os.ReadFile(filepath.Join(w.dir, postgres.Segment{Timeline: tl, No: no, Size: size}.Name()))
			if !errors.Is(err, fs.ErrNotExist) {
				return b, err
			}
		}
		return nil, fs.ErrNotExist
	})
	lines, _, err := records(t, rd)
	if !errors.Is(err, io.EOF) || len(lines) < 1000 {
		t.Fatalf("%d records in the files: %v", len(lines), err)
	}
	return lines
}

func testReaderFollowsTimelines(t *testing.T, w twoTimelines) {
	eachStore(t, func(t *testing.T, store storage.Store) {
		a := newArchive(t, store)
		w.pushAll(t, a.Repo, everything)
		ix, err := LoadIndex(context.Background(), a.Repo, w.system)
		if err != nil {
			t.Fatal(err)
		}
		for target, want := range map[TimelineTarget]struct {
			lines []string
			end   postgres.LSN
		}{
			LatestTimeline: {w.fromFiles(t, 1<<20, 2, 1), w.end2},
			TimelineID(1):  {w.fromFiles(t, 1<<20, 1), w.end1},
		} {
			p, err := ix.Path(target, 1, w.start)
			if err != nil {
				t.Fatal(err)
			}
			rd := ix.Reader(context.Background(), a.Repo, p, w.start)
			defer rd.Close()
			lines, end, err := records(t, rd.WALReader)
			if !errors.Is(err, io.EOF) || end < want.end {
				t.Errorf("%s: read to %s of %s: %v", target, end, want.end, err)
			}
			if a, b := strings.Join(lines, "\n"), strings.Join(want.lines, "\n"); a != b {
				t.Errorf("%s: %d records from the archive differ from %d of the files", target, len(lines), len(want.lines))
			}
			if r := ix.Reach(p, w.start); r.Gap || r.Strays || r.End < end {
				t.Errorf("%s: reach %+v, and records to %s", target, r, end)
			}
		}
	})
}

// As long as the first segment of a new timeline is not archived, that of the
// older one gives the WAL up to the switch, and nothing past it.
func testReaderStopsAtSwitch(t *testing.T, w twoTimelines) {
	a := newArchive(t, mem.New())
	w.pushAll(t, a.Repo, func(name string) bool { return name == "00000002.history" || strings.HasPrefix(name, "00000001") })
	ix, err := LoadIndex(context.Background(), a.Repo, w.system)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ix.History(2)
	if err != nil {
		t.Fatal(err)
	}
	at := h.Entries[0].Switch
	p, err := ix.Path(LatestTimeline, 1, w.start)
	if err != nil {
		t.Fatal(err)
	}
	rd := ix.Reader(context.Background(), a.Repo, p, w.start)
	defer rd.Close()
	_, end, err := records(t, rd.WALReader)
	if !errors.Is(err, io.EOF) || end != at {
		t.Errorf("read to %s, the switch is at %s: %v", end, at, err)
	}
	if r := ix.Reach(p, w.start); r.End != at || !r.Strays || r.Missing.Timeline != 2 {
		t.Errorf("reach %+v", r)
	}

	// What Reach.Strays says is what PostgreSQL does: sent to timeline 2, it
	// replays what timeline 1 wrote after the switch.
	if err := os.Chmod(w.base, 0o700); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "00000002.history" || strings.HasPrefix(e.Name(), "00000001") {
			if err := os.Link(filepath.Join(w.dir, e.Name()), filepath.Join(out, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := recoverCopy(t, w.base, map[string]string{"restore_command": "cp " + out + "/%f %p", "recovery_target_timeline": "2"})
	if got := c.QueryString(t, "select count(*) from pg_class where relname = '"+w.lost+"'"); got != "1" {
		t.Errorf("PostgreSQL %s no longer strays: %s tables %s", c.QueryString(t, "show server_version"), got, w.lost)
	}
	c.Stop(t, server.Immediate)
}

func testReaderReportsGapsAndErrors(t *testing.T, w twoTimelines) {
	size := postgres.SegmentSize(1 << 20)
	hole := postgres.SegmentAt(1, w.start, size).Next().Next()
	read := func(t *testing.T, change func(a *archive)) error {
		a := newArchive(t, mem.New())
		w.pushAll(t, a.Repo, func(name string) bool { return strings.HasPrefix(name, "00000001") })
		change(a)
		ix, err := LoadIndex(context.Background(), a.Repo, w.system)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ix.Path(CurrentTimeline, 1, w.start)
		if err != nil {
			t.Fatal(err)
		}
		rd := ix.Reader(context.Background(), a.Repo, p, w.start)
		defer rd.Close()
		_, _, err = records(t, rd.WALReader)
		return err
	}
	key := repo.WALKey(w.system, walName(t, hole.Name()))
	err := read(t, func(a *archive) {
		if err := a.store.Delete(context.Background(), key); err != nil {
			t.Fatal(err)
		}
	})
	if gap, ok := errors.AsType[*GapError](err); !ok || gap.Missing != hole.Name() || errors.Is(err, io.EOF) {
		t.Errorf("over a gap: %v", err)
	}
	err = read(t, func(a *archive) {
		raw := rawObject(t, a.store, key)
		raw[len(raw)/2] ^= 1
		replaceObject(t, a.store, key, raw)
	})
	if _, ok := errors.AsType[*repo.CorruptError](err); !ok || errors.Is(err, io.EOF) {
		t.Errorf("over a damaged segment: %v", err)
	}
}

// An object that vanishes after it was listed, and any failure of the store,
// must not look like the end of the WAL.
func testReaderUnderFaults(t *testing.T, w twoTimelines) {
	a := newArchive(t, mem.New())
	w.pushAll(t, a.Repo, everything)
	ix, err := LoadIndex(context.Background(), a.Repo, w.system)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ix.Path(LatestTimeline, 1, w.start)
	if err != nil {
		t.Fatal(err)
	}
	for _, fails := range []error{storage.ErrUnavailable, fs.ErrNotExist, io.EOF} {
		for n := int64(3); ; n++ { // the first two open the repository
			broken := fault.New(a.store, fault.Fault{At: n, Err: fails})
			rd := ix.Reader(context.Background(), a.open(t, broken, "db1", a.identity), p, w.start)
			_, _, err := records(t, rd.WALReader)
			rd.Close()
			if !broken.Fired() {
				break
			}
			if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s failed with %v, and the reader took it for the end: %v", broken.FiredAt(), fails, err)
			}
		}
	}
}

func TestReaderOfEmptyArchive(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	ix, err := LoadIndex(context.Background(), a.Repo, testSystem)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ix.Path(LatestTimeline, 1, mib)
	if err != nil {
		t.Fatal(err)
	}
	rd := ix.Reader(context.Background(), a.Repo, p, mib)
	defer rd.Close()
	if _, err := rd.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if seg, missing := ix.Missing(p, mib, 2*mib); !missing {
		t.Errorf("%s is not missing", seg)
	}
}
