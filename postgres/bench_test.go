package postgres_test

import (
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

func BenchmarkPageChecksum(b *testing.B) {
	page := make([]byte, postgres.BlockSize)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range page {
		page[i] = byte(r.Uint32())
	}
	b.SetBytes(postgres.BlockSize)
	for b.Loop() {
		postgres.PageChecksum(page, 7)
	}
}

func BenchmarkVerifyPages(b *testing.B) {
	buf := make([]byte, 128*postgres.BlockSize)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		postgres.VerifyPages(buf, 0, postgres.BlockSize, func(uint32, uint16, uint16) {})
	}
}

// BenchmarkWALReader reads WAL of pgbench that lies in memory: small records,
// and page images after checkpoints.
func BenchmarkWALReader(b *testing.B) {
	const size = 16 * mib
	c := servertest.New(b, servertest.Options{Settings: map[string]string{"wal_keep_size": "1GB", "max_wal_size": "2GB"}})
	c.Pgbench(b, "-i", "-s", "5", "-q")
	c.Pgbench(b, "-n", "-c", "4", "-t", "3000")
	c.Stop(b, server.Fast)
	first := firstSegment(b, c, size)
	segs := map[uint64][]byte{}
	read := openDir(walDir(c), 1, size)
	for no := first.No; ; no++ {
		seg, err := read(no)
		if err != nil {
			break
		}
		segs[no] = seg
	}
	open := func(no uint64) ([]byte, error) {
		if seg, ok := segs[no]; ok {
			return seg, nil
		}
		return nil, fs.ErrNotExist
	}
	scan := func(b *testing.B, visit func(postgres.Record)) {
		records := 0
		for b.Loop() {
			r := postgres.NewWALReader(first.Start(), size, open)
			records = 0
			for {
				rec, err := r.Next()
				if err != nil {
					break
				}
				records++
				visit(rec)
			}
			b.SetBytes(int64(r.Position() - first.Start()))
		}
		b.ReportMetric(float64(records), "records")
	}
	b.Run("headers", func(b *testing.B) { scan(b, func(postgres.Record) {}) })
	b.Run("events", func(b *testing.B) { scan(b, func(r postgres.Record) { r.Event() }) })
	b.Run("blocks", func(b *testing.B) {
		var contents postgres.Contents
		scan(b, func(r postgres.Record) { r.Decode(&contents) })
	})
}
