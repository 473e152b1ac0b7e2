package wal

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// TimelineTarget is what recovery_target_timeline can say. The zero value is
// "latest", PostgreSQL's default.
type TimelineTarget struct {
	current  bool
	timeline postgres.Timeline // 0 for a word
}

// The targets that are words.
var (
	LatestTimeline  = TimelineTarget{}
	CurrentTimeline = TimelineTarget{current: true}
)

// TimelineID is the target of that very timeline.
func TimelineID(tl postgres.Timeline) TimelineTarget { return TimelineTarget{timeline: tl} }

// ParseTimelineTarget reads "latest", "current" or a timeline ID.
func ParseTimelineTarget(s string) (TimelineTarget, error) {
	switch s {
	case "latest":
		return LatestTimeline, nil
	case "current":
		return CurrentTimeline, nil
	}
	tl, err := postgres.ParseTimeline(s)
	if err != nil {
		return TimelineTarget{}, fmt.Errorf("target timeline %q is neither latest, current nor a timeline: %w", s, err)
	}
	return TimelineID(tl), nil
}

func (t TimelineTarget) String() string {
	switch {
	case t.timeline != 0:
		return t.timeline.String()
	case t.current:
		return "current"
	}
	return "latest"
}

// Path is the way of recovery through the timelines.
type Path struct {
	// Timeline is where it ends. Whoever configures recovery sets
	// recovery_target_timeline to this number, so that PostgreSQL takes this
	// path whatever is archived meanwhile.
	Timeline postgres.Timeline
	// Spans are the parts of the timelines, in order; the first begins at or
	// before the point asked for, the last has no end (postgres.EndOfTime).
	Spans []postgres.TimelineSpan
	// Skipped are timelines above Timeline that do not descend from the point,
	// so "latest" could not mean them. PostgreSQL's own "latest" would fail on
	// them (findNewestTimeLine in access/transam/timeline.c does not look
	// whether what it finds descends).
	Skipped []postgres.Timeline
}

// NotAncestorError says that the target timeline does not go through the
// point where recovery would start.
type NotAncestorError struct {
	Target   postgres.Timeline
	Timeline postgres.Timeline
	LSN      postgres.LSN
	Left     postgres.LSN // where the target's history leaves Timeline; 0: it was never on it
}

func (e *NotAncestorError) Error() string {
	if e.Left == 0 {
		return fmt.Sprintf("timeline %s does not descend from timeline %s", e.Target, e.Timeline)
	}
	return fmt.Sprintf("timeline %s does not descend from %s on timeline %s: it left that timeline at %s",
		e.Target, e.LSN, e.Timeline, e.Left)
}

// ErrNoHistory means that a target timeline has no history file in the
// archive. PostgreSQL refuses such a target (validateRecoveryParameters).
var ErrNoHistory = errors.New("its history file is not in the archive")

// noHistory names the file.
func noHistory(tl postgres.Timeline) error {
	return fmt.Errorf("timeline %s, %s: %w", tl, tl.HistoryName(), ErrNoHistory)
}

// Path is the way from a point, lsn on timeline tl, to the target. For a
// backup, give its stop LSN: recovery must get there on the backup's own
// timeline before it can turn to another. *NotAncestorError when the target
// does not descend from the point; an error when a history file that decides
// cannot be read.
func (ix *Index) Path(target TimelineTarget, tl postgres.Timeline, lsn postgres.LSN) (Path, error) {
	switch {
	case target.timeline != 0:
		return ix.pathTo(target.timeline, tl, lsn)
	case target.current:
		return ix.pathTo(tl, tl, lsn)
	}
	return ix.latest(tl, lsn)
}

func (ix *Index) pathTo(target, tl postgres.Timeline, lsn postgres.LSN) (Path, error) {
	if target > 1 && target != tl && !ix.HasHistory(target) {
		return Path{}, noHistory(target)
	}
	h, err := ix.History(target)
	if err != nil {
		return Path{}, err
	}
	if !h.Contains(tl, lsn) {
		span, _ := h.Span(tl)
		return Path{}, &NotAncestorError{Target: target, Timeline: tl, LSN: lsn, Left: span.End}
	}
	spans := h.Path()
	first := slices.IndexFunc(spans, func(s postgres.TimelineSpan) bool { return s.Timeline == tl })
	return Path{Timeline: target, Spans: spans[first:]}, nil
}

// latest is the highest timeline that descends from the point.
func (ix *Index) latest(tl postgres.Timeline, lsn postgres.LSN) (Path, error) {
	var skipped []postgres.Timeline
	for _, candidate := range slices.Backward(ix.Timelines()) {
		if candidate <= tl {
			continue
		}
		if !ix.HasHistory(candidate) {
			// PostgreSQL would end on an older timeline, and without a word leave
			// out what was committed on this one.
			if _, used := ix.Newest(candidate); used {
				return Path{}, fmt.Errorf("%w, although WAL of it is", noHistory(candidate))
			}
			continue
		}
		p, err := ix.pathTo(candidate, tl, lsn)
		if _, ok := errors.AsType[*NotAncestorError](err); ok {
			skipped = append(skipped, candidate)
			continue
		}
		p.Skipped = skipped
		return p, err
	}
	p, err := ix.pathTo(tl, tl, lsn)
	p.Skipped = skipped
	return p, err
}

// Segments are the segments that recovery along the path reads for the WAL
// from from (included) to to (not included), in order. The second value is
// false for one that ought to be archived and is not.
//
// PostgreSQL asks for the segment on the newest timeline that had begun by its
// end, then on older ones (XLogFileReadAnyTLI in access/transam/xlogrecovery.c,
// before 15 in xlog.c). So does this: the segment that holds a switch point
// comes from the newer timeline if it is archived there. That of the older one
// does if what is wanted of it lies before the switch point. One that is there in
// slices only counts as far as these get.
func (ix *Index) Segments(p Path, from, to postgres.LSN) iter.Seq2[postgres.Segment, bool] {
	size := ix.size
	if size == 0 { // nothing is archived, so any size names what is missing
		size = postgres.DefaultSegmentSize
	}
	return func(yield func(postgres.Segment, bool) bool) {
		for at := from; at < to; {
			seg := postgres.SegmentAt(0, at, size)
			if !yield(ix.choose(p, seg, min(to, seg.End()))) {
				return
			}
			if at = seg.End(); at == 0 { // the last segment of all
				return
			}
		}
	}
}

// SegmentAt is the segment that recovery along the path reads at a position.
func (ix *Index) SegmentAt(p Path, at postgres.LSN) postgres.Segment {
	for seg := range ix.Segments(p, at, at+1) {
		return seg
	}
	return postgres.Segment{}
}

// choose finds the timeline to read seg on, when it is wanted up to an LSN.
func (ix *Index) choose(p Path, seg postgres.Segment, upTo postgres.LSN) (postgres.Segment, bool) {
	ought := seg
	for _, s := range slices.Backward(p.Spans) {
		if s.Begin >= seg.End() {
			continue // it began later
		}
		seg.Timeline = s.Timeline
		if ix.HeldTo(seg) >= upTo && s.End >= upTo {
			return seg, true
		}
		if ought.Timeline == 0 {
			ought = seg
		}
		if ix.Has(seg) || s.Begin <= seg.Start() || ix.BadSegment(seg) != nil {
			break // PostgreSQL looks no further
		}
		if newest, any := ix.Newest(s.Timeline); any && newest.No > seg.No {
			break // Fetch calls it a gap, and PostgreSQL stops
		}
	}
	return ought, false
}

// Missing is the first segment that is not archived of those that recovery
// along the path reads for the WAL from from to to; false when all are there.
func (ix *Index) Missing(p Path, from, to postgres.LSN) (postgres.Segment, bool) {
	for seg, ok := range ix.Segments(p, from, to) {
		if !ok {
			return seg, true
		}
	}
	return postgres.Segment{}, false
}

// Reach is how far recovery along a path can get.
type Reach struct {
	// End is where the archived WAL of the path ends: the start of the segment
	// Missing, or within it the end of its slices, or the switch point if the
	// older timeline alone has it.
	End     postgres.LSN
	Missing postgres.Segment

	// Gap says that later WAL of the path is archived, or that Fetch will
	// take what is missing for a gap: not the end of the archive but damage.
	Gap bool

	// Strays says that PostgreSQL, left alone, would not stop at End: it would
	// read on in an older timeline, which the path has left there, because it
	// does not look where an ancestor ends (XLogFileReadAnyTLI). Recovery then
	// needs a target at or before End.
	Strays bool
}

// Reach walks the path from from on until a segment is missing.
func (ix *Index) Reach(p Path, from postgres.LSN) Reach {
	r := Reach{End: from}
	for seg, ok := range ix.Segments(p, from, postgres.EndOfTime) {
		if ok {
			r.End, r.Missing.Timeline = seg.End(), seg.Timeline
			continue
		}
		r.Gap, r.Strays = ix.asked(p, seg.No, r.Missing.Timeline)
		if _, later := ix.later(p, seg); later || ix.stopped(p, seg.No) {
			r.Gap = true
		}
		if _, upTo, ok := ix.source(p, seg.No); ok {
			r.End = max(r.End, upTo)
		}
		r.Missing = seg
		break
	}
	return r
}

// asked says what becomes of PostgreSQL's search for a segment that the path
// lacks: it is stopped at a gap, finds one of a timeline that the path has left
// by then, or neither. It goes from newer to older timelines, but not below the
// last one it read.
func (ix *Index) asked(p Path, no uint64, last postgres.Timeline) (gap, strays bool) {
	seg := postgres.Segment{No: no, Size: ix.size}
	for _, s := range slices.Backward(p.Spans) {
		if s.Begin >= seg.End() {
			continue
		}
		seg.Timeline = s.Timeline
		newest, any := ix.Newest(s.Timeline)
		switch {
		case s.Timeline < last:
			return false, false
		case ix.Has(seg):
			return false, ix.HeldTo(seg) > s.End
		case any && newest.No > no:
			return true, false
		}
	}
	return false, false
}

// later is the first archived segment of the path after a missing one.
func (ix *Index) later(p Path, missing postgres.Segment) (postgres.Segment, bool) {
	for _, s := range p.Spans {
		t := ix.timelines[s.Timeline]
		if t == nil || s.End <= missing.Start() {
			continue
		}
		i, _ := slices.BinarySearch(t.numbers, missing.No+1)
		for ; i < len(t.numbers); i++ {
			seg := postgres.Segment{Timeline: s.Timeline, No: t.numbers[i], Size: ix.size}
			if seg.Start() >= s.End {
				break // what a timeline has past its end is not of the path
			}
			if seg.End() > s.Begin {
				return seg, true
			}
		}
	}
	return postgres.Segment{}, false
}
