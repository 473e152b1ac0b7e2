// Package waltest makes WAL files for tests that need no server.
package waltest

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// SegmentBytes makes a segment with the header that PostgreSQL 15 writes
// (XLogLongPageHeaderData in access/xlog_internal.h) and a body that half
// compresses, another one for each seed.
func SegmentBytes(seg postgres.Segment, system postgres.SystemID, seed uint64) []byte {
	b := make([]byte, seg.Size)
	le := binary.LittleEndian
	le.PutUint16(b, 0xD110)
	le.PutUint16(b[2:], 2) // XLP_LONG_HEADER
	le.PutUint32(b[4:], uint32(seg.Timeline))
	le.PutUint64(b[8:], uint64(seg.Start()))
	le.PutUint64(b[24:], uint64(system))
	le.PutUint32(b[32:], uint32(seg.Size))
	le.PutUint32(b[36:], 8192)
	rnd := rand.New(rand.NewPCG(seed, seg.No))
	for i := postgres.SegmentHeaderSize; i+16 <= len(b); i += 16 {
		le.PutUint64(b[i:], rnd.Uint64())
	}
	return b
}

// Segment is the segment of this name.
func Segment(t testing.TB, name string, size postgres.SegmentSize) postgres.Segment {
	t.Helper()
	seg, err := postgres.ParseSegment(name, size)
	if err != nil {
		t.Fatal(err)
	}
	return seg
}

// Name is the name of a WAL file.
func Name(t testing.TB, s string) postgres.WALName {
	t.Helper()
	n, err := postgres.ParseWALName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
