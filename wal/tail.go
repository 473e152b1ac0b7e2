package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// How much a tail keeps that the store has not acknowledged: so many segments,
// or what fits in so many bytes, but always two, so that one can arrive while
// the one before is stored.
const (
	maxParts     = 4
	maxPartBytes = 64 << 20
)

// maxStoring is how many whole segments are stored at the same time.
const maxStoring = 2

// tail brings the end of the WAL into the store as it arrives: slices of the
// segment that is being written, and each segment whole when it is complete.
// What the store has not acknowledged stays in memory and is tried again.
//
// One goroutine owns it. Storing goes on beside; wake is called, from other
// goroutines, when a result is there for collect.
type tail struct {
	repo    *repo.Repo
	system  postgres.SystemID
	size    postgres.SegmentSize
	policy  tailPolicy
	wake    func()
	results chan stored
	sums    *summaries                                   // nil for none
	behind  func(context.Context, postgres.Segment) bool // see taken; nil for never

	timeline postgres.Timeline
	notYet   postgres.LSN // no slice may end before it; see begin
	parts    []*part      // ascending; the last one is being filled
	floor    postgres.LSN // all before the parts is durable
	slicing  *part        // whose slice is being stored, nil when none is
	storing  int          // whole segments being stored
	merging  bool
	lastCut  time.Time // when the last slice was begun
	forced   bool      // cut a slice as soon as one can be stored
	retryAt  time.Time // after a failure, not before then
	failures int       // in a row
	free     [][]byte
	removing sync.WaitGroup // of slices that are superfluous
}

// tailPolicy says when a slice is cut: as soon as possible, or when the last
// one is that old, or when there is that much.
type tailPolicy struct {
	atOnce   bool
	interval time.Duration
	size     int64
}

// part is a segment on its way.
type part struct {
	seg      postgres.Segment
	buf      []byte  // from its start
	sliced   int64   // stored in slices, from its start without a hole
	pieces   []piece // the slices stored by this run, but those merged into another
	merging  bool
	storing  bool
	whole    bool           // the whole segment is durable
	looked   bool           // for the whole segment of another,
	taken    bool           // which is there
	leftover bool           // slices are there that the whole segment makes superfluous
	earlier  []earlierSlice // not compared yet
	compared int64          // up to where those of earlier runs were
}

// durable is how much from the segment's start is stored, and is what the server
// sends: slices of an earlier run may be of another branch.
func (p *part) durable() int64 {
	if len(p.earlier) > 0 {
		return p.compared
	}
	return min(p.sliced, int64(len(p.buf)))
}

// safe says whether all of the segment is durable.
func (p *part) safe() bool { return p.whole || p.sliced == int64(p.seg.Size) }

func (p *part) complete() bool { return int64(len(p.buf)) == int64(p.seg.Size) }

// stored is the result of storing something of a part.
type stored struct {
	part *part
	what storedWhat
	to   int64   // of a slice
	none bool    // it was not stored, as the whole segment is there
	of   []piece // of a merge
	err  error
}

type storedWhat int

const (
	storedSlice storedWhat = iota
	storedWhole
	storedMerge
)

func newTail(r *repo.Repo, system postgres.SystemID, size postgres.SegmentSize, policy tailPolicy, wake func()) *tail {
	return &tail{repo: r, system: system, size: size, policy: policy, wake: wake, results: make(chan stored, maxStoring+2)}
}

// begin makes the tail ready for WAL of a timeline from at on, the start of a
// segment. Nothing of an earlier timeline may be outstanding.
//
// Slices that do not reach notYet are not stored: in the first segment of a
// timeline recovery would take them, and not go on to the segment of the older
// timeline, which holds more.
func (t *tail) begin(ctx context.Context, tl postgres.Timeline, at, notYet postgres.LSN) error {
	t.timeline, t.notYet, t.floor, t.parts = tl, notYet, at, nil
	_, err := t.open(ctx, postgres.SegmentAt(tl, at, t.size))
	return err
}

// open begins a part. Slices of it that are there already are not stored again.
func (t *tail) open(ctx context.Context, seg postgres.Segment) (*part, error) {
	p := &part{seg: seg}
	if len(t.parts) == 0 { // only of the first can there be something from an earlier run
		var err error
		if p.taken, err = t.taken(ctx, seg); err == nil && !p.taken {
			err = p.findEarlier(ctx, t.repo, t.system)
		}
		if err != nil {
			return nil, err
		}
		p.looked, p.leftover = true, p.leftover || p.taken
	}
	if n := len(t.free); n > 0 {
		p.buf, t.free = t.free[n-1], t.free[:n-1]
	}
	t.parts = append(t.parts, p)
	return p, nil
}

// received is where the WAL that has arrived ends.
func (t *tail) received() postgres.LSN {
	if n := len(t.parts); n > 0 {
		return t.parts[n-1].seg.Start() + postgres.LSN(len(t.parts[n-1].buf))
	}
	return t.floor
}

// durable is the position before which all WAL has arrived and is acknowledged
// by the store.
func (t *tail) durable() postgres.LSN { return t.upTo((*part).durable) }

func (t *tail) upTo(held func(*part) int64) postgres.LSN {
	at := t.floor
	for _, p := range t.parts {
		if !p.whole {
			return p.seg.Start() + postgres.LSN(held(p))
		}
		at = p.seg.End()
	}
	return at
}

// outstanding says whether something has arrived that could be stored and is
// not. A slice of an earlier run of which only the beginning has arrived is.
func (t *tail) outstanding() bool {
	stored := t.upTo(func(p *part) int64 {
		if p.taken && !p.complete() {
			return int64(len(p.buf))
		}
		return p.sliced
	})
	return stored < t.received() && t.received() >= t.notYet
}

// full says that nothing more may be added until something is durable.
func (t *tail) full() bool {
	limit := max(2, min(maxParts, int(maxPartBytes/t.size)))
	last := len(t.parts) - 1
	return last+1 >= limit && t.parts[last].complete()
}

// add takes WAL that follows what has arrived. *TwoPrimariesError when it is not
// what an earlier run has stored of the same place.
func (t *tail) add(ctx context.Context, at postgres.LSN, data []byte) error {
	if at != t.received() {
		return fmt.Errorf("the server sent WAL from %s on, and %s is next", at, t.received())
	}
	for len(data) > 0 {
		p := t.parts[len(t.parts)-1]
		room := int(t.size) - len(p.buf)
		if room == 0 {
			var err error
			if p, err = t.open(ctx, p.seg.Next()); err != nil {
				return err
			}
			room = int(t.size)
		}
		n := min(room, len(data))
		p.buf = append(p.buf, data[:n]...)
		data = data[n:]
		if err := p.compare(); err != nil {
			return err
		}
	}
	return nil
}

// force asks for a slice of all that has arrived, without waiting for its time.
func (t *tail) force() { t.forced = t.forced || t.outstanding() }

// step begins to store what is due, and says when it is to be called again at
// the latest; zero for only after a result or more WAL.
func (t *tail) step(ctx context.Context, now time.Time) (next time.Time) {
	if now.Before(t.retryAt) {
		return t.retryAt
	}
	for _, p := range t.parts {
		if t.storing < maxStoring && p.complete() && !p.whole && !p.storing && !p.merging {
			p.storing = true
			t.storing++
			go t.storeWhole(ctx, p, p.buf, t.sums.begin(p.seg))
		}
		if !p.safe() {
			break // were all lost now, what comes after it would stand behind a gap
		}
	}
	t.merge(ctx)
	if t.slicing != nil {
		return time.Time{}
	}
	p := t.toSlice()
	if p == nil {
		return time.Time{}
	}
	due := t.lastCut.Add(t.policy.interval)
	if !t.policy.atOnce && !t.forced && now.Before(due) && int64(len(p.buf))-p.sliced < t.policy.size {
		return due
	}
	if t.slicing = p; p == t.parts[len(t.parts)-1] {
		t.lastCut, t.forced = now, false
	}
	go t.storeSlice(ctx, p, !p.looked, p.sliced, p.buf[p.sliced:])
	return time.Time{}
}

// toSlice is the part of which a slice could be stored now. A segment that is
// complete is stored whole anyway, so its rest is sliced only where a commit or
// the next segment waits for it.
func (t *tail) toSlice() *part {
	for i, p := range t.parts {
		end := p.seg.Start() + postgres.LSN(len(p.buf))
		last := i == len(t.parts)-1
		switch {
		case p.safe():
			continue
		case p.taken, int64(len(p.buf)) <= p.sliced, end < t.notYet, p.complete() && last && !t.policy.atOnce && !t.forced:
			return nil
		}
		return p
	}
	return nil
}

// collect takes the results that are there. A failure is returned and what
// failed will be tried again, unless it is lasting.
func (t *tail) collect(now time.Time) error {
	var failed error
	for {
		select {
		case r := <-t.results:
			if err := t.apply(r, now); err != nil {
				failed = errors.Join(failed, err)
			}
		default:
			return failed
		}
	}
}

func (t *tail) apply(r stored, now time.Time) error {
	p := r.part
	switch r.what {
	case storedSlice:
		t.slicing = nil
	case storedWhole:
		p.storing = false
		t.storing--
	case storedMerge:
		t.merging, p.merging = false, false
		p.merged(r.of, r.err)
		t.drop()
		return nil // it was a help, and is begun again with the next slice
	}
	if r.err != nil {
		t.failures++
		t.retryAt = now.Add(min(5*time.Second, 100*time.Millisecond<<min(t.failures, 6)))
		return r.err
	}
	t.failures, t.retryAt = 0, time.Time{}
	switch {
	case r.what == storedWhole:
		p.whole = true
	case r.none:
		p.looked, p.taken = true, true
	default:
		p.looked = true
		p.pieces = append(p.pieces, piece{p.sliced, r.to, 0})
		p.sliced, p.leftover = r.to, true
	}
	t.drop()
	return nil
}

// drop forgets the parts at the front that are durable whole and no longer
// read.
func (t *tail) drop() {
	for len(t.parts) > 0 && t.parts[0].whole && t.slicing != t.parts[0] && !t.parts[0].merging {
		p := t.parts[0]
		t.parts, t.floor = t.parts[1:], p.seg.End()
		t.free = append(t.free, p.buf[:0])
		if p.leftover {
			t.dispose(p.seg)
		}
		if len(t.parts) == 0 {
			t.parts = append(t.parts, &part{seg: p.seg.Next()})
		}
	}
}

// lasting says whether an error of storing stays what it is, however often
// it is tried again.
func lasting(err error) bool {
	_, conflict := errors.AsType[*TwoPrimariesError](err)
	_, header := errors.AsType[*HeaderError](err)
	_, retired := errors.AsType[*repo.RetiredKeyError](err)
	return conflict || header || retired
}

func (t *tail) storeWhole(ctx context.Context, p *part, raw []byte, sum *summary) {
	defer sum.give()
	name := postgres.WALName{Kind: postgres.WALSegment, Timeline: p.seg.Timeline, Segment: p.seg.Name()}
	// First, and in any case: the summary of the next segment begins with what is
	// left of this one, and must not wait for a store that fails.
	sum.make(ctx, bytes.NewReader(raw))
	// A stream lives long: its key may have been retired meanwhile, and nobody would
	// believe what it stores, nor could who is believed store it under that name.
	err := t.repo.CheckSigning(ctx)
	if err == nil {
		err = storeSegment(ctx, t.repo, t.system, name, raw)
	}
	if err == nil {
		_ = sum.store(ctx, t.system) // else there is a hole
	}
	t.report(stored{part: p, what: storedWhole, err: storeError("store", name.String(), err)})
}

func (t *tail) report(r stored) {
	t.results <- r
	t.wake()
}

// storeSegment archives a whole segment. It may be there already, from
// archive_command: that shows when the store refuses the name, and by then it
// has been sealed once more.
func storeSegment(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, raw []byte) error {
	_, err := checkSegment(name, raw[:postgres.SegmentHeaderSize], int64(len(raw)), PushOptions{System: system})
	if err != nil {
		return err
	}
	return storeSure(ctx, r, repo.WALKey(system, name), raw)
}

// storeSure archives what is in memory and will be forgotten.
func storeSure(ctx context.Context, r *repo.Repo, key string, raw []byte) error {
	sealed, err := r.Seal(key, repo.KindWAL, bytes.NewReader(raw), int64(len(raw)), repo.SealOptions{})
	if err != nil {
		return err
	}
	defer sealed.Close()
	_, err = r.StoreSure(ctx, sealed)
	return err
}
