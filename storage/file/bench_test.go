package file_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/lifeboat-dr/lifeboat/storage/file"
)

// BenchmarkCreate stores objects of the size of a compressed WAL segment.
func BenchmarkCreate(b *testing.B) {
	ctx := context.Background()
	body := make([]byte, 5<<20)
	root := b.TempDir()
	for _, cold := range []bool{false, true} {
		b.Run(fmt.Sprintf("cold=%v", cold), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			store, err := file.Init(root)
			if err != nil {
				b.Fatal(err)
			}
			for i := range b.N {
				if cold { // as a process of its own does it
					if store, err = file.New(root); err != nil {
						b.Fatal(err)
					}
				}
				key := fmt.Sprintf("wal/7123456789/00000001/%v-%d-%d", cold, b.N, i)
				if err := store.Create(ctx, key, bytes.NewReader(body)); err != nil {
					b.Fatal(err)
				}
				if cold {
					if err := store.Close(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		store, err := file.Init(root)
		if err != nil {
			b.Fatal(err)
		}
		b.SetParallelism(4)
		var n counter
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := store.Create(ctx, fmt.Sprintf("packs/%d-%d", b.N, n.next()), bytes.NewReader(body)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
