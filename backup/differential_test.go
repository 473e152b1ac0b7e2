package backup_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

var (
	differentialSteps = flag.Int("steps", 100, "steps of the differential test; \"make test\" makes so many twice, with two seeds")
	differentialSeed  = flag.Uint64("seed", 1, "seed of the differential test")
)

// Under a mixed load every source of changes is asked, step by step, what has
// not changed since the last backup; the truth is what lies on disk. What any
// of them keeps must be, byte for byte, what the last backup read; no summary
// may keep a page that the scan finds; and each backup must hold what a full
// one would have held.
func TestDifferential(t *testing.T) {
	t.Parallel()
	steps := *differentialSteps
	if testing.Short() {
		steps = 5
	}
	b := newBench(t, servertest.Options{Checksums: true, WALSegmentSize: 1 << 20, Settings: map[string]string{
		"archive_mode": "on", "autovacuum": "off", "max_prepared_transactions": "5", "wal_keep_size": "4MB", "max_wal_size": "32MB", "min_wal_size": "4MB"}})
	b.archiveWithSummaries(t)
	if b.Install.Major >= 17 {
		b.Setting(t, "summarize_wal", "on")
	}
	w := newWorkload(t, b, *differentialSeed)
	b.run(t)
	before := b.onDisk(t)
	counts := map[string]int{}
	for n := range steps {
		did := w.step(t)
		what := fmt.Sprintf("step %d of seed %d,%s", n, *differentialSeed, did)
		kept, base, why, err := backup.Probe(context.Background(), b.repo, b.options())
		check(t, err)
		if base == nil {
			t.Fatalf("%s: no base: %v", what, why)
		}
		for source, reason := range why {
			if source != repo.ChangesWALSummaries || b.Install.Major >= 17 {
				t.Errorf("%s: %s: %s", what, source, reason)
				b.showSummaries(t)
			}
		}
		for source, all := range kept {
			counts[source]++
			b.checkKept(t, what+", by "+source, all, before, base)
		}
		o := b.options()
		o.Scan = n%5 == 4
		info, err := backup.Run(context.Background(), b.repo, o)
		check(t, err)
		if info.Base != base.Label {
			t.Fatalf("%s: the base is %q, not %q: %s", what, info.Base, base.Label, info.ChangesWhy)
		}
		before = b.onDisk(t)
		if n%4 == 0 || n == steps-1 {
			b.checkContents(t, what, info, before)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d steps; asked: %v", steps, counts)
	if counts[repo.ChangesScan] != steps || counts[repo.ChangesBlocks] < steps*9/10 {
		t.Errorf("of %d steps the sources were asked only %v", steps, counts)
	}
	if b.Install.Major >= 17 && counts[repo.ChangesWALSummaries] < steps*9/10 {
		t.Errorf("of %d steps PostgreSQL's summaries were there only %d times", steps, counts[repo.ChangesWALSummaries])
	}
}

// showSummaries logs what a hole is a hole in.
func (b *bench) showSummaries(t *testing.T) {
	var keys []string
	for _, prefix := range []string{"blocks/", "wal/"} {
		for info, err := range b.repo.Store().List(context.Background(), prefix) {
			check(t, err)
			keys = append(keys, fmt.Sprintf("%s %s", info.Key[len(info.Key)-33:], info.ModTime.Format("05.000")))
		}
		t.Logf("the last of %s: %v", prefix, keys[max(0, len(keys)-12):])
	}
	rests, err := os.ReadDir(filepath.Join(b.DataDir(), wal.SpoolDir, "rest"))
	t.Logf("rests: %v, %v", rests, err)
}

// archiveWithSummaries makes pushes note which pages change.
func (b *bench) archiveWithSummaries(t *testing.T) {
	b.Setting(t, "archive_command", fmt.Sprintf("%s %s %s %%p summaries", servertest.Command(t, "archive"), b.root, filepath.Join(filepath.Dir(b.root), "cluster.key")))
}

// onDisk is every file of a relation as it lies on disk.
func (b *bench) onDisk(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	var read func(dir, rel string)
	read = func(dir, rel string) {
		entries, err := os.ReadDir(dir)
		check(t, err)
		for _, e := range entries {
			p, name := filepath.Join(rel, e.Name()), filepath.Join(dir, e.Name())
			if info, err := os.Stat(name); err == nil && info.IsDir() {
				read(name, p)
				continue
			}
			if _, ok := postgres.ParseRelationPath(p); ok {
				raw, err := os.ReadFile(name)
				if err == nil {
					out[p] = raw
				} else if !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
		}
	}
	for _, top := range []string{"base", "global", "pg_tblspc"} {
		read(filepath.Join(b.DataDir(), top), top)
	}
	return out
}

// checkKept holds what a source kept against the disk.
func (b *bench) checkKept(t *testing.T, what string, kept []backup.Kept, before map[string][]byte, base *repo.Info) {
	t.Helper()
	for _, k := range kept {
		if _, ok := postgres.ParseRelationPath(k.Path); !ok || strings.HasSuffix(k.Path, "_fsm") {
			continue // no one relies on a free space map
		}
		now, err := os.ReadFile(filepath.Join(b.DataDir(), k.Path))
		if os.IsNotExist(err) {
			continue
		}
		check(t, err)
		if int64(len(now)) < k.To || int64(len(before[k.Path])) < k.To {
			t.Errorf("%s: %s is kept to byte %d, the base has %d, the disk %d", what, k.Path, k.To, len(before[k.Path]), len(now))
			continue
		}
		for off := k.From; off < k.To; off += postgres.BlockSize {
			end := min(off+postgres.BlockSize, k.To)
			if !bytes.Equal(now[off:end], before[k.Path][off:end]) && !isSPGistMeta(now[off:end]) {
				t.Errorf("%s: block %d of %s is kept and has changed: its LSN was %s and is %s, the base began at %s", what, off/postgres.BlockSize, k.Path,
					postgres.PageLSN(before[k.Path][off:]), postgres.PageLSN(now[off:]), base.StartLSN)
			}
			if k.Pages && postgres.PageLSN(now[off:]) >= base.StartLSN {
				t.Errorf("%s: block %d of %s is kept, and the scan finds it", what, off/postgres.BlockSize, k.Path)
			}
		}
	}
}

// isSPGistMeta knows the one page whose changes are not in the WAL, whatever is
// set: it remembers where there was room, and nothing relies on it
// (SpGistUpdateMetaPage in access/spgist/spgutils.c).
func isSPGistMeta(page []byte) bool {
	return len(page) > 28 && binary.LittleEndian.Uint32(page[24:]) == 0xBA0BABEE
}

// checkContents holds a backup against what lay on disk when it was taken,
// which is what a full backup would have read.
func (b *bench) checkContents(t *testing.T, what string, info *repo.Info, disk map[string][]byte) {
	t.Helper()
	got := b.contents(t, info.Label)
	relations := 0
	for path, want := range disk {
		have, ok := got[path]
		rel, _ := postgres.ParseRelationPath(path)
		if !ok {
			if _, unlogged := disk[strings.Split(path, "_")[0]+"_init"]; !unlogged && !rel.Temp && rel.Fork != postgres.ForkInit {
				t.Errorf("%s: %s is not in backup %s", what, path, info.Label)
			}
			continue
		}
		relations++
		if rel.Fork == postgres.ForkFSM || bytes.Equal(have, want) {
			continue
		}
		for off := 0; off < max(len(have), len(want)); off += postgres.BlockSize {
			if off+postgres.BlockSize > len(have) || off+postgres.BlockSize > len(want) {
				t.Errorf("%s: %s has %d bytes, in backup %s %d", what, path, len(want), info.Label, len(have))
				break
			}
			h, w := have[off:off+postgres.BlockSize], want[off:off+postgres.BlockSize]
			// What the server wrote after the start is in the WAL.
			if !bytes.Equal(h, w) && postgres.PageLSN(w) < info.StartLSN && !isSPGistMeta(w) {
				t.Errorf("%s: block %d of %s differs from backup %s", what, off/postgres.BlockSize, path, info.Label)
			}
		}
	}
	if relations < 500 {
		t.Errorf("%s: only %d files were compared", what, relations)
	}
}

func execOn(t *testing.T, conf *pgx.ConnConfig, sql string) {
	t.Helper()
	c, err := pgx.ConnectConfig(context.Background(), conf)
	check(t, err)
	defer c.Close(context.Background())
	_, err = c.PgConn().Exec(context.Background(), sql).ReadAll()
	check(t, err)
}
