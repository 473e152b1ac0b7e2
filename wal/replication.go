package wal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// replication is a connection over which a server sends its WAL (the manual,
// "Streaming Replication Protocol"). For one goroutine.
type replication struct{ conn *pgconn.PgConn }

// errEndOfTimeline means that the server has sent all WAL of the timeline that
// it was asked for, and that there is a later one.
var errEndOfTimeline = errors.New("the timeline ends here")

// walMessage is what a server sends while it streams.
type walMessage struct {
	data      []byte       // valid until the next call; none in a keepalive
	start     postgres.LSN // of the data
	serverEnd postgres.LSN // the end of the server's WAL
	reply     bool         // an answer is wanted at once
}

// ErrConnString says that a connection string is none. It hides the text, which
// may hold a password.
var ErrConnString = errors.New("the connection string cannot be parsed")

// dialReplication connects for physical replication, under this name, which
// is what synchronous_standby_names names.
func dialReplication(ctx context.Context, conn, name string) (*replication, error) {
	cfg, err := pgconn.ParseConfig(conn)
	if err != nil {
		return nil, ErrConnString
	}
	// Not "true": then the server takes no SQL, and the driver needs some to
	// find the primary among several hosts (target_session_attrs).
	cfg.RuntimeParams["replication"] = "database"
	cfg.RuntimeParams["application_name"] = name
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", err)
	}
	return &replication{conn: c}, nil
}

// close ends the connection. The server may be waiting for an answer, so it is
// not asked for one.
func (c *replication) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx)
}

// identify is what the server says of itself: its system, the timeline it
// writes or replays, and how far.
func (c *replication) identify(ctx context.Context) (postgres.SystemID, postgres.Timeline, postgres.LSN, error) {
	res, err := pglogrepl.IdentifySystem(ctx, c.conn)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("identify the server: %w", err)
	}
	system, err := postgres.ParseSystemID(res.SystemID)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("identify the server: %w", err)
	}
	return system, postgres.Timeline(res.Timeline), postgres.LSN(res.XLogPos), nil
}

// history is the history file of a timeline, as the server has it.
func (c *replication) history(ctx context.Context, tl postgres.Timeline) ([]byte, postgres.History, error) {
	if tl == 1 {
		return nil, postgres.History{Timeline: 1}, nil
	}
	res, err := pglogrepl.TimelineHistory(ctx, c.conn, int32(tl))
	if err != nil {
		return nil, postgres.History{}, fmt.Errorf("read the history of timeline %s from the server: %w", tl, err)
	}
	h, err := postgres.ParseHistory(tl, res.Content)
	return res.Content, h, err
}

// createSlot makes a physical slot that keeps WAL from now on; one that is
// there already is no error. The name has been checked.
func (c *replication) createSlot(ctx context.Context, slot string) error {
	_, err := c.conn.Exec(ctx, "CREATE_REPLICATION_SLOT "+slot+" PHYSICAL RESERVE_WAL").ReadAll()
	if err != nil && sqlState(err) != "42710" { // duplicate_object
		return fmt.Errorf("create the replication slot %s: %w", slot, err)
	}
	return nil
}

// start begins to stream a timeline from a position on.
func (c *replication) start(ctx context.Context, slot string, tl postgres.Timeline, at postgres.LSN) error {
	err := pglogrepl.StartReplication(ctx, c.conn, slot, pglogrepl.LSN(at),
		pglogrepl.StartReplicationOptions{Mode: pglogrepl.PhysicalReplication, Timeline: int32(tl)})
	if err != nil {
		return fmt.Errorf("stream timeline %s from %s on: %w", tl, at, err)
	}
	return nil
}

// startWithoutSlot is start without a slot: the server keeps nothing for it.
// pglogrepl knows no such form ("Streaming Replication Protocol" in the manual).
func (c *replication) startWithoutSlot(ctx context.Context, tl postgres.Timeline, at postgres.LSN) error {
	wrap := func(err error) error { return fmt.Errorf("stream timeline %s from %s on: %w", tl, at, err) }
	c.conn.Frontend().SendQuery(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION PHYSICAL %s TIMELINE %d", at, tl)})
	if err := c.conn.Frontend().Flush(); err != nil {
		return wrap(err)
	}
	for {
		msg, err := c.conn.ReceiveMessage(ctx)
		if err != nil {
			return wrap(err)
		}
		switch m := msg.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return wrap(pgconn.ErrorResponseToPgError(m))
		case *pgproto3.ReadyForQuery:
			return wrap(errors.New("the server has nothing from there on"))
		}
	}
}

// errWoken means that receive was interrupted, by its time limit or by wake.
var errWoken = errors.New("woken")

// receive waits for the next message, at most so long, or until w is woken.
// errEndOfTimeline, errWoken, or an error that ends the connection.
func (c *replication) receive(ctx context.Context, w *waiting, atMost time.Duration) (walMessage, error) {
	rctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	if w.enter(cancel) {
		return walMessage{}, errWoken
	}
	defer w.leave()
	msg, err := c.conn.ReceiveMessage(rctx)
	switch {
	case err != nil && rctx.Err() != nil && !c.conn.IsClosed():
		if ctx.Err() != nil {
			return walMessage{}, ctx.Err()
		}
		return walMessage{}, errWoken
	case err != nil:
		return walMessage{}, fmt.Errorf("receive WAL: %w", err)
	}
	switch m := msg.(type) {
	case *pgproto3.CopyData:
		return parseWALMessage(m.Data)
	case *pgproto3.CopyDone:
		return walMessage{}, errEndOfTimeline
	case *pgproto3.ErrorResponse:
		return walMessage{}, fmt.Errorf("receive WAL: %w", pgconn.ErrorResponseToPgError(m))
	case *pgproto3.CommandComplete:
		return walMessage{}, errors.New("the server has shut down")
	}
	return walMessage{}, nil // a notice or a changed parameter
}

func parseWALMessage(data []byte) (walMessage, error) {
	if len(data) == 0 {
		return walMessage{}, errors.New("the server sent an empty message")
	}
	switch data[0] {
	case pglogrepl.XLogDataByteID:
		m, err := pglogrepl.ParseXLogData(data[1:])
		return walMessage{data: m.WALData, start: postgres.LSN(m.WALStart), serverEnd: postgres.LSN(m.ServerWALEnd)}, err
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		m, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		return walMessage{serverEnd: postgres.LSN(m.ServerWALEnd), reply: m.ReplyRequested}, err
	}
	return walMessage{}, nil // of a later version
}

// endTimeline answers errEndOfTimeline; then the connection takes commands
// again.
func (c *replication) endTimeline(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.conn.Conn().SetDeadline(deadline)
		defer func() { _ = c.conn.Conn().SetDeadline(time.Time{}) }()
	}
	_, err := pglogrepl.SendStandbyCopyDone(ctx, c.conn)
	return err
}

// report tells the server what has been received, and what is durable. Durable
// is also given as replayed: nothing is ever replayed here, and a commit with
// synchronous_commit = remote_apply would otherwise wait for ever. None of
// the positions may be 0, which would stand for the first.
func (c *replication) report(received, durable postgres.LSN, now time.Time, wantReply bool) error {
	return pglogrepl.SendStandbyStatusUpdate(context.Background(), c.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: pglogrepl.LSN(received), WALFlushPosition: pglogrepl.LSN(durable), WALApplyPosition: pglogrepl.LSN(durable),
		ClientTime: now, ReplyRequested: wantReply,
	})
}

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}
