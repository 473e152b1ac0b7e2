package copier

import (
	"context"
	"fmt"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// needs loads the index of an archive, which must hold the WAL that the backup needs
// to become consistent: else *GapError.
func (c *copying) needs(ctx context.Context, r *repo.Repo) (*wal.Index, error) {
	first, last := c.span()
	// What the backup needs must be there, and not only be called so.
	ix, err := wal.LoadChecked(ctx, r, c.Info.System, func(storage.Info) {}, wal.HeaderCheck{Want: func(n postgres.WALName) bool {
		seg, err := postgres.ParseSegment(n.Segment, c.size)
		return err == nil && seg.Timeline == first.Timeline && seg.No >= first.No && seg.No <= last.No
	}})
	if err != nil {
		return nil, err
	}
	if ix.UncountedSlices() {
		ix.LearnSegmentSize(c.size)
	}
	for seg := first; seg.No <= last.No; seg = seg.Next() {
		if ix.HeldTo(seg) < min(seg.End(), c.Info.StopLSN) {
			return nil, &GapError{c.Info.Label, seg.Name()}
		}
	}
	return ix, nil
}

// span is the first and the last segment that the backup needs.
func (c *copying) span() (first, last postgres.Segment) {
	return postgres.SegmentAt(c.Info.Timeline, c.Info.StartLSN, c.size), postgres.SegmentEndingAt(c.Info.Timeline, c.Info.StopLSN, c.size)
}

// listWAL finds the WAL to copy: all timeline history files, which are small and
// without which recovery loses its way; what the backup needs, all of which must be
// there; and with Through all that comes after.
func (c *copying) listWAL(ctx context.Context) error {
	ix, err := c.needs(ctx, c.from)
	if err != nil {
		return err
	}
	first, last := c.span()
	prefix := repo.SystemWALPrefix(c.Info.System)
	seen := map[string]bool{}
	for info, err := range c.from.ListArchive(ctx, prefix) {
		if err != nil {
			return fmt.Errorf("list the archive: %w", err)
		}
		segment, wanted := c.wanted(ix, info.Key[len(prefix):], first, last)
		if !wanted {
			continue
		}
		c.wal = append(c.wal, item{info.Key, repo.KindWAL, info.Size})
		c.total += info.Size
		c.note(segment, seen)
	}
	return nil
}

// note counts a segment, once for all its slices.
func (c *copying) note(segment string, seen map[string]bool) {
	if segment == "" || seen[segment] {
		return
	}
	seen[segment] = true
	c.Segments++
	if c.First == "" || segment < c.First {
		c.First = segment
	}
	c.Last = max(c.Last, segment)
}

// wanted says of an object of the archive, by its name below the system's directory,
// whether it is to be copied, and of which segment it holds WAL, "" for none.
func (c *copying) wanted(ix *wal.Index, rest string, first, last postgres.Segment) (segment string, wanted bool) {
	directory, file, ok := strings.Cut(rest, "/")
	if !ok {
		return "", false
	}
	name, err := postgres.ParseWALName(file)
	sliced, _, _, isSlice := repo.ParseSlice(file)
	switch {
	case isSlice:
		segment = sliced
	case err != nil || name.Timeline.Hex() != directory:
		return "", false // nothing of ours
	case name.Kind == postgres.WALHistory:
		return "", true
	default:
		segment = name.Segment
	}
	seg, err := postgres.ParseSegment(segment, c.size)
	if err != nil || seg.Timeline.Hex() != directory || isSlice && ix.HasWhole(seg) {
		return "", false
	}
	if c.Through {
		return c.segmentOf(name, isSlice, segment), seg.Timeline >= first.Timeline && seg.No >= first.No
	}
	needed := seg.Timeline == first.Timeline && seg.No >= first.No && seg.No <= last.No
	return segment, needed && (isSlice || name.Kind == postgres.WALSegment)
}

// segmentOf leaves out what is beside the WAL: partial segments and the history
// files of backups.
func (c *copying) segmentOf(name postgres.WALName, isSlice bool, segment string) string {
	if isSlice || name.Kind == postgres.WALSegment {
		return segment
	}
	return ""
}
