package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

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
	packs, err := newPackCheck(ctx, r, m.Info.Packs)
	if err != nil {
		return nil, err
	}
	for p, err := range m.Packs() {
		if err != nil {
			return nil, err
		}
		if err := packs.add(ctx, p.PackRef); err != nil {
			return nil, err
		}
		c.Fetch += fetchSize(p)
	}
	return c, packs.finish(ctx)
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
		if f.name != "" && f.skip && strings.HasPrefix(f.path, "pg_tblspc/") {
			if c.Strays++; c.Strays == 1 {
				c.Stray = f.path
			}
		}
		if f.name == "" || f.skip {
			continue // a directory, or a file that is left out
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

// packCheck makes sure that packs are there, with their sizes. It takes memory for the
// packs that the store lists, whatever number a manifest names.
type packCheck struct {
	repo   *repo.Repo
	few    map[string]int64 // to ask for; nil when they were listed
	listed repo.PackList
}

func newPackCheck(ctx context.Context, r *repo.Repo, packs int64) (*packCheck, error) {
	if packs <= fewPacks {
		return &packCheck{repo: r, few: map[string]int64{}}, nil
	}
	listed, err := r.ListPacksAtOnce(ctx)
	return &packCheck{repo: r, listed: listed}, err
}

// add takes a pack. *repo.CorruptError for one that is not there, or not so large.
func (c *packCheck) add(ctx context.Context, p repo.PackRef) error {
	if c.few != nil {
		c.few[p.ID] = p.Size
		return nil
	}
	i, there := c.listed.Find(p.ID)
	switch {
	case !there:
		return statPacks(ctx, c.repo, map[string]int64{p.ID: p.Size}) // it may be younger than the list
	case c.listed[i].Size != p.Size:
		return wrongSize(repo.PackKey(p.ID), c.listed[i].Size, p.Size)
	}
	return nil
}

// finish is nil when all are there.
func (c *packCheck) finish(ctx context.Context) error { return statPacks(ctx, c.repo, c.few) }

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
