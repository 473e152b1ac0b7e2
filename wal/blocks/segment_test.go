package blocks

import (
	"bytes"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
)

// A record that begins on the first page of a segment and goes on in the next one:
// what is left of the segment is all of it, its header too.
func TestRestOfAWholeSegment(t *testing.T) {
	seg := waltest.Segment(t, "000000010000000000000005", 1<<20)
	raw := waltest.SegmentBytes(seg, 7300000000000000001, 1)
	rest, err := restOf(seg, bytes.NewReader(raw), seg.Start()+postgres.SegmentHeaderSize, seg.Start())
	if err != nil || !rest.valid() || !bytes.Equal(rest.Header, raw[:postgres.SegmentHeaderSize]) || !bytes.Equal(rest.WAL, raw) {
		t.Errorf("%v: header %x, %d bytes of WAL", err, rest.Header, len(rest.WAL))
	}
}
