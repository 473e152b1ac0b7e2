package postgres_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// TestDamagedWAL flips bits and cuts bytes off in a run of segments. Up to the
// damage the records must be the same, and none may follow that is wrong.
func TestDamagedWAL(t *testing.T) {
	const size = 1 * mib
	c := servertest.New(t, servertest.Options{WALSegmentSize: size, Settings: map[string]string{"wal_keep_size": "1GB"}})
	c.Exec(t, "create table t as select i, repeat(md5(i::text), 30) s from generate_series(1, 3000) i")
	c.Exec(t, "select pg_logical_emit_message(false, 'big', repeat('x', 1500000))")
	c.Exec(t, "update t set i = -i where i % 10 = 0")
	c.Stop(t, server.Fast)
	first := firstSegment(t, c, size)
	segs := map[uint64][]byte{}
	read := openDir(walDir(c), 1, size)
	for no := first.No; ; no++ {
		b, err := read(no)
		if err != nil {
			break
		}
		segs[no] = b
	}
	open := func(no uint64) ([]byte, error) {
		if b, ok := segs[no]; ok {
			return b, nil
		}
		return nil, fs.ErrNotExist
	}
	want, end := records(t, first.Start(), size, open)

	flipBits(t, first, segs, open, want)

	// Lengths: what a segment that is still being written would show.
	no := uint64(want[len(want)/2]) / size
	whole := segs[no]
	for cut := 0; cut < size; cut += 4099 {
		segs[no] = whole[:cut]
		got, e := records(t, first.Start(), size, open)
		if !slices.Equal(got, want[:len(got)]) || len(got) == len(want) || e.Kind != postgres.EndMissing || e.LSN != want[len(got)] {
			t.Fatalf("%d bytes of segment %d: %d records, %v", cut, no, len(got), e)
		}
	}
	segs[no] = whole

	// Any record, and any page, is a place to start.
	for i := 0; i < len(want); i += 997 {
		got, e := records(t, want[i], size, open)
		if !slices.Equal(got, want[i:]) || *e != *end {
			t.Fatalf("from %s: %d records, want %d; %v", want[i], len(got), len(want)-i, e)
		}
	}
	for page := first.Start(); page < end.LSN; page += 8192 * 7 {
		got, _ := records(t, page, size, open)
		i, _ := slices.BinarySearch(want, page)
		if !slices.Equal(got, want[i:]) {
			t.Fatalf("from the page at %s: %d records, want %d", page, len(got), len(want)-i)
		}
	}
	refuseOthers(t, first, segs, open)
}

// flipBits flips bits in a record that lies in one page: each counts, so the
// WAL ends there. So it does with another link to the record before, even if
// the checksum is put right.
func flipBits(t *testing.T, first postgres.Segment, segs map[uint64][]byte, open postgres.OpenSegment, want []postgres.LSN) {
	t.Helper()
	i := len(want) / 2
	for want[i]/8192 != want[i+1]/8192 || want[i+1]-want[i] < 48 {
		i++
	}
	b := segs[uint64(want[i])/uint64(first.Size)][first.Size.Offset(want[i]):]
	length := int(binary.LittleEndian.Uint32(b))
	expect := func(what string) {
		t.Helper()
		got, e := records(t, first.Start(), first.Size, open)
		if !slices.Equal(got, want[:i]) || e.Kind != postgres.EndInvalid || e.LSN != want[i] {
			t.Fatalf("%s of the record at %s: %d records, want %d; %v", what, want[i], len(got), i, e)
		}
	}
	for at := 0; at < length; at++ {
		if at > 24 { // past the header some will do
			at = min(at+10, length-1)
		}
		b[at] ^= 1 << (at % 8)
		expect(fmt.Sprintf("a flipped bit in byte %d", at))
		b[at] ^= 1 << (at % 8)
	}
	keep := bytes.Clone(b[:24])
	for what, prev := range map[string]postgres.LSN{"an earlier predecessor": want[i-2], "no predecessor": 0, "itself as predecessor": want[i]} {
		binary.LittleEndian.PutUint64(b[8:], uint64(prev))
		crc := crc32.Checksum(b[24:length], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(b[20:], crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), b[:20]))
		expect(what)
		copy(b, keep)
	}
}

// refuseOthers mixes in segments that do not belong there.
func refuseOthers(t *testing.T, first postgres.Segment, segs map[uint64][]byte, open postgres.OpenSegment) {
	t.Helper()
	swap := func(no uint64, change func(b []byte)) *postgres.EndOfWAL {
		keep := segs[no]
		segs[no] = bytes.Clone(keep)
		change(segs[no])
		_, end := records(t, first.Start(), first.Size, open)
		segs[no] = keep
		return end
	}
	no := first.No + 1
	for reason, change := range map[string]func(b []byte){
		"is of another system":            func(b []byte) { b[24] ^= 1 },
		"magic number":                    func(b []byte) { b[0] ^= 0xFF },
		"starts at":                       func(b []byte) { copy(b, segs[no+1]) },
		"has the flags":                   func(b []byte) { b[8192+2] |= 0x10 },
		"says it is that of":              func(b []byte) { copy(b[8192:2*8192], b[3*8192:]) },
		"has the magic number":            func(b []byte) { b[8192] ^= 1 },
		"goes on at":                      func(b []byte) { b[contrecordPage(t, b)+16] ^= 1 },
		"does not go on at":               func(b []byte) { b[contrecordPage(t, b)+2] &^= 1 },
		"steps back from timeline 1 to 0": func(b []byte) { b[8192+4] = 0 },
	} {
		if end := swap(no, change); end.Kind != postgres.EndInvalid || end.LSN >= first.Start()+postgres.LSN(2*first.Size) ||
			!strings.Contains(end.Reason, reason) {
			t.Errorf("%v; want a reason with %q", end, reason)
		}
	}
	if end := swap(no, func(b []byte) { clear(b) }); end.Kind != postgres.EndUnwritten {
		t.Errorf("a segment of zeros: %v", end)
	}
	even := first
	even.No += even.No % 2
	other := postgres.NewWALReader(even.Start(), 2*first.Size, func(uint64) ([]byte, error) { return segs[even.No], nil })
	if _, err := other.Next(); err == nil || !strings.Contains(err.Error(), "of a cluster with segments of 1048576") {
		t.Errorf("segments of another size: %v", err)
	}
	broken := fmt.Errorf("the network is down")
	r := postgres.NewWALReader(first.Start(), first.Size, func(uint64) ([]byte, error) { return nil, broken })
	for range 2 {
		if _, err := r.Next(); !errors.Is(err, broken) || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), first.Start().String()) {
			t.Errorf("open failed: %v", err)
		}
	}
}

// contrecordPage is the offset of a page that begins within a record.
func contrecordPage(t *testing.T, segment []byte) int {
	t.Helper()
	for at := 8192; at < len(segment); at += 8192 {
		if segment[at+2]&1 != 0 {
			return at
		}
	}
	t.Fatal("no record crosses a page")
	return 0
}
