package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// How much a Reader fetches ahead: at most so many segments, and no more than
// fit in so many bytes together, but always one.
const (
	maxAhead      = 4
	maxAheadBytes = 64 << 20
)

// Reader reads the records of archived WAL along a path, fetching the next
// segments while earlier ones are read. Close ends the fetching.
//
// Where the archive ends, Next returns an io.EOF (*postgres.EndOfWAL); at a
// gap *GapError; the error of a segment that cannot be fetched, decrypted or
// trusted is returned when the reader gets there.
type Reader struct {
	*postgres.WALReader

	ctx    context.Context
	cancel context.CancelFunc
	repo   *repo.Repo
	index  *Index
	path   Path
	ahead  uint64

	loads   map[uint64]*load // begun, by the number of the segment
	current []byte
	free    [][]byte
}

// load is a segment on its way.
type load struct {
	done chan struct{}
	buf  []byte
	err  error
}

// Reader reads from start, which is the LSN of a record or of the start of a
// page, along the path. The context ends the fetching too. It holds up to
// four segments, and not over 64 MiB of them if that is more than one.
func (ix *Index) Reader(ctx context.Context, r *repo.Repo, p Path, start postgres.LSN) *Reader {
	ctx, cancel := context.WithCancel(ctx)
	size := ix.size
	if size == 0 { // an empty archive: any size finds nothing
		size = postgres.DefaultSegmentSize
	}
	rd := &Reader{ctx: ctx, cancel: cancel, repo: r, index: ix, path: p, loads: map[uint64]*load{},
		ahead: uint64(max(1, min(maxAhead, maxAheadBytes/size)))}
	rd.WALReader = postgres.NewWALReader(start, size, rd.open)
	return rd
}

// Close ends all fetching and waits for it.
func (rd *Reader) Close() error {
	rd.cancel()
	for _, l := range rd.loads {
		<-l.done
	}
	rd.loads, rd.current, rd.free = nil, nil, nil
	return nil
}

// open hands a segment to the WALReader, which then is done with the one
// before.
func (rd *Reader) open(no uint64) ([]byte, error) {
	if rd.current != nil {
		rd.free = append(rd.free, rd.current)
		rd.current = nil
	}
	for n := no; n < no+rd.ahead; n++ {
		if rd.loads[n] == nil && !rd.begin(n) {
			break
		}
	}
	l := rd.loads[no]
	if l == nil {
		return nil, rd.absent(no)
	}
	<-l.done // it heeds the context
	delete(rd.loads, no)
	rd.current = l.buf[:cap(l.buf)]
	return l.buf, l.err
}

// begin starts to fetch a segment; false when there is none.
func (rd *Reader) begin(no uint64) bool {
	seg, upTo, ok := rd.index.source(rd.path, no)
	if !ok {
		return false
	}
	l := &load{done: make(chan struct{}), buf: rd.buffer()}
	rd.loads[no] = l
	go func() {
		defer close(l.done)
		l.err = rd.index.read(rd.ctx, rd.repo, seg, l.buf)
		l.buf = l.buf[:upTo-seg.Start()]
	}()
	return true
}

func (rd *Reader) buffer() []byte {
	if n := len(rd.free); n > 0 {
		b := rd.free[n-1]
		rd.free = rd.free[:n-1]
		return b
	}
	return make([]byte, rd.index.size)
}

// absent says why there is no such segment.
func (rd *Reader) absent(no uint64) error {
	seg := postgres.Segment{No: no, Size: max(rd.index.size, postgres.MinSegmentSize)}
	seg, _ = rd.index.choose(rd.path, seg, seg.End())
	if later, ok := rd.index.later(rd.path, seg); ok {
		return &GapError{Missing: seg.Name(), Later: later.Name()}
	}
	return fmt.Errorf("WAL segment %s is not in the archive: %w", seg, fs.ErrNotExist)
}

// source is the segment to read for a number, and up to where it counts: the
// end of its slices, or the switch point when only an older timeline has it.
func (ix *Index) source(p Path, no uint64) (seg postgres.Segment, upTo postgres.LSN, ok bool) {
	if ix.size == 0 {
		return seg, 0, false
	}
	seg = postgres.Segment{No: no, Size: ix.size}
	for _, s := range slices.Backward(p.Spans) {
		if s.End <= seg.Start() || s.Begin >= seg.End() {
			continue
		}
		seg.Timeline = s.Timeline
		upTo = min(s.End, ix.HeldTo(seg))
		if upTo <= seg.Start() {
			continue
		}
		if part, ok := ix.choose(p, seg, upTo); ok {
			return part, upTo, true
		}
	}
	return seg, 0, false
}

// read reads what is archived of a segment into buf, whose length is the
// segment's size.
func (ix *Index) read(ctx context.Context, r *repo.Repo, seg postgres.Segment, buf []byte) error {
	if ix.HasWhole(seg) {
		return readSegment(ctx, r, ix.system, seg, buf)
	}
	known := ix.timelines[seg.Timeline].sliced[seg.Name()]
	for use, try := known.use, 1; ; try++ {
		err := readSlices(ctx, r, ix.system, seg, use, buf)
		if !errors.Is(err, errSliceGone) {
			return err
		}
		// Merged since, or complete by now.
		all, err := listSlices(ctx, r, ix.system, seg.Timeline, seg.Name())
		if err != nil {
			return err
		}
		var held int64
		if use, held = chain(all); held < known.bytes || try == replacedTimes {
			return readSegment(ctx, r, ix.system, seg, buf)
		}
	}
}

// readSegment reads a whole archived segment into buf, whose length is the
// segment's size, and checks that it is that segment.
func readSegment(ctx context.Context, r *repo.Repo, system postgres.SystemID, seg postgres.Segment, buf []byte) error {
	name := postgres.WALName{Kind: postgres.WALSegment, Timeline: seg.Timeline, Segment: seg.Name()}
	h, body, err := r.OpenEnvelope(ctx, repo.WALKey(system, name), repo.KindWAL)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", name, notTheEnd(err))
	}
	defer body.Close()
	if h.Size != int64(len(buf)) {
		return fmt.Errorf("fetch %s: %w", name, &HeaderError{Name: name.String(),
			Reason: fmt.Sprintf("it has %d bytes, others of the archive %d", h.Size, len(buf))})
	}
	if err := readFull(body, buf); err != nil {
		return fmt.Errorf("fetch %s: %w", name, notTheEnd(err))
	}
	_, err = checkSegment(name, buf[:postgres.SegmentHeaderSize], h.Size, PushOptions{System: system})
	return err
}
