package blocks

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

func sortFolders(f [][2]uint32) {
	slices.SortFunc(f, func(a, b [2]uint32) int {
		return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]))
	})
}

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

// Summarize reads the records of a whole segment. before is the rest of the
// segment that comes before it, if that is known; without it the summary
// begins with the first record that begins in this one. There is no summary,
// and the error says why, when the WAL is not whole.
//
// The summary of a segment whose end is cut off by a switch, or that ends with
// a record, goes to the segment's end.
func Summarize(seg postgres.Segment, raw []byte, before *Rest) (Summary, Rest, error) {
	if int64(len(raw)) != int64(seg.Size) {
		return Summary{}, Rest{}, fmt.Errorf("summarize %s: it has %d bytes", seg, len(raw))
	}
	start := seg.Start()
	open := func(no uint64) ([]byte, error) {
		switch {
		case no == seg.No:
			return raw, nil
		case before != nil && no == before.Segment.No:
			return before.segment(), nil
		}
		return nil, errNotHere
	}
	if before != nil {
		if before.Segment.End() == seg.Start() && before.Segment.Size == seg.Size {
			start = before.LSN
		} else {
			before = nil
		}
	}
	wr := postgres.NewWALReader(start, seg.Size, open)
	var rd Reader
	from := postgres.LSN(0)
	for {
		rec, err := wr.Next()
		if err != nil {
			return finish(seg, raw, &rd.Set, from, wr, err)
		}
		if from == 0 {
			from = begin(seg, before, rec.LSN)
		}
		if err := rd.Take(rec); err != nil {
			return Summary{}, Rest{}, fmt.Errorf("summarize %s: %w", seg, err)
		}
		if wr.Position() >= seg.End() {
			s := Summary{From: from, To: seg.End(), Set: &rd.Set}
			return s, Rest{Segment: seg, Header: header(raw), LSN: seg.End(), From: seg.End()}, nil
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
func finish(seg postgres.Segment, raw []byte, set *Set, from postgres.LSN, wr *postgres.WALReader, err error) (Summary, Rest, error) {
	if !errors.Is(err, errNotHere) {
		return Summary{}, Rest{}, fmt.Errorf("summarize %s: %w", seg, err)
	}
	at := wr.Position()
	if from == 0 || at < seg.Start() {
		return Summary{}, Rest{}, fmt.Errorf("summarize %s: no record ends in it", seg)
	}
	page := at &^ (wr.BlockSize() - 1)
	rest := Rest{Segment: seg, Header: header(raw), LSN: at, From: page, WAL: raw[page-seg.Start():]}
	if len(rest.WAL) > maxRest {
		rest = Rest{}
	} else {
		rest.WAL = slices.Clone(rest.WAL)
	}
	return Summary{From: from, To: at, Set: set}, rest, nil
}

func header(raw []byte) []byte { return slices.Clone(raw[:postgres.SegmentHeaderSize]) }

// Valid says whether a rest that was read from a file can be used.
func (r *Rest) Valid() bool {
	return r.Segment.Size.Valid() && r.LSN >= r.Segment.Start() && r.LSN <= r.Segment.End() &&
		len(r.Header) == postgres.SegmentHeaderSize && r.From >= r.Segment.Start() && r.From <= r.LSN &&
		r.From+postgres.LSN(len(r.WAL)) == r.Segment.End()
}

// segment is the whole segment again, with zeros for what is not known.
func (r *Rest) segment() []byte {
	raw := make([]byte, r.Segment.Size)
	copy(raw, r.Header)
	copy(raw[r.From-r.Segment.Start():], r.WAL)
	return raw
}
