package wal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// ServerState is what a running server says of its WAL.
type ServerState struct {
	System   postgres.SystemID
	Timeline postgres.Timeline
	Standby  bool         // its primary may be further on
	Flushed  postgres.LSN // on its disk up to here; of a standby, received
	Now      time.Time    // its clock

	// Ready are the segments that wait for archive_command; nil when the role
	// may not ask (pg_ls_archive_statusdir is for pg_monitor).
	Ready map[string]bool
	// SlotFrom is from where on the slot keeps WAL for a stream; 0 when there
	// is no such slot or its WAL is lost.
	SlotFrom postgres.LSN
}

// The timeline of a primary is that of the segment it writes. That of a
// standby is the one it receives or, when it only fetches, has replayed.
const serverStateSQL = `
	select s.system_identifier::text, recovering, clock_timestamp(),
		case when recovering
			then greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text
			else pg_current_wal_flush_lsn()::text end,
		case when recovering
			then coalesce((select received_tli from pg_stat_wal_receiver), nullif(r.min_recovery_end_timeline, 0), c.timeline_id)
			else ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int end
	from pg_is_in_recovery() recovering, pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r`

// AskServer asks a server where its WAL stands.
func AskServer(ctx context.Context, conn, slot string) (ServerState, error) {
	c, err := connectSQL(ctx, conn)
	if err != nil {
		return ServerState{}, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	var s ServerState
	var system, flushed string
	var timeline int32
	err = c.QueryRow(ctx, serverStateSQL).Scan(&system, &s.Standby, &s.Now, &flushed, &timeline)
	if err == nil {
		s.System, err = postgres.ParseSystemID(system)
	}
	if err == nil {
		s.Flushed, err = postgres.ParseLSN(flushed)
	}
	if err != nil {
		return s, fmt.Errorf("ask the server for its WAL position: %w", err)
	}
	s.Timeline = postgres.Timeline(timeline)
	if s.Ready, err = waitingSegments(ctx, c); err != nil {
		return s, fmt.Errorf("ask the server what waits for archive_command: %w", err)
	}
	if s.SlotFrom, err = slotKeeps(ctx, c, slot); err != nil {
		return s, err
	}
	return s, nil
}

// waitingSegments are those that archive_command will be called for; nil when
// the role may not know.
func waitingSegments(ctx context.Context, c *pgx.Conn) (map[string]bool, error) {
	rows, err := c.Query(ctx, `select left(name, 24) from pg_ls_archive_statusdir()
		where name ~ '^[0-9A-F]{24}\.ready$' and current_setting('archive_mode') <> 'off'`)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if sqlState(err) == "42501" { // insufficient_privilege
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool, len(names))
	for _, n := range names {
		out[n] = true
	}
	return out, nil
}

func slotKeeps(ctx context.Context, c *pgx.Conn, slot string) (postgres.LSN, error) {
	s, err := readSlot(ctx, c, slot)
	if _, missing := errors.AsType[*MissingSlotError](err); missing || s.status == "lost" || s.status == "unreserved" {
		return 0, nil
	}
	return s.restart, err
}

// WillArchive says whether the server still has a segment and will bring it
// to the archive: it waits for archive_command, or the slot keeps it.
func (s ServerState) WillArchive(seg postgres.Segment) bool {
	if seg.End() > s.Flushed {
		return false
	}
	return s.Ready[seg.Name()] || s.SlotFrom != 0 && s.SlotFrom <= seg.Start() && seg.Timeline == s.Timeline
}

// Exposure is what would be lost if the server died now.
type Exposure struct {
	Bytes int64 // of WAL that the archive lacks
	// The commits that would be lost span a time between these two.
	Least, Most time.Duration
	Known       bool // Least and Most are

	// Ahead says why nothing is known, not even Bytes: the archive is not that of
	// this server.
	Ahead *AheadError
}

// Exposure compares the server with an archive that ends at archived on the
// server's timeline. The newest commit in it may be unknown (zero): then so is
// the time, unless nothing is missing. Where heartbeats are written at an
// interval, a commit that the archive lacks is as old as that, at the least;
// 0 for none. The server must have been asked after the archive was listed.
//
// A switched segment counts as flushed to its end, padding and all, so a server
// that is idle since then is exactly as far as its archive, and not behind it.
func (s ServerState) Exposure(archived postgres.LSN, newest Commit, heartbeat time.Duration) Exposure {
	switch {
	case s.Standby: // its primary may be further on, and so may the archive
	case archived > s.Flushed:
		return Exposure{Ahead: &AheadError{archived, s.Flushed}}
	case archived == s.Flushed:
		return Exposure{Known: true} // proven
	}
	e := Exposure{Bytes: int64(s.Flushed - min(archived, s.Flushed))}
	if newest.Time.IsZero() {
		return e
	}
	e.Known = true
	e.Most = max(0, s.Now.Sub(newest.Time))
	if heartbeat > 0 {
		e.Least = max(0, e.Most-heartbeat)
	}
	return e
}
