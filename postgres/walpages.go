package postgres

// PageRef names a page.
type PageRef struct {
	Rel   RelFile
	Fork  Fork
	Block uint32
}

// The bytes of an item's header that are there in any case; its first byte, the
// id, included.
const (
	blockItem = 4 // flags, bytes of data
	imageItem = 5 // more where there is an image
)

// AppendPages appends the pages that the record changes: those that Decode
// finds, and nothing with an error where Decode has one. It looks at no more
// than where they stand, for whoever reads all WAL for them alone.
func (r Record) AppendPages(pages []PageRef) ([]PageRef, error) {
	d := pageFinder{b: r.raw[recordHeaderSize:], major: r.major, last: -1}
	found := len(pages)
	for len(d.b) > d.bodies {
		switch id := d.b[0]; {
		case id <= maxBlockID:
			if !d.block() {
				return pages[:found], r.disagrees()
			}
			pages = append(pages, d.page)
		case !d.other(id):
			return pages[:found], r.disagrees()
		}
	}
	if len(d.b) != d.bodies {
		return pages[:found], r.disagrees()
	}
	return pages, nil
}

// pageFinder steps over the headers of a record's items.
type pageFinder struct {
	b      []byte // from the next item on
	bodies int    // bytes at the end of b that belong to the items so far
	major  int
	last   int  // the id of the page before
	hasRel bool // a page before had a relation
	page   PageRef
}

// skip steps over n bytes, if they are there.
func (d *pageFinder) skip(n int) bool {
	if len(d.b) < n {
		return false
	}
	d.b = d.b[n:]
	return true
}

// block takes a page.
func (d *pageFinder) block() bool {
	if len(d.b) < blockItem || int(d.b[0]) <= d.last {
		return false
	}
	flags, data := d.b[1], int(u16(d.b[2:]))
	d.last, d.page.Fork = int(d.b[0]), Fork(flags&blockForkMask)
	d.b = d.b[blockItem:]
	d.bodies += data
	if d.page.Fork > ForkInit || (flags&blockHasData != 0) != (data > 0) || flags&blockHasImage != 0 && !d.image() {
		return false
	}
	if flags&blockSameRel == 0 {
		if len(d.b) < relFileBytes {
			return false
		}
		d.page.Rel = RelFile{Tablespace: u32(d.b), Database: u32(d.b[4:]), Number: u32(d.b[8:])}
		d.hasRel = true
		d.b = d.b[relFileBytes:]
	}
	if !d.hasRel || len(d.b) < 4 {
		return false
	}
	d.page.Block = u32(d.b)
	d.b = d.b[4:]
	return d.bodies <= len(d.b)
}

// image steps over the header of a page image.
func (d *pageFinder) image() bool {
	if len(d.b) < imageItem {
		return false
	}
	d.bodies += int(u16(d.b))
	info := d.b[4]
	d.b = d.b[imageItem:]
	if info&imageHasHole != 0 && info&imageCompressed(d.major) != 0 {
		return d.skip(2)
	}
	return true
}

// other steps over what is no page.
func (d *pageFinder) other(id byte) bool {
	switch {
	case id == itemDataShort && len(d.b) >= 2:
		d.bodies += int(d.b[1])
		return d.skip(2) && len(d.b) == d.bodies
	case id == itemDataLong && len(d.b) >= 5:
		d.bodies += int(u32(d.b[1:]))
		return d.skip(5) && len(d.b) == d.bodies
	case id == itemOrigin:
		return d.skip(3)
	case id == itemTopXID && d.major >= 14:
		return d.skip(5)
	}
	return false
}
