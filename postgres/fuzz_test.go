package postgres_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Fuzz targets: no decoder panics on any input, and what it accepts it can
// write again.

func FuzzParseLSN(f *testing.F) {
	for _, s := range []string{"0/0", "16/B374D848", "00000016/0000000F", "0x1/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lsn, err := postgres.ParseLSN(s)
		if err != nil {
			return
		}
		if again, err := postgres.ParseLSN(lsn.String()); err != nil || again != lsn {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}

func FuzzParseTimeline(f *testing.F) {
	for _, s := range []string{"1", "0x11", "010"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tl, err := postgres.ParseTimeline(s)
		if err != nil {
			return
		}
		if again, err := postgres.ParseTimeline("0x" + tl.Hex()); err != nil || again != tl {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}

func FuzzParseWALName(f *testing.F) {
	for _, s := range []string{"000000010000000000000001", "000000020000000000000003.partial", "0000001F.history",
		"000000010000000000000002.00000028.backup"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := postgres.ParseWALName(s); err == nil && n.String() != s {
			t.Errorf("%q became %q", s, n.String())
		}
		if seg, err := postgres.ParseSegment(s, postgres.DefaultSegmentSize); err == nil && seg.Name() != s {
			t.Errorf("%q became %q", s, seg.Name())
		}
	})
}

func FuzzParseHistory(f *testing.F) {
	f.Add(uint32(3), []byte("1\t0/3000000\tno recovery target specified\n2\t0/5000028\tat restore point \"x\"\n"))
	f.Add(uint32(2), []byte("# words\n\n1 0/3000000\n"))
	f.Fuzz(func(t *testing.T, tl uint32, data []byte) {
		h, err := postgres.ParseHistory(postgres.Timeline(tl), data)
		if err != nil {
			return
		}
		text := h.Marshal()
		again, err := postgres.ParseHistory(h.Timeline, text)
		if err != nil || again.Timeline != h.Timeline || !slices.Equal(again.Entries, h.Entries) {
			t.Errorf("%q became %q: %+v, %v", data, text, again, err)
		}
		for _, s := range h.Path() {
			if s.Begin < s.End && (h.TimelineAt(s.Begin) != s.Timeline || !h.Contains(s.Timeline, s.Begin)) {
				t.Errorf("%q: %+v is not where it should be", data, s)
			}
		}
	})
}

func FuzzParseControlFile(f *testing.F) {
	for major := postgres.MinMajor; major <= postgres.MaxMajor; major++ {
		f.Add(controlFile(f, major))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 296 { // put the checksum right, where it is one
			for _, at := range []int{288, 292} {
				fixed := bytes.Clone(data)
				binary.LittleEndian.PutUint32(fixed[at:], crc32.Checksum(fixed[:at], crc32.MakeTable(crc32.Castagnoli)))
				if _, err := postgres.ParseControlFile(fixed); err == nil {
					data = fixed
				}
			}
		}
		c, err := postgres.ParseControlFile(data)
		if err == nil && (!c.WALSegmentSize.Valid() || c.BlockSize == 0 || c.RelationSegmentSize == 0 || c.State.String() == "") {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzParseBackupLabel(f *testing.F) {
	f.Add([]byte(labelText))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := postgres.ParseBackupLabel(data)
		if err == nil && (l.Start == 0 || l.Checkpoint == 0 || l.StartTimeline == 0 || len(l.StartSegment) != 24) {
			t.Errorf("%q: %+v", data, l)
		}
	})
}

func FuzzParseTablespaceMap(f *testing.F) {
	f.Add([]byte("16400 /srv/fast disk\n16401 /srv/new\\\nline\\\\\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		links, err := postgres.ParseTablespaceMap(data)
		if err != nil {
			return
		}
		again, err := postgres.ParseTablespaceMap(postgres.MarshalTablespaceMap(links))
		if err != nil || !slices.Equal(again, links) {
			t.Errorf("%q: %+v became %+v, %v", data, links, again, err)
		}
	})
}

func FuzzRelationPath(f *testing.F) {
	for _, s := range []string{"base/5/1259_fsm.1", "pg_tblspc/16400/PG_15_202209061/5/t3_16401", "global/1262", "pg_wal/x/y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		file, ok := postgres.ParseRelationPath(path)
		if ok && (file.Number == 0 || file.Tablespace == 0) {
			t.Errorf("%q: %+v", path, file)
		}
		if file.Temp && !postgres.Excluded(path) {
			t.Errorf("%q is of a temporary relation and not left out", path)
		}
		if postgres.UnloggedFiles([]string{path}).Excludes(path) {
			t.Errorf("%q is left out for the sake of itself", path)
		}
		if postgres.EmptyDir(path) && !postgres.Excluded(path+"/x") {
			t.Errorf("%q is kept empty, and not what is in it", path)
		}
	})
}

func FuzzVerifyPages(f *testing.F) {
	f.Add(make([]byte, 8192), uint32(3), 8192)
	f.Add(bytes.Repeat([]byte("page"), 1024), uint32(0), 1024)
	f.Fuzz(func(t *testing.T, buf []byte, first uint32, size int) {
		n := 0
		err := postgres.VerifyPages(buf, first, size, func(_ uint32, want, got uint16) {
			n++
			if want == got || want == 0 {
				t.Errorf("want %d, got %d", want, got)
			}
		})
		if err == nil && n > len(buf)/size {
			t.Errorf("%d bad pages in %d bytes", n, len(buf))
		}
	})
}

// FuzzWALReader takes the input for the start of a segment. Checksums keep most
// of it from Decode and Event, which FuzzRecord calls.
func FuzzWALReader(f *testing.F) {
	for major := postgres.MinMajor; major <= postgres.MaxMajor; major++ {
		data := walVector(f, major)
		f.Add(data[:min(len(data), 20000)], uint32(0))
		f.Add(data[:8192+300], uint32(8192))
	}
	f.Fuzz(func(t *testing.T, data []byte, from uint32) {
		head, err := postgres.ParseSegmentHeader(data)
		if err != nil || uint64(head.Start) > 1<<63 {
			return
		}
		open := oneSegment(head, data)
		r := postgres.NewWALReader(head.Start+postgres.LSN(from%uint32(head.SegmentSize)), head.SegmentSize, open)
		var contents postgres.Contents
		last := postgres.LSN(0)
		for {
			rec, err := r.Next()
			if err != nil {
				return
			}
			if rec.LSN < last || rec.End <= rec.LSN || rec.Len() > len(data) {
				t.Fatalf("record from %s to %s after %s", rec.LSN, rec.End, last)
			}
			last = rec.End
			rec.Decode(&contents)
			rec.Event()
		}
	})
}

// FuzzRecord gives the body of a record to Decode and Event, past the checksum
// that keeps damage from them in a WALReader.
func FuzzRecord(f *testing.F) {
	for major := postgres.MinMajor; major <= postgres.MaxMajor; major++ {
		data := walVector(f, major)
		head, err := postgres.ParseSegmentHeader(data)
		if err != nil {
			f.Fatal(err)
		}
		r := postgres.NewWALReader(head.Start, head.SegmentSize, oneSegment(head, data))
		seen := map[[2]byte]bool{}
		for {
			rec, err := r.Next()
			if err != nil {
				break
			}
			if kind := [2]byte{byte(rec.Rmgr), rec.Info}; !seen[kind] {
				seen[kind] = true
				f.Add(uint8(major), kind[0], kind[1], bytes.Clone(postgres.RecordBody(rec)))
			}
		}
	}
	f.Fuzz(func(t *testing.T, major, rmgr, info uint8, body []byte) {
		rec := postgres.MakeRecord(int(major), postgres.Rmgr(rmgr), info, body)
		var c postgres.Contents
		samePages(t, rec)
		if err := rec.Decode(&c); err == nil {
			n := len(c.Data)
			for _, b := range c.Blocks {
				n += len(b.Data) + len(b.Image)
			}
			if n > len(body) || len(c.Blocks) > 33 {
				t.Errorf("%d bytes in %d blocks, of %d", n, len(c.Blocks), len(body))
			}
		}
		ev, err := rec.Event()
		if end, ok := ev.(postgres.TransactionEnd); ok && err == nil && 4*len(end.Subxacts)+12*len(end.Dropped) > len(body) {
			t.Errorf("%+v of %d bytes", end, len(body))
		}
	})
}

// FuzzCheckSegment also covers ParseSegmentHeader.
func FuzzCheckSegment(f *testing.F) {
	f.Add("000000010000000000000007", int64(mib), walVector(f, 15)[:postgres.SegmentHeaderSize])
	f.Fuzz(func(t *testing.T, name string, size int64, header []byte) {
		h, err := postgres.CheckSegment(name, size, header)
		if err == nil && (!h.SegmentSize.Valid() || size > int64(h.SegmentSize)) {
			t.Errorf("%s of %d bytes: %+v", name, size, h)
		}
	})
}
