package rds

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// On RDS nobody can read the WAL, so a heartbeat is a row: what comes back in a
// restored copy says how far the copy goes.
const (
	createHeartbeat = `create schema if not exists lifeboat;
		create table if not exists lifeboat.heartbeat (one boolean primary key default true check (one), at timestamptz not null, number bigint not null)`
	writeHeartbeat = `insert into lifeboat.heartbeat (at, number) values (clock_timestamp(), 1)
		on conflict (one) do update set at = excluded.at, number = lifeboat.heartbeat.number + 1 returning at, number`
)

// heartbeat is the newest one, and the clock of the server that has it.
type heartbeat struct {
	now, at time.Time // at zero: there is none
	number  int64
}

// ErrNoHeartbeat means that the table of heartbeats is not there.
var ErrNoHeartbeat = errors.New("there is no table lifeboat.heartbeat")

// Beat writes a heartbeat; create makes the table first if it is not there.
func Beat(ctx context.Context, conn probe.Conn, database string, create bool) (at time.Time, number int64, err error) {
	c, err := conn.Open(ctx, database)
	if err != nil {
		return at, 0, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	if create {
		if _, err := c.Exec(ctx, createHeartbeat); err != nil {
			return at, 0, fmt.Errorf("make the table of heartbeats: %w", probe.Shortened(err))
		}
	}
	err = c.QueryRow(ctx, writeHeartbeat).Scan(&at, &number)
	if undefined(err) {
		return at, 0, ErrNoHeartbeat
	}
	if err != nil {
		return at, 0, fmt.Errorf("write a heartbeat: %w", probe.Shortened(err))
	}
	return at.UTC(), number, nil
}

func undefined(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "42P01" || e.Code == "3F000")
}

// readHeartbeat reads the newest one. That there is none is no error.
func readHeartbeat(ctx context.Context, conn probe.Conn, database string) (h heartbeat, err error) {
	c, err := conn.Open(ctx, database)
	if err != nil {
		return h, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	if err := c.QueryRow(ctx, "select clock_timestamp()").Scan(&h.now); err != nil {
		return h, probe.Shortened(err)
	}
	err = c.QueryRow(ctx, "select at, number from lifeboat.heartbeat").Scan(&h.at, &h.number)
	if undefined(err) || errors.Is(err, pgx.ErrNoRows) {
		return h, nil
	}
	return h, probe.Shortened(err)
}

// measureLoss bounds what would have been lost, by the heartbeat inside the copy:
// it had been committed at its time or just after, and at most one interval later
// there was the next, which did not come back.
func (d *drill) measureLoss(ctx context.Context) {
	if d.doc.Target.Kind == "time" {
		d.doc.RPO.Basis, d.doc.RPO.Reason = "none", "recovery was to a point in time"
		return
	}
	rpo := &d.doc.RPO
	h, err := readHeartbeat(ctx, d.conn, d.o.Source.Login.Database)
	switch {
	case err != nil:
		rpo.Basis, rpo.Reason = "none", probe.OneLine("the heartbeat in the copy could not be read: "+err.Error())
		return
	case h.at.IsZero():
		rpo.Basis, rpo.Reason = "none", "there is no heartbeat in the copy; \"lifeboat rds heartbeat --create\" on the source begins them"
		return
	}
	commit, disaster := h.at.UTC(), d.disaster.UTC()
	rpo.Commit, rpo.Disaster = &commit, &disaster
	upper := evidence.Round(max(0, d.disaster.Sub(h.at).Seconds()))
	lower := evidence.Round(atLeast(d.disaster, d.alive, h.at, d.o.Source.Heartbeat).Seconds())
	rpo.Upper, rpo.Lower = &upper, &lower
}

// atLeast is what is lost at least: one interval after the heartbeat that came back
// there was another. That holds only while heartbeats were written, and they were
// when the source has one that is younger than an interval (alive is its time).
func atLeast(disaster, alive, back time.Time, interval time.Duration) time.Duration {
	if interval <= 0 || !alive.After(back) || disaster.Sub(alive) > interval {
		return 0
	}
	return max(0, disaster.Sub(back)-interval)
}
