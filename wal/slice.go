package wal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// slice is a stored run of bytes of a segment that was not complete when it
// was stored.
type slice struct {
	from, to int64 // offsets in the segment; to is not included
	size     int64 // bytes in the store
}

// chain picks the slices that together hold their segment from its first byte
// on without a hole, in order, and says how far they get. Of slices that
// overlap it takes as few as it can. Less than a segment's header is nothing.
func chain(all []slice) (use []slice, held int64) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b slice) int { return cmp.Compare(a.from, b.from) })
	for i := 0; i < len(all); {
		best := slice{}
		for ; i < len(all) && all[i].from <= held; i++ {
			if all[i].to > best.to {
				best = all[i]
			}
		}
		if best.to <= held {
			break
		}
		use, held = append(use, best), best.to
	}
	if held < postgres.SegmentHeaderSize {
		return nil, 0
	}
	return use, held
}

// listSlices lists the slices of a segment.
func listSlices(ctx context.Context, r *repo.Repo, system postgres.SystemID, tl postgres.Timeline, segment string) ([]slice, error) {
	var out []slice
	prefix := repo.WALPrefix(system, tl)
	for info, err := range r.ListArchive(ctx, repo.SlicePrefix(system, tl, segment)) {
		if err != nil {
			return nil, fmt.Errorf("list the slices of %s: %w", segment, err)
		}
		if name, from, to, ok := repo.ParseSlice(info.Key[len(prefix):]); ok && name == segment {
			out = append(out, slice{from, to, info.Size})
		}
	}
	return out, nil
}

// SliceConflictError says that two slices of one segment hold different bytes
// for the same place: two primaries wrote them.
type SliceConflictError struct {
	Segment string
	At      int64 // offset in the segment
}

func (e *SliceConflictError) Error() string {
	return fmt.Sprintf("two slices of %s differ from byte %d on: two primaries have archived to one repository", e.Segment, e.At)
}

// errSliceGone means that a slice that was listed is not there any more: it has
// been merged into another, or replaced by the whole segment.
var errSliceGone = errors.New("a slice has been replaced")

// slicesAtOnce is how many slices are read at the same time.
const slicesAtOnce = 16

// readSlices puts the bytes of a chain into buf, whose length is the
// segment's size; what lies behind them is set to zero. It checks that they
// are of that segment. errSliceGone as above.
func readSlices(ctx context.Context, r *repo.Repo, system postgres.SystemID, seg postgres.Segment, use []slice, buf []byte) error {
	raw := make([][]byte, len(use))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(slicesAtOnce)
	for i, s := range use {
		g.Go(func() (err error) {
			raw[i], err = readSlice(gctx, r, system, seg.Timeline, seg.Name(), s)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	held := int64(0)
	for i, s := range use {
		old := min(held-s.from, int64(len(raw[i])))
		if s.to > int64(len(buf)) {
			return &HeaderError{Name: seg.Name(), Reason: fmt.Sprintf("a slice of it ends at byte %d, and its segment has %d", s.to, len(buf))}
		}
		if n := firstDifference(raw[i][:old], buf[s.from:s.from+old]); n >= 0 {
			return &SliceConflictError{seg.Name(), s.from + n}
		}
		copy(buf[s.from:], raw[i])
		held = s.to
	}
	clear(buf[held:])
	name := postgres.WALName{Kind: postgres.WALSegment, Timeline: seg.Timeline, Segment: seg.Name()}
	_, err := checkSegment(name, buf[:postgres.SegmentHeaderSize], int64(len(buf)), PushOptions{System: system})
	return err
}

func readSlice(ctx context.Context, r *repo.Repo, system postgres.SystemID, tl postgres.Timeline, segment string, s slice) ([]byte, error) {
	key := repo.SliceKey(system, tl, segment, s.from, s.to)
	raw, _, err := r.ReadEnvelope(ctx, key, repo.KindWAL, s.to-s.from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errSliceGone
	}
	if err == nil && int64(len(raw)) != s.to-s.from {
		err = &repo.CorruptError{Object: key, Reason: fmt.Sprintf("holds %d bytes, its name says %d", len(raw), s.to-s.from)}
	}
	if err != nil {
		return nil, fmt.Errorf("read a slice of %s: %w", segment, err)
	}
	return raw, nil
}

func firstDifference(a, b []byte) int64 {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return -1
}

// replacedTimes is how often slices may be replaced while they are read.
const replacedTimes = 10

// openSlices is the segment of this name as its slices hold it, filled up with
// zeros. fs.ErrNotExist when there is none that counts, errSliceGone when the
// whole segment has come meanwhile, *GapError when the slices end before the
// segment does, although later WAL of the timeline is archived.
func openSlices(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName) (io.Reader, error) {
	for try := 1; ; try++ {
		body, err := openListed(ctx, r, system, name)
		if !errors.Is(err, errSliceGone) || try == replacedTimes {
			return body, err
		}
		if _, err := r.Store().Stat(ctx, repo.WALKey(system, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, errSliceGone)
		}
	}
}

// openListed is openSlices with the slices that one listing shows.
func openListed(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName) (io.Reader, error) {
	all, err := listSlices(ctx, r, system, name.Timeline, name.Segment)
	if err != nil {
		return nil, err
	}
	body, err := openChain(ctx, r, system, name, all)
	if !repo.AboutObject(err) {
		return body, err
	}
	// Without those that nobody who is believed has signed, if it was about one.
	use, _, listed := believedSlices(ctx, r, system, name.Timeline, name.Segment, all, chained)
	if listed != nil {
		return nil, listed
	}
	if len(use) == 0 {
		return nil, err // it may have been genuine: no end of the archive
	}
	return openChain(ctx, r, system, name, use)
}

// openChain is openSlices with the slices of these that count.
func openChain(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, all []slice) (io.Reader, error) {
	use, held := chain(all)
	if held == 0 {
		return nil, fs.ErrNotExist
	}
	size, err := slicedSize(ctx, r, system, name, use[0])
	if err != nil {
		return nil, err
	}
	if held < int64(size) {
		if err := proveNewest(ctx, r, system, name); err != nil {
			return nil, err
		}
	}
	seg, err := postgres.ParseSegment(name.Segment, size)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	if err := readSlices(ctx, r, system, seg, use, buf); err != nil {
		return nil, err
	}
	return bytes.NewReader(buf), nil
}

// slicedSize reads the size of a segment from the header in its first slice.
func slicedSize(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, first slice) (postgres.SegmentSize, error) {
	raw, err := readSlice(ctx, r, system, name.Timeline, name.Segment, first)
	if err != nil {
		return 0, err
	}
	h, err := postgres.ParseSegmentHeader(raw)
	if err != nil {
		return 0, &HeaderError{Name: name.Segment, Err: err}
	}
	return h.SegmentSize, nil
}

// proveNewest returns nil when nothing later than this segment is archived on
// its timeline; else *GapError, or errSliceGone if the whole segment is there
// by now.
func proveNewest(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName) error {
	later, err := laterSegment(ctx, r, system, name)
	if err != nil || later == "" {
		return err
	}
	_, err = r.Store().Stat(ctx, repo.WALKey(system, name))
	switch {
	case err == nil:
		return errSliceGone
	case errors.Is(err, fs.ErrNotExist):
		return &GapError{Missing: name.Segment, Later: later}
	}
	return err
}
