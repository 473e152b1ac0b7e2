package backup

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// copyFile is a file of this backup: what of it is read, and what is taken
// over from layers.
type copyFile struct {
	source
	once        sync.Once // it is opened the first time
	index       int       // of its record; -1 while it has none
	recorded    bool      // it has its record since something of it was taken over
	listedAgain bool      // see copier.listAgain
	gone        bool      // it was gone when it was first opened
	want        runs      // what is read: no layer had it so far
	holds       runs      // of want, what the layer at hand still holds
	other       []run     // of holds, what is not taken over after all; or what is: see settle
	merged      int       // of other, how many were left when they were last joined
	sums        []string  // of its slices, if it is compared by content; "" where not known
}

// takeOver decides for each file what of the layer can be kept, and puts that
// part of the layer's packs into this backup's manifest. Packs that are not in
// the store any more, and those whose turn it is to be made again, are not kept.
func (c *copier) takeOver(ctx context.Context, l *layer, have map[[32]byte]int32) (lost int, err error) {
	if err := c.compareAll(ctx, l); err != nil {
		return 0, err
	}
	byNumber := c.giveRecords(l)
	for p, err := range l.packs {
		if err != nil {
			return lost, fmt.Errorf("read backup %s: %w", l.label, err)
		}
		size, there := have[packID(p.ID)]
		whole := there && int64(size) == p.Size
		if !whole {
			lost++
		}
		taken, err := c.takePack(p, byNumber, whole && !l.renew.due(p), l.covered == nil)
		if errors.Is(err, errTooFine) {
			return lost, &repo.CorruptError{Object: repo.ManifestKey(l.label), Reason: "no backup makes such spans", Err: err}
		}
		if err != nil {
			return lost, err
		}
		if taken {
			l.used++
		}
	}
	for _, f := range byNumber {
		if f != nil {
			f.settle(l.covered == nil)
		}
	}
	return lost, nil
}

// giveRecords gives each file of which something can be kept its record, and
// returns the files by their numbers in the layer.
func (c *copier) giveRecords(l *layer) []*copyFile {
	byNumber := make([]*copyFile, l.count)
	for _, f := range c.plan {
		if len(f.holds) == 0 {
			continue
		}
		if !f.recorded {
			f.recorded, f.index = true, c.files.add(f.entry(f.size))
		}
		byNumber[l.number[l.byPath[f.path]]] = f
	}
	return byNumber
}

// takePack keeps of one pack what still holds, and says whether that is anything.
// Of a layer that has all of every file, what is not kept is noted, else what is:
// the shorter list.
func (c *copier) takePack(p repo.PackEntry, byNumber []*copyFile, keep, complete bool) (taken bool, err error) {
	out := repo.PackEntry{PackRef: p.PackRef, Day: p.Day}
	var bytes int64
	for _, frame := range p.Frames {
		kept := repo.FrameEntry{FrameRef: frame.FrameRef}
		for _, s := range frame.To {
			f := byNumber[s.File]
			if f == nil {
				continue
			}
			for n := range f.holds.within(run{s.Off, s.Off + int64(s.Len)}) {
				if keep != complete {
					if err := f.note(n, int64(c.facts.control.BlockSize)); err != nil {
						return false, err
					}
				}
				if keep {
					kept.To = append(kept.To, repo.Span{File: f.index, Off: n.from, At: s.At + int(n.from-s.Off), Len: int(n.to - n.from)})
					bytes += n.to - n.from
				}
			}
		}
		if len(kept.To) > 0 {
			out.Frames = append(out.Frames, kept)
		}
	}
	if len(out.Frames) == 0 {
		return false, nil
	}
	c.ages[p.Day] += bytes
	return true, c.manifest.AddOlder(out)
}

// joinAfter is how many runs of a file are noted before they are joined.
const joinAfter = 1024

var errTooFine = errors.New("it cuts a file into more pieces than there are pages in it")

// note adds to other. Whoever has signed a manifest may name the same bytes again and
// again, in pieces of one byte: a file's runs never take more memory than one for each
// page.
func (f *copyFile) note(n run, page int64) error {
	f.other = append(f.other, n)
	if len(f.other) < 2*f.merged+joinAfter {
		return nil
	}
	f.other = union(f.other...)
	f.merged = len(f.other)
	if int64(f.merged) > f.size/page+joinAfter {
		return errTooFine
	}
	return nil
}

// settle takes off the wanted what was kept of a layer.
func (f *copyFile) settle(complete bool) {
	other := union(f.other...)
	if complete {
		other = f.holds.minus(other)
	}
	f.want, f.holds, f.other = f.want.minus(other), nil, nil
}

// packID is enough of a pack's name to tell it from all others.
func packID(id string) [32]byte { return [32]byte([]byte(id[:32])) }

// manyPacks is from how many packs on they are listed in sixteen listings side
// by side: a store tells a thousand names at a time.
const manyPacks = 4000

// listPacks lists the packs that are in the store, with their sizes; there are
// about as many as is said.
func listPacks(ctx context.Context, r *repo.Repo, about int64) (map[[32]byte]int32, error) {
	prefixes := []string{""}
	if about > manyPacks {
		prefixes = strings.Split("0123456789abcdef", "")
	}
	parts := make([]map[[32]byte]int32, len(prefixes))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, prefix := range prefixes {
		parts[i] = map[[32]byte]int32{}
		g.Go(func() error {
			for info, err := range r.Store().List(ctx, repo.PackKey(prefix)) {
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

// renewal chooses the packs whose content is read again although it has not
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
	return r.share > 0 && fraction(r.salt+p.ID) < r.share
}

// fraction maps a text to a number from 0 to 1, the same in every process.
func fraction(s string) float64 {
	sum := sha256.Sum256([]byte(s))
	return float64(binary.BigEndian.Uint64(sum[:])) / (1 << 64)
}

// dayOf counts days since 1970-01-01, UTC.
func dayOf(t time.Time) int { return int(t.Unix() / 86400) }
