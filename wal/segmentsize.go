package wal

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// samples are some of the segments that are listed: the first ones and the last.
type samples []string

func (s *samples) add(key string) {
	if len(*s) < 8 {
		*s = append(*s, key)
		return
	}
	(*s)[len(*s)-1] = key
}

// findSize reads the size in the signed header of a segment. One that is damaged
// or gone must not hide the archive, nor stop a restore that does not need it.
func (ix *Index) findSize(ctx context.Context, r *repo.Repo, segments samples) error {
	segments = slices.DeleteFunc(segments, func(key string) bool { return ix.isBad(key) })
	if len(segments) == 0 {
		return ix.sizeFromSlices(ctx, r)
	}
	var first error
	for _, key := range slices.Backward(segments) {
		h, err := r.Header(ctx, key)
		if err == nil {
			ix.size = postgres.SegmentSize(h.Size)
			return nil
		}
		if !repo.AboutObject(err) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// sizeFromSlices reads the segment size in the first page of a segment that is
// there in slices. It stays unknown without the right identity, and when the
// slice has been replaced meanwhile.
func (ix *Index) sizeFromSlices(ctx context.Context, r *repo.Repo) error {
	for tl, t := range ix.timelines {
		for name, all := range t.slices {
			use, held := chain(all)
			if held == 0 || t.badSlice(name, use) != nil {
				continue
			}
			size, err := slicedSize(ctx, r, ix.system, postgres.WALName{Kind: postgres.WALSegment, Timeline: tl, Segment: name}, use[0])
			if errors.Is(err, repo.ErrNoIdentity) || errors.Is(err, repo.ErrWrongIdentity) || errors.Is(err, errSliceGone) {
				return nil
			}
			if err != nil {
				return err
			}
			ix.size = size
			return nil
		}
	}
	return nil
}

// LearnSegmentSize takes the segment size from somebody who knows it, such as a
// backup of the system or its control file, where the archive has not told it.
func (ix *Index) LearnSegmentSize(size postgres.SegmentSize) {
	if ix.size == 0 && size.Valid() {
		ix.size = size
		ix.number()
	}
}

// UncountedSlices says whether there are slices that do not count, because the
// segment size is not known.
func (ix *Index) UncountedSlices() bool {
	if ix.size != 0 {
		return false
	}
	for _, t := range ix.timelines {
		if len(t.slices) > 0 {
			return true
		}
	}
	return false
}

// number turns the names of segments into their numbers, now that the size is
// known. What bears a name that no segment of that size has is none.
func (ix *Index) number() {
	for _, t := range ix.timelines {
		if ix.size != 0 {
			t.chainSlices(int64(ix.size))
		}
		for name := range t.sliced {
			if seg, err := postgres.ParseSegment(name, ix.size); err == nil {
				t.numbers = append(t.numbers, seg.No)
			} else {
				delete(t.sliced, name)
				ix.foreign++
			}
		}
		for name := range t.sizes {
			if seg, err := postgres.ParseSegment(name, ix.size); err == nil {
				t.numbers = append(t.numbers, seg.No)
			} else {
				delete(t.sizes, name)
				ix.foreign++
			}
		}
		slices.Sort(t.numbers)
	}
}

// chainSlices finds out how far the segments are held that are there in slices
// only.
func (t *timeline) chainSlices(size int64) {
	for name, all := range t.slices {
		if _, whole := t.sizes[name]; whole {
			continue // its slices are left from before it was complete
		}
		if t.bad[name] != nil {
			continue // Fetch looks for the whole segment first, and goes no further
		}
		use, n := chain(all)
		if err := t.badSlice(name, use); err != nil {
			t.bad[name] = err
			continue
		}
		if n > 0 && n <= size {
			t.sliced[name] = held{use, n}
		}
	}
}

// badSlice is why one of the slices that Fetch would use is bad.
func (t *timeline) badSlice(segment string, use []slice) error {
	for _, s := range use {
		if err := t.bad[repo.SliceName(segment, s.from, s.to)]; err != nil {
			return err
		}
	}
	return nil
}
