package restore

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// NewPlan decides what a restore will do, or why it cannot be done. It does no
// I/O and is deterministic.
//
// It takes the newest backup that can serve the target. When that one cannot
// be used (a pack is missing, the WAL that makes it consistent has a gap, the
// target lies before it), it takes an older one and says so in a note. Where the
// manifest of a newer one is not believed, it refuses; a backup that was asked for by
// name is never replaced.
//
// Errors: *MissingFactError when Inputs do not hold what is needed; see Load.
// ErrNoBackup, *BackupError, *UnbelievedError, *TargetError, *UnreachableError, *GapError,
// *DirError, *WordError, *SpaceError, *OwnerError.
func NewPlan(in *Inputs, t Target) (*Plan, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	// The commonest mistake first: nobody should wait for it.
	found, known := in.Directories[t.DataDir]
	if !known {
		return nil, &MissingFactError{Directories: []string{t.DataDir}}
	}
	if err := checkFree(filled{path: t.DataDir}, found, true); err != nil {
		return nil, err
	}
	candidates, notes, err := choose(in, t)
	if err != nil {
		return nil, err
	}
	var first error
	unbelieved := maps.Clone(in.Unread)
	for _, c := range candidates {
		p, err := planWith(in, t, c)
		if err == nil {
			p.Notes = append(notes, p.Notes...)
			if err := p.checkBelieved(t, unbelieved); err != nil {
				return nil, err
			}
			return p, nil
		}
		if read := in.Contents[c.info.Label]; read != nil && unbelievable(c.info.Label, read.Err) {
			unbelieved[c.info.Label] = read.Err
		}
		if t.Backup != "" || !olderMayServe(err) {
			return nil, err
		}
		// The first is the one that was wanted; a search through all of them
		// ended only with the last.
		if first == nil || searched(err) {
			first = err
		}
		notes = append(notes, fmt.Sprintf("backup %s is passed over: %v", c.info.Label, reasonOf(err)))
	}
	return nil, first
}

// reasonOf is the error without the label, for a line that begins with it.
func reasonOf(err error) error {
	if b, ok := errors.AsType[*BackupError](err); ok {
		return &BackupError{Reason: b.Reason, Err: b.Err}
	}
	return err
}

// searched says whether the target was looked for in the WAL and is not there.
func searched(err error) bool {
	u, ok := errors.AsType[*UnreachableError](err)
	return ok && !u.TooEarly
}

func (t Target) check() error {
	if err := t.Point.check(); err != nil {
		return err
	}
	if t.Point.Kind == ToEnd && t.Action != "" {
		return &TargetError{"what to do at the target was said, and no target"}
	}
	if !filepath.IsAbs(t.DataDir) || filepath.Clean(t.DataDir) != t.DataDir || hasControl(t.DataDir) {
		return &DirError{Path: t.DataDir, Kind: BadPath, Detail: "an absolute path without control characters is needed"}
	}
	return nil
}

// olderMayServe says whether an older backup can help against the error.
func olderMayServe(err error) bool {
	if u, ok := errors.AsType[*UnreachableError](err); ok {
		// What was not found behind this backup may lie before it; a time or an
		// LSN is compared with the backup before.
		return u.TooEarly || u.Point.Kind == AtXID || u.Point.Kind == AtName
	}
	if g, ok := errors.AsType[*GapError](err); ok {
		return g.Needed
	}
	_, ok := errors.AsType[*BackupError](err)
	return ok
}

// planWith plans with one backup.
func planWith(in *Inputs, t Target, c candidate) (*Plan, error) {
	// Without the WAL from its start to its stop the backup is nothing.
	if err := c.checkOwnWAL(); err != nil {
		return nil, err
	}
	contents, survey := in.Contents[c.info.Label], in.Surveys[c.info.Label]
	if contents == nil || survey == nil {
		need := &MissingFactError{Backup: &c.info, Contents: contents == nil}
		if survey == nil {
			need.Survey = &c.path
		}
		return nil, need
	}
	if contents.Err != nil {
		return nil, &BackupError{Label: c.info.Label, Reason: "its objects are not whole", Err: contents.Err}
	}
	if err := checkReach(t.Point, c, survey); err != nil {
		return nil, err
	}
	p := newPlan(t, c, contents, survey)
	if err := p.placeTablespaces(t, survey); err != nil {
		return nil, err
	}
	if err := p.checkDirs(in, t, contents); err != nil {
		return nil, err
	}
	settings, err := p.recoverySettings(t, survey)
	if err != nil {
		return nil, err
	}
	p.Settings = settings
	p.addNotes(t, contents)
	return p, nil
}

func (c candidate) checkOwnWAL() error {
	switch size := c.archive.SegmentSize(); size {
	case c.info.SegSize:
	case 0:
		return &GapError{Missing: postgres.SegmentAt(c.info.Timeline, c.info.StartLSN, c.info.SegSize).Name(), LSN: c.info.StartLSN,
			Reason: "is not in the archive, nor is any other", Needed: true}
	default:
		return &BackupError{Label: c.info.Label,
			Reason: fmt.Sprintf("its WAL segments have %d bytes, those of the archive %d", c.info.SegSize, size)}
	}
	if missing, gap := c.archive.Missing(c.path, c.info.StartLSN, c.info.StopLSN); gap {
		return &GapError{Missing: missing.Name(), LSN: missing.Start(), Needed: true}
	}
	return nil
}

func newPlan(t Target, c candidate, contents *Contents, s *Survey) *Plan {
	// The record of a switch takes up the rest of its segment, of which slices may hold
	// no more than the record itself.
	readTo := min(max(s.End, s.BeforeEnd), c.archive.Reach(c.path, c.info.StartLSN).End)
	p := &Plan{
		Backup: c.info, Label: c.info.Label, DataDir: t.DataDir,
		Point: t.Point, Action: t.Action, Timeline: c.path.Timeline,
		ConsistentLSN: c.info.StopLSN, ConsistentTime: c.info.StopTime,
		StopLSN: s.End, StopTime: s.Commit, NewestTime: s.Newest,
		FetchBytes: contents.Fetch,
		WAL:        walRange(c, s.End, readTo),
		allWAL:     t.AllWAL, LastLSN: cmp.Or(s.BeforeLSN, s.Last), archive: c.archive, way: c.path, readTo: readTo,
	}
	if p.Action == "" && p.Point.Kind != ToEnd {
		p.Action = Pause
	}
	for i, n := range contents.Bytes {
		p.WriteBytes += n
		p.Files += contents.Files[i]
	}
	for _, s := range c.path.Spans {
		if s.Begin < p.StopLSN && s.End > c.info.StartLSN {
			p.Path = append(p.Path, Span{s.Timeline, max(s.Begin, c.info.StartLSN), min(s.End, p.StopLSN)})
		}
	}
	return p
}

// walRange counts what recovery to an end will fetch.
func walRange(c candidate, end, readTo postgres.LSN) WALRange {
	w := WALRange{Begin: c.info.StartLSN, End: end}
	for seg, ok := range c.archive.Segments(c.path, w.Begin, min(end, readTo)) {
		if !ok {
			break // the survey read it, so it does not come to this
		}
		if w.First == "" {
			w.First = seg.Name()
		}
		w.Last = seg.Name()
		w.Segments++
		size, _ := c.archive.ObjectSize(seg)
		w.Bytes += size
	}
	return w
}

// checkReach says whether recovery would stop where it shall, and consistent.
func checkReach(point Point, c candidate, s *Survey) error {
	window := Window{Backup: c.info.Label, Timeline: c.path.Timeline, FirstLSN: c.info.StopLSN, FirstTime: c.info.StopTime,
		LastLSN: s.Last, LastTime: s.Commit}
	if s.Newest.After(window.LastTime) {
		window.LastTime = s.Newest
	}
	reach := c.archive.Reach(c.path, c.info.StartLSN)
	gap := &GapError{Missing: s.BrokenSegment, LSN: s.End, Reason: "cannot be used", Err: s.Broken, Window: window}
	if s.Broken == nil {
		gap = &GapError{Missing: reach.Missing.Name(), LSN: reach.End, Window: window}
		if reach.Strays {
			gap.Reason = "is not in the archive, and PostgreSQL would read on in the older timeline, past the point where it was left"
		}
	}
	damaged := s.Broken != nil || reach.Gap || reach.Strays
	switch {
	case s.End < c.info.StopLSN && s.Reached:
		return &UnreachableError{Point: point, Reason: "it lies before the backup is consistent", TooEarly: true, Window: window}
	case s.End < c.info.StopLSN:
		gap.Needed = true
		return gap
	case s.Reached:
		return nil
	case damaged:
		return gap
	case point.Kind == ToEnd:
		return nil
	}
	return &UnreachableError{Point: point, Reason: whyNotReached(point, window), Window: window}
}

func whyNotReached(p Point, w Window) string {
	switch p.Kind {
	case AtTime:
		if w.LastTime.IsZero() {
			return "the archive holds no transaction that ended after the backup began, and recovery stops only at one that ended later than the target"
		}
		return "the archive holds no transaction that ended later, and recovery stops only at one"
	case AtXID:
		return "the archive holds no commit or rollback of it"
	case AtName:
		return "the archive holds no restore point of that name"
	}
	return "the archive ends before it"
}

// candidate is a backup with the path that recovery would take from it.
type candidate struct {
	info    repo.Info
	archive *wal.Index
	path    wal.Path
}
