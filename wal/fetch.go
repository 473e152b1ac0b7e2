package wal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/wal/queue"
)

// ErrNotArchived means that the archive, which is there and readable, holds no
// such file, and nothing that comes after it: the end of the archive.
var ErrNotArchived = errors.New("not in the archive")

// GapError says that a segment is missing from the archive although a later
// one of its timeline is there. It is not the end of the archive.
type GapError struct {
	Missing string
	Later   string // the first later segment that is archived
}

func (e *GapError) Error() string {
	return fmt.Sprintf("the archive has a gap: %s is missing, and %s, which comes later, is there", e.Missing, e.Later)
}

// UnknownSystemError says that nothing at all is archived of a system. A
// cluster that is recovered has archived something; more likely the
// identifier is wrong.
type UnknownSystemError struct{ System postgres.SystemID }

func (e *UnknownSystemError) Error() string {
	return fmt.Sprintf("no WAL of system %s is in the archive", e.System)
}

// HistoryLostError says that a timeline history file is missing from the
// archive although WAL of the timeline is there. PostgreSQL archives the
// history of a timeline before anything else of it, and without it would take
// the timeline for one that never was: it would end on an older one.
type HistoryLostError struct {
	Timeline postgres.Timeline
	Segment  string // one of which something is archived
}

func (e *HistoryLostError) Error() string {
	return fmt.Sprintf("the history file of timeline %s is lost: %s is archived, %s is not", e.Timeline, e.Segment, e.Timeline.HistoryName())
}

// Fetch puts the archived file of this name at dest, whole or not at all; a
// file that is there is replaced. A segment that is archived in slices only is
// filled up with zeros, which recovery takes for the end of the WAL. It is not
// synced to disk: PostgreSQL does that itself when it moves what it asked for
// to its place (KeepFileRestoredFromArchive in access/transam/xlogarchive.c
// uses durable_rename).
//
// ErrNotArchived only when it is proven: the store said that there is no such
// object, the repository's marker is there and genuine, other WAL of the system
// is archived (else *UnknownSystemError), and, for a segment, no later one of
// its timeline is, nor a slice of one (else *GapError), for a timeline history
// file, nothing of its timeline (else *HistoryLostError). Any other error says
// nothing about what the archive holds.
func Fetch(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, dest string) error {
	if err := fetch(ctx, r, system, name, dest); err != nil {
		return fmt.Errorf("fetch %s: %w", name, err)
	}
	return nil
}

func fetch(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, dest string) error {
	err := fetchWhole(ctx, r, system, name, dest)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if name.Kind == postgres.WALSegment {
		if err = fetchSlices(ctx, r, system, name, dest); err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errSliceGone) {
			return err
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := proveAbsent(ctx, r, system, name); err != nil {
			return err
		}
	}
	// It has come since.
	return fetchWhole(ctx, r, system, name, dest)
}

// fetchWhole fetches what is archived under that very name; fs.ErrNotExist
// when nothing is.
func fetchWhole(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, dest string) error {
	h, body, err := r.OpenEnvelope(ctx, repo.WALKey(system, name), repo.KindWAL)
	if err != nil {
		return err
	}
	defer body.Close()
	checked, err := checkFetched(system, name, h.Size, body)
	if err != nil {
		return notTheEnd(err)
	}
	return notTheEnd(queue.WriteWhole(dest, checked))
}

// fetchSlices puts a segment together that was not complete when the last of
// it was archived; fs.ErrNotExist when there is nothing of it.
func fetchSlices(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, dest string) error {
	body, err := openSlices(ctx, r, system, name)
	if err != nil {
		return err
	}
	return notTheEnd(queue.WriteWhole(dest, body))
}

// checkFetched looks at the start of a segment once more: what was signed is
// what was pushed, and a push by another version or a broken disk may have
// been wrong. The reader returned yields all of body.
func checkFetched(system postgres.SystemID, name postgres.WALName, size int64, body io.Reader) (io.Reader, error) {
	if name.Kind != postgres.WALSegment && name.Kind != postgres.WALPartial {
		return body, nil
	}
	first, rest, err := peek(body, postgres.SegmentHeaderSize)
	if err != nil {
		return nil, err
	}
	if _, err := checkSegment(name, first, size, PushOptions{System: system}); err != nil {
		return nil, err
	}
	return rest, nil
}

// proveAbsent returns ErrNotArchived if the archive proves that it does not
// hold the file, an error if it does not, and nil when the file has turned up
// meanwhile.
func proveAbsent(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName) error {
	var later string
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.CheckPresent(gctx) })
	g.Go(func() error { return checkSystem(gctx, r, system) })
	g.Go(func() (err error) {
		if name.Kind == postgres.WALSegment || name.Kind == postgres.WALHistory {
			later, err = laterSegment(gctx, r, system, name)
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("cannot tell whether it is archived: %w", err)
	}
	if later == "" {
		return ErrNotArchived
	}
	// The later one may have been archived between our two questions, and
	// then so was this one: look once more before calling it a gap.
	_, err := r.Store().Stat(ctx, repo.WALKey(system, name))
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case name.Kind == postgres.WALHistory:
		return &HistoryLostError{name.Timeline, later}
	default:
		return &GapError{Missing: name.String(), Later: later}
	}
}

// checkSystem makes sure that there is an archive of the system.
func checkSystem(ctx context.Context, r *repo.Repo, system postgres.SystemID) error {
	for _, err := range r.Store().List(ctx, repo.SystemWALPrefix(system)) {
		if err != nil {
			return fmt.Errorf("list the archive: %w", err)
		}
		return nil
	}
	return &UnknownSystemError{system}
}

// afterLister is a store that can begin a listing behind a key. A server that
// waits at the end of the archive asks every few seconds, so the archive
// before that must cost nothing.
type afterLister interface {
	ListAfter(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error]
}

// mostJunk is how many objects in a row are looked at that nobody who is believed has
// signed: a server that waits at the end of the archive asks every few seconds.
const mostJunk = 1000

// laterSegment is the name of the first segment after name on its timeline of
// which anything is archived, whole or in slices, "" when there is none. All
// segments come after the history of their timeline; the first has none.
func laterSegment(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName) (string, error) {
	if name.Kind == postgres.WALHistory && name.Timeline == 1 {
		return "", nil
	}
	prefix := repo.WALPrefix(system, name.Timeline)
	list, junk, first := r.Store().List(ctx, prefix), 0, ""
	if s, ok := r.Store().(afterLister); ok && name.Kind == postgres.WALSegment {
		list = s.ListAfter(ctx, prefix, repo.WALKey(system, name))
	}
	for info, err := range list {
		if err != nil {
			return "", fmt.Errorf("list the archive: %w", err)
		}
		key, _, _ := r.ArchiveKey(info.Key)
		n, ok := repo.ParseWALKey(system, key)
		if !ok || n.Kind != postgres.WALSegment || n.Segment <= name.Segment {
			continue
		}
		if _, err := r.Header(ctx, key); err == nil {
			return n.Segment, nil
		} else if !errors.Is(err, fs.ErrNotExist) && !repo.AboutObject(err) {
			return "", fmt.Errorf("look whether %s is archived: %w", n.Segment, err)
		}
		// Anybody can have put it there. What no believed key has signed is no later WAL.
		first = cmp.Or(first, info.Key)
		if junk++; junk == mostJunk {
			return "", fmt.Errorf("the %d objects behind it, the first is %s, are not signed by anybody who is believed: \"lifeboat verify\" names them", junk, first)
		}
	}
	return "", nil
}
