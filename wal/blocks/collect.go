package blocks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// Range is a range of WAL along a path through the timelines.
type Range struct {
	System  postgres.SystemID
	Size    postgres.SegmentSize
	Path    []postgres.TimelineSpan // oldest first, without a hole
	From    postgres.LSN            // where a record begins
	To      postgres.LSN            // where one begins that is not asked for
	WALDir  string                  // pg_wal, for what no summary tells; "" for none
	RestDir string                  // of the rests of segments that pg_wal lacks; "" for none
	Workers int                     // summaries that are fetched at once; at least 1
}

// Collected says what a set was put together from.
type Collected struct {
	Summaries int   // of the archive
	WALBytes  int64 // read in WALDir
}

// HoleError says from where on it is not known what changed.
type HoleError struct {
	At  postgres.LSN
	Err error
}

func (e *HoleError) Error() string {
	return fmt.Sprintf("no block summary goes on at %s, and neither does the WAL in pg_wal: %v", e.At, e.Err)
}

func (e *HoleError) Unwrap() error { return e.Err }

// Collect puts together all that changed in a range: from the summaries in the
// repository and, where there is none, from the WAL that the server still has.
// *HoleError when both end; other errors are of the store, or a summary that
// cannot be trusted.
func Collect(ctx context.Context, r *repo.Repo, o Range) (*Set, Collected, error) {
	c := &collector{repo: r, Range: o}
	if err := c.list(ctx); err != nil {
		return nil, c.done, err
	}
	at := o.From
	var needed []stored
	for at < o.To {
		if s, ok := c.covering(at); ok {
			needed, at = append(needed, s), s.to
			continue
		}
		next, err := c.readWAL(ctx, at)
		if _, hole := errors.AsType[*HoleError](err); hole && c.underWay(at) {
			err = c.wait(ctx)
			next = at
		}
		if err != nil {
			return nil, c.done, err
		}
		at = next
	}
	if err := c.fetch(ctx, needed); err != nil {
		return nil, c.done, err
	}
	return &c.reader.Set, c.done, nil
}

// stored is a summary in the repository.
type stored struct {
	timeline postgres.Timeline
	from, to postgres.LSN
	whole    postgres.LSN // where it ends by its name; to is not beyond its timeline's part
}

type collector struct {
	repo *repo.Repo
	Range
	summaries []stored // by where they begin
	reader    Reader
	done      Collected
	local     *os.File      // the segment of pg_wal that is read
	pause     time.Duration // before the summaries are listed again
}

// Who archives makes the summary of a segment just after the segment. Between
// the two the server may have removed the segment, and with it the start of a
// record that goes on in the next one. So the next summary is waited for, for
// as long as these pauses, each twice the one before.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 1600 * time.Millisecond
)

// underWay says whether the summary that goes on at a hole can be under way:
// it would be the newest.
func (c *collector) underWay(hole postgres.LSN) bool {
	newest := postgres.LSN(0)
	for _, s := range c.summaries {
		newest = max(newest, s.to)
	}
	return newest == hole && c.pause <= lastPause
}

// wait lists the summaries again, after a pause.
func (c *collector) wait(ctx context.Context) error {
	select {
	case <-time.After(max(c.pause, firstPause)):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.pause = 2 * max(c.pause, firstPause)
	return c.list(ctx)
}

// list finds the summaries that tell of the range.
func (c *collector) list(ctx context.Context) error {
	c.summaries = nil
	for _, span := range c.Path {
		prefix := repo.BlocksPrefix(c.System, span.Timeline)
		for info, err := range c.repo.Store().List(ctx, prefix) {
			if err != nil {
				return fmt.Errorf("list block summaries: %w", err)
			}
			from, to, ok := repo.ParseBlocks(strings.TrimPrefix(info.Key, prefix))
			// What a timeline says beyond its span is of another branch.
			cut := min(to, span.End)
			if ok && from < cut && cut > c.From && from < c.To {
				c.summaries = append(c.summaries, stored{span.Timeline, from, cut, to})
			}
		}
	}
	slices.SortFunc(c.summaries, func(a, b stored) int { return cmp.Compare(a.from, b.from) })
	return nil
}

// covering is the summary that tells of what begins here, and reaches furthest.
func (c *collector) covering(at postgres.LSN) (best stored, ok bool) {
	for _, s := range c.summaries {
		if s.from > at {
			break
		}
		if s.to > at && s.to > best.to {
			best, ok = s, true
		}
	}
	return best, ok
}

// next is where a summary begins behind a position; the end when none does.
func (c *collector) next(at postgres.LSN) postgres.LSN {
	for _, s := range c.summaries {
		if s.from > at {
			return min(s.from, c.To)
		}
	}
	return c.To
}

// readWAL reads records in pg_wal, from at on, until a summary goes on or the
// range ends, and returns where that is.
func (c *collector) readWAL(ctx context.Context, at postgres.LSN) (postgres.LSN, error) {
	until := c.next(at)
	wr := postgres.NewWALReaderFromFiles(at, c.Size, c.openLocal)
	defer c.closeLocal()
	if rest := c.rest(at); rest != nil {
		if err := wr.StartIn(rest.tail()); err != nil {
			return 0, &HoleError{at, err}
		}
	}
	for wr.Position() < until {
		if err := ctx.Err(); err != nil {
			return 0, context.Cause(ctx)
		}
		rec, err := wr.Next()
		if err == nil && rec.LSN >= until {
			return until, nil
		}
		if err == nil {
			err = c.reader.Take(rec)
		}
		if err != nil {
			return 0, &HoleError{wr.Position(), err}
		}
	}
	return wr.Position(), nil
}

// openLocal opens a segment of pg_wal, of the newest timeline that has it, and
// of an older one no further than where the path leaves it: what comes after is of
// another branch. A file that is used again meanwhile does not pass for WAL: each
// record has its checksum and its place.
func (c *collector) openLocal(no uint64) (io.ReaderAt, error) {
	if c.WALDir == "" {
		return nil, fs.ErrNotExist
	}
	for _, span := range slices.Backward(c.Path) {
		seg := postgres.Segment{Timeline: span.Timeline, No: no, Size: c.Size}
		if span.Begin >= seg.End() || span.End <= seg.Start() {
			continue
		}
		file, err := os.Open(filepath.Join(c.WALDir, seg.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		c.closeLocal()
		c.local = file
		counted := &counter{file, &c.done.WALBytes}
		return io.NewSectionReader(counted, 0, int64(min(span.End, seg.End())-seg.Start())), nil
	}
	return nil, fs.ErrNotExist
}

func (c *collector) closeLocal() {
	if c.local != nil {
		_ = c.local.Close() // it was read only
	}
	c.local = nil
}

// counter counts what is read.
type counter struct {
	file *os.File
	n    *int64
}

func (c *counter) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.file.ReadAt(b, off)
	*c.n += int64(n)
	return n, err
}

// rest is what a push has kept of the segment of a position: the start of the
// record there, whose end may not be archived yet though the server has removed
// the segment. nil when there is none, or it begins behind the position.
func (c *collector) rest(at postgres.LSN) *Rest {
	if c.RestDir == "" {
		return nil
	}
	for _, span := range slices.Backward(c.Path) {
		seg := postgres.SegmentAt(span.Timeline, at, c.Size)
		if _, err := os.Stat(filepath.Join(c.WALDir, seg.Name())); err == nil && span.Begin < seg.End() {
			return nil // all of it is there
		}
		rest := ReadRest(c.RestDir, seg)
		if rest != nil && rest.From <= at && span.Begin < seg.End() && seg.End() <= span.End {
			return rest
		}
	}
	return nil
}

// fetch adds the summaries.
func (c *collector) fetch(ctx context.Context, needed []stored) error {
	sets := make(chan *Set)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(c.Workers, 1) + 1)
	g.Go(func() error {
		for range needed {
			select {
			case s := <-sets:
				c.reader.Set.Merge(s)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for _, s := range needed {
		g.Go(func() error {
			made, err := Load(ctx, c.repo, c.System, s.timeline, s.from, s.whole)
			if err != nil {
				return err
			}
			select {
			case sets <- made.Set:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}
	c.done.Summaries = len(needed)
	return g.Wait()
}
