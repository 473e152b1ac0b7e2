package postgres

import (
	"math/rand/v2"
	"testing"
)

// TestChecksumsAgree holds the fast way to the plain one.
func TestChecksumsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	page := make([]byte, BlockSize)
	for range 100 {
		for i := range page {
			page[i] = byte(r.Uint32())
		}
		if fast, plain := checksum8K((*[BlockSize]byte)(page)), checksumAny(page); fast != plain {
			t.Fatalf("checksum8K %08X, checksumAny %08X", fast, plain)
		}
	}
}
