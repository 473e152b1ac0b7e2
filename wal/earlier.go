package wal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// earlierSlice is a slice that another run has stored, and what it must hold.
type earlierSlice struct {
	slice
	header repo.Header
}

// compare returns *TwoPrimariesError unless the slice holds the bytes that have
// this SHA-256 on this host.
func (e earlierSlice) compare(segment, sum, host string) error {
	if sum == e.header.SHA256 {
		return nil
	}
	return &TwoPrimariesError{"slice of " + segment, &repo.ConflictError{Object: segment, HaveSHA256: e.header.SHA256, SHA256: sum,
		HaveHost: e.header.Host, Host: host, HaveSize: e.header.Size, WantedSize: e.to - e.from}}
}

// believedSlices reads what slices of a segment say of themselves, which takes no
// identity: of those that pick chooses of all, such as a chain. What nobody who is
// believed has signed is no slice, and pick is asked again without it; after
// replacedTimes no slice counts, as somebody then puts junk there all the time. One that
// has gone meanwhile is in use and not in what is returned.
func believedSlices(ctx context.Context, r *repo.Repo, system postgres.SystemID, tl postgres.Timeline, segment string, all []slice,
	pick func([]slice) []slice) (use []slice, read []earlierSlice, err error) {
	all = slices.Clone(all)
	for range replacedTimes {
		use = pick(all)
		headers, err := sliceHeaders(ctx, r, system, tl, segment, use)
		if err != nil {
			return nil, nil, err
		}
		read = nil
		junk := map[slice]bool{}
		for i, h := range headers {
			switch {
			case h == nil: // gone
			case h.SHA256 == "":
				junk[use[i]] = true
			default:
				read = append(read, earlierSlice{use[i], *h})
			}
		}
		if len(junk) == 0 {
			return use, read, nil
		}
		all = slices.DeleteFunc(all, func(s slice) bool { return junk[s] })
	}
	return nil, nil, nil
}

// sliceHeaders reads the header of each slice: nil when it has gone, an empty one when
// nobody who is believed has signed it.
func sliceHeaders(ctx context.Context, r *repo.Repo, system postgres.SystemID, tl postgres.Timeline, segment string, use []slice) ([]*repo.Header, error) {
	headers := make([]*repo.Header, len(use))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(slicesAtOnce)
	for i, s := range use {
		g.Go(func() error {
			h, err := r.Header(gctx, repo.SliceKey(system, tl, segment, s.from, s.to))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case repo.AboutObject(err):
				h = repo.Header{}
			case err != nil:
				return err
			}
			headers[i] = &h
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("look at the slices of %s: %w", segment, err)
	}
	return headers, nil
}

// chained picks the slices of which recovery would put the segment together.
func chained(all []slice) []slice {
	use, _ := chain(all)
	return use
}

// findEarlier finds the slices that earlier runs have stored. All that count must
// be compared, so they are listed again when some have gone.
func (p *part) findEarlier(ctx context.Context, r *repo.Repo, system postgres.SystemID) error {
	for range replacedTimes {
		all, err := listSlices(ctx, r, system, p.seg.Timeline, p.seg.Name())
		if err != nil {
			return err
		}
		use, earlier, err := believedSlices(ctx, r, system, p.seg.Timeline, p.seg.Name(), all, chained)
		if err != nil {
			return err
		}
		_, held := chain(use)
		p.sliced, p.leftover, p.earlier = held, len(all) > 0, earlier
		if len(earlier) == len(use) {
			return nil
		}
	}
	return fmt.Errorf("look at the slices of %s: %w, again and again", p.seg.Name(), errSliceGone)
}

// compare holds what has arrived against the slices of earlier runs: a server
// that was put back to an older state writes other WAL in the same place, and
// the whole segment would silently take the place of what they hold.
func (p *part) compare() error {
	for len(p.earlier) > 0 && p.earlier[0].to <= int64(len(p.buf)) {
		e := p.earlier[0]
		p.earlier = p.earlier[1:]
		sum := sha256.Sum256(p.buf[e.from:e.to])
		if err := e.compare(p.seg.Name(), hex.EncodeToString(sum[:]), "the server that streams now"); err != nil {
			return err
		}
		p.compared = e.to
	}
	return nil
}

// slicesCheck holds a whole segment that is about to be archived against the
// slices of it that are archived, beside other work.
//
// Each segment costs one listing, of the directory of its own slices. It is under
// way while the segment is sealed and, in a push, while the marker is read, so
// nobody waits a round trip longer. S3 charges it like the PUT that follows,
// $0.005 for 1,000: $0.33 for 1 TB of WAL. Where a push looks ahead, one
// listing for all segments would save most of that; but it shows all that is
// archived behind the first, however much, and in a directory it reads the names of
// the whole timeline, where that of one segment's slices is next to nothing.
// Slices themselves, one header each, are read only where there are any: where a
// stream archives beside.
//
// Slices that come between the listing and the segment are not seen. The stream
// that stores them meets the whole segment when its own is complete.
type slicesCheck struct {
	result chan error
	cancel context.CancelFunc
}

// beginSlicesCheck returns at once. The file of that size, opened, must last
// until cancel is called.
func beginSlicesCheck(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, file io.ReaderAt, size int64) *slicesCheck {
	ctx, cancel := context.WithCancel(ctx)
	c := &slicesCheck{make(chan error, 1), cancel}
	go func() { c.result <- compareSlices(ctx, r, system, name, file, size) }()
	return c
}

// wait returns what came of it, once.
func (c *slicesCheck) wait(ctx context.Context) error {
	select {
	case err := <-c.result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// compareSlices returns *TwoPrimariesError when the file is not what slices hold
// of the segment: stored whole it would silently take their place. Nil when no
// slice counts, also because the whole segment has come meanwhile: storing it
// once more compares with that.
func compareSlices(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, file io.ReaderAt, size int64) error {
	for range replacedTimes {
		all, err := listSlices(ctx, r, system, name.Timeline, name.Segment)
		if err != nil || len(all) == 0 {
			return err
		}
		use, earlier, err := believedSlices(ctx, r, system, name.Timeline, name.Segment, all, func(all []slice) []slice {
			if len(all) > maxCompared {
				return chained(all)
			}
			return all
		})
		if err != nil {
			return err
		}
		differ := compareFile(r, name, file, size, earlier)
		if differ == nil && len(earlier) == len(use) {
			return nil
		}
		// They differ, or some have gone: merged into others, or for good.
		if _, err := r.Store().Stat(ctx, repo.WALKey(system, name)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if differ != nil {
			return differ
		}
	}
	return fmt.Errorf("look at the slices of %s: %w, again and again", name.Segment, errSliceGone)
}

// maxCompared is up to how many slices of a segment are all compared. Where
// there are more, as a host leaves them that may not delete, those count that
// recovery would use.
const maxCompared = 256

func compareFile(r *repo.Repo, name postgres.WALName, file io.ReaderAt, size int64, earlier []earlierSlice) error {
	for _, e := range earlier {
		if e.to > size {
			return &HeaderError{Name: name.Segment, Reason: fmt.Sprintf("a slice of it ends at byte %d, and it has %d", e.to, size)}
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, io.NewSectionReader(file, e.from, e.to-e.from)); err != nil {
			return err
		}
		if err := e.compare(name.Segment, hex.EncodeToString(sum.Sum(nil)), r.Host()); err != nil {
			return err
		}
	}
	return nil
}
