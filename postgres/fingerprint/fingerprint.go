// Package fingerprint notes what is in the tables of a cluster at one position
// of its WAL, so that a copy that was recovered to that very position can be
// held to it: how many rows, and a hash of a sample of them that does not depend
// on their order. A copy has the same blocks, so the same sample is taken.
package fingerprint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Set is the fingerprints of a cluster.
type Set struct {
	Format int          `json:"format"` // 1
	LSN    postgres.LSN `json:"lsn"`    // all that was committed before it is in them, and nothing else
	Tables []Table      `json:"tables"`
	Left   int          `json:"left,omitempty"` // tables that could not be read
}

// Table is the fingerprint of one table.
type Table struct {
	Database string  `json:"database"`
	Schema   string  `json:"schema"`
	Name     string  `json:"name"`
	Rows     *int64  `json:"rows,omitempty"` // missing: too large to be counted
	Percent  float64 `json:"percent"`        // of the blocks that are in the sample
	Hash     string  `json:"hash"`           // sum of the hashes of the sample's rows
}

// What a table may cost at most, in blocks of 8 KiB: counting reads all of it,
// hashing the sample.
const (
	countBlocks  = 1 << 17 // 1 GiB
	sampleBlocks = 1 << 12 // 32 MiB
)

// Opener connects to a database.
type Opener func(ctx context.Context, database string) (*pgx.Conn, error)

// Snapshot is one transaction in each database, all of which see the same.
type Snapshot struct {
	LSN   postgres.LSN
	conns []*pgx.Conn
	names []string
}

// ErrBusy means that no moment was found at which nothing was being written.
var ErrBusy = errors.New("no moment was found at which no transaction was writing")

// Quiet begins transactions in all databases at a moment when no transaction is
// writing and no WAL is written: then what they see is what recovery to the
// returned position sees. It tries for as long as ctx lives, and fails with
// ErrBusy then.
func Quiet(ctx context.Context, open Opener) (*Snapshot, error) {
	s, err := connect(ctx, open)
	if err != nil {
		return nil, err
	}
	for {
		ok, err := s.try(ctx)
		if ok {
			return s, nil
		}
		if err == nil {
			select {
			case <-ctx.Done():
				err = ErrBusy
			case <-time.After(5 * time.Millisecond):
				continue
			}
		}
		s.Close()
		if ctx.Err() != nil {
			err = ErrBusy
		}
		return nil, err
	}
}

// Recovered begins transactions in all databases of a server whose recovery is
// paused.
func Recovered(ctx context.Context, open Opener) (*Snapshot, error) {
	s, err := connect(ctx, open)
	if err != nil {
		return nil, err
	}
	for _, c := range s.conns {
		if _, err := c.Exec(ctx, beginSQL); err != nil {
			s.Close()
			return nil, fmt.Errorf("begin to read: %w", err)
		}
	}
	return s, nil
}

// The settings decide how a row is written as text.
const beginSQL = `begin isolation level repeatable read read only;
	set local statement_timeout = 0; set local lock_timeout = '2s'; set local row_security = off;
	set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres'; set local timezone = 'UTC';
	set local extra_float_digits = 3; set local bytea_output = 'hex'; set local search_path = pg_catalog;
	set local xmloption = content; set local lc_monetary = 'C'; select 1`

func connect(ctx context.Context, open Opener) (*Snapshot, error) {
	first, err := open(ctx, "")
	if err != nil {
		return nil, err
	}
	defer first.Close(context.WithoutCancel(ctx))
	rows, err := first.Query(ctx, "select datname::text from pg_database where datallowconn order by 1")
	if err != nil {
		return nil, fmt.Errorf("list the databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list the databases: %w", err)
	}
	s := &Snapshot{}
	for _, name := range names {
		c, err := open(ctx, name)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.conns, s.names = append(s.conns, c), append(s.names, name)
	}
	return s, nil
}

// try begins the transactions; true when nothing was written meanwhile.
func (s *Snapshot) try(ctx context.Context) (bool, error) {
	before, err := s.position(ctx)
	if err != nil {
		return false, err
	}
	quiet := true
	for _, c := range s.conns {
		var idle bool
		_, err := c.Exec(ctx, beginSQL)
		if err == nil {
			// xmin equals xmax when no transaction that has a number is under way.
			err = c.QueryRow(ctx, "select pg_snapshot_xmin(s) = pg_snapshot_xmax(s) from pg_current_snapshot() s").Scan(&idle)
		}
		if err != nil {
			return false, fmt.Errorf("begin to read: %w", err)
		}
		if quiet = idle; !quiet {
			break
		}
	}
	if quiet {
		after, err := s.position(ctx)
		if err != nil {
			return false, err
		}
		if s.LSN = after; before == after {
			return true, nil
		}
	}
	for _, c := range s.conns {
		if _, err := c.Exec(ctx, "rollback"); err != nil {
			return false, fmt.Errorf("end reading: %w", err)
		}
	}
	return false, nil
}

// position is where the next record will begin.
func (s *Snapshot) position(ctx context.Context) (postgres.LSN, error) {
	var text string
	if err := s.conns[0].QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("ask for the WAL position: %w", err)
	}
	return postgres.ParseLSN(text)
}

// Close ends all transactions.
func (s *Snapshot) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, c := range s.conns {
		_ = c.Close(ctx)
	}
}

// listSQL lists the tables whose content is in the WAL. Foreign tables, views,
// unlogged and temporary tables are not; the catalogue is PostgreSQL's own.
const listSQL = `select n.nspname::text, c.relname::text, pg_relation_size(c.oid) / current_setting('block_size')::int
	from pg_class c join pg_namespace n on n.oid = c.relnamespace
	where c.relkind in ('r', 'm') and c.relpersistence = 'p' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast'
	  and (c.relkind = 'r' or c.relispopulated)
	order by 1, 2`

// Take makes the fingerprints of all tables.
func (s *Snapshot) Take(ctx context.Context) (*Set, error) {
	set := &Set{Format: 1, LSN: s.LSN, Tables: []Table{}}
	for i, c := range s.conns {
		tables, err := list(ctx, c, s.names[i])
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			if err := s.look(ctx, c, &t.Table, t.blocks <= countBlocks); err != nil {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				set.Left++ // locked, or of a type that does not print
				continue
			}
			set.Tables = append(set.Tables, t.Table)
		}
	}
	return set, nil
}

type listed struct {
	Table
	blocks int64
}

func list(ctx context.Context, c *pgx.Conn, database string) ([]listed, error) {
	rows, err := c.Query(ctx, listSQL)
	if err != nil {
		return nil, fmt.Errorf("list the tables of %s: %w", database, err)
	}
	var out []listed
	t := listed{Table: Table{Database: database}}
	_, err = pgx.ForEachRow(rows, []any{&t.Schema, &t.Name, &t.blocks}, func() error {
		t.Percent = 100
		if t.blocks > sampleBlocks {
			t.Percent = float64(sampleBlocks) * 100 / float64(t.blocks)
		}
		out = append(out, t)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the tables of %s: %w", database, err)
	}
	return out, nil
}

// look reads one table, in a savepoint: a table that cannot be read leaves the
// others to be read.
func (s *Snapshot) look(ctx context.Context, c *pgx.Conn, t *Table, count bool) error {
	if _, err := c.Exec(ctx, "savepoint look"); err != nil {
		return err
	}
	name := pgx.Identifier{t.Schema, t.Name}.Sanitize()
	hash := fmt.Sprintf("select coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from only %s t tablesample system (%g) repeatable (0)", name, t.Percent)
	err := c.QueryRow(ctx, hash).Scan(&t.Hash)
	if err == nil && count {
		t.Rows = new(int64)
		err = c.QueryRow(ctx, "select count(*) from only "+name).Scan(t.Rows)
	}
	if err != nil {
		if _, undo := c.Exec(context.WithoutCancel(ctx), "rollback to savepoint look"); undo != nil {
			return errors.Join(err, undo)
		}
		return err
	}
	_, err = c.Exec(ctx, "release savepoint look")
	return err
}

// Compare reads the same tables again and says which differ, in words, at most
// a few; and how many were compared.
func (s *Snapshot) Compare(ctx context.Context, want *Set) (same int, different []string, err error) {
	byName := map[string]*pgx.Conn{}
	for i, c := range s.conns {
		byName[s.names[i]] = c
	}
	for _, w := range want.Tables {
		label := w.Database + "." + w.Schema + "." + w.Name
		c := byName[w.Database]
		if c == nil {
			different = append(different, label+": there is no such database")
			continue
		}
		got := w
		got.Rows = nil
		if err := s.look(ctx, c, &got, w.Rows != nil); err != nil {
			if ctx.Err() != nil {
				return same, different, context.Cause(ctx)
			}
			different = append(different, fmt.Sprintf("%s cannot be read: %v", label, err))
			continue
		}
		switch {
		case w.Rows != nil && *got.Rows != *w.Rows:
			different = append(different, fmt.Sprintf("%s has %d rows, not %d", label, *got.Rows, *w.Rows))
		case got.Hash != w.Hash:
			different = append(different, label+" has other rows")
		default:
			same++
		}
	}
	return same, different, nil
}
