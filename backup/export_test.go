package backup

import (
	"context"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// CheckTablespaces makes sure that the server's tablespaces were found, of those listed.
func CheckTablespaces(ctx context.Context, conn string, listed []repo.Tablespace, found map[uint32]bool) error {
	srv, err := connect(ctx, conn)
	if err != nil {
		return err
	}
	defer srv.close()
	return srv.checkTablespaces(ctx, listed, found)
}

// Kept is a run of bytes of a file that a source of changes takes for
// unchanged since the base.
type Kept struct {
	Path     string
	From, To int64
	Pages    bool // of a main fork or an init fork
}

// Probe asks every source what has not changed since the newest backup, at one
// and the same start of a backup that is then given up. A source that cannot
// tell has no entry; why says the reason.
func Probe(ctx context.Context, r *repo.Repo, o Options) (kept map[string][]Kept, base *repo.Info, why map[string]string, err error) {
	srv, err := connect(ctx, o.Conn)
	if err != nil {
		return nil, nil, nil, err
	}
	defer srv.close()
	f, err := srv.match(ctx, o.DataDir)
	if err != nil {
		return nil, nil, nil, err
	}
	start, err := srv.start(ctx, "probe", f)
	if err != nil {
		return nil, nil, nil, err
	}
	t, err := srv.list(ctx, &f, o)
	if err != nil {
		return nil, nil, nil, err
	}
	h, err := readHistory(o.DataDir, start.Timeline)
	if err != nil {
		return nil, nil, nil, err
	}
	base, reason, err := chooseBase(ctx, r, f, sourceID(o.DataDir, o.Host), start, h)
	if err != nil || base == nil {
		return nil, nil, map[string]string{"": reason}, err
	}
	kept, why = map[string][]Kept{}, map[string]string{}
	for _, ch := range probeSources(ctx, r, srv, f, base, start, h, o, why) {
		m := r.NewManifestWriter()
		c := newCopier(r, m, t, f, "", start, o)
		b, err := baseLayer(ctx, r, base, ch, renewal{day: -1}, c.plan)
		if err != nil {
			return nil, nil, nil, err
		}
		for _, f := range c.plan {
			// What WAL tells must do without the second witness.
			if i, known := b.byPath[f.path]; known && ch.set != nil {
				f.id = b.files[i].ID
			}
		}
		err = c.compareAll(ctx, b)
		b.close()
		m.Close()
		if err != nil {
			return nil, nil, nil, err
		}
		kept[ch.kind] = []Kept{}
		for _, f := range c.plan {
			for _, n := range f.holds {
				kept[ch.kind] = append(kept[ch.kind], Kept{f.path, n.from, n.to, f.byPages()})
			}
		}
	}
	return kept, base, why, nil
}

func probeSources(ctx context.Context, r *repo.Repo, srv *server, f facts, base *repo.Info, start position, h postgres.History, o Options, why map[string]string) []changes {
	all := []changes{{kind: repo.ChangesScan}}
	set, reason, err := srv.walSummaries(ctx, f, base.StartLSN, start, h)
	if set != nil && err == nil {
		all = append(all, changes{set: set, kind: repo.ChangesWALSummaries, maps: true})
	} else if why[repo.ChangesWALSummaries] = reason; err != nil {
		why[repo.ChangesWALSummaries] = err.Error()
	}
	// With the summaries of the archive, and what they lack from pg_wal.
	set, got, err := blockSummaries(ctx, r, f, base.StartLSN, start, h, o)
	switch {
	case err != nil:
		why[repo.ChangesBlocks] = err.Error()
	case got.Summaries == 0:
		why[repo.ChangesBlocks] = "no summary of the archive was used"
		fallthrough
	default:
		all = append(all, changes{set: set, kind: repo.ChangesBlocks, maps: true})
	}
	return all
}
