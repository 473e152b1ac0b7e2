package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// order is what the witness remembers of an acknowledged commit.
type order struct {
	id   int
	item string
	at   time.Time    // when the commit was acknowledged
	lsn  postgres.LSN // the commit ends at or before it
}

// witness writes orders, one a transaction, and notes each that the server has
// acknowledged; it keeps the notes outside of the database. The position in the
// WAL comes over a second connection.
type witness struct {
	now    func() time.Time
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	orders []order
	err    error     // why writing ended, before the disaster
	fell   time.Time // the moment of the disaster
}

func startOrders(ctx context.Context, conn string, now func() time.Time) (*witness, error) {
	writer, err := pgx.Connect(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	second, err := pgx.Connect(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if _, err := writer.Exec(ctx, "create table orders (id int primary key, item text not null, placed timestamptz not null default clock_timestamp())"); err != nil {
		return nil, fmt.Errorf("create the table: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &witness{now: now, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer writer.Close(context.Background())
		defer second.Close(context.Background())
		w.err = w.write(ctx, writer, second)
	}()
	return w, nil
}

// write places orders until the server is gone or ctx ends.
func (w *witness) write(ctx context.Context, writer, second *pgx.Conn) error {
	for id := 1; ; id++ {
		o := order{id: id, item: fmt.Sprintf("item %d of the demo", id*7919)}
		if _, err := writer.Exec(ctx, "insert into orders (id, item) values ($1, $2)", o.id, o.item); err != nil {
			return err
		}
		o.at = w.now()
		var lsn string
		err := second.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&lsn)
		if err == nil {
			o.lsn, err = postgres.ParseLSN(lsn)
		}
		if err != nil {
			// Acknowledged, and its position is not known: it counts, as not archived.
			o.lsn = postgres.LSN(^uint64(0))
		}
		w.mu.Lock()
		w.orders = append(w.orders, o)
		w.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// wait lets orders come in for a while; it fails when they no longer do.
func (w *witness) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.done:
		return errors.Join(errors.New("writing orders ended early"), w.err)
	case <-time.After(d):
		return nil
	}
}

// fall notes the moment of the disaster.
func (w *witness) fall() { w.fell = w.now() }

// stop ends the writing and waits for it. It may be called twice.
func (w *witness) stop() {
	w.cancel()
	<-w.done
}

func readOrders(ctx context.Context, conn *pgx.Conn) (map[int]string, error) {
	rows, err := conn.Query(ctx, "select id, item from orders")
	if err != nil {
		return nil, fmt.Errorf("read the orders: %w", err)
	}
	out := map[int]string{}
	var id int
	var item string
	_, err = pgx.ForEachRow(rows, []any{&id, &item}, func() error {
		out[id] = item
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the orders: %w", err)
	}
	return out, nil
}
