package postgres_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// TestChecksumsOfCluster checks every page of a real cluster, then damages one
// bit in some and wants just those reported.
func TestChecksumsOfCluster(t *testing.T) {
	c := servertest.New(t, servertest.Options{Checksums: true})
	c.Exec(t, `create table t as select i, repeat('x', 100) s from generate_series(1, 5000) i;
		create index on t(s, i); update t set i = i + 1 where i % 3 = 0; create unlogged table u(i int primary key)`)
	c.Exec(t, "vacuum t")
	c.Stop(t, server.Fast)

	missed := 0
	files, pages, perFork := 0, 0, map[postgres.Fork]int{}
	eachRelation(t, c.DataDir(), func(path string, f postgres.RelationFile, buf []byte) {
		files++
		pages += len(buf) / postgres.BlockSize
		perFork[f.Fork]++
		err := postgres.VerifyPages(buf, f.FirstBlock(131072), postgres.BlockSize, func(block uint32, want, got uint16) {
			t.Errorf("%s: block %d has the checksum %04X, want %04X", path, block, got, want)
		})
		if err != nil {
			t.Fatal(err)
		}
		if !damageSeen(t, path, f, buf) {
			missed++
		}
	})
	// Two pages in 65535 share a checksum by chance; three chances are no chance.
	if missed > 2 {
		t.Errorf("%d damaged pages were not reported", missed)
	}
	if files < 500 || pages < 2000 || perFork[postgres.ForkFSM] == 0 || perFork[postgres.ForkVM] == 0 || perFork[postgres.ForkInit] == 0 {
		t.Errorf("only %d files, %d pages, forks %v", files, pages, perFork)
	}
}

// damageSeen flips a bit and says whether that page, and no other, is reported.
func damageSeen(t *testing.T, path string, f postgres.RelationFile, buf []byte) bool {
	n := len(buf) / postgres.BlockSize
	if n == 0 {
		return true
	}
	block := rand.IntN(n)
	buf[block*postgres.BlockSize+rand.IntN(postgres.BlockSize)] ^= 1 << rand.IntN(8)
	seen := false
	err := postgres.VerifyPages(buf, f.FirstBlock(131072), postgres.BlockSize, func(bad uint32, _, _ uint16) {
		seen = true
		if bad != f.FirstBlock(131072)+uint32(block) {
			t.Errorf("%s: block %d was damaged, %d reported", path, block, bad)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func eachRelation(t *testing.T, dataDir string, visit func(path string, f postgres.RelationFile, buf []byte)) {
	t.Helper()
	err := filepath.WalkDir(dataDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dataDir, path)
		if err != nil {
			return err
		}
		f, ok := postgres.ParseRelationPath(filepath.ToSlash(rel))
		if !ok {
			return nil
		}
		buf, err := os.ReadFile(path)
		if err == nil {
			visit(rel, f, buf)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPageFacts asks the server's pageinspect, also for block numbers that lie
// in the files that follow the first, past 1 GiB.
func TestPageFacts(t *testing.T) {
	c := servertest.New(t, servertest.Options{Checksums: true})
	c.Exec(t, `create extension pageinspect; create table t as select i, md5(i::text) s from generate_series(1, 5000) i`)
	conn := c.Conn(t)
	rows, err := conn.Query(context.Background(), `
		select b.n, p.page, page_checksum(p.page, b.n)::int & 65535, (page_header(p.page)).lsn::text
		from (select get_raw_page('t', g) page from generate_series(0, 30) g) p,
		     (values (0), (1), (131071), (131072), (262149), (2147483647)) b(n)`)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		var block, sum int64
		var page []byte
		var lsn string
		if err := rows.Scan(&block, &page, &sum, &lsn); err != nil {
			t.Fatal(err)
		}
		if got := postgres.PageChecksum(page, uint32(block)); int64(got) != sum {
			t.Errorf("block %d: PageChecksum %04X, the server %04X", block, got, sum)
		}
		if got := postgres.PageLSN(page).String(); got != lsn {
			t.Errorf("PageLSN %s, the server %s", got, lsn)
		}
		n++
	}
	if rows.Err() != nil || n != 31*6 {
		t.Errorf("%d rows, %v", n, rows.Err())
	}
}

func TestNewPage(t *testing.T) {
	buf := make([]byte, 3*postgres.BlockSize)
	buf[2*postgres.BlockSize-1] = 1 // the second page is not new, and has no checksum
	var bad []uint32
	if err := postgres.VerifyPages(buf, 10, postgres.BlockSize, func(b uint32, want, got uint16) {
		bad = append(bad, b)
		if got != 0 || want == 0 {
			t.Errorf("want %04X, got %04X", want, got)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(bad) != 1 || bad[0] != 11 {
		t.Errorf("reported %v", bad)
	}
	if !postgres.IsNewPage(buf[:13]) || postgres.IsNewPage(buf[:2*postgres.BlockSize]) || !postgres.IsNewPage(nil) {
		t.Error("IsNewPage")
	}
	for _, size := range []int{0, -1, 100, 512, 8191, 65536} {
		if err := postgres.VerifyPages(buf, 0, size, nil); err == nil {
			t.Errorf("a page size of %d was accepted", size)
		}
	}
}
