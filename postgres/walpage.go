package postgres

import "fmt"

// The header of a WAL page (XLogPageHeaderData in access/xlog_internal.h).
// The long form stands at the start of each segment.
const (
	walShortHeader = 24
	walLongHeader  = 40

	walFlagContrecord = 0x0001 // the page begins with the rest of a record
	walFlagLong       = 0x0002
	walFlagOverwrite  = 0x0008 // the rest that belongs here was never written
	walAllFlags       = 0x000F
)

// SegmentHeaderSize is the number of bytes that ParseSegmentHeader needs.
const SegmentHeaderSize = walLongHeader

// walPageHeader is the part that all pages have.
type walPageHeader struct {
	magic  uint16
	flags  uint16
	tl     Timeline
	addr   LSN
	remLen uint32 // of the record that the page begins with the rest of
}

// size is the bytes of the header, after which records come.
func (h walPageHeader) size() int {
	if h.flags&walFlagLong != 0 {
		return walLongHeader
	}
	return walShortHeader
}

// parseWALPage reads the short part; b has at least walShortHeader bytes.
func parseWALPage(b []byte) walPageHeader {
	_ = b[walShortHeader-1]
	return walPageHeader{
		magic:  u16(b),
		flags:  u16(b[2:]),
		tl:     Timeline(u32(b[4:])),
		addr:   LSN(u64(b[8:])),
		remLen: u32(b[16:]),
	}
}

// SegmentHeader is what the first page of a WAL segment says of itself.
type SegmentHeader struct {
	Magic       uint16
	Major       int
	Timeline    Timeline // of the first byte; see CheckSegment
	Start       LSN
	SystemID    SystemID
	SegmentSize SegmentSize
	BlockSize   uint32 // of WAL pages, in bytes
}

// ParseSegmentHeader reads the first SegmentHeaderSize bytes of a WAL segment
// of PostgreSQL 13 to 18. Errors wrap ErrFormat and name what is wrong; a
// segment that holds only zeros was preallocated and never written.
func ParseSegmentHeader(data []byte) (SegmentHeader, error) {
	if len(data) < walLongHeader {
		return SegmentHeader{}, fmt.Errorf("%w: WAL segment of %d bytes has no header", ErrFormat, len(data))
	}
	page := parseWALPage(data)
	h := SegmentHeader{
		Magic:       page.magic,
		Timeline:    page.tl,
		Start:       page.addr,
		SystemID:    SystemID(u64(data[24:])),
		SegmentSize: SegmentSize(u32(data[32:])),
		BlockSize:   u32(data[36:]),
	}
	var known bool
	h.Major, known = MajorOfMagic(h.Magic)
	switch {
	case IsNewPage(data[:walLongHeader]):
		return SegmentHeader{}, fmt.Errorf("%w: WAL segment begins with zeros: nothing was written to it", ErrFormat)
	case !known:
		return SegmentHeader{}, fmt.Errorf("%w: WAL page magic number %04X is not of PostgreSQL %d to %d",
			ErrFormat, h.Magic, MinMajor, MaxMajor)
	case page.flags&walFlagLong == 0 || page.flags&^walAllFlags != 0:
		return SegmentHeader{}, fmt.Errorf("%w: WAL segment begins with page flags %04X", ErrFormat, page.flags)
	case !h.SegmentSize.Valid():
		return SegmentHeader{}, fmt.Errorf("%w: WAL segment says its size is %d", ErrFormat, h.SegmentSize)
	case !validBlockSize(h.BlockSize, 64<<10):
		return SegmentHeader{}, fmt.Errorf("%w: WAL segment says its page size is %d", ErrFormat, h.BlockSize)
	case h.Timeline == 0:
		return SegmentHeader{}, fmt.Errorf("%w: WAL segment is of timeline 0", ErrFormat)
	case h.SegmentSize.Offset(h.Start) != 0:
		return SegmentHeader{}, fmt.Errorf("%w: WAL segment says it starts at %s, which is within a segment", ErrFormat, h.Start)
	}
	return h, nil
}

// CheckSegment holds the first bytes of a WAL segment's file (at least
// SegmentHeaderSize) against the file's name and its size in bytes, and returns
// the header. The caller compares the system identifier.
//
// A partial segment may be shorter than a segment, another may not. The
// timeline in the header may be older than that in the name: a new timeline
// that begins within a segment starts as a copy of the old one's.
func CheckSegment(name string, fileSize int64, header []byte) (SegmentHeader, error) {
	n, err := ParseWALName(name)
	if err != nil {
		return SegmentHeader{}, err
	}
	if n.Kind != WALSegment && n.Kind != WALPartial {
		return SegmentHeader{}, fmt.Errorf("%w: %s is a %s, not a WAL segment", ErrFormat, name, n.Kind)
	}
	h, err := ParseSegmentHeader(header)
	if err != nil {
		return SegmentHeader{}, fmt.Errorf("%s: %w", name, err)
	}
	seg, err := ParseSegment(n.Segment, h.SegmentSize)
	if err != nil {
		return SegmentHeader{}, err
	}
	switch {
	case fileSize > int64(h.SegmentSize), fileSize < int64(h.SegmentSize) && n.Kind == WALSegment:
		return SegmentHeader{}, fmt.Errorf("%w: %s has %d bytes, its header says %d", ErrFormat, name, fileSize, h.SegmentSize)
	case h.Start != seg.Start():
		return SegmentHeader{}, fmt.Errorf("%w: %s should start at %s, its header says %s", ErrFormat, name, seg.Start(), h.Start)
	case h.Timeline > seg.Timeline:
		return SegmentHeader{}, fmt.Errorf("%w: %s holds WAL of the later timeline %d", ErrFormat, name, h.Timeline)
	}
	return h, nil
}
