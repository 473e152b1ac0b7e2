package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// readSurvey reads the WAL that recovery of the backup to the point would
// replay. It proves that all of it can be fetched, opened and replayed, and
// finds where recovery would stop. Each segment is fetched once.
func readSurvey(ctx context.Context, r *repo.Repo, ix *wal.Index, way wal.Path, info repo.Info, point Point, o Options) (*Survey, error) {
	v := &surveyor{point: point, info: info, way: way}
	rd := ix.Reader(ctx, r, way, info.StartLSN)
	defer rd.Close()
	reach := ix.Reach(way, info.StartLSN)
	total := int64(reach.End - info.StartLSN)
	for {
		rec, err := rd.Next()
		if err != nil {
			if err := v.ended(err, ix.SegmentAt(way, rd.Position()), reach); err != nil {
				return nil, fmt.Errorf("read the WAL from %s on: %w", rd.Position(), err)
			}
			break
		}
		if wrong := v.wrongTimeline(rec, rd.BlockSize()); wrong != nil {
			v.s.Broken, v.s.BrokenSegment = wrong, ix.SegmentAt(way, rec.LSN).Name()
			break
		}
		stop, err := v.see(rec)
		if err != nil {
			return nil, err
		}
		if stop {
			break
		}
		o.observe(Progress{Phase: SurveyPhase, Done: int64(rec.End - info.StartLSN), Total: total})
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if v.s.Reached {
		var err error
		if v.s.DamagedAhead, err = damagedAhead(rd, v.s.End, info.SegSize); err != nil {
			return nil, fmt.Errorf("read the WAL behind the target: %w", err)
		}
	}
	v.s.Newest = v.s.Commit
	if v.s.Reached && reach.End > v.s.End {
		// What cannot be read is not where the plan goes.
		newest, _ := ix.NewestCommit(ctx, r, way, v.s.End, reach.End)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if newest.Time.After(v.s.Newest) {
			v.s.Newest = newest.Time
		}
	}
	return &v.s, nil
}

// damagedAhead says whether a server that reads ahead of what it replays would
// meet WAL that it cannot have: it reads the rest of the segment that ends
// there and the beginning of the next. An error says nothing about the archive.
func damagedAhead(rd *wal.Reader, end postgres.LSN, size postgres.SegmentSize) (bool, error) {
	at := postgres.SegmentAt(0, end, size)
	for {
		rec, err := rd.Next()
		_, gap := errors.AsType[*wal.GapError](err)
		_, spoilt := unusable(err, at)
		switch {
		case gap, spoilt:
			return true, nil
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return false, err
		case rec.LSN >= at.End():
			return false, nil
		}
	}
}

// surveyor follows recovery record by record, by the rules of
// recoveryStopsBefore and recoveryStopsAfter in access/transam/xlogrecovery.c
// (xlog.c before PostgreSQL 15).
type surveyor struct {
	s     Survey
	point Point
	info  repo.Info
	way   wal.Path
}

// wrongTimeline is the error of a record on a page that another timeline wrote
// than the path has there. PostgreSQL does not look: it would replay, under the
// name of the new timeline, what the old one went on to write. The page in which
// a timeline begins was begun by the older one.
func (v *surveyor) wrongTimeline(rec postgres.Record, pageSize postgres.LSN) error {
	page := rec.LSN / pageSize * pageSize
	for _, s := range v.way.Spans {
		if page >= s.Begin && rec.LSN < s.End && rec.Timeline != s.Timeline {
			return fmt.Errorf("the record at %s was written on timeline %s, and timeline %s is wanted there", rec.LSN, rec.Timeline, s.Timeline)
		}
	}
	return nil
}

// see takes the next record and says whether recovery stops there.
func (v *surveyor) see(rec postgres.Record) (stop bool, err error) {
	ev, err := rec.Event()
	if err != nil {
		return false, fmt.Errorf("read the WAL at %s: %w", rec.LSN, err)
	}
	if v.stopsBefore(rec, ev) {
		v.s.Reached, v.s.BeforeLSN, v.s.BeforeEnd = true, rec.LSN, rec.End
		return true, nil
	}
	v.s.End, v.s.Last, v.s.Timeline = rec.End, rec.LSN, rec.Timeline
	switch e := ev.(type) {
	case postgres.TransactionEnd:
		if e.Committed && e.Time.After(v.s.Commit) {
			v.s.Commit, v.s.CommitLSN = e.Time, rec.LSN
		}
	case postgres.TablespaceCreate:
		if e.Path == "" {
			v.s.InPlace = true
		} else {
			v.s.Tablespaces = append(v.s.Tablespaces, NewTablespace{OID: e.OID, Path: e.Path, LSN: rec.LSN})
		}
	case postgres.ParameterChange:
		v.parameters(e)
	}
	if v.stopsAfter(rec, ev) {
		v.s.Reached = true
		return true, nil
	}
	return false, nil
}

func (v *surveyor) stopsBefore(rec postgres.Record, ev postgres.Event) bool {
	if v.point.Kind == AtLSN {
		return v.point.Exclusive && rec.LSN >= v.point.LSN
	}
	end, ok := ev.(postgres.TransactionEnd)
	if !ok {
		return false
	}
	switch v.point.Kind {
	case AtXID:
		return v.point.Exclusive && end.XID == v.point.XID
	case AtTime:
		// Several transactions can have ended in the same microsecond.
		return end.Time.After(v.point.Time) || v.point.Exclusive && end.Time.Equal(v.point.Time)
	}
	return false
}

func (v *surveyor) stopsAfter(rec postgres.Record, ev postgres.Event) bool {
	switch v.point.Kind {
	case Immediate:
		return rec.End >= v.info.StopLSN
	case AtLSN:
		return rec.LSN >= v.point.LSN
	case AtName:
		e, ok := ev.(postgres.RestorePoint)
		return ok && e.Name == v.point.Name
	case AtXID:
		e, ok := ev.(postgres.TransactionEnd)
		return ok && e.XID == v.point.XID
	}
	return false
}

// parameters keeps the largest values that the primary had.
func (v *surveyor) parameters(e postgres.ParameterChange) {
	p := &v.s.Parameters
	p.MaxConnections = max(p.MaxConnections, e.MaxConnections)
	p.MaxWorkerProcesses = max(p.MaxWorkerProcesses, e.MaxWorkerProcesses)
	p.MaxWALSenders = max(p.MaxWALSenders, e.MaxWALSenders)
	p.MaxPreparedXacts = max(p.MaxPreparedXacts, e.MaxPreparedXacts)
	p.MaxLocksPerXact = max(p.MaxLocksPerXact, e.MaxLocksPerXact)
}

// ended tells the end of the archive, which is no fault, from WAL that is
// archived and cannot be used, which the plan must know, and from an error
// that says nothing about the archive, which is returned.
func (v *surveyor) ended(err error, at postgres.Segment, reach wal.Reach) error {
	if v.s.End == 0 {
		v.s.End = v.info.StartLSN
	}
	if errors.Is(err, io.EOF) {
		// The last archived segment may end anywhere: it was switched, or its
		// last record goes on in what is not archived yet (EndMissing, which can
		// begin segments earlier). In one before it, nothing may end.
		end, _ := errors.AsType[*postgres.EndOfWAL](err)
		if at.End() < reach.End && (end == nil || end.Kind != postgres.EndMissing) {
			v.s.Broken, v.s.BrokenSegment = err, at.Name()
		}
		return nil
	}
	if _, ok := errors.AsType[*wal.GapError](err); ok {
		return nil // the index knows it too
	}
	if segment, ok := unusable(err, at); ok {
		v.s.Broken, v.s.BrokenSegment = err, segment
		return nil
	}
	return err
}

// unusable names the segment that an error is about: the one that cannot be
// opened may follow the one in which the next record begins.
func unusable(err error, at postgres.Segment) (string, bool) {
	if e, ok := errors.AsType[*repo.CorruptError](err); ok {
		return path.Base(e.Object), true
	}
	if e, ok := errors.AsType[*repo.UntrustedError](err); ok {
		return path.Base(e.Object), true
	}
	_, ok := errors.AsType[*wal.HeaderError](err)
	return at.Name(), ok
}
