package postgres_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// records reads to the end and returns the positions of the records, and why
// it ended: the same from memory and from files.
func records(t testing.TB, start postgres.LSN, size postgres.SegmentSize, open postgres.OpenSegment) ([]postgres.LSN, *postgres.EndOfWAL) {
	t.Helper()
	lsns, end := drain(t, postgres.NewWALReader(start, size, open))
	pieces, itsEnd := drain(t, postgres.NewWALReaderFromFiles(start, size, func(no uint64) (io.ReaderAt, error) {
		b, err := open(no)
		return bytes.NewReader(b[:min(len(b), int(size))]), err
	}))
	if !slices.Equal(lsns, pieces) || *end != *itsEnd {
		t.Errorf("%d records and %v; from files %d and %v", len(lsns), end, len(pieces), itsEnd)
	}
	return lsns, end
}

func drain(t testing.TB, r *postgres.WALReader) (lsns []postgres.LSN, end *postgres.EndOfWAL) {
	t.Helper()
	for {
		rec, err := r.Next()
		if err != nil {
			if !errors.As(err, &end) || !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if _, again := r.Next(); again != err {
				t.Errorf("after %v Next returned %v", err, again)
			}
			return lsns, end
		}
		lsns = append(lsns, rec.LSN)
	}
}

// TestOverwrittenContrecord loses the segment that a record goes on in, as a
// crash can. The server goes on behind the hole, and so does the reader.
func TestOverwrittenContrecord(t *testing.T) {
	const size = 1 * mib
	c := servertest.New(t, servertest.Options{WALSegmentSize: size, Settings: map[string]string{"wal_keep_size": "1GB", "autovacuum": "off"}})
	c.Exec(t, "create table t(i int); insert into t select 1")
	c.Exec(t, "checkpoint")
	start := firstSegment(t, c, size).Start()
	torn, err := postgres.ParseLSN(c.QueryString(t, "select pg_current_wal_insert_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	c.QueryString(t, "select pg_logical_emit_message(false, 'x', repeat('0123456789', 400000))")
	c.Exec(t, "insert into t select 2") // a commit flushes what came before
	c.Kill9(t)
	lost := postgres.SegmentAt(1, torn, size).Next().Next()
	for s := lost; ; s = s.Next() {
		if err := os.Remove(filepath.Join(walDir(c), s.Name())); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	_, end := records(t, start, size, openDir(walDir(c), 1, size))
	if end.Kind != postgres.EndMissing || end.LSN < torn || end.LSN >= lost.Start() {
		t.Errorf("with segments missing from %s on: %v", lost, end)
	}
	tornAt := end.LSN

	c.Start(t)
	c.Exec(t, "insert into t select 3")
	c.Stop(t, server.Fast)
	r := postgres.NewWALReader(start, size, openDir(walDir(c), 1, size))
	found := false
	for {
		rec, err := r.Next()
		if err != nil {
			checkEnd(t, err, r.Position())
			break
		}
		ev, err := rec.Event()
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := ev.(postgres.OverwriteContrecord); ok {
			found = true
			if o.Overwritten != tornAt || rec.LSN <= lost.Start() || rec.LSN > lost.Start()+64 {
				t.Errorf("at %s: %+v, want the record at %s overwritten at %s", rec.LSN, o, tornAt, lost.Start())
			}
		}
	}
	if !found {
		t.Error("no record stands in for the one cut off")
	}
	refuseFalseOverwrite(t, start, lost, tornAt, openDir(walDir(c), 1, size))
	if _, err := os.Stat(c.Install.Path("pg_waldump")); err == nil {
		lsns, _ := records(t, start, size, openDir(walDir(c), 1, size))
		sameRecords(t, lsns, dumpWAL(t, c, walDir(c), 1, start))
	}
}

// Where only the end of a segment is left, it reads as the whole one does.
func TestStartInTheTailOfASegment(t *testing.T) {
	for major := postgres.MinMajor; major <= postgres.MaxMajor; major++ {
		head, err := postgres.ParseSegmentHeader(walVector(t, major))
		if err != nil {
			t.Fatal(err)
		}
		whole := append(walVector(t, major), make([]byte, head.SegmentSize)...)[:head.SegmentSize]
		all, _ := records(t, head.Start, head.SegmentSize, oneSegment(head, whole))
		block := postgres.LSN(head.BlockSize)
		startIn := func(lsn, from postgres.LSN) (*postgres.WALReader, error) {
			r := postgres.NewWALReader(lsn, head.SegmentSize, func(uint64) ([]byte, error) { return nil, fs.ErrNotExist })
			return r, r.StartIn(postgres.SegmentTail{Header: whole[:postgres.SegmentHeaderSize], From: from, WAL: whole[from-head.Start:]})
		}
		for i, lsn := range all {
			for from := head.Start; from <= lsn; from += block {
				r, err := startIn(lsn, from)
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range all[i:] {
					if rec, err := r.Next(); err != nil || rec.LSN != want {
						t.Fatalf("PostgreSQL %d, from %s in what is left from %s on: %s, %v; want %s", major, lsn, from, rec.LSN, err, want)
					}
				}
				if _, err := r.Next(); !errors.Is(err, io.EOF) {
					t.Fatalf("behind the last record: %v", err)
				}
			}
		}
		for _, bad := range []struct{ lsn, from postgres.LSN }{{all[0], all[0]}, {all[0], head.Start + block}, {all[0] - postgres.LSN(head.SegmentSize), head.Start}} {
			if _, err := startIn(bad.lsn, bad.from); !errors.Is(err, io.EOF) {
				t.Errorf("from %s in what is left from %s on: %v", bad.lsn, bad.from, err)
			}
		}
	}
}

// A call that failed because a segment, or a piece of it, could not be read is
// repeated, and goes on where it was: also within a record that crosses segments.
func TestReadingIsRepeated(t *testing.T) {
	const size = 1 * mib
	c := servertest.New(t, servertest.Options{WALSegmentSize: size, Settings: map[string]string{"wal_keep_size": "1GB", "autovacuum": "off"}})
	c.QueryString(t, "select pg_logical_emit_message(false, 'x', repeat('0123456789', 250000))")
	c.Exec(t, "create table t as select generate_series(1, 100000)") // records that begin in a segment's last page, too
	start, open := firstSegment(t, c, size).Start(), openDir(walDir(c), 1, size)
	c.Stop(t, server.Fast)
	want, _ := records(t, start, size, open)

	errOnce := errors.New("this time it fails")
	failed := map[int64]bool{}
	fail := func(at int64) error {
		if failed[at] {
			return nil
		}
		failed[at] = true
		return errOnce
	}
	for what, r := range map[string]*postgres.WALReader{
		"segments": postgres.NewWALReader(start, size, func(no uint64) ([]byte, error) {
			if err := fail(int64(no)); err != nil {
				return nil, err
			}
			return open(no)
		}),
		"pieces": postgres.NewWALReaderFromFiles(start, size, func(no uint64) (io.ReaderAt, error) {
			b, err := open(no)
			return readerAt(func(p []byte, off int64) (int, error) {
				if err := fail(-int64(no)*size - off); err != nil {
					return 0, err
				}
				return bytes.NewReader(b).ReadAt(p, off)
			}), err
		}),
	} {
		var got []postgres.LSN
		again := 0
		for {
			rec, err := r.Next()
			if errors.Is(err, errOnce) {
				again++
				continue
			}
			if err != nil {
				break
			}
			got = append(got, rec.LSN)
		}
		if !slices.Equal(got, want) || again < 8 {
			t.Errorf("%s: %d records and %d calls that failed, want %d", what, len(got), again, len(want))
		}
	}
}

type readerAt func(p []byte, off int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// refuseFalseOverwrite makes the record that stands in for the one at tornAt
// name another.
func refuseFalseOverwrite(t *testing.T, start postgres.LSN, lost postgres.Segment, tornAt postgres.LSN, open postgres.OpenSegment) {
	t.Helper()
	_, end := records(t, start, lost.Size, func(no uint64) ([]byte, error) {
		b, err := open(no)
		if err == nil && no == lost.No {
			rec := b[postgres.SegmentHeaderSize:]
			length := binary.LittleEndian.Uint32(rec)
			rec[26] ^= 8 // behind the header and that of the data: the LSN
			crc := crc32.Checksum(rec[24:length], crc32.MakeTable(crc32.Castagnoli))
			binary.LittleEndian.PutUint32(rec[20:], crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), rec[:20]))
		}
		return b, err
	})
	if end.Kind != postgres.EndInvalid || end.LSN != tornAt || !strings.Contains(end.Reason, "was cut off") {
		t.Errorf("with another record named: %v", end)
	}
}

func sameRecords(t *testing.T, lsns []postgres.LSN, want []dumped) {
	t.Helper()
	var got, dump []string
	for _, l := range lsns {
		got = append(got, l.String())
	}
	for _, d := range want {
		dump = append(dump, d.lsn)
	}
	if !slices.Equal(got, dump) {
		t.Errorf("%d records, pg_waldump shows %d, and not the same", len(got), len(dump))
	}
}

// TestTimelines promotes copies of a server, and reads over the switches.
func TestTimelines(t *testing.T) {
	const size = 1 * mib
	c := servertest.New(t, servertest.Options{WALSegmentSize: size, Settings: map[string]string{"wal_keep_size": "1GB"}})
	start := firstSegment(t, c, size).Start()
	c.Exec(t, "create table t(i int); insert into t select 1")
	for range 2 {
		c.Stop(t, server.Fast)
		// Without WAL to fetch, recovery ends where the server stopped.
		c.Setting(t, "restore_command", "false")
		if err := os.WriteFile(filepath.Join(c.DataDir(), "recovery.signal"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c.Start(t)
		c.WaitPromoted(t)
		c.Exec(t, "insert into t select generate_series(1, 20000)")
	}
	c.Exec(t, "select pg_switch_wal(); select pg_logical_emit_message(true, 'x', 'x')")
	c.Stop(t, server.Fast)

	data, err := os.ReadFile(filepath.Join(walDir(c), postgres.Timeline(3).HistoryName()))
	if err != nil {
		t.Fatal(err)
	}
	h, err := postgres.ParseHistory(3, data)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Marshal(); !bytes.Equal(got, data) && len(h.Entries) != 2 {
		t.Errorf("the history file\n%s\nbecame\n%s", data, got)
	}
	checkTimelines(t, c, h, start, size)
	checkSegments(t, c, h, size)
}

// checkTimelines reads all records and holds their timelines against the
// history.
func checkTimelines(t *testing.T, c *servertest.Cluster, h postgres.History, start postgres.LSN, size postgres.SegmentSize) {
	t.Helper()
	r := postgres.NewWALReader(start, size, openDir(walDir(c), 3, size))
	var began []postgres.Timeline
	seen := map[postgres.Timeline]int{}
	for {
		rec, err := r.Next()
		if err != nil {
			checkEnd(t, err, r.Position())
			break
		}
		seen[rec.Timeline]++
		ev, err := rec.Event()
		if err != nil {
			t.Fatal(err)
		}
		var tl, prev postgres.Timeline
		switch ev := ev.(type) {
		case postgres.EndOfRecovery:
			tl, prev = ev.Timeline, ev.PrevTimeline
		case postgres.CheckpointEvent:
			tl, prev = ev.Timeline, ev.PrevTimeline
		}
		if tl != prev {
			began = append(began, tl)
			span, ok := h.Span(tl)
			if !ok || rec.LSN < span.Begin || !h.Contains(prev, span.Begin) || h.TimelineAt(rec.LSN) != tl {
				t.Errorf("timeline %d begins at %s, the history says %+v", tl, rec.LSN, h)
			}
		}
	}
	if !slices.Equal(began, []postgres.Timeline{2, 3}) || seen[1] == 0 || seen[3] == 0 {
		t.Errorf("timelines that began: %v; records of each: %v", began, seen)
	}
}

// checkSegments holds every segment file against its name, and some against
// false ones.
func checkSegments(t *testing.T, c *servertest.Cluster, h postgres.History, size postgres.SegmentSize) {
	t.Helper()
	controlData, err := os.ReadFile(filepath.Join(c.DataDir(), postgres.ControlPath))
	if err != nil {
		t.Fatal(err)
	}
	control, err := postgres.ParseControlFile(controlData)
	if err != nil {
		t.Fatal(err)
	}
	n, older := 0, 0
	end := control.Checkpoint
	for _, span := range h.Path() {
		last := postgres.SegmentAt(span.Timeline, min(span.End, end), size)
		for s := postgres.SegmentAt(span.Timeline, max(span.Begin, 1*mib), size); s.No <= last.No; s = s.Next() {
			b, err := os.ReadFile(filepath.Join(walDir(c), s.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // an old timeline's last segment is renamed
			}
			if err != nil {
				t.Fatal(err)
			}
			head, err := postgres.CheckSegment(s.Name(), int64(len(b)), b[:postgres.SegmentHeaderSize])
			if err != nil {
				t.Error(err)
				continue
			}
			n++
			if head.Timeline < s.Timeline {
				older++
			}
			if head.SystemID != control.SystemID || head.Major != c.Install.Major || head.Start != s.Start() || head.BlockSize != 8192 {
				t.Errorf("%s: %+v", s, head)
			}
			refuseSegment(t, s, b)
		}
	}
	if n < 4 || older == 0 {
		t.Errorf("%d segments, %d of them begun on an older timeline", n, older)
	}
}

func refuseSegment(t *testing.T, s postgres.Segment, b []byte) {
	t.Helper()
	flip := func(at int) []byte {
		c := bytes.Clone(b[:postgres.SegmentHeaderSize])
		c[at] ^= 0x40
		return c
	}
	other := s.Next()
	past := postgres.Segment{Timeline: s.Timeline, No: s.No - 1, Size: s.Size}
	for what, err := range map[string]error{
		"next name":     second(postgres.CheckSegment(other.Name(), int64(len(b)), b)),
		"name before":   second(postgres.CheckSegment(past.Name(), int64(len(b)), b)),
		"short":         second(postgres.CheckSegment(s.Name(), int64(len(b))-1, b)),
		"long partial":  second(postgres.CheckSegment(s.Name()+".partial", int64(len(b))+1, b)),
		"history name":  second(postgres.CheckSegment(s.Timeline.HistoryName(), int64(len(b)), b)),
		"empty":         second(postgres.CheckSegment(s.Name(), 0, nil)),
		"zeros":         second(postgres.CheckSegment(s.Name(), int64(len(b)), make([]byte, len(b)))),
		"magic":         second(postgres.CheckSegment(s.Name(), int64(len(b)), flip(0))),
		"flags":         second(postgres.CheckSegment(s.Name(), int64(len(b)), flip(2))),
		"timeline":      second(postgres.CheckSegment(s.Name(), int64(len(b)), flip(6))),
		"address":       second(postgres.CheckSegment(s.Name(), int64(len(b)), flip(12))),
		"segment size":  second(postgres.CheckSegment(s.Name(), int64(len(b)), flip(34))),
		"WAL page size": second(postgres.CheckSegment(s.Name(), int64(len(b)), flip(37))),
	} {
		if !errors.Is(err, postgres.ErrFormat) {
			t.Errorf("%s, %s: %v", s, what, err)
		}
	}
	if err := second(postgres.CheckSegment(s.Name()+".partial", int64(len(b))/2, b)); err != nil {
		t.Errorf("a partial segment: %v", err)
	}
}

func second[A any](_ A, err error) error { return err }
