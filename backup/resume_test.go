package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

var errFull = errors.New("the store is full")

// filling is a store that takes so many bytes of packs and then fails.
type filling struct {
	storage.Store
	left atomic.Int64
	sent atomic.Int64
}

func (s *filling) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if strings.HasPrefix(key, "packs/") {
		n, err := body.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		if s.left.Add(-n) < 0 {
			return errFull
		}
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return err
		}
		s.sent.Add(n)
	}
	return s.Store.Create(ctx, key, body)
}

// over opens the repository of the bench through another store.
func (b *bench) over(t *testing.T, s storage.Store) *repo.Repo {
	t.Helper()
	keys, err := readKeys(filepath.Join(filepath.Dir(b.root), "cluster.key"))
	check(t, err)
	r, err := repo.Open(context.Background(), s, keys, "testhost")
	check(t, err)
	return r
}

// A backup that is interrupted is taken up again by the next one: what was
// stored and noted is not sent twice, what has changed meanwhile is, and the
// result holds what is on disk. So it is with and without an older backup, when
// several were interrupted one after the other, and when the files have
// changed, gone and come in between.
func TestInterruptedBackupIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes and seals much: run in full, without the race detector")
	}
	b := newBench(t, servertest.Options{Checksums: true, Settings: map[string]string{"archive_mode": "on", "autovacuum": "off"}})
	b.archiveWithSummaries(t)
	for i := range 3 {
		b.Exec(t, fmt.Sprintf("create table t%d as select i, sha512(i::text::bytea) a, sha512(('x' || i)::bytea) b, sha512(('y' || i)::bytea) c from generate_series(1, 250000) i", i))
	}
	b.Exec(t, "checkpoint")
	s := &filling{Store: b.repo.Store()}
	r := b.over(t, s)
	attempt := func(mib int64, o backup.Options) *repo.Info {
		s.left.Store(mib << 20)
		s.sent.Store(0)
		info, err := backup.Run(context.Background(), r, o)
		if err != nil && !errors.Is(err, errFull) {
			t.Fatal(err)
		}
		return info
	}
	must := func(info *repo.Info) *repo.Info {
		t.Helper()
		if info == nil {
			t.Fatal("the backup did not fit")
		}
		return info
	}
	full := func() backup.Options { o := b.options(); o.Full = true; return o }

	if attempt(100, b.options()) != nil || attempt(50, b.options()) != nil {
		t.Fatal("a backup fits where it should not")
	}
	b.Exec(t, "update t0 set i = -i where i % 1000 = 0; drop table t1; create table t1 as select 1 i; checkpoint")
	info := must(attempt(1<<30, b.options()))
	if s.sent.Load() > 80<<20 || !strings.Contains(info.ChangesWhy, "of the interrupted") || info.Base != "" {
		t.Errorf("%d MiB were sent, %q", s.sent.Load()>>20, info.ChangesWhy)
	}
	b.checkContents(t, "after two interrupted", info, b.onDisk(t))

	// Of another full backup, which refers to no older pack but its own.
	if attempt(60, full()) != nil {
		t.Fatal("a full backup fits where it should not")
	}
	b.Exec(t, "truncate t2; insert into t2 select i, a, b, c from t0 limit 1000; checkpoint")
	o := b.options()
	o.Scan = true
	info = must(attempt(1<<30, o))
	if s.sent.Load() > 10<<20 || info.Base == "" {
		t.Errorf("%d MiB were sent; base %q, %q", s.sent.Load()>>20, info.Base, info.ChangesWhy)
	}
	b.checkContents(t, "over an interrupted full one and a base", info, b.onDisk(t))
	info = must(attempt(1<<30, full()))
	if sent := s.sent.Load() >> 20; sent > 60 || info.Base != "" {
		t.Errorf("%d MiB were sent; base %q, %q", sent, info.Base, info.ChangesWhy)
	}
	b.checkContents(t, "full, taken up again", info, b.onDisk(t))
}

// A page that was bad when the interrupted backup read it is told by the one
// that takes it up: it is read again, and does not come back as a good one. What
// else lies in its pack is used.
func TestBadPageOfAnInterruptedBackup(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes and seals much: run in full, without the race detector")
	}
	b := newBench(t, servertest.Options{Checksums: true, Settings: map[string]string{"archive_mode": "on", "autovacuum": "off"}})
	b.Exec(t, "create table t as select i, sha512(i::text::bytea) a, sha512(('x' || i)::bytea) b from generate_series(1, 200000) i; checkpoint")
	b.archiveWithSummaries(t)
	path := filepath.Join(b.DataDir(), b.QueryString(t, "select pg_relation_filepath('t')"))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("damage"), 5*8192+4000)
	check(t, err)
	s := &filling{Store: b.repo.Store()}
	r := b.over(t, s)
	s.left.Store(24 << 20) // one pack fits, the next one does not
	o := b.options()
	o.Jobs = 1 // so that the page is in the first one
	if _, err := backup.Run(context.Background(), r, o); !errors.Is(err, errFull) {
		t.Fatalf("the first one: %v", err)
	}
	stored := s.sent.Load()
	if stored == 0 {
		t.Fatal("nothing was stored before it was interrupted")
	}
	s.left.Store(1 << 30)
	info, err := backup.Run(context.Background(), r, b.options())
	check(t, err)
	if info.BadCount != 1 || len(info.BadPages) != 1 || info.BadPages[0].Block != 5 {
		t.Errorf("%d bad pages are told: %+v; %s", info.BadCount, info.BadPages, info.ChangesWhy)
	}
	if !strings.Contains(info.ChangesWhy, "of the interrupted") || info.NewBytes > info.StoredBytes-stored/2 {
		t.Errorf("of %d bytes %d were sent, though %d were stored; %s", info.StoredBytes, info.NewBytes, stored, info.ChangesWhy)
	}
}
