package backup_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// What was in packs that the store has lost, or holds cut off, is read again:
// the next backup is whole again.
func TestLostPacksAreReadAgain(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes and seals much: run in full, without the race detector")
	}
	b := newBench(t, servertest.Options{Checksums: true})
	b.Exec(t, "create table t as select i, sha512(i::text::bytea) from generate_series(1, 300000) i; checkpoint")
	b.run(t)
	packs := b.packs(t)
	if len(packs) < 2 {
		t.Fatalf("only %d packs", len(packs))
	}
	check(t, os.Remove(filepath.Join(b.root, packs[0])))
	check(t, os.Chmod(filepath.Join(b.root, packs[1]), 0o600))
	check(t, os.Truncate(filepath.Join(b.root, packs[1]), 1000))
	var warned []string
	o := b.options()
	o.Warn = func(s string) { warned = append(warned, s) }
	info, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
	if info.Base == "" || info.ChangedBytes < 1<<20 || len(warned) != 1 || !strings.Contains(warned[0], "2 packs") {
		t.Errorf("base %q, %d bytes again, %q", info.Base, info.ChangedBytes, warned)
	}
	b.checkContents(t, "without two packs", info, b.onDisk(t))
}

func (b *bench) packs(t *testing.T) (keys []string) {
	t.Helper()
	for info, err := range b.repo.Store().List(context.Background(), "packs/") {
		check(t, err)
		keys = append(keys, info.Key)
	}
	return keys
}

// A backup builds on no other that it must not: each time it says why.
func TestNoBase(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes and seals much: run in full, without the race detector")
	}
	b := newBench(t, servertest.Options{Checksums: true})
	b.Exec(t, "create table t as select generate_series(1, 1000); checkpoint")
	full := func(what, because string, r *repo.Repo, o backup.Options) {
		t.Helper()
		info, err := backup.Run(context.Background(), r, o)
		check(t, err)
		if info.Base != "" || !strings.Contains(info.ChangesWhy, because) || info.Changes != repo.ChangesFull {
			t.Errorf("%s: base %q, %s, %q", what, info.Base, info.Changes, info.ChangesWhy)
		}
		if info.ReadBytes < info.RawBytes {
			t.Errorf("%s: %d of %d bytes were read", what, info.ReadBytes, info.RawBytes)
		}
	}
	full("the first", "the first backup", b.repo, b.options())
	o := b.options()
	o.Full = true
	full("asked for", "asked for", b.repo, o)
	o = b.options()
	o.Host = "elsewhere"
	full("another host", "another host", b.repo, o)

	// One who has joined could not open what is older.
	keys, err := readKeys(filepath.Join(filepath.Dir(b.root), "cluster.key"))
	check(t, err)
	joined, err := age.GenerateHybridIdentity()
	check(t, err)
	keys.Recipients = append(keys.Recipients, joined.Recipient())
	r, err := repo.Open(context.Background(), b.repo.Store(), keys, "testhost")
	check(t, err)
	full("another recipient", "every recipient", r, b.options())
	o = b.options()
	o.Now = func() time.Time { return time.Now().Add(time.Minute) } // by its label it is the newest
	info, err := backup.Run(context.Background(), r, o)
	check(t, err)
	if info.Base == "" {
		t.Errorf("with the same recipients: %q", info.ChangesWhy)
	}

	// The newest whose manifest can be read counts; one that is damaged is none.
	check(t, os.Chmod(filepath.Join(b.root, repo.ManifestKey(info.Label)), 0o600))
	check(t, os.Truncate(filepath.Join(b.root, repo.ManifestKey(info.Label)), 2000))
	full("a damaged manifest", "cannot be read", r, b.options())

	// The same cluster in another directory, as a restore or a copy makes it.
	b.Stop(t, server.Fast)
	dir := b.CopyData(t)
	c := servertest.Open(t, dir, servertest.Options{})
	o = b.options()
	o.DataDir, o.Conn, o.WALTimeout = dir, c.ConnString(), time.Minute
	full("a copy of the files", "another copy", r, o)
}

// pg_checksums writes the checksum into every page, and leaves no WAL, no LSN and
// no other file behind: nothing older holds, of a backup or an interrupted one.
func TestChecksumsAreSwitchedOn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	b := newBench(t, servertest.Options{})
	if _, err := os.Stat(b.Install.Path("pg_checksums")); err != nil {
		t.Skipf("this test needs the server's own pg_checksums: %v", err)
	}
	b.Exec(t, "create table t as select generate_series(1, 1000); checkpoint")
	b.run(t)
	command := b.QueryString(t, "show archive_command")
	o := b.options()
	o.Full, o.WALTimeout = true, 3*time.Second
	onPhase(&o, "copy", func() { b.Setting(t, "archive_command", "false") })
	if _, err := backup.Run(context.Background(), b.repo, o); err == nil {
		t.Fatal("the backup was not interrupted")
	}
	b.Setting(t, "archive_command", command)
	b.Stop(t, server.Fast)
	b.Program(t, "pg_checksums", "--enable", "--pgdata", b.DataDir())
	b.Start(t)
	info := b.run(t)
	if info.Base != "" || !strings.Contains(info.ChangesWhy, "page checksums") || strings.Contains(info.ChangesWhy, "interrupted") || !info.Checksums {
		t.Errorf("base %q, %q", info.Base, info.ChangesWhy)
	}
	for path, raw := range b.contents(t, info.Label) {
		rel, ok := postgres.ParseRelationPath(path)
		if !ok {
			continue
		}
		check(t, postgres.VerifyPages(raw, rel.FirstBlock(131072), postgres.BlockSize, func(block uint32, _, _ uint16) {
			t.Errorf("block %d of %s has no valid checksum", block, path)
		}))
	}
}

// With an age that no pack may reach, some of what has not changed is read all
// the same, and the backup is whole.
func TestPacksAreRenewed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes and seals much: run in full, without the race detector")
	}
	b := newBench(t, servertest.Options{Checksums: true})
	b.Exec(t, "create table t as select i, sha512(i::text::bytea) from generate_series(1, 300000) i; checkpoint")
	now := time.Now()
	o := b.options()
	o.MaxPackAge = 10 * 24 * time.Hour
	o.Now = func() time.Time { return now }
	first, err := backup.Run(context.Background(), b.repo, o)
	check(t, err)
	seen := map[string]bool{}
	for _, p := range b.packs(t) {
		seen[p] = true
	}
	for day := 1; day <= 11; day++ {
		now = now.Add(24 * time.Hour)
		info, err := backup.Run(context.Background(), b.repo, o)
		check(t, err)
		if info.Base == "" || len(info.Ages) == 0 {
			t.Fatalf("day %d: base %q (%s), ages %v", day, info.Base, info.ChangesWhy, info.Ages)
		}
		oldest := int(now.Unix()/86400) - info.Ages[0].Day
		if oldest > 10 {
			t.Errorf("day %d: a pack is %d days old", day, oldest)
		}
		if day == 11 {
			b.checkContents(t, "after eleven days", info, b.onDisk(t))
			if info.Ages[0].Day == first.Ages[0].Day {
				t.Error("packs of the first day are still in use")
			}
		}
	}
}

// expiring is a store from which somebody removes a backup at the very moment
// that another one adopts it.
type expiring struct {
	storage.Store
	manifest string
}

func (s *expiring) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if strings.HasSuffix(key, "/adoption") {
		if err := s.Store.Delete(ctx, s.manifest); err != nil {
			return err
		}
	}
	return s.Store.Create(ctx, key, body)
}

// The base is removed between being chosen and being adopted: nothing of it is
// used, since its packs may go as well.
func TestBaseIsRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBench(t, servertest.Options{})
	first := b.run(t)
	r := b.over(t, &expiring{b.repo.Store(), repo.ManifestKey(first.Label)})
	info, err := backup.Run(context.Background(), r, b.options())
	check(t, err)
	if info.Base != "" || !strings.Contains(info.ChangesWhy, "has just been removed") || info.NewBytes != info.StoredBytes {
		t.Errorf("base %q, %q; %d bytes of %d are new", info.Base, info.ChangesWhy, info.NewBytes, info.StoredBytes)
	}
}
