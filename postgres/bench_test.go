package postgres

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkPageChecksum(b *testing.B) {
	page := make([]byte, BlockSize)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range page {
		page[i] = byte(r.Uint32())
	}
	b.SetBytes(BlockSize)
	for b.Loop() {
		PageChecksum(page, 7)
	}
}
