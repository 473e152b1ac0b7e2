package postgres

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// EndKind says why the WAL ends where it ends.
type EndKind int

const (
	// EndMissing: the next bytes were not handed in; open said that there is
	// no such segment, or gave less of it.
	EndMissing EndKind = iota + 1
	// EndUnwritten: zeros stand where the next record would begin. That is how
	// the last segment of a timeline goes on, up to its end.
	EndUnwritten
	// EndInvalid: the bytes that follow are no valid record. In the last
	// segment that is what is left of a torn write or a recycled file; in one
	// that has a successor it is damage.
	EndInvalid
)

// EndOfWAL is the error of WALReader.Next past the last valid record. It is
// io.EOF to errors.Is.
type EndOfWAL struct {
	LSN    LSN // where the record that is not there would begin
	Kind   EndKind
	Reason string
}

func (e *EndOfWAL) Error() string { return fmt.Sprintf("WAL ends at %s: %s", e.LSN, e.Reason) }

// Is makes the end of WAL an io.EOF.
func (e *EndOfWAL) Is(target error) bool { return target == io.EOF }

// WALReader reads the records of the WAL one after another and believes only
// what is proven: page headers (magic number, address, system identifier,
// timelines that never step back), the parts of records that cross pages, each
// record's CRC-32C and its link to the record before. It follows
// access/transam/xlogreader.c.
//
// Its memory is one buffer for the largest record that crosses a page.
type WALReader struct {
	size SegmentSize
	open OpenSegment
	file OpenSegmentFile // instead of open

	seg             []byte // bytes of a segment, as far as they are there
	segFrom, segEnd LSN    // what they would be with all that was asked for; zeros: none yet
	windows         windows

	magic     uint16
	major     int
	systemID  SystemID
	blockSize LSN

	rec       Record
	next      LSN // where to read on
	prev      LSN // the record before next; zero while unknown
	started   bool
	page      LSN // the page that was checked last
	pageEnd   LSN // its end, or that of the bytes there are; zero: none checked
	tl        Timeline
	aborted   LSN // a record whose rest was never written; see overwritten
	abortedAt LSN // the page that says so
	buf       []byte
	end       *EndOfWAL
}

// NewWALReader reads from start, which must be the LSN of a record (a redo
// point, the start of a backup, the end of another record) or the start of a
// page, such as that of a segment; there the rest of a record that begins
// earlier is skipped. The size must be valid.
func NewWALReader(start LSN, size SegmentSize, open OpenSegment) *WALReader {
	return &WALReader{size: size, open: open, next: start}
}

// NewWALReaderFromFiles is NewWALReader for segments that are read piece by
// piece, which takes 256 KiB of memory and not a segment.
func NewWALReaderFromFiles(start LSN, size SegmentSize, file OpenSegmentFile) *WALReader {
	return &WALReader{size: size, file: file, next: start}
}

// Major is the major of PostgreSQL that wrote the WAL; zero before the first
// segment was opened.
func (r *WALReader) Major() int { return r.major }

// SystemID is the system identifier in the segments; zero before the first.
func (r *WALReader) SystemID() SystemID { return r.systemID }

// BlockSize is the size of the WAL's pages; zero before the first segment.
func (r *WALReader) BlockSize() LSN { return r.blockSize }

// Position is where the next record begins, or the rest of it would.
func (r *WALReader) Position() LSN { return r.next }

// Next returns the next record. The record's bytes are valid until the next
// call. At the end of valid WAL the error is an *EndOfWAL, now and at each
// later call; another error came from open, and the call may be repeated.
func (r *WALReader) Next() (Record, error) {
	if r.end != nil {
		return Record{}, r.end
	}
	if err := r.read(); err != nil {
		if e, ok := err.(*EndOfWAL); ok {
			r.end = e
		}
		return Record{}, err
	}
	return r.rec, nil
}

// read makes the next record that of r.
func (r *WALReader) read() error {
	if !r.started {
		if err := r.start(); err != nil {
			return err
		}
		r.started = true
	}
	for {
		raw, end, err := r.gather()
		if err == errOverwritten {
			continue
		}
		if err != nil {
			return err
		}
		return r.accept(raw, end)
	}
}

// start moves next to the first record at or after it.
func (r *WALReader) start() error {
	for {
		h, err := r.checkPage(r.next)
		if err != nil {
			return err
		}
		first := r.page + LSN(h.size())
		if r.next > r.page && r.next >= first {
			return nil // within the page: a record, says the caller
		}
		if h.flags&walFlagContrecord == 0 {
			r.next = first
			return nil
		}
		rest := maxAlign(h.remLen)
		if first+rest < r.page+r.blockSize {
			r.next = first + rest
			return nil
		}
		r.next = r.page + r.blockSize
	}
}

// gather collects the bytes of the record at next, and says where it ends.
// errOverwritten means that the record is none and next has moved on.
func (r *WALReader) gather() (raw []byte, end LSN, err error) {
	at, err := r.recordStart()
	if err != nil {
		return nil, 0, err
	}
	// Records are aligned, so the length never crosses a page.
	off := at - r.segFrom
	if at+8 > r.pageEnd {
		return nil, 0, r.missing("the segment ends here")
	}
	length := u32(r.seg[off:])
	switch {
	case length == 0:
		return nil, 0, r.ends(EndUnwritten, "no record was written here")
	case length < recordHeaderSize || length > maxRecordSize:
		return nil, 0, r.ends(EndInvalid, "record of %d bytes", length)
	}
	if at+LSN(length) <= r.pageEnd {
		return r.seg[off : off+LSN(length)], at + maxAlign(length), nil
	}
	return r.gatherPages(at, length)
}

// recordStart steps over the header if next is the start of a page.
func (r *WALReader) recordStart() (LSN, error) {
	if r.next > r.page && r.next < r.page+r.blockSize && r.pageEnd != 0 {
		return r.next, nil
	}
	h, err := r.checkPage(r.next)
	if err != nil {
		return 0, err
	}
	if r.next != r.page {
		return r.next, nil
	}
	if h.flags&walFlagContrecord != 0 {
		return 0, r.ends(EndInvalid, "the page begins within a record, though one ended before it")
	}
	r.next += LSN(h.size())
	return r.next, nil
}

// gatherPages collects a record that goes on in the pages that follow. The
// buffer grows by what is there, not by what the record claims.
func (r *WALReader) gatherPages(at LSN, length uint32) ([]byte, LSN, error) {
	pageEnd := r.page + r.blockSize
	if r.pageEnd < pageEnd {
		return nil, 0, r.missing("the segment ends within the record")
	}
	r.buf = append(r.buf[:0], r.seg[at-r.segFrom:pageEnd-r.segFrom]...)
	if err := r.checkHeaderEarly(r.buf); err != nil {
		return nil, 0, err
	}
	for {
		h, err := r.checkPage(pageEnd)
		if err != nil {
			return nil, 0, err
		}
		rest := length - uint32(len(r.buf))
		switch {
		case h.flags&walFlagOverwrite != 0:
			r.aborted, r.abortedAt, r.next = at, r.page, r.page
			return nil, 0, errOverwritten
		case h.flags&walFlagContrecord == 0:
			return nil, 0, r.ends(EndInvalid, "the record does not go on at %s", r.page)
		case h.remLen != rest:
			return nil, 0, r.ends(EndInvalid, "the record goes on at %s with %d bytes, not %d", r.page, h.remLen, rest)
		}
		from := r.page + LSN(h.size())
		pageEnd = r.page + r.blockSize
		to := min(from+LSN(rest), pageEnd)
		if to > r.pageEnd {
			return nil, 0, r.missing("the segment ends within the record")
		}
		r.buf = append(r.buf, r.seg[from-r.segFrom:to-r.segFrom]...)
		if uint32(len(r.buf)) == length {
			return r.buf, from + maxAlign(rest), nil
		}
	}
}

// errOverwritten is for read alone: the record at next was cut off by a crash,
// and WAL goes on at next, which has moved.
var errOverwritten = errors.New("overwritten record")

// checkHeaderEarly checks what is already there of a record that crosses
// pages, so that a hostile length does not make the reader walk far.
func (r *WALReader) checkHeaderEarly(b []byte) error {
	if len(b) < recordHeaderSize {
		return nil
	}
	rec := parseRecord(b)
	return r.checkHeader(&rec)
}

func (r *WALReader) checkHeader(rec *Record) error {
	switch {
	case !rec.Rmgr.valid(r.major):
		return r.ends(EndInvalid, "record of the unknown resource manager %d", rec.Rmgr)
	case r.prev != 0 && rec.Prev != r.prev:
		return r.ends(EndInvalid, "record after %s, though the record before is at %s", rec.Prev, r.prev)
	case r.prev == 0 && rec.Prev >= r.next:
		return r.ends(EndInvalid, "record after %s, which is not before it", rec.Prev)
	}
	return nil
}

// accept checks a whole record and moves past it.
func (r *WALReader) accept(raw []byte, end LSN) error {
	r.rec = parseRecord(raw)
	rec := &r.rec
	if err := r.checkHeader(rec); err != nil {
		return err
	}
	crc := crc32.Update(0, castagnoli, raw[recordHeaderSize:])
	crc = crc32.Update(crc, castagnoli, raw[:recordCRCOffset])
	if stored := u32(raw[recordCRCOffset:]); crc != stored {
		return r.ends(EndInvalid, "the record's checksum is %08X, computed %08X", stored, crc)
	}
	rec.LSN, rec.Timeline, rec.major = r.next, r.tl, r.major
	if r.aborted != 0 {
		if err := r.checkOverwrite(r.rec); err != nil {
			return err
		}
	}
	if rec.Rmgr == RmgrXLOG && rec.Info&infoMask == xlogSwitch {
		// The rest of the segment is padding.
		end = (end + LSN(r.size) - 1) &^ LSN(r.size-1)
	}
	rec.End = end
	r.prev, r.next = rec.LSN, end
	return nil
}

// checkOverwrite holds the first record after a cut-off one to its duty: to
// name the record that it stands in for (VerifyOverwriteContrecord).
func (r *WALReader) checkOverwrite(rec Record) error {
	data, err := rec.Data()
	if err != nil || rec.Rmgr != RmgrXLOG || rec.Info&infoMask != xlogOverwriteContrecord ||
		len(data) < 8 || LSN(u64(data)) != r.aborted {
		lsn := r.aborted
		r.next = lsn
		return r.ends(EndInvalid, "the record was cut off, and none at %s says so", r.abortedAt)
	}
	r.aborted = 0
	return nil
}

func (r *WALReader) ends(kind EndKind, format string, args ...any) error {
	return &EndOfWAL{LSN: r.next, Kind: kind, Reason: fmt.Sprintf(format, args...)}
}

func (r *WALReader) missing(reason string) error { return r.ends(EndMissing, "%s", reason) }

// maxAlign rounds up to the 8 bytes on which records begin.
func maxAlign(n uint32) LSN { return (LSN(n) + 7) &^ 7 }

// checkPage opens the segment that holds at, checks the header of the page
// there, and makes it the current page.
func (r *WALReader) checkPage(at LSN) (walPageHeader, error) {
	if at < r.segFrom || at >= r.segEnd {
		if err := r.load(at); err != nil {
			return walPageHeader{}, err
		}
	}
	page := at &^ (r.blockSize - 1)
	off := page - r.segFrom
	have := LSN(len(r.seg))
	if have < off+walLongHeader {
		return walPageHeader{}, r.missing("the segment ends here")
	}
	b := r.seg[off:]
	h := parseWALPage(b)
	if err := r.checkPageHeader(h, b, page); err != nil {
		return walPageHeader{}, err
	}
	r.page, r.pageEnd, r.tl = page, min(page+r.blockSize, r.segFrom+have), h.tl
	return h, nil
}

// checkPageHeader follows XLogReaderValidatePageHeader.
func (r *WALReader) checkPageHeader(h walPageHeader, b []byte, page LSN) error {
	switch {
	case h.magic == 0 && IsNewPage(b[:walShortHeader]):
		return r.ends(EndUnwritten, "the page at %s was never written", page)
	case h.magic != r.magic:
		return r.ends(EndInvalid, "the page at %s has the magic number %04X, not %04X", page, h.magic, r.magic)
	case h.flags&^walAllFlags != 0:
		return r.ends(EndInvalid, "the page at %s has the flags %04X", page, h.flags)
	case h.addr != page:
		return r.ends(EndInvalid, "the page at %s says it is that of %s", page, h.addr)
	case h.tl < r.tl && page > r.page:
		return r.ends(EndInvalid, "the page at %s steps back from timeline %d to %d", page, r.tl, h.tl)
	}
	return nil
}
