package blocks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Rest is the start of a record that goes on in the next segment: the WAL from
// the page on in which it begins, up to the end of its segment. It is WAL, so
// it must not leave the host on which the WAL is.
type Rest struct {
	Segment postgres.Segment
	Header  []byte       // the segment's first bytes, up to postgres.SegmentHeaderSize
	LSN     postgres.LSN // where the record begins; the segment's end when there is none
	From    postgres.LSN // the start of that page
	WAL     []byte       // from there to the end of the segment
}

// maxRest bounds a Rest. What is larger is a single record of more than a
// MiB, and leaves a hole.
const maxRest = 1 << 20

// Summarize reads the records of a whole segment, a piece at a time. before is
// the rest of the segment that comes before it, if that is known; without it
// the summary begins with the first record that begins in this one. There is
// no summary, and the error says why, when the WAL is not whole.
//
// The summary of a segment whose end is cut off by a switch, or that ends with
// a record, goes to the segment's end.
func Summarize(seg postgres.Segment, file io.ReaderAt, before *Rest) (Summary, Rest, error) {
	start := seg.Start()
	open := func(no uint64) (io.ReaderAt, error) {
		if no == seg.No {
			return file, nil
		}
		return nil, errNotHere
	}
	if before != nil && (before.Segment.End() != seg.Start() || before.Segment.Size != seg.Size) {
		before = nil
	}
	if before != nil {
		start = before.LSN
	}
	wr := postgres.NewWALReaderFromFiles(start, seg.Size, open)
	if before != nil && before.LSN < seg.Start() {
		if err := wr.StartIn(before.tail()); err != nil {
			return Summary{}, Rest{}, fmt.Errorf("summarize %s: %w", seg, err)
		}
	}
	var rd Reader
	from := postgres.LSN(0)
	for {
		rec, err := wr.Next()
		if err != nil {
			return finish(seg, file, &rd.Set, from, wr, err)
		}
		if from == 0 {
			from = begin(seg, before, rec.LSN)
		}
		if err := rd.Take(rec); err != nil {
			return Summary{}, Rest{}, fmt.Errorf("summarize %s: %w", seg, err)
		}
		if wr.Position() >= seg.End() {
			rest, err := restOf(seg, file, seg.End(), seg.End())
			return Summary{From: from, To: seg.End(), Set: &rd.Set}, rest, err
		}
	}
}

// begin is from where on the summary knows all, given its first record.
func begin(seg postgres.Segment, before *Rest, first postgres.LSN) postgres.LSN {
	switch {
	case before != nil:
		return before.LSN // also where that record was cut off by a crash
	case first == seg.Start()+postgres.SegmentHeaderSize:
		return seg.Start() // nothing came over from the segment before
	}
	return first
}

var errNotHere = errors.New("the segment that goes on is not here")

// finish makes the summary when the records go on in the next segment.
func finish(seg postgres.Segment, file io.ReaderAt, set *Set, from postgres.LSN, wr *postgres.WALReader, err error) (Summary, Rest, error) {
	if !errors.Is(err, errNotHere) {
		return Summary{}, Rest{}, fmt.Errorf("summarize %s: %w", seg, err)
	}
	at := wr.Position()
	if from == 0 || at < seg.Start() {
		return Summary{}, Rest{}, fmt.Errorf("summarize %s: no record ends in it", seg)
	}
	rest, err := restOf(seg, file, at, at&^(wr.BlockSize()-1))
	return Summary{From: from, To: at, Set: set}, rest, err
}

// restOf is what is left of a segment from a record's page on; of no segment
// when that is too much.
func restOf(seg postgres.Segment, file io.ReaderAt, record, page postgres.LSN) (Rest, error) {
	if seg.End()-page > maxRest {
		return Rest{}, nil
	}
	rest := Rest{Segment: seg, Header: make([]byte, postgres.SegmentHeaderSize), LSN: record, From: page, WAL: make([]byte, seg.End()-page)}
	for _, part := range []struct {
		b  []byte
		at postgres.LSN
	}{{rest.Header, 0}, {rest.WAL, page - seg.Start()}} {
		if n, err := file.ReadAt(part.b, int64(part.at)); n < len(part.b) {
			return Rest{}, fmt.Errorf("read the rest of %s: %w", seg, err)
		}
	}
	return rest, nil
}

// ReadRest reads the rest of a segment that was kept as JSON in a directory, in a
// file named like the segment; nil when there is none that can be used.
func ReadRest(dir string, seg postgres.Segment) *Rest {
	raw, err := os.ReadFile(filepath.Join(dir, seg.Name()))
	var rest Rest
	if err != nil || json.Unmarshal(raw, &rest) != nil || rest.Segment != seg || !rest.valid() {
		return nil
	}
	return &rest
}

func (r *Rest) valid() bool {
	return r.Segment.Size.Valid() && r.LSN >= r.Segment.Start() && r.LSN <= r.Segment.End() &&
		len(r.Header) == postgres.SegmentHeaderSize && r.From >= r.Segment.Start() && r.From <= r.LSN &&
		r.From+postgres.LSN(len(r.WAL)) == r.Segment.End()
}

func (r *Rest) tail() postgres.SegmentTail {
	return postgres.SegmentTail{Header: r.Header, From: r.From, WAL: r.WAL}
}
