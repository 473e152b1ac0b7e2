package backup

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal/blocks"
)

// copyFile is a file of this backup: what of it is read, and what is taken
// over from the base.
type copyFile struct {
	source
	once  sync.Once // it is opened the first time
	index int       // of its record; -1 while it has none
	gone  bool      // it was gone when it was first opened
	kept  runs      // what the base has, unchanged
	want  runs      // what is read
	sums  []string  // of its slices, if it is compared by content; "" where not known
}

// base is an older backup of the same files.
type base struct {
	info    repo.Info
	changes changes
	bad     blocks.Set // pages that were bad: they are read again
	source  *repo.ManifestReader
	entries map[string]int // files of the base by path
}

// openBase reads the head of the base's manifest.
func openBase(ctx context.Context, r *repo.Repo, info *repo.Info, ch changes) (*base, error) {
	m, err := r.OpenManifest(ctx, info.Label)
	if err != nil {
		return nil, fmt.Errorf("read the base %s: %w", info.Label, err)
	}
	b := &base{info: *info, changes: ch, source: m, entries: make(map[string]int, len(m.Files))}
	for i, f := range m.Files {
		b.entries[f.Path] = i
	}
	for _, p := range info.BadPages {
		if rel, ok := postgres.ParseRelationPath(p.Path); ok {
			b.bad.Add(blocks.Fork{RelFile: rel.RelFile, Fork: rel.Fork}, p.Block, p.Block+1)
		}
	}
	return b, nil
}

// takeOver decides for each file what of the base can be kept, and puts those
// parts of the base's manifest into this one. Packs of the base that are not in
// the store any more, and those whose turn it is to be made anew, are not kept.
func (c *copier) takeOver(ctx context.Context, label string, b *base) error {
	if err := c.compareAll(ctx, b); err != nil {
		return err
	}
	have, err := listPacks(ctx, c.repo)
	if err != nil {
		return err
	}
	renew := newRenewal(label, b.info, c.o.Now(), c.o.MaxPackAge)
	byIndex := c.giveNumbers(b)
	var lost int
	for p, err := range b.source.Packs() {
		if err != nil {
			return fmt.Errorf("read the base %s: %w", b.info.Label, err)
		}
		size, there := have[packID(p.ID)]
		if !there || int64(size) != p.Size {
			lost++
		}
		keep := there && int64(size) == p.Size && !renew.due(p)
		if err := c.takePack(p, byIndex, keep); err != nil {
			return err
		}
	}
	if lost > 0 {
		c.o.warn("%d packs of backup %s are not in the repository, or not whole: what is in them is read anew; \"lifeboat verify\" tells which backups are damaged", lost, b.info.Label)
	}
	for _, f := range c.plan {
		if len(f.kept) == 0 {
			continue
		}
		// want holds what of kept is not kept after all, in no order.
		f.want = union(append(whole(f.size).minus(f.kept), f.want...)...)
	}
	return nil
}

// giveNumbers gives each file of which something is kept its record, and
// returns the files by their numbers in the base.
func (c *copier) giveNumbers(b *base) []*copyFile {
	byIndex := make([]*copyFile, len(b.source.Files))
	for _, f := range c.plan {
		if i, known := b.entries[f.path]; known && len(f.kept) > 0 {
			f.index = c.files.add(f.entry(f.size))
			f.want = nil
			byIndex[i] = f
		}
	}
	return byIndex
}

// takePack keeps of one pack of the base what is still valid, or notes that it
// has to be read.
func (c *copier) takePack(p repo.PackEntry, byIndex []*copyFile, keep bool) error {
	out := repo.PackEntry{PackRef: p.PackRef, Day: p.Day}
	var bytes int64
	for _, frame := range p.Frames {
		kept := repo.FrameEntry{FrameRef: frame.FrameRef}
		for _, s := range frame.To {
			f := byIndex[s.File]
			if f == nil {
				continue
			}
			for n := range f.kept.within(run{s.Off, s.Off + int64(s.Len)}) {
				if !keep {
					f.want = append(f.want, n)
					continue
				}
				kept.To = append(kept.To, repo.Span{File: f.index, Off: n.from, At: s.At + int(n.from-s.Off), Len: int(n.to - n.from)})
				bytes += n.to - n.from
			}
		}
		if len(kept.To) > 0 {
			out.Frames = append(out.Frames, kept)
		}
	}
	if len(out.Frames) == 0 {
		return nil
	}
	c.ages[p.Day] += bytes
	return c.manifest.Add(out)
}

// packID is enough of a pack's name to tell it from all others.
func packID(id string) [32]byte { return [32]byte([]byte(id[:32])) }

// listPacks lists the packs that are in the store, with their sizes.
func listPacks(ctx context.Context, r *repo.Repo) (map[[32]byte]int32, error) {
	const digits = "0123456789abcdef"
	parts := make([]map[[32]byte]int32, len(digits))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range digits {
		parts[i] = map[[32]byte]int32{}
		g.Go(func() error {
			prefix := repo.PackKey(digits[i : i+1])
			for info, err := range r.Store().List(ctx, prefix) {
				if err != nil {
					return fmt.Errorf("list packs: %w", err)
				}
				id := strings.TrimPrefix(info.Key, repo.PackKey(""))
				if len(id) == 64 && info.Size <= repo.MaxPack {
					parts[i][packID(id)] = int32(info.Size)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := parts[0]
	for _, p := range parts[1:] {
		for id, size := range p {
			all[id] = size
		}
	}
	return all, nil
}

// renewal chooses the packs whose content is read anew although it has not
// changed: the oldest, as large a share of all as the time since the base is
// of the age that no pack is to reach. So a backup that is taken often renews a
// little each time, and none has to renew everything.
type renewal struct {
	salt  string
	day   int     // packs of an earlier day are due
	share float64 // and of this day so many, from 0 to 1
}

func newRenewal(label string, b repo.Info, now time.Time, maxAge time.Duration) renewal {
	r := renewal{salt: label, day: -1}
	if maxAge <= 0 {
		return r
	}
	left := float64(b.RawBytes) * float64(now.Sub(b.StartTime)) / float64(maxAge)
	for _, a := range b.Ages {
		r.day, r.share = a.Day, 1
		if float64(a.Bytes) > left {
			r.share = max(left, 0) / float64(a.Bytes)
			break
		}
		left -= float64(a.Bytes)
		r.day++
		r.share = 0
	}
	// A pack may not grow older, whatever the shares are.
	if old := dayOf(now.Add(-maxAge)); old > r.day {
		r.day, r.share = old, 0
	}
	return r
}

// due says whether this pack's turn has come. Of a day's packs the label
// decides, so that another backup takes others.
func (r renewal) due(p repo.PackEntry) bool {
	if p.Day != r.day {
		return p.Day < r.day
	}
	return r.share > 0 && float64(fraction(r.salt+p.ID)) < r.share
}

// fraction maps a text to a number from 0 to 1, the same in every process.
func fraction(s string) float64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	// Its high bits are poor for short texts that differ at the end.
	h ^= h >> 32
	h *= 0x9E3779B97F4A7C15
	return float64(h>>11) / (1 << 53)
}

// dayOf counts days since 1970-01-01, UTC.
func dayOf(t time.Time) int { return int(t.Unix() / 86400) }
