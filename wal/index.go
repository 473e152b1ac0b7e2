package wal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// maxHistory is the most bytes that a timeline history file may have.
const maxHistory = maxSmallFile

// Index is what the archive of one system held at one moment.
type Index struct {
	system    postgres.SystemID
	size      postgres.SegmentSize // 0 while it is not known
	timelines map[postgres.Timeline]*timeline
	foreign   int

	headers *HeaderCount // nil: the archive was only listed
	bad     []BadObject
}

// timeline is what is archived of one timeline.
type timeline struct {
	sizes      map[string]int64 // of the objects, by the segment's 24 digits
	sliced     map[string]held  // segments that are there in slices only
	slices     map[string][]slice
	numbers    []uint64 // of the segments, whole or in slices, ascending
	partials   []string // the 24 digits
	hasHistory bool
	history    postgres.History
	historyErr error

	bad       map[string]error // by what is below the timeline's directory; nil mostly
	unchecked map[string]bool  // the same
}

// held is how much of a segment there is in slices.
type held struct {
	use   []slice
	bytes int64 // from the segment's start
}

// Range is a run of archived WAL of one timeline without a gap.
type Range struct {
	Timeline   postgres.Timeline
	Begin, End postgres.LSN // End is not included; it lies in a segment that is archived in slices
}

// Segments is the number of segments in the range, the last one perhaps not
// whole.
func (r Range) Segments(size postgres.SegmentSize) int {
	return int((uint64(r.End-r.Begin) + uint64(size) - 1) / uint64(size))
}

// LoadIndex lists the archive of a system. It reads the names of all objects,
// the header of a segment, for the segment size, and the timeline history
// files; it reads neither segments nor slices. Where no segment is archived
// whole, the first slice tells the segment size, which takes an identity;
// without one, slices count after LearnSegmentSize. A history file that cannot be
// read, also for want of an identity, is reported by History and Path, when it
// matters.
//
// No archive at all is an empty index, not an error, if the repository is there.
func LoadIndex(ctx context.Context, r *repo.Repo, system postgres.SystemID) (*Index, error) {
	return LoadIndexSeeing(ctx, r, system, func(storage.Info) {})
}

// LoadIndexSeeing is LoadIndex for who wants to know all the objects as well, and
// not list them twice: seen is told of each, also of those that are no WAL.
func LoadIndexSeeing(ctx context.Context, r *repo.Repo, system postgres.SystemID, seen func(storage.Info)) (*Index, error) {
	return loadIndex(ctx, r, system, seen, nil)
}

func loadIndex(ctx context.Context, r *repo.Repo, system postgres.SystemID, seen func(storage.Info), headers *HeaderCheck) (*Index, error) {
	ix := &Index{system: system, timelines: map[postgres.Timeline]*timeline{}}
	var listed []storage.Info
	prefix := repo.SystemWALPrefix(system)
	var segments samples
	for o, err := range r.ListArchive(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list the archive: %w", err)
		}
		seen(o.Info)
		segment, ours := ix.note(o.Key[len(prefix):], o.Size)
		if segment {
			segments.add(o.Key)
		}
		if ours && headers != nil {
			listed = append(listed, o.Info)
		}
	}
	if len(ix.timelines) == 0 {
		return ix, r.CheckPresent(ctx)
	}
	if headers != nil {
		if err := ix.checkHeaders(ctx, r, listed, *headers); err != nil {
			return nil, fmt.Errorf("read the headers of the archive: %w", err)
		}
	}
	if err := ix.findSize(ctx, r, segments); err != nil {
		return nil, fmt.Errorf("tell the segment size of the archive: %w", err)
	}
	ix.number()
	ix.readHistories(ctx, r)
	return ix, ctx.Err()
}

// note takes one object, by its name below the system's directory, and says
// whether it is a segment, and whether it bears the name of a WAL file at all.
func (ix *Index) note(rest string, size int64) (whole, ours bool) {
	directory, file, _ := strings.Cut(rest, "/")
	segment, from, to, isSlice := repo.ParseSlice(file)
	if isSlice {
		file = segment
	}
	name, err := postgres.ParseWALName(file)
	if err != nil || name.Timeline.Hex() != directory {
		ix.foreign++
		return false, false
	}
	t := ix.timelines[name.Timeline]
	if t == nil {
		t = &timeline{sizes: map[string]int64{}, sliced: map[string]held{}, slices: map[string][]slice{}}
		ix.timelines[name.Timeline] = t
	}
	if isSlice {
		t.slices[segment] = append(t.slices[segment], slice{from, to, size})
		return false, true
	}
	switch name.Kind {
	case postgres.WALSegment:
		t.sizes[name.Segment] = size
		return true, true
	case postgres.WALPartial:
		t.partials = append(t.partials, name.Segment)
	case postgres.WALHistory:
		t.hasHistory = true
	}
	return false, true
}

func (ix *Index) readHistories(ctx context.Context, r *repo.Repo) {
	var g errgroup.Group
	g.SetLimit(8)
	for id, t := range ix.timelines {
		if !t.hasHistory || t.historyErr != nil {
			continue
		}
		g.Go(func() error {
			t.history, t.historyErr = ReadHistory(ctx, r, ix.system, id)
			return nil
		})
	}
	_ = g.Wait() // errors are kept with their timelines
}

// ReadHistory fetches and verifies the history file of one timeline.
func ReadHistory(ctx context.Context, r *repo.Repo, system postgres.SystemID, tl postgres.Timeline) (postgres.History, error) {
	key := repo.WALKey(system, postgres.WALName{Kind: postgres.WALHistory, Timeline: tl})
	raw, _, err := r.ReadEnvelope(ctx, key, repo.KindWAL, maxHistory)
	if err != nil {
		return postgres.History{}, fmt.Errorf("read the history of timeline %s: %w", tl, err)
	}
	h, err := postgres.ParseHistory(tl, raw)
	if err != nil {
		return postgres.History{}, fmt.Errorf("read the history of timeline %s: %w", tl, err)
	}
	return h, nil
}

// Without is the index as it would be without the segments that gone names,
// whole or in slices. The histories stay.
func (ix *Index) Without(gone func(postgres.Segment) bool) *Index {
	out := &Index{system: ix.system, size: ix.size, timelines: map[postgres.Timeline]*timeline{}, foreign: ix.foreign, headers: ix.headers, bad: ix.bad}
	for id, t := range ix.timelines {
		c := *t
		c.sizes, c.sliced, c.numbers = maps.Clone(t.sizes), maps.Clone(t.sliced), nil
		for _, no := range t.numbers {
			seg := postgres.Segment{Timeline: id, No: no, Size: ix.size}
			if gone(seg) {
				delete(c.sizes, seg.Name())
				delete(c.sliced, seg.Name())
				continue
			}
			c.numbers = append(c.numbers, no)
		}
		out.timelines[id] = &c
	}
	return out
}

// System is the system whose archive this is.
func (ix *Index) System() postgres.SystemID { return ix.system }

// SegmentSize is the size of the archived segments, 0 when it is not known.
func (ix *Index) SegmentSize() postgres.SegmentSize { return ix.size }

// Foreign is the number of objects in the archive's directory that do not bear
// the name of a WAL file of their directory.
func (ix *Index) Foreign() int { return ix.foreign }

// Timelines are the timelines of which anything is archived, ascending.
func (ix *Index) Timelines() []postgres.Timeline {
	return slices.Sorted(maps.Keys(ix.timelines))
}

// Has says whether anything of the segment is archived: all of it, or its
// beginning.
func (ix *Index) Has(seg postgres.Segment) bool { return ix.HeldTo(seg) != 0 }

// HasWhole says whether the segment is archived whole, as one object.
func (ix *Index) HasWhole(seg postgres.Segment) bool {
	t := ix.timelines[seg.Timeline]
	if t == nil {
		return false
	}
	_, ok := t.sizes[seg.Name()]
	return ok
}

// HeldTo is the position up to which a segment is archived from its start:
// its end, or where its slices end; 0 when nothing of it is archived.
func (ix *Index) HeldTo(seg postgres.Segment) postgres.LSN {
	if ix.HasWhole(seg) {
		return seg.End()
	}
	if t := ix.timelines[seg.Timeline]; t != nil && ix.size != 0 {
		if h, ok := t.sliced[seg.Name()]; ok {
			return seg.Start() + postgres.LSN(h.bytes)
		}
	}
	return 0
}

// ObjectSize is the number of bytes that the segment, or its slices, takes in
// the store, and false when nothing of it is archived.
func (ix *Index) ObjectSize(seg postgres.Segment) (int64, bool) {
	t := ix.timelines[seg.Timeline]
	if t == nil {
		return 0, false
	}
	if n, ok := t.sizes[seg.Name()]; ok {
		return n, ok
	}
	var n int64
	h, ok := t.sliced[seg.Name()]
	for _, s := range h.use {
		n += s.size
	}
	return n, ok
}

// Partials are the 24-digit names of the partial segments of a timeline.
// Recovery does not read them.
func (ix *Index) Partials(tl postgres.Timeline) []string {
	t := ix.timelines[tl]
	if t == nil {
		return nil
	}
	return slices.Clone(t.partials)
}

// Ranges are the runs of archived WAL of a timeline, ascending. Between two of
// them is a gap.
func (ix *Index) Ranges(tl postgres.Timeline) []Range {
	t := ix.timelines[tl]
	if t == nil {
		return nil
	}
	var out []Range
	for i, no := range t.numbers {
		seg := postgres.Segment{Timeline: tl, No: no, Size: ix.size}
		if i > 0 && seg.Start() == out[len(out)-1].End {
			out[len(out)-1].End = ix.HeldTo(seg)
			continue
		}
		out = append(out, Range{tl, seg.Start(), ix.HeldTo(seg)})
	}
	return out
}

// Newest is the last segment of a timeline of which anything is archived, false
// when there is none.
func (ix *Index) Newest(tl postgres.Timeline) (postgres.Segment, bool) {
	t := ix.timelines[tl]
	if t == nil || len(t.numbers) == 0 {
		return postgres.Segment{}, false
	}
	return postgres.Segment{Timeline: tl, No: t.numbers[len(t.numbers)-1], Size: ix.size}, true
}

// HasHistory says whether the timeline's history file is archived.
func (ix *Index) HasHistory(tl postgres.Timeline) bool {
	t := ix.timelines[tl]
	return t != nil && t.hasHistory
}

// History is the ancestry of a timeline from its archived history file. Like
// for PostgreSQL (readTimeLineHistory in access/transam/timeline.c), a
// timeline without one has no ancestors. An error when there is a file that
// could not be read.
func (ix *Index) History(tl postgres.Timeline) (postgres.History, error) {
	t := ix.timelines[tl]
	if t == nil || !t.hasHistory {
		return postgres.History{Timeline: tl}, nil
	}
	return t.history, t.historyErr
}
