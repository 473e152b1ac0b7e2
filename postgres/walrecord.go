package postgres

import (
	"bytes"
	"fmt"
)

// The header of a WAL record (XLogRecord in access/xlogrecord.h).
const (
	recordHeaderSize = 24
	recordCRCOffset  = 20
	maxRecordSize    = 1020 << 20 // XLogRecordMaxSize

	// infoMask is the part of Info that belongs to the resource manager.
	infoMask = 0xF0
)

// Rmgr is a resource manager: the part of PostgreSQL that a record is for.
type Rmgr uint8

// The resource managers (access/rmgrlist.h), the same in PostgreSQL 13 to 18.
const (
	RmgrXLOG Rmgr = iota
	RmgrTransaction
	RmgrStorage
	RmgrCLOG
	RmgrDatabase
	RmgrTablespace
	RmgrMultiXact
	RmgrRelMap
	RmgrStandby
	RmgrHeap2
	RmgrHeap
	RmgrBtree
	RmgrHash
	RmgrGin
	RmgrGist
	RmgrSequence
	RmgrSPGist
	RmgrBRIN
	RmgrCommitTs
	RmgrReplicationOrigin
	RmgrGeneric
	RmgrLogicalMessage
	rmgrCount
)

// String is the name that pg_waldump prints.
func (m Rmgr) String() string {
	names := [rmgrCount]string{"XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace",
		"MultiXact", "RelMap", "Standby", "Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence",
		"SPGist", "BRIN", "CommitTs", "ReplicationOrigin", "Generic", "LogicalMessage"}
	if m < rmgrCount {
		return names[m]
	}
	return fmt.Sprintf("custom%03d", uint8(m))
}

// valid says whether records of m exist: from PostgreSQL 15 on, extensions
// have the numbers from 128.
func (m Rmgr) valid(major int) bool { return m < rmgrCount || (m >= 128 && major >= 15) }

// Record is one WAL record. Decode and Event read its body, which is valid
// until the next call of WALReader.Next.
type Record struct {
	LSN      LSN
	End      LSN      // where the next record begins, or its page's header
	Prev     LSN      // the record before
	Timeline Timeline // of the page in which it ends
	XID      uint32   // zero for what belongs to no transaction
	Rmgr     Rmgr
	Info     uint8

	major int
	raw   []byte
}

// Len is the bytes of the record, without page headers and padding.
func (r Record) Len() int { return len(r.raw) }

// parseRecord reads a record's header; raw has at least recordHeaderSize bytes.
func parseRecord(raw []byte) Record {
	_ = raw[recordHeaderSize-1]
	return Record{
		XID:  u32(raw[4:]),
		Prev: LSN(u64(raw[8:])),
		Info: raw[16],
		Rmgr: Rmgr(raw[17]),
		raw:  raw,
	}
}

// Compression is how a page image in WAL is compressed.
type Compression uint8

// The methods; PostgreSQL 13 and 14 know pglz alone.
const (
	CompressionNone Compression = iota
	CompressionPGLZ
	CompressionLZ4
	CompressionZSTD
)

// BlockRef is a page that a record changes.
//
// The references name each changed page of a main fork, but not of the others:
// the free space map is not in the WAL, and a record that clears a bit of the
// visibility map, such as an insertion into an all-visible page, does not name
// the map's page (heap_xlog_insert in access/heap/heapam_xlog.c). Whole files
// come and go by the events DatabaseCreate, DatabaseDrop, StorageCreate,
// StorageTruncate and TransactionEnd.Dropped.
type BlockRef struct {
	ID       uint8 // which of the record's pages; ascending, gaps are possible
	Rel      RelFile
	Fork     Fork
	Block    uint32
	WillInit bool   // replay makes the page from nothing
	Data     []byte // what the change is, for the resource manager

	// The page as it was after the change, if HasImage. Replay puts it in place
	// when Apply is set; otherwise it is there for checking.
	HasImage    bool
	Apply       bool
	Compression Compression
	Image       []byte
	// Zeros left out of the image. HoleLength is known only for a compressed
	// image; else the hole is what the image lacks to a page.
	HasHole    bool
	HoleOffset uint16
	HoleLength uint16
}

// Contents is the decoded body of a record.
type Contents struct {
	Blocks []BlockRef
	Data   []byte // the main data, for the resource manager
	Origin uint16 // the replication origin, zero for none
	TopXID uint32 // the top-level transaction, where logical decoding asked for it
}

// The items of a record's body (access/xlogrecord.h).
const (
	maxBlockID     = 32
	itemTopXID     = 252 // from PostgreSQL 14 on
	itemOrigin     = 253
	itemDataLong   = 254
	itemDataShort  = 255
	blockForkMask  = 0x0F
	blockHasImage  = 0x10
	blockHasData   = 0x20
	blockWillInit  = 0x40
	blockSameRel   = 0x80
	relFileBytes   = 12
	imageHasHole   = 0x01
	image13Pressed = 0x02 // PostgreSQL 13 and 14
	image13Apply   = 0x04
	image15Apply   = 0x02 // from 15 on
	image15PGLZ    = 0x04
	image15LZ4     = 0x08
	image15ZSTD    = 0x10
)

// Data is the main data alone.
func (r Record) Data() ([]byte, error) {
	var c Contents
	err := r.Decode(&c)
	return c.Data, err
}

// Decode reads the record's body into c, whose slices it reuses; they point
// into the record. It follows DecodeXLogRecord (access/transam/xlogreader.c).
// A record that WALReader returned has a matching checksum, so an error, which
// wraps ErrFormat, means a forged record or a format not known here.
func (r Record) Decode(c *Contents) error {
	*c = Contents{Blocks: c.Blocks[:0]}
	d := recordDecoder{cursor: cursor{b: r.raw[recordHeaderSize:]}, major: r.major, c: c}
	for !d.bad && len(d.b) > d.bodies {
		d.item()
	}
	if d.bad || len(d.b) != d.bodies {
		return r.disagrees()
	}
	for i := range c.Blocks {
		b := &c.Blocks[i]
		b.Image = d.take(len(b.Image))
		b.Data = d.take(len(b.Data))
	}
	c.Data = d.take(d.mainLen)
	return nil
}

func (r Record) disagrees() error {
	return fmt.Errorf("%w: WAL record at %s: its items and its %d bytes do not agree", ErrFormat, r.LSN, len(r.raw))
}

// recordDecoder reads the headers of a record's items. Their bodies follow
// after the last header; bodies counts their bytes.
type recordDecoder struct {
	cursor
	major   int
	c       *Contents
	bodies  int
	mainLen int
	hasRel  bool
	rel     RelFile
}

func (d *recordDecoder) item() {
	switch id := d.u8(); {
	case id == itemDataShort:
		d.main(int(d.u8()))
	case id == itemDataLong:
		d.main(int(d.u32()))
	case id == itemOrigin:
		d.c.Origin = d.u16()
	case id == itemTopXID && d.major >= 14:
		d.c.TopXID = d.u32()
	case id <= maxBlockID:
		d.block(id)
	default:
		d.bad = true
	}
}

// main takes the length of the main data, whose header is the last.
func (d *recordDecoder) main(n int) {
	d.mainLen = n
	d.body(n)
	if len(d.b) != d.bodies {
		d.bad = true
	}
}

// body reserves n bytes among the bodies. The result stands in for them until
// Decode, past the last header, puts the right ones there.
func (d *recordDecoder) body(n int) []byte {
	d.bodies += n
	if d.bad || n < 0 || d.bodies > len(d.b) {
		d.bad = true
		return nil
	}
	return d.b[:n]
}

func (d *recordDecoder) block(id uint8) {
	if n := len(d.c.Blocks); n > 0 && d.c.Blocks[n-1].ID >= id {
		d.bad = true
		return
	}
	flags := d.u8()
	b := BlockRef{
		ID:       id,
		Fork:     Fork(flags & blockForkMask),
		WillInit: flags&blockWillInit != 0,
		HasImage: flags&blockHasImage != 0,
	}
	dataLen := int(d.u16())
	imageLen := 0
	if b.HasImage {
		imageLen = d.image(&b)
	}
	if flags&blockSameRel == 0 {
		d.rel, d.hasRel = d.relFile(), true
	}
	b.Rel, b.Block = d.rel, d.u32()
	b.Image = d.body(imageLen)
	b.Data = d.body(dataLen)
	if !d.hasRel || b.Fork > ForkInit || (flags&blockHasData != 0) != (dataLen > 0) {
		d.bad = true
	}
	if !d.bad {
		d.c.Blocks = append(d.c.Blocks, b)
	}
}

// image reads the header of a page image and returns the image's length.
// PostgreSQL 15 gave the bits a new meaning.
func (d *recordDecoder) image(b *BlockRef) int {
	length := int(d.u16())
	b.HoleOffset = d.u16()
	info := d.u8()
	b.HasHole = info&imageHasHole != 0
	if d.major < 15 {
		b.Apply = info&image13Apply != 0
		if info&image13Pressed != 0 {
			b.Compression = CompressionPGLZ
		}
	} else {
		b.Apply = info&image15Apply != 0
		switch {
		case info&image15PGLZ != 0:
			b.Compression = CompressionPGLZ
		case info&image15LZ4 != 0:
			b.Compression = CompressionLZ4
		case info&image15ZSTD != 0:
			b.Compression = CompressionZSTD
		}
	}
	if b.HasHole && b.Compression != CompressionNone {
		b.HoleLength = d.u16()
	}
	return length
}

// imageCompressed is the bits of which one is set if the image is compressed.
func imageCompressed(major int) uint8 {
	if major < 15 {
		return image13Pressed
	}
	return image15PGLZ | image15LZ4 | image15ZSTD
}

// cursor reads little-endian values from the front of b. After the first read
// past the end it is bad and yields zeros.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	p := c.b[:n:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) u8() uint8 {
	if p := c.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if p := c.take(2); p != nil {
		return u16(p)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if p := c.take(4); p != nil {
		return u32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.take(8); p != nil {
		return u64(p)
	}
	return 0
}

func (c *cursor) relFile() RelFile {
	return RelFile{Tablespace: c.u32(), Database: c.u32(), Number: c.u32()}
}

// items reads a count and skips that many items of size bytes, yielding them.
func (c *cursor) items(size int) (items []byte, n int) {
	count := int(int32(c.u32()))
	if count < 0 || count > len(c.b)/size {
		c.bad = true
		return nil, 0
	}
	return c.take(count * size), count
}

// text reads up to a zero byte, which must be there.
func (c *cursor) text() string {
	i := bytes.IndexByte(c.b, 0)
	text := c.take(i + 1) // nothing, if there is no zero byte
	if len(text) == 0 {
		c.bad = true
		return ""
	}
	return string(text[:i])
}
