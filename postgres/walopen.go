package postgres

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// OpenSegment hands a segment to a WALReader: its bytes from its start, all or
// as many as there are. An error that is fs.ErrNotExist ends the WAL; any other
// is returned by Next. The reader never writes to the slice, and is done with
// it when it calls again or is dropped.
type OpenSegment func(segNo uint64) ([]byte, error)

// OpenSegmentFile is OpenSegment for a segment that is not in memory. Its end,
// io.EOF, may come early, as with a slice that is short.
type OpenSegmentFile func(segNo uint64) (io.ReaderAt, error)

// windowSize is how much of a file is read at once: a multiple of every size
// of a WAL page, and little enough to stay in a core's cache.
const windowSize = 256 << 10

// windows are the pieces of the one file that is open.
type windows struct {
	file  io.ReaderAt
	start LSN // of its segment
	buf   []byte
}

// load brings the page at a position into seg.
func (r *WALReader) load(at LSN) error {
	// Nothing is there until it is loaded, and the page that was checked went too: when
	// this fails, and the call is repeated, it is looked for again.
	r.segFrom, r.segEnd, r.pageEnd = 0, 0, 0
	start := at &^ LSN(r.size-1)
	if r.windows.file != nil && r.windows.start == start {
		return r.slide(at)
	}
	r.windows.file = nil
	seg, file, err := r.openSegment(uint64(at) / uint64(r.size))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r.missing("there is no segment that goes on")
	case err != nil:
		return fmt.Errorf("open the WAL segment of %s: %w", at, err)
	case len(seg) > int(r.size):
		seg = seg[:r.size]
	}
	if err := r.takeHeader(seg, start); err != nil {
		return err
	}
	if file == nil {
		r.seg, r.segFrom, r.segEnd = seg, start, start+LSN(r.size)
		return nil
	}
	r.windows.file, r.windows.start = file, start
	return r.slide(at)
}

// openSegment opens a segment, and returns its first bytes at least.
func (r *WALReader) openSegment(no uint64) (seg []byte, file io.ReaderAt, err error) {
	if r.file == nil {
		seg, err = r.open(no)
		return seg, nil, err
	}
	if file, err = r.file(no); err != nil {
		return nil, nil, err
	}
	seg, err = readUpTo(file, make([]byte, walLongHeader), 0)
	return seg, file, err
}

// slide reads the piece of the open file that holds a position.
func (r *WALReader) slide(at LSN) error {
	w := &r.windows
	if w.buf == nil {
		w.buf = make([]byte, min(windowSize, int64(r.size)))
	}
	from := at &^ LSN(len(w.buf)-1)
	seg, err := readUpTo(w.file, w.buf, int64(from-w.start))
	if err != nil {
		return fmt.Errorf("read the WAL segment of %s: %w", at, err)
	}
	r.seg, r.segFrom, r.segEnd = seg, from, from+LSN(len(w.buf))
	return nil
}

// readUpTo is ReadAt to which the end of the file is no error.
func readUpTo(file io.ReaderAt, b []byte, off int64) ([]byte, error) {
	n, err := file.ReadAt(b, off)
	if err == io.EOF || n == len(b) {
		err = nil
	}
	return b[:n], err
}

// SegmentTail is the end of a segment of which the rest may be gone.
type SegmentTail struct {
	Header []byte // the segment's first SegmentHeaderSize bytes
	From   LSN    // where WAL begins, which must be the start of a page
	WAL    []byte // up to the end of the segment
}

// StartIn has the reader begin in a tail that holds its position, instead of
// opening that segment. It is called before Next, and fails as Next would.
func (r *WALReader) StartIn(t SegmentTail) error {
	start := t.From &^ LSN(r.size-1)
	if err := r.takeHeader(t.Header, start); err != nil {
		return err
	}
	if r.next < t.From || t.From&(r.blockSize-1) != 0 || t.From+LSN(len(t.WAL)) != start+LSN(r.size) {
		return r.ends(EndInvalid, "what is left of the segment at %s has %d bytes from %s on", start, len(t.WAL), t.From)
	}
	r.seg, r.segFrom, r.segEnd = t.WAL, t.From, start+LSN(r.size)
	return nil
}

// takeHeader checks the first bytes of the segment at start.
func (r *WALReader) takeHeader(seg []byte, start LSN) error {
	if len(seg) < walLongHeader {
		return r.missing("the segment that goes on has no header yet")
	}
	if IsNewPage(seg[:walLongHeader]) {
		return r.ends(EndUnwritten, "the segment at %s was never written", start)
	}
	h, err := ParseSegmentHeader(seg)
	switch {
	case err != nil:
		return r.ends(EndInvalid, "%v", err)
	case h.SegmentSize != r.size:
		return r.ends(EndInvalid, "the segment at %s is of a cluster with segments of %d bytes", start, h.SegmentSize)
	case h.Start != start:
		return r.ends(EndInvalid, "the segment at %s says it starts at %s", start, h.Start)
	case r.magic != 0 && (h.Magic != r.magic || h.SystemID != r.systemID || LSN(h.BlockSize) != r.blockSize):
		return r.ends(EndInvalid, "the segment at %s is of another system, %d", start, h.SystemID)
	}
	r.magic, r.major, r.systemID, r.blockSize = h.Magic, h.Major, h.SystemID, LSN(h.BlockSize)
	return nil
}
