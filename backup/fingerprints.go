package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/fingerprint"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// How long a moment without writing is waited for, and how long reading may
// take. Meanwhile the server's vacuum cannot remove rows.
const (
	quietWait       = 10 * time.Second
	fingerprintTime = 30 * time.Minute
)

// fingerprints notes what is in the tables, after the backup has stopped: only
// from there on can a copy be looked at. It returns up to where WAL must be
// archived for that. A backup is worth having without them, so what goes wrong
// is a warning.
func fingerprints(ctx context.Context, r *repo.Repo, s *server, label string, o Options) postgres.LSN {
	o.observe(Progress{Phase: "tables"})
	end, err := takeFingerprints(ctx, r, s, label)
	if err != nil {
		if ctx.Err() == nil {
			o.warn("this backup has no fingerprints of tables: %v", err)
		}
		return 0
	}
	return end
}

func takeFingerprints(ctx context.Context, r *repo.Repo, s *server, label string) (postgres.LSN, error) {
	quiet, cancel := context.WithTimeout(ctx, quietWait)
	defer cancel()
	snapshot, err := fingerprint.Quiet(quiet, s.open)
	if err != nil {
		return 0, err
	}
	defer snapshot.Close()
	// A record behind the position, for recovery to stop at, and the end of its
	// segment, so that it is archived while the tables are read.
	var written, end postgres.LSN
	err = s.conn.QueryRow(ctx, "select pg_logical_emit_message(false, 'lifeboat', 'fingerprints')::text").Scan(lsnText{&written})
	if err == nil {
		err = s.conn.QueryRow(ctx, "select pg_switch_wal()::text").Scan(lsnText{&end})
	}
	if err != nil {
		return 0, fmt.Errorf("end the current WAL segment: %w", err)
	}
	reading, stop := context.WithTimeoutCause(ctx, fingerprintTime, fmt.Errorf("reading the tables took longer than %s", fingerprintTime))
	defer stop()
	set, err := snapshot.Take(reading)
	if err != nil {
		return 0, err
	}
	text, err := json.Marshal(set)
	if err != nil {
		return 0, err
	}
	_, err = r.CreateEnvelope(ctx, repo.FingerprintsKey(label), repo.KindFingerprints, bytes.NewReader(text), int64(len(text)))
	return end, err
}

// open connects to another database of the same server, as the same role.
func (s *server) open(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg := s.conn.Config().Copy()
	if database != "" {
		cfg.Database = database
	}
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to database %s: %w", cfg.Database, err)
	}
	return c, nil
}
