package postgres

import "fmt"

// BlockSize is the page size that PostgreSQL is built with unless told
// otherwise, in bytes. The control file tells a cluster's own.
const BlockSize = 8192

// Offsets in the header of a page (PageHeaderData in storage/bufpage.h).
const (
	pageLSNOffset      = 0 // two halves of 4 bytes, the high one first
	pageChecksumOffset = 8 // 2 bytes
	pageFlagsOffset    = 10

	pageHeaderSize = 24
	pageAllVisible = 0x0004 // PD_ALL_VISIBLE
)

// The constants of the checksum (storage/checksum_impl.h): FNV-1a with a twist,
// on 32 lanes side by side.
const (
	checksumLanes = 32
	checksumRow   = checksumLanes * 4 // bytes that feed each lane once
	fnvPrime      = 16777619
)

// checksumBase is the value that each lane starts with.
var checksumBase = [checksumLanes]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

// PageChecksum is the checksum that belongs into the page of block number
// block (pg_checksum_page). The number counts over all files of the relation's
// fork, so that a page written to the wrong place is noticed. len(page) must be
// a multiple of 128 and at least 24; the checksum that is in the page counts as
// zero. The page is not changed.
func PageChecksum(page []byte, block uint32) uint16 {
	var sum uint32
	if len(page) == BlockSize {
		sum = checksum8K((*[BlockSize]byte)(page))
	} else {
		sum = checksumAny(page)
	}
	sum ^= block
	return uint16(sum%65535 + 1) // never zero: zero stands for no checksum
}

// fnv takes one word into a lane.
func fnv(sum, word uint32) uint32 {
	sum ^= word
	return sum*fnvPrime ^ sum>>17
}

// startLanes is the lanes before the first row of a page whose own checksum is
// stored. The checksum lies in the low half of a word and must count as zero;
// as fnv begins with an exclusive or, it is cancelled here, outside the loops.
func startLanes(stored uint16) [checksumLanes]uint32 {
	lanes := checksumBase
	lanes[pageChecksumOffset/4] ^= uint32(stored)
	return lanes
}

// checksumAny computes the sum over a page of any size, a row at a time.
func checksumAny(page []byte) uint32 {
	lanes := startLanes(StoredChecksum(page))
	for ; len(page) >= checksumRow; page = page[checksumRow:] {
		for i := range lanes {
			lanes[i] = fnv(lanes[i], u32(page[i*4:]))
		}
	}
	// Two rounds of zeros mix the last words in.
	var sum uint32
	for _, lane := range lanes {
		sum ^= fnv(fnv(lane, 0), 0)
	}
	return sum
}

// checksum8K is checksumAny for the usual size, written for speed: four lanes
// at a time, the column of four words down all rows. Four need no register
// spilled, and their multiplications overlap.
func checksum8K(page *[BlockSize]byte) uint32 {
	lanes := startLanes(StoredChecksum(page[:]))
	var sum uint32
	for first := 0; first < checksumLanes; first += 4 {
		base := (*[4]uint32)(lanes[first : first+4])
		a, b, c, d := base[0], base[1], base[2], base[3]
		for at := first * 4; at < BlockSize; at += checksumRow {
			w := (*[16]byte)(page[at : at+16])
			a = fnv(a, u32(w[0:4]))
			b = fnv(b, u32(w[4:8]))
			c = fnv(c, u32(w[8:12]))
			d = fnv(d, u32(w[12:16]))
		}
		sum ^= fnv(fnv(a, 0), 0) ^ fnv(fnv(b, 0), 0) ^ fnv(fnv(c, 0), 0) ^ fnv(fnv(d, 0), 0)
	}
	return sum
}

// PageLSN is the LSN just past the last record that changed the page. It reads
// the first 8 bytes; for a page that was never written it is zero.
func PageLSN(page []byte) LSN {
	return LSN(u32(page[pageLSNOffset:]))<<32 | LSN(u32(page[pageLSNOffset+4:]))
}

// StoredChecksum is the checksum that the page carries. It reads 10 bytes.
func StoredChecksum(page []byte) uint16 { return u16(page[pageChecksumOffset:]) }

// PageAllVisible says whether a heap page claims that every transaction sees all
// of its rows. It reads 12 bytes.
func PageAllVisible(page []byte) bool { return u16(page[pageFlagsOffset:])&pageAllVisible != 0 }

// VisibilityPage is the page of the visibility map that tells of a heap page: the
// map has two bits for each (HEAPBLK_TO_MAPBLOCK in access/heap/visibilitymap.c).
func VisibilityPage(block, blockSize uint32) uint32 {
	return block / ((blockSize - pageHeaderSize) * 4)
}

// IsNewPage says whether every byte is zero: a page that a relation was
// extended by and that was never initialized. It has no checksum, and is valid.
func IsNewPage(page []byte) bool {
	// Nearly every page has an LSN, so the first bytes mostly decide.
	for len(page) >= 8 {
		if u64(page) != 0 {
			return false
		}
		page = page[8:]
	}
	for _, b := range page {
		if b != 0 {
			return false
		}
	}
	return true
}

// VerifyPages checks the checksum of each page in buf, whose first page is
// block firstBlock of its relation's fork, and calls bad for each that does not
// match: want is what was computed, got what the page carries. New pages are
// valid. Bytes after the last whole page are not looked at.
//
// A bad page of a running server may be a write in progress, so a caller reads
// it again before it reports damage. Call it only for files of which
// RelationFile says that they have pages, and only if the control file's
// DataChecksumVersion is not zero.
//
// It returns an error, before calling bad, if blockSize is no valid page size.
func VerifyPages(buf []byte, firstBlock uint32, blockSize int, bad func(block uint32, want, got uint16)) error {
	if blockSize <= 0 || blockSize > 32<<10 || !validBlockSize(uint32(blockSize), 32<<10) {
		return fmt.Errorf("%w: page size %d", ErrFormat, blockSize)
	}
	block := firstBlock
	for ; len(buf) >= blockSize; buf = buf[blockSize:] {
		page := buf[:blockSize]
		got := StoredChecksum(page)
		want := PageChecksum(page, block)
		// pd_upper is zero in a new page and in no other (PageIsNew), but a page
		// that lost just its header is no new page, so all of it must be zero.
		if want != got && !IsNewPage(page) {
			bad(block, want, got)
		}
		block++
	}
	return nil
}
