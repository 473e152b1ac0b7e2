package backup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
	"github.com/lifeboat-dr/lifeboat/wal/blocks"
)

// summarizerWait is how long PostgreSQL's summarizer may lag behind.
const summarizerWait = 60 * time.Second

// changes is what changed between the start of the base and this start.
type changes struct {
	set  *blocks.Set
	kind string // one of repo's Changes constants
	why  string // why not in a cheaper way

	// maps says that the set tells, of each relation, whether anything of it
	// has changed. A scan does not look at the maps of relations.
	maps bool
}

// findChanges asks the sources, the cheapest first. What one of them cannot
// prove is a reason to ask the next; a scan always can, and is made later,
// when the files are known: its set is nil.
func findChanges(ctx context.Context, r *repo.Repo, s *server, f facts, since postgres.LSN, start position, h postgres.History, o Options) (changes, error) {
	set, why, err := s.walSummaries(ctx, f, since, start, h)
	if err != nil || set != nil {
		return changes{set: set, kind: repo.ChangesWALSummaries, maps: true}, err
	}
	c := changes{kind: repo.ChangesBlocks, why: why, maps: true}
	c.set, _, err = blockSummaries(ctx, r, f, since, start, h, o)
	if err == nil {
		return c, nil
	}
	if _, hole := errors.AsType[*blocks.HoleError](err); !hole && !unreadable(err) {
		return c, fmt.Errorf("find out what has changed: %w", err)
	}
	return changes{kind: repo.ChangesScan, why: why + "; " + err.Error()}, nil
}

// blockSummaries asks Lifeboat's own, and what they lack the server's WAL.
func blockSummaries(ctx context.Context, r *repo.Repo, f facts, since postgres.LSN, start position, h postgres.History, o Options) (*blocks.Set, blocks.Collected, error) {
	return blocks.Collect(ctx, r, blocks.Range{System: f.control.SystemID, Size: f.control.WALSegmentSize, Path: h.Path(), From: since, To: start.LSN,
		WALDir: filepath.Join(o.DataDir, "pg_wal"), RestDir: wal.RestDir(o.DataDir), Workers: 2 * o.Jobs})
}

// walSummaries asks for PostgreSQL's own summaries, which exist from 17 on
// (manual, "WAL Summarization Information Functions"). The set is nil, and the
// text says why, when they do not tell of the whole range.
func (s *server) walSummaries(ctx context.Context, f facts, from postgres.LSN, to position, h postgres.History) (*blocks.Set, string, error) {
	if f.version < 170000 {
		return nil, fmt.Sprintf("PostgreSQL %s has no WAL summaries", postgres.ServerVersion(f.version)), nil
	}
	var on bool
	if err := s.conn.QueryRow(ctx, "select current_setting('summarize_wal')::bool").Scan(&on); err != nil {
		return nil, "", fmt.Errorf("ask for summarize_wal: %w", err)
	}
	if !on {
		return nil, "summarize_wal is off", nil
	}
	if from >= to.LSN { // a standby that starts where it started before
		return new(blocks.Set), "", nil
	}
	// The summarizer is woken by the checkpoint at the start, and ends a
	// summary at its redo point.
	patience, cancel := context.WithTimeout(ctx, summarizerWait)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		behind := s.summarizerBehind(ctx, to.LSN) // asked first: what it has done by now is in the list
		chain, missing, err := s.summaryChain(ctx, from, to.LSN, h)
		if sqlState(err) != "" {
			return nil, "the WAL summaries cannot be listed: " + err.Error(), nil // lack of rights, mostly
		}
		if err != nil {
			return nil, "", err
		}
		if chain != nil {
			set, err := s.readSummaries(ctx, chain)
			if sqlState(err) != "" {
				return nil, "the WAL summaries cannot be read: " + err.Error(), nil
			}
			return set, "", err
		}
		if !behind || patience.Err() != nil {
			return nil, fmt.Sprintf("no WAL summary goes on at %s", missing), nil
		}
		select {
		case <-patience.Done():
			if ctx.Err() != nil {
				return nil, "", context.Cause(ctx)
			}
		case <-time.After(pause):
		}
	}
}

// summarizerBehind says whether the summarizer has yet to come to a position.
func (s *server) summarizerBehind(ctx context.Context, to postgres.LSN) bool {
	var at postgres.LSN
	err := s.conn.QueryRow(ctx, "select summarized_lsn::text from pg_get_wal_summarizer_state()").Scan(lsnText{&at})
	return err == nil && at < to
}

// walSummary is one of PostgreSQL's summaries.
type walSummary struct {
	timeline   int64
	start, end postgres.LSN
}

// summaryChain lists summaries that follow one another over the whole range;
// nil, and where it breaks off, when there are none.
func (s *server) summaryChain(ctx context.Context, from, to postgres.LSN, h postgres.History) (chain []walSummary, missing postgres.LSN, err error) {
	rows, err := s.conn.Query(ctx, `select tli, start_lsn::text, end_lsn::text from pg_available_wal_summaries() s
		where s.end_lsn > $1::text::pg_lsn and s.start_lsn < $2::text::pg_lsn order by s.start_lsn, s.end_lsn`, from.String(), to.String())
	if err != nil {
		return nil, 0, err
	}
	at := from
	var one walSummary
	_, err = pgx.ForEachRow(rows, []any{&one.timeline, lsnText{&one.start}, lsnText{&one.end}}, func() error {
		span, known := h.Span(postgres.Timeline(one.timeline))
		if known && one.start <= at && min(one.end, span.End) > at && at >= span.Begin {
			chain, at = append(chain, one), min(one.end, span.End)
		}
		return nil
	})
	if err != nil || at < to {
		return nil, at, err
	}
	return chain, at, nil
}

// readSummaries puts the summaries together.
func (s *server) readSummaries(ctx context.Context, chain []walSummary) (*blocks.Set, error) {
	set := new(blocks.Set)
	for _, one := range chain {
		rows, err := s.conn.Query(ctx, `select reltablespace::int8, reldatabase::int8, relfilenode::int8, relforknumber, relblocknumber, is_limit_block
			from pg_wal_summary_contents($1, $2::text::pg_lsn, $3::text::pg_lsn)`, one.timeline, one.start.String(), one.end.String())
		if err != nil {
			return nil, err
		}
		var tablespace, database, number, block int64
		var fork int16
		var limit bool
		_, err = pgx.ForEachRow(rows, []any{&tablespace, &database, &number, &fork, &block, &limit}, func() error {
			f := blocks.Fork{RelFile: postgres.RelFile{Tablespace: uint32(tablespace), Database: uint32(database), Number: uint32(number)}, Fork: postgres.Fork(fork)}
			switch {
			case number == 0: // all of a database (SummarizeDbaseRecord in postmaster/walsummarizer.c)
				set.ReplaceDir(blocks.Directory{Tablespace: f.Tablespace, Database: f.Database})
			case limit:
				set.Cut(f, uint32(block))
			default:
				set.Add(f, uint32(block), uint32(block)+1)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return set, nil
}

// sqlState is the code of an error that the server itself reported; "" for
// every other one.
func sqlState(err error) string {
	var pgErr interface{ SQLState() string }
	if errors.As(err, &pgErr) {
		return pgErr.SQLState()
	}
	return ""
}
