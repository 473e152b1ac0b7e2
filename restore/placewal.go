package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// WALPhase is what PlaceWAL reports as.
const WALPhase Phase = "wal"

// PlaceWAL fetches all WAL that the plan replays, and the record that it stops
// before, into pg_wal of the data directory, which Apply has filled, so that
// recovery needs no archive: a restore_command that always says 1 makes
// PostgreSQL look there (the order of XLOG_FROM_ARCHIVE and XLOG_FROM_PG_WAL in
// access/transam/xlogrecovery.c).
//
// It places the archive as it was when the plan was made. Of a segment that was
// there in slices, what has been archived since is left out.
//
// It returns how many bytes of WAL files it wrote. After an error the data
// directory must not be started. Errors are those of wal.Fetch.
func (p *Plan) PlaceWAL(ctx context.Context, r *repo.Repo, o Options) (int64, error) {
	var written atomic.Int64
	total := p.WAL.Segments * int64(p.Backup.SegSize) // and one more at most
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.jobs())
	for _, s := range p.way.Spans {
		if s.Timeline > 1 && p.archive.HasHistory(s.Timeline) {
			name, err := postgres.ParseWALName(s.Timeline.HistoryName())
			if err != nil {
				return 0, err
			}
			g.Go(func() error { return p.place(gctx, r, name) })
		}
	}
	for seg, ok := range p.archive.Segments(p.way, p.WAL.Begin, p.readTo) {
		if !ok {
			break // the plan's last; NewPlan has refused any other
		}
		g.Go(func() error {
			if err := p.placeSegment(gctx, r, seg); err != nil {
				return err
			}
			o.observe(Progress{Phase: WALPhase, Done: written.Add(int64(seg.Size)), Total: total})
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return written.Load(), err
	}
	return written.Load(), syncDir(filepath.Join(p.DataDir, "pg_wal"))
}

func (p *Plan) placeSegment(ctx context.Context, r *repo.Repo, seg postgres.Segment) error {
	name, err := postgres.ParseWALName(seg.Name())
	if err != nil {
		return err
	}
	if err := p.place(ctx, r, name); err != nil {
		return err
	}
	if p.archive.HasWhole(seg) {
		return nil
	}
	return zeroFrom(p.walFile(name), int64(p.archive.HeldTo(seg)-seg.Start()), int64(seg.Size))
}

func (p *Plan) place(ctx context.Context, r *repo.Repo, name postgres.WALName) error {
	dest := p.walFile(name)
	if err := wal.Fetch(ctx, r, p.Backup.System, name, dest); err != nil {
		return err
	}
	if p.Owner == nil {
		return nil
	}
	if err := os.Lchown(dest, p.Owner.UID, p.Owner.GID); err != nil {
		return fmt.Errorf("give %s to %s: %w", dest, p.Owner.User, err)
	}
	return nil
}

func (p *Plan) walFile(name postgres.WALName) string {
	return filepath.Join(p.DataDir, "pg_wal", name.String())
}

// zeroFrom overwrites a file with zeros from an offset to its size.
func zeroFrom(path string, from, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cut the WAL: %w", err)
	}
	err = f.Truncate(from)
	if err == nil {
		err = f.Truncate(size)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("cut the WAL: %w", err)
	}
	return nil
}
