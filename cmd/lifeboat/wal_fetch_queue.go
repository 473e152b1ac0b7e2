package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/cmd/lifeboat/early"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/wal"
	"github.com/lifeboat-dr/lifeboat/wal/queue"
)

const (
	// prefetchTime bounds the life of a prefetch. It is at most 256 MiB.
	prefetchTime = 10 * time.Minute

	// prefetchSpare is what a prefetch leaves free on the file system of the
	// data directory.
	prefetchSpare = 1 << 30
)

// fetchQueued fetches by way of the queue: what is in it is handed over (mostly
// that was done already, by package early), and what comes next is fetched
// ahead. No error of the queue is an answer.
func (f *fetch) fetchQueued(ctx context.Context, name postgres.WALName, path string) (postgres.SystemID, error) {
	if f.queue == nil {
		return f.patiently(ctx, name, path)
	}
	if name.Kind != postgres.WALSegment {
		// Recovery begins, ends, or looks for another way to go.
		f.queueNote(f.queue.Clear())
		return f.patiently(ctx, name, path)
	}
	wait, cancel := context.WithTimeout(ctx, early.Wait)
	took, waited, err := f.queue.Take(wait, name, path)
	cancel()
	f.queueNote(err)
	fill, err := f.queue.Asked(name, waited || !took)
	f.queueNote(err)
	if !took {
		if id, err := f.patiently(ctx, name, path); err != nil {
			if ctx.Err() == nil { // without it what follows is of no use
				f.queueNote(f.queue.Clear())
			}
			return id, err
		}
	}
	if fill {
		f.queueNote(early.StartPrefetch(f.args, f.environ, f.dataDir, f.operands...))
	}
	return f.control.SystemID, nil
}

// openQueue finds the queue of the data directory, if there is to be one. The
// operands are what of the command line is another each time.
func (f *fetch) openQueue(operands ...string) {
	if f.dataDir == "" || !f.prefetch || f.json {
		return
	}
	if id, err := postgres.ParseSystemID(f.system); f.system != "" && (err != nil || id != f.control.SystemID) {
		return
	}
	f.operands = operands
	var err error
	f.queue, err = queue.New(f.dataDir, f.control, early.Source(f.args, f.environ, f.dataDir, operands...))
	f.queueNote(err)
}

// queueNote tells in a line that fetching ahead does not work.
func (f *fetch) queueNote(err error) {
	if err != nil {
		f.note("lifeboat: nothing is fetched ahead: %v", err)
	}
}

// walPrefetch is what fetch starts. A person can run it in a data directory to
// see why nothing is fetched ahead.
func (a *app) walPrefetch() *cli.Command {
	return &cli.Command{
		Name:   "prefetch",
		Usage:  "fetch what PostgreSQL will ask \"wal fetch\" for next; started by it",
		Hidden: true,
		Description: `
Run in a data directory that is being recovered, with the flags of the "wal
fetch" there, it fetches into lifeboat.spool/fetch what follows the segment that
was asked for last, and ends.`,
		Flags: append(fetchFlags(), configFlags("repository", "identity", "signer")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository", "identity")
			if err != nil {
				return err
			}
			return a.runPrefetch(c.Context, cfg, c.String("system"))
		},
	}
}

func (a *app) runPrefetch(ctx context.Context, cfg *Config, system string) error {
	ctx, cancel := context.WithTimeout(ctx, prefetchTime)
	defer cancel()
	f := fetch{app: a, cfg: cfg, system: system, prefetch: true}
	if err := f.findDataDir(ctx); err != nil {
		return err
	}
	f.openQueue()
	if f.queue == nil {
		return usage("this is no data directory: it has no %s", postgres.ControlPath)
	}
	open := func(ctx context.Context) (queue.Source, error) { return f.sources(ctx) }
	n, err := f.queue.Fill(ctx, open, prefetchSpare)
	if err == nil {
		a.note("lifeboat: %d segments were fetched ahead", n)
	}
	return err
}

// sources is where a prefetch takes segments from: the nearest repository that
// opens and has them. One that fails is left out from then on, since to ask it
// costs more than to do without.
func (f *fetch) sources(ctx context.Context) (queue.Source, error) {
	var list []queue.Source
	var first error
	for _, p := range f.cfg.each() {
		r, err := openOne(ctx, p)
		if err != nil {
			first = cmp.Or(first, err)
			continue
		}
		list = append(list, wal.PrefetchSource(r, f.control.SystemID, workers(f.cfg.Jobs)))
	}
	if len(list) == 0 {
		return nil, first
	}
	if len(list) == 1 {
		return list[0], nil
	}
	down := make([]atomic.Bool, len(list))
	return func(ctx context.Context, name postgres.WALName, to *os.File) error {
		var first error
		for i, source := range list {
			if down[i].Load() {
				continue
			}
			err := source(ctx, name, to)
			if err == nil || ctx.Err() != nil {
				return err
			}
			first = cmp.Or(first, err)
			if storeFails(err) {
				down[i].Store(true)
			}
			// What has arrived of it must not stand before another's bytes.
			if _, err := to.Seek(0, io.SeekStart); err != nil {
				return err
			}
			if err := to.Truncate(0); err != nil {
				return err
			}
		}
		if first == nil {
			first = errors.New("no repository answers any more")
		}
		return first
	}, nil
}
