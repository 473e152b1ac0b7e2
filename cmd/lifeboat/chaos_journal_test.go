package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// journal is what clients know of a run: which commits the server
// acknowledged, and up to where it said that WAL is archived.
type journal struct {
	first int64 // the first row of the run

	mu       sync.Mutex
	next     int64
	commits  []ackedCommit
	reported postgres.LSN
}

// ackedCommit is a row whose commit was acknowledged; it lies before upTo.
type ackedCommit struct {
	id   int64
	upTo postgres.LSN
}

func (j *journal) id() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next++
	return j.first + j.next
}

func (j *journal) add(c ackedCommit) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.commits = append(j.commits, c)
}

func (j *journal) report(upTo postgres.LSN) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reported = max(j.reported, upTo)
}

// count is the number of commits that were acknowledged, and the rows of those
// that must come back: all, or those that were also reported as archived.
func (j *journal) count(all bool) (acked int, required []int64) {
	for _, c := range j.commits {
		if all || c.upTo <= j.reported {
			required = append(required, c.id)
		}
	}
	return len(j.commits), required
}

// describe says where the first few of these rows were committed.
func (j *journal) describe(ids []int64) (out []string) {
	for _, c := range j.commits {
		for _, id := range ids {
			if c.id == id && len(out) < 10 {
				out = append(out, fmt.Sprintf("%d before %s", id, c.upTo))
			}
		}
	}
	return out
}

// clients write to a server until it is gone.
type clients struct {
	*journal
	conn string
	old  int // commits of an earlier life
	done sync.WaitGroup
}

// begin begins to watch what the server reports as archived.
func (j *journal) begin(conn string) *clients {
	w := &clients{journal: j, conn: conn, old: len(j.commits)}
	w.done.Go(w.watch)
	return w
}

// enough are the commits without which a run would prove little.
const enough = 50

// state is what is reported as archived, and where the newest commit of this
// life lies; 0 while there are not enough.
func (w *clients) state() (reported, newest postgres.LSN) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.commits); n > w.old+enough {
		newest = w.commits[n-1].upTo
	}
	return w.reported, newest
}

// wait waits until all have noticed that the server is gone.
func (w *clients) wait() { w.done.Wait() }

func (w *clients) writers(n int) {
	for range n {
		w.done.Go(func() {
			conn, err := pgx.Connect(context.Background(), w.conn)
			for err == nil {
				err = w.write(conn)
			}
		})
	}
}

// write commits one row; most are small, some fill a third of a segment.
func (w *clients) write(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id := w.id()
	size := id % (1 << 24) * 7919 % 600
	if id%197 == 0 {
		size = 300_000
	}
	data := make([]byte, size)
	_, _ = rand.Read(data)
	if _, err := conn.Exec(ctx, "insert into chaos values ($1, $2)", id, data); err != nil {
		return err
	}
	// Acknowledged. Where it lies, the server tells if it lives.
	var text string
	upTo := postgres.EndOfTime
	err := conn.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&text)
	if err == nil {
		upTo, err = postgres.ParseLSN(text)
	}
	w.add(ackedCommit{id, upTo})
	return err
}

// proveWaiting returns once commits wait for the synchronous standby, of which
// there is none yet. For a moment after its start a server does not know that
// there ought to be one, and acknowledges without (SyncRepUpdateSyncStandbysDefined
// in replication/syncrep.c is called by the checkpointer).
func (w *clients) proveWaiting(t *testing.T) {
	t.Helper()
	for range 50 {
		waited := make(chan error, 1)
		w.done.Go(func() {
			conn, err := pgx.Connect(context.Background(), w.conn)
			if err == nil {
				_, err = conn.Exec(context.Background(), "insert into chaos values (0, '')")
			}
			waited <- err
		})
		select {
		case err := <-waited:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(150 * time.Millisecond):
			return
		}
	}
	t.Fatal("commits do not wait for a synchronous standby")
}

// watch keeps the furthest position that the server reports as archived.
func (w *clients) watch() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, w.conn)
	for err == nil {
		var slot, segment string
		err = conn.QueryRow(ctx, `select restart_lsn::text, coalesce((select last_archived_wal from pg_stat_archiver), '')
			from pg_replication_slots where slot_name = 'lifeboat'`).Scan(&slot, &segment)
		if err != nil {
			return
		}
		if lsn, err := postgres.ParseLSN(slot); err == nil {
			w.report(lsn)
		}
		if seg, err := postgres.ParseSegment(segment, 1<<20); err == nil {
			w.report(seg.End())
		}
		time.Sleep(3 * time.Millisecond)
	}
}
