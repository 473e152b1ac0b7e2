package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// readContents reads a whole manifest, which proves that it holds every byte of
// every file, and makes sure that each of its packs is there. Damage is noted
// in Contents; an error says nothing about the backup.
func readContents(ctx context.Context, r *repo.Repo, info repo.Info) (*Contents, error) {
	c, err := contentsOf(ctx, r, info)
	if damaged(err) || errors.Is(err, ErrUnsafeManifest) {
		return &Contents{Err: err}, nil
	}
	return c, err
}

func contentsOf(ctx context.Context, r *repo.Repo, info repo.Info) (*Contents, error) {
	m, err := r.OpenManifest(ctx, info.Label)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := sameBackup(m.Info, info); err != nil {
		return nil, err
	}
	places := make([]Tablespace, len(info.Tablespaces))
	for i, t := range info.Tablespaces {
		places[i] = Tablespace{OID: t.OID, InPlace: t.InPlace}
	}
	l, err := newLayout(m.Files, places)
	if err != nil {
		return nil, err
	}
	c := countFiles(l, info)
	packs := map[string]int64{}
	for p, err := range m.Packs() {
		if err != nil {
			return nil, err
		}
		packs[p.ID] = p.Size
		c.Fetch += fetchSize(p)
	}
	return c, checkPacks(ctx, r, packs)
}

func countFiles(l *layout, info repo.Info) *Contents {
	n := 1
	for _, t := range info.Tablespaces {
		if !t.InPlace {
			n++
		}
	}
	c := &Contents{Bytes: make([]int64, n), Files: make([]int64, n), HasConf: l.has(mainConf), Standby: l.has("standby.signal")}
	for i := range l.count() {
		f := l.target(i)
		if f.name == "" || f.skip {
			continue // a folder, or a file that is left out
		}
		c.Bytes[f.root] += f.size
		c.Files[f.root]++
	}
	return c
}

// fetchSize is about what FetchPack will read of a pack.
func fetchSize(p repo.PackEntry) int64 {
	var wanted int64
	for _, f := range p.Frames {
		wanted += int64(f.Len)
	}
	if wanted*2 >= p.Size {
		return p.Size
	}
	return wanted
}

// fewPacks is up to how many packs are asked for one by one; a listing of all
// packs of the repository may be much longer than that.
const fewPacks = 64

// checkPacks makes sure that the packs are there, with their sizes.
// *repo.CorruptError for one that is not.
func checkPacks(ctx context.Context, r *repo.Repo, packs map[string]int64) error {
	if len(packs) <= fewPacks {
		return statPacks(ctx, r, packs)
	}
	// The names are hashes, so their first digit cuts the listing into equal
	// parts, which are read side by side.
	const digits = "0123456789abcdef"
	found := make([]int, len(digits))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range digits {
		prefix := repo.PackKey(digits[i : i+1])
		g.Go(func() error {
			for object, err := range r.Store().List(gctx, prefix) {
				if err != nil {
					return fmt.Errorf("list packs: %w", err)
				}
				size, wanted := packs[object.Key[len(prefix)-1:]]
				if !wanted {
					continue
				}
				if size != object.Size {
					return wrongSize(object.Key, object.Size, size)
				}
				found[i]++
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	n := 0
	for _, f := range found {
		n += f
	}
	if n == len(packs) {
		return nil
	}
	return statPacks(ctx, r, packs) // which one it is
}

func statPacks(ctx context.Context, r *repo.Repo, packs map[string]int64) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for id, size := range packs {
		if gctx.Err() != nil {
			break
		}
		key := repo.PackKey(id)
		g.Go(func() error {
			object, err := r.Store().Stat(gctx, key)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return &repo.CorruptError{Object: key, Reason: "the pack is missing", Err: err}
			case err != nil:
				return fmt.Errorf("look for packs: %w", err)
			case object.Size != size:
				return wrongSize(key, object.Size, size)
			}
			return nil
		})
	}
	return g.Wait()
}

func wrongSize(key string, have, want int64) error {
	return &repo.CorruptError{Object: key, Reason: fmt.Sprintf("it has %d bytes, not %d", have, want)}
}
