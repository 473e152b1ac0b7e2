package wal

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// HeartbeatPrefix marks our messages in the WAL.
const HeartbeatPrefix = "lifeboat"

// Heartbeat writes a transactional message to the WAL: a real commit that
// touches no table, so that on an idle database too the newest commit in the
// archive says how recent the archive is (pg_logical_emit_message, "Replication
// Management Functions" in the manual). It does not wait for synchronous
// standbys. It returns the position of the commit; false when the server is
// in recovery and so cannot.
func Heartbeat(ctx context.Context, conn string, now time.Time) (postgres.LSN, bool, error) {
	c, err := connectSQL(ctx, conn)
	if err != nil {
		return 0, false, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return heartbeat(ctx, c, now)
}

func heartbeat(ctx context.Context, c *pgx.Conn, now time.Time) (lsn postgres.LSN, written bool, err error) {
	var recovering bool
	if err := c.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&recovering); err != nil {
		return 0, false, fmt.Errorf("write a heartbeat: %w", err)
	}
	if recovering {
		return 0, false, nil
	}
	var text string
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local synchronous_commit = local"); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "select pg_logical_emit_message(true, $1, $2)::text", HeartbeatPrefix, now.UTC().Format(time.RFC3339Nano)).Scan(&text)
	})
	if err == nil {
		lsn, err = postgres.ParseLSN(text)
	}
	if err != nil {
		return 0, false, fmt.Errorf("write a heartbeat: %w", err)
	}
	return lsn, true, nil
}

// watchEvery is how often the slot is looked at.
const watchEvery = 30 * time.Second

// SlotAtRiskError warns that the server is about to remove WAL that the stream
// has not stored yet, or has done so.
type SlotAtRiskError struct {
	Slot   string
	Status string // wal_status
	Left   int64  // bytes that can be written before WAL is removed; -1 when not known
}

func (e *SlotAtRiskError) Error() string {
	if e.Left < 0 || e.Status == "lost" {
		return fmt.Sprintf("the WAL that replication slot %s needs is %s", e.Slot, e.Status)
	}
	return fmt.Sprintf("replication slot %s is %d bytes of WAL away from being cut off by max_slot_wal_keep_size", e.Slot, e.Left)
}

// watch writes heartbeats and looks after the slot, as long as ctx lives. It is
// a help, and never ends the stream.
func (s *streamer) watch(ctx context.Context) {
	beat, look := ticker(s.o.Heartbeat), ticker(watchEvery)
	defer beat.Stop()
	defer look.Stop()
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	refused := false
	for {
		work := s.look
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		case <-beat.C:
			if refused {
				continue
			}
			work = s.beat
		}
		tctx, cancel := context.WithTimeout(ctx, watchEvery/2)
		err := s.onSQL(tctx, &conn, work)
		cancel()
		switch {
		case err == nil || ctx.Err() != nil:
		case sqlState(err) == "42501": // insufficient_privilege: said once
			refused = true
			s.warn(err)
		}
	}
}

// ticker ticks never when d is 0.
func ticker(d time.Duration) *time.Ticker {
	if d > 0 {
		return time.NewTicker(d)
	}
	t := time.NewTicker(time.Hour)
	t.Stop()
	return t
}

// onSQL does work on the connection, which it opens again when it was lost.
func (s *streamer) onSQL(ctx context.Context, conn **pgx.Conn, work func(context.Context, *pgx.Conn) error) (err error) {
	if *conn == nil || (*conn).IsClosed() {
		if *conn, err = connectSQL(ctx, s.o.Conn); err != nil {
			*conn = nil
			return err
		}
	}
	return work(ctx, *conn)
}

func (s *streamer) beat(ctx context.Context, c *pgx.Conn) error {
	_, _, err := heartbeat(ctx, c, s.o.Now())
	return err
}

func (s *streamer) look(ctx context.Context, c *pgx.Conn) error {
	slot, err := readSlot(ctx, c, s.o.Slot)
	if err != nil {
		return err
	}
	near := slot.limit > 0 && slot.safeBytes >= 0 && slot.safeBytes < slot.limit/4
	if near || slot.status == "unreserved" || slot.status == "lost" {
		s.warn(&SlotAtRiskError{s.o.Slot, slot.status, slot.safeBytes})
	}
	return nil
}

// warn is for the goroutine that watches, which does not know the tail.
func (s *streamer) warn(err error) {
	s.events.send(s.o.Notify, StreamEvent{Kind: StreamWarned, Err: err})
}
