package wal

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/file"
)

// BenchmarkPush is the work of one push, without starting a process.
func BenchmarkPush(b *testing.B) {
	for _, size := range []postgres.SegmentSize{1 << 20, 16 << 20, 64 << 20} {
		b.Run(map[postgres.SegmentSize]string{1 << 20: "1MiB", 16 << 20: "16MiB", 64 << 20: "64MiB"}[size], func(b *testing.B) {
			store, err := file.Init(filepath.Join(b.TempDir(), "repo"))
			if err != nil {
				b.Fatal(err)
			}
			a := newArchive(b, store)
			seg := postgres.Segment{Timeline: 1, No: 1, Size: size}
			path := writeFile(b, seg.Name(), segmentBytes(seg, testSystem, 1))
			key := repo.WALKey(testSystem, walName(b, seg.Name()))
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := Push(context.Background(), a.Repo, path, PushOptions{System: testSystem}); err != nil {
					b.Fatal(err)
				}
				if err := store.Delete(context.Background(), key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
