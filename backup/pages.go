package backup

import (
	"fmt"
	"os"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// rereads is how often a page is read again before it is called bad: the
// server may be writing it at this very moment.
const (
	rereads     = 5
	rereadPause = 10 * time.Millisecond
)

// checkPages verifies the page checksums in b, which was read from f at off.
// A page that fails is read again, into b.
func (w *worker) checkPages(s source, f *os.File, b []byte, off int64) error {
	size := len(w.page)
	if !s.pages || !w.facts.checksums() {
		return nil
	}
	first := s.rel.FirstBlock(w.facts.control.RelationSegmentSize) + uint32(off/int64(size))
	whole := b[:len(b)/size*size]
	var failed []uint32
	note := func(block uint32, _, _ uint16) { failed = append(failed, block) }
	if err := postgres.VerifyPages(whole, first, size, note); err != nil {
		return fmt.Errorf("check the pages of %s: %w", s.path, err)
	}
	for _, block := range failed {
		i := int(block-first) * size
		w.recheck(s, f, whole[i:i+size], off+int64(i), block)
	}
	return nil
}

func (w *worker) recheck(s source, f *os.File, page []byte, off int64, block uint32) {
	for try := 0; ; try++ {
		want, have := postgres.PageChecksum(page, block), postgres.StoredChecksum(page)
		if want == have || postgres.IsNewPage(page) {
			return
		}
		if try == rereads {
			w.noteBad(badPage{repo.BadPage{Path: s.path, Block: block, Want: want, Have: have}, postgres.PageLSN(page)})
			return
		}
		time.Sleep(rereadPause)
		// A file cut off meanwhile leaves what was read first.
		if n, _ := f.ReadAt(w.page, off); n == len(page) {
			copy(page, w.page)
		}
	}
}

// badPage is a page that stayed bad, with the LSN that stands in it.
type badPage struct {
	repo.BadPage
	lsn postgres.LSN
}

// noteBad keeps what could not be read whole. Only the stop tells which of
// these the WAL repairs.
func (c *copier) noteBad(b badPage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.lsn >= c.start.LSN {
		c.written = append(c.written, b)
		return
	}
	c.countBad(b)
}

func (c *copier) countBad(b badPage) {
	c.badCount++
	if len(c.bad) < repo.MaxBadPages {
		c.bad = append(c.bad, b.BadPage)
	}
}
