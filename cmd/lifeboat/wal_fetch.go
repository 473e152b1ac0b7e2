package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func (a *app) walFetch() *cli.Command {
	flags := append([]cli.Flag{
		&cli.StringFlag{Name: "system", Usage: "system identifier of the cluster whose WAL it is, `ID`; else that of the data " +
			"directory in which it runs, of pgdata, or the only one in the repository"},
	}, configFlags("pgdata", "repository", "identity", "signer")...)
	return &cli.Command{
		Name:      "fetch",
		Usage:     "get a WAL file from the archive; PostgreSQL's restore_command",
		ArgsUsage: "NAME PATH",
		Description: `
NAME is what PostgreSQL puts for %f, PATH what it puts for %p. The file is at
PATH whole or not at all. The exit code decides whether PostgreSQL ends
recovery, so 1 is given only when it is proven that the archive ends: the
repository is there, it does not hold the file, and it holds none after it.`,
		Flags: flags,
		Action: func(c *cli.Context) error {
			args, err := operands(c, "NAME", "PATH")
			if err != nil {
				return err
			}
			cfg, err := a.config(c, "repository", "identity")
			if err != nil {
				return err
			}
			return a.fetchWAL(c.Context, cfg, c.String("system"), args[0], args[1])
		},
	}
}

// fetchReport is the JSON document of a fetch.
type fetchReport struct {
	Name   string            `json:"name"`
	Path   string            `json:"path"`
	System postgres.SystemID `json:"system"`
}

func (a *app) fetchWAL(ctx context.Context, cfg *Config, system, file, path string) error {
	name, err := postgres.ParseWALName(file)
	if err != nil {
		return usage("%v", err)
	}
	if path, err = a.abs(path); err != nil {
		return err
	}
	r, err := openRepo(ctx, cfg)
	if err != nil {
		return err
	}
	id, err := a.fetchSystem(ctx, cfg, r, system)
	if err != nil {
		return err
	}
	err = wal.Fetch(ctx, r, id, name, path)
	if errors.Is(err, wal.ErrNotArchived) {
		return &notArchivedError{err}
	}
	if err != nil {
		return err
	}
	return a.walDone(fetchReport{file, path, id}, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%s is at %s\n", file, path)
	})
}

// fetchSystem is the system whose WAL is wanted: the named one, that of the
// data directory in which PostgreSQL runs restore_command, of the configured
// one, or the only one there is. The name alone of a segment does not tell.
func (a *app) fetchSystem(ctx context.Context, cfg *Config, r *repo.Repo, named string) (postgres.SystemID, error) {
	if named != "" {
		id, err := postgres.ParseSystemID(named)
		if err != nil {
			return 0, usage("--system: %v", err)
		}
		return id, nil
	}
	dir, err := a.getwd()
	if err != nil {
		return 0, fmt.Errorf("find the current folder: %w", err)
	}
	for _, dataDir := range []string{dir, cfg.PGData} {
		if dataDir == "" {
			continue
		}
		control, err := wal.ReadControl(ctx, dataDir)
		if err == nil {
			return control.SystemID, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
	}
	return onlySystem(ctx, r)
}

func onlySystem(ctx context.Context, r *repo.Repo) (postgres.SystemID, error) {
	systems, err := r.Systems(ctx)
	if err != nil {
		return 0, err
	}
	hint := "add --system ID, the system identifier that pg_controldata prints"
	switch len(systems) {
	case 0:
		return 0, usage("no backup was taken yet, so the repository does not tell whose WAL is wanted").hinted("%s", hint)
	case 1:
		return systems[0], nil
	}
	names := make([]string, len(systems))
	for i, s := range systems {
		names[i] = s.String()
	}
	return 0, usage("the repository holds WAL of %d systems (%s), and which one is wanted is not said", len(systems), strings.Join(names, ", ")).
		hinted("%s", hint)
}
