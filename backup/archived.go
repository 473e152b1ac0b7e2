package backup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// compareArchived makes sure that what is archived under the names of the server's
// segments is the server's WAL. A server that was put back to an older state finds
// them taken, and its own refused.
//
// Of a standby that counts which it has received: it replays the end of a segment
// that was switched before the rest of it has come, and what it has only fetched
// comes from the archive.
func compareArchived(ctx context.Context, r *repo.Repo, s *server, of wal.Stretch, o Options) error {
	var complete postgres.LSN
	err := s.conn.QueryRow(ctx, `select coalesce(case when pg_is_in_recovery() then pg_last_wal_receive_lsn()
		else pg_current_wal_flush_lsn() end, '0/0')::text`).Scan(lsnText{&complete})
	if err != nil {
		return fmt.Errorf("ask the server for its WAL position: %w", err)
	}
	err = wal.CompareArchived(ctx, r, of, complete, filepath.Join(o.DataDir, "pg_wal"))
	if _, conflict := errors.AsType[*wal.TwoPrimariesError](err); conflict {
		return &ArchivingError{"the archive holds the WAL of another server, or of this one before it was put back", err}
	}
	return err
}
