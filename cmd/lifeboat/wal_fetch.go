package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
	"github.com/lifeboat-dr/lifeboat/wal/queue"
)

// fetchFlags are the flags of a fetch, and of the prefetch that it starts with
// the same ones.
func fetchFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "system", Usage: "system identifier of the cluster whose WAL it is, `ID`; else that of the data " +
			"directory in which it runs, of pgdata, or the only one in the repository"},
		&cli.BoolFlag{Name: "standby", Usage: "the server is a standby: a store that fails is answered with 1, so that it tries again"},
		&cli.StringFlag{Name: "give-up-after", DefaultText: standbyPatience.String(),
			Usage: "with --standby: how long to try before that, `TIME`"},
		&cli.BoolFlag{Name: "no-prefetch", Usage: "fetch what is asked for, and nothing ahead of it"},
	}
}

func (a *app) walFetch() *cli.Command {
	return &cli.Command{
		Name:      "fetch",
		Usage:     "get a WAL file from the archive; PostgreSQL's restore_command",
		ArgsUsage: "NAME PATH",
		Description: `
NAME is what PostgreSQL puts for %f, PATH what it puts for %p. The file is at
PATH whole or not at all. The exit code decides whether PostgreSQL ends
recovery, so 1 is given only when it is proven that the archive ends: the
repository is there, it does not hold the file, and it holds none after it.

Run by PostgreSQL, in its data directory, it also has the next segments
fetched, into lifeboat.spool/fetch there: more of them the more PostgreSQL had
to wait, at most 256 MiB or 64 segments, and none when the disk is nearly full.

A standby asks again when it is told that there is nothing, and can stream
instead; on other errors it stops. For a data directory with a standby.signal
--standby answers 1 also when the store does not, or has a gap. What is
damaged, forged or sealed to another key still stops it.`,
		Flags: append(fetchFlags(), configFlags("pgdata", "repository", "identity", "signer")...),
		Action: func(c *cli.Context) error {
			args, err := operands(c, "NAME", "PATH")
			if err != nil {
				return err
			}
			f := fetch{app: a, system: c.String("system"), prefetch: !c.Bool("no-prefetch")}
			if f.patience, err = standbyTime(c); err != nil {
				return err
			}
			if f.cfg, err = a.config(c, "repository", "identity"); err != nil {
				return err
			}
			return f.run(c.Context, args[0], args[1])
		},
	}
}

// fetchReport is the JSON document of a fetch.
type fetchReport struct {
	Name   string            `json:"name"`
	Path   string            `json:"path"`
	System postgres.SystemID `json:"system"`
}

// fetch is one run of "wal fetch".
type fetch struct {
	*app
	cfg      *Config
	system   string        // --system
	prefetch bool          // fetching ahead is allowed
	operands []string      // as they stand on the command line
	patience time.Duration // of --standby, 0 without

	dataDir string // in which PostgreSQL runs restore_command, "" elsewhere
	control postgres.ControlFile
	queue   *queue.Queue // of the data directory; nil when nothing is fetched ahead
}

func (f *fetch) run(ctx context.Context, file, path string) error {
	name, err := postgres.ParseWALName(file)
	if err != nil {
		return usage("%v", err)
	}
	full, err := f.abs(path)
	if err != nil {
		return err
	}
	if err := f.findDataDir(ctx); err != nil {
		return err
	}
	f.openQueue(file, path)
	id, err := f.fetchQueued(ctx, name, full)
	if err != nil {
		return err
	}
	return f.walDone(fetchReport{file, full, id}, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%s is at %s\n", file, full)
	})
}

// once asks the repositories, the nearest first, until one has the file. That it
// is in none is proven when each has proven it.
func (f *fetch) once(ctx context.Context, name postgres.WALName, path string) (postgres.SystemID, error) {
	places := f.cfg.each()
	if len(places) == 1 {
		return f.from(ctx, f.cfg, name, path)
	}
	var absent, unknown error
	var failures []placeFailure
	for _, p := range places {
		id, err := f.from(ctx, p, name, path)
		_, proven := errors.AsType[*notArchivedError](err)
		_, none := errors.AsType[*wal.UnknownSystemError](err)
		switch {
		case err == nil:
			f.warnPassedOver(failures, p)
			return id, nil
		case ctx.Err() != nil:
			return 0, err
		case proven:
			absent = err
		case none:
			// Nothing of this system: a repository that was made later. It proves
			// nothing if there is none that knows the system.
			unknown = err
		default:
			failures = append(failures, placeFailure{p.Name, err})
		}
	}
	switch {
	case len(failures) > 0:
		return 0, failedPlaces("fetch "+name.String()+":", len(places), failures)
	case absent != nil:
		return 0, absent
	}
	return 0, unknown
}

// warnPassedOver tells of repositories that could not say whether they have what
// another had.
func (f *fetch) warnPassedOver(failures []placeFailure, took *Config) {
	for _, p := range failures {
		f.warn("repository %s: %v; taken from %s", p.name, p.err, took.Name)
	}
}

// from opens one repository and fetches.
func (f *fetch) from(ctx context.Context, cfg *Config, name postgres.WALName, path string) (postgres.SystemID, error) {
	r, err := openOne(ctx, cfg)
	if err != nil {
		return 0, err
	}
	id, err := f.findSystem(ctx, r)
	if err != nil {
		return 0, err
	}
	err = wal.Fetch(ctx, r, id, name, path)
	if errors.Is(err, wal.ErrNotArchived) {
		err = &notArchivedError{err}
	}
	return id, err
}

// findDataDir looks whether we run in a data directory, as PostgreSQL has it.
func (f *fetch) findDataDir(ctx context.Context) error {
	dir, err := f.getwd()
	if err != nil {
		return fmt.Errorf("find the current directory: %w", err)
	}
	f.control, err = wal.ReadControl(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f.dataDir = dir
	return err
}

// findSystem is the system whose WAL is wanted: the named one, that of the
// data directory in which PostgreSQL runs restore_command, of the configured
// one, or the only one there is. The name alone of a segment does not tell.
func (f *fetch) findSystem(ctx context.Context, r *repo.Repo) (postgres.SystemID, error) {
	switch {
	case f.system != "":
		return parseSystem(f.system)
	case f.dataDir != "":
		return f.control.SystemID, nil
	case f.cfg.PGData != "":
		control, err := wal.ReadControl(ctx, f.cfg.PGData)
		if !errors.Is(err, fs.ErrNotExist) {
			return control.SystemID, err
		}
	}
	return onlySystem(ctx, r)
}
