package wal

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// Standing is what the archive of a system is good for.
type Standing struct {
	Windows []Window   // what can be restored, by their beginnings
	Gaps    []Gap      // by timeline and place
	Useless []Unusable // backups that no restore can use
}

// Window is a stretch of the WAL of which every moment can be restored.
type Window struct {
	// Backups can serve it, the oldest first; it begins where the oldest is
	// consistent, and ends at Reach.End.
	Backups   []string
	Path      Path
	Begin     postgres.LSN
	BeginTime time.Time
	Reach     Reach
	Unchecked int // segments of it that are only listed: nobody has looked whether they are what they are called

	from postgres.LSN // where recovery from the oldest backup begins
}

// Gap is a run of segments that are not archived, though WAL after them is.
type Gap struct {
	First, Last postgres.Segment
	Held        postgres.LSN // archived WAL before the gap ends here; at or before First's start: nothing of First is there
	Next        postgres.LSN // and goes on here; 0 when it does not, and a backup needs more
	Bad         error        // of First, when something that is not the segment bears its name; nil: nothing does
	NeededBy    []string     // backups that cannot be recovered past it, the oldest first
}

// Segments is the number of segments that are missing, the first perhaps not
// all of it.
func (g Gap) Segments() int { return int(g.Last.No-g.First.No) + 1 }

// Unusable is a backup that cannot be used, or of which that cannot be told.
type Unusable struct {
	Label string
	Err   error // *BackupGapError, or why the way from it is not known
}

// BackupGapError says that a backup lacks WAL without which it is not
// consistent.
type BackupGapError struct {
	Missing string
	Stop    postgres.LSN
	Bad     error // of the segment, when something else bears its name
	Doubt   error // why it is not known whether a newer timeline, which has that segment, came from the backup's; nil: none has
}

func (e *BackupGapError) Error() string {
	if e.Doubt != nil {
		return fmt.Sprintf("segment %s is archived on a newer timeline only, and it is not known whether that descends: %v", e.Missing, e.Doubt)
	}
	if e.Bad != nil {
		return fmt.Sprintf("what is archived as segment %s is not it, and the backup is consistent only from %s on: %v", e.Missing, e.Stop, e.Bad)
	}
	return fmt.Sprintf("segment %s is not archived, and the backup is consistent only from %s on", e.Missing, e.Stop)
}

// Standing judges the archive by the backups of its system. Each is followed
// along the path that a restore without a target takes.
//
// A gap counts against the backups whose path leads through it. One that none
// needs is listed with NeededBy empty: it lies before the oldest backup, or
// where every path has left its timeline.
func (ix *Index) Standing(backups []repo.Info) Standing {
	backups = slices.Clone(backups)
	slices.SortStableFunc(backups, func(a, b repo.Info) int { return cmp.Compare(a.StartLSN, b.StartLSN) })
	var s Standing
	walks := map[postgres.Timeline]*walk{}
	for _, b := range backups {
		p, err := ix.Path(LatestTimeline, b.Timeline, b.StopLSN)
		if err != nil {
			s.Useless = append(s.Useless, Unusable{b.Label, err})
			continue
		}
		w := walks[p.Timeline]
		if w == nil || !w.covers(b.StartLSN) {
			w = &walk{from: b.StartLSN, reach: ix.reachFrom(p, b)}
			w.bad = ix.BadSegment(w.reach.Missing)
			walks[p.Timeline] = w
			s.add(ix.gapsFrom(p, w.reach))
		}
		s.use(b, p, w)
		s.blame(b, p)
	}
	for _, tl := range ix.Timelines() {
		s.add(ix.holes(tl))
	}
	for i, w := range s.Windows {
		s.Windows[i].Unchecked = ix.UncheckedIn(w.Path, w.from, w.Reach.End)
	}
	for i, g := range s.Gaps {
		s.Gaps[i].Bad = ix.BadSegment(g.First)
	}
	slices.SortFunc(s.Gaps, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(a.First.Timeline, b.First.Timeline), cmp.Compare(a.First.No, b.First.No))
	})
	return s
}

// walk is how far recovery along a path gets, and so for every start within.
type walk struct {
	from  postgres.LSN
	reach Reach
	bad   error // of the segment that ended it
}

func (w *walk) covers(lsn postgres.LSN) bool { return lsn >= w.from && lsn < w.reach.End }

// reachFrom is Reach for a backup, which knows the segment size also where
// nothing is archived.
func (ix *Index) reachFrom(p Path, b repo.Info) Reach {
	if ix.size == 0 {
		return Reach{End: b.StartLSN, Missing: postgres.SegmentAt(b.Timeline, b.StartLSN, b.SegSize)}
	}
	return ix.Reach(p, b.StartLSN)
}

// use adds a backup to the window that it begins, or within which it lies.
func (s *Standing) use(b repo.Info, p Path, way *walk) {
	reach := way.reach
	if reach.End < b.StopLSN {
		s.Useless = append(s.Useless, Unusable{b.Label, &BackupGapError{Missing: reach.Missing.Name(), Stop: b.StopLSN, Bad: way.bad}})
		s.add([]Gap{{First: reach.Missing, Last: reach.Missing, Held: reach.End}})
		return
	}
	for i, w := range s.Windows {
		if w.Path.Timeline == p.Timeline && w.Reach.End == reach.End {
			s.Windows[i].Backups = append(w.Backups, b.Label)
			return
		}
	}
	s.Windows = append(s.Windows, Window{Backups: []string{b.Label}, Path: p, Begin: b.StopLSN, BeginTime: b.StopTime, Reach: reach, from: b.StartLSN})
}

// gapsFrom finds the gaps of a path from the first on, which ended reach.
func (ix *Index) gapsFrom(p Path, reach Reach) []Gap {
	var out []Gap
	for {
		next, more := ix.later(p, reach.Missing)
		if !more {
			if reach.Gap {
				out = append(out, Gap{First: reach.Missing, Last: reach.Missing, Held: reach.End})
			}
			return out
		}
		last := postgres.Segment{No: next.No - 1, Size: ix.size}
		last, _ = ix.choose(p, last, last.End())
		out = append(out, Gap{First: reach.Missing, Last: last, Held: reach.End, Next: next.Start()})
		reach = ix.Reach(p, next.Start())
	}
}

// add adds gaps that are no parts of those that are known.
func (s *Standing) add(gaps []Gap) {
	for _, g := range gaps {
		if !slices.ContainsFunc(s.Gaps, g.overlaps) {
			s.Gaps = append(s.Gaps, g)
		}
	}
}

func (g Gap) overlaps(o Gap) bool {
	same := g.First.Timeline == o.First.Timeline || g.First.Timeline == o.Last.Timeline || g.Last.Timeline == o.First.Timeline
	return same && g.First.No <= o.Last.No && o.First.No <= g.Last.No
}

// blame notes the gaps that a backup cannot be recovered past.
func (s *Standing) blame(b repo.Info, p Path) {
	for i, g := range s.Gaps {
		onPath := slices.ContainsFunc(p.Spans, func(t postgres.TimelineSpan) bool {
			return t.Timeline == g.First.Timeline && t.Begin < g.First.End() && t.End > g.First.Start()
		})
		if onPath && b.StartLSN < g.Last.End() {
			s.Gaps[i].NeededBy = append(g.NeededBy, b.Label)
		}
	}
}

// holes are the gaps between the ranges of one timeline.
func (ix *Index) holes(tl postgres.Timeline) []Gap {
	var out []Gap
	ranges := ix.Ranges(tl)
	for i := 1; i < len(ranges); i++ {
		before, after := ranges[i-1].End, ranges[i].Begin
		out = append(out, Gap{First: postgres.SegmentAt(tl, before, ix.size), Last: postgres.SegmentEndingAt(tl, after, ix.size),
			Held: before, Next: after})
	}
	return out
}

// LearnHistory takes a timeline history file that was found elsewhere, such as
// in a data directory, for one that is archived and could not be read for want
// of an identity. It is believed if its hash is the archived one's, which is
// signed. It returns nil also when there is nothing to learn.
func (ix *Index) LearnHistory(ctx context.Context, r *repo.Repo, tl postgres.Timeline, content []byte) error {
	t := ix.timelines[tl]
	if t == nil || !t.hasHistory || !errors.Is(t.historyErr, repo.ErrNoIdentity) {
		return nil
	}
	name := postgres.WALName{Kind: postgres.WALHistory, Timeline: tl}
	h, err := r.Header(ctx, repo.WALKey(ix.system, name))
	if err != nil {
		return fmt.Errorf("compare %s with the archive: %w", name, err)
	}
	if sum := sha256.Sum256(content); h.SHA256 != hex.EncodeToString(sum[:]) {
		return nil
	}
	t.history, t.historyErr = postgres.ParseHistory(tl, content)
	return t.historyErr
}
