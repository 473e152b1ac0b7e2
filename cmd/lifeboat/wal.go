package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func walCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:        "wal",
		Usage:       "push WAL to the archive, fetch it back",
		Subcommands: []*cli.Command{a.walPush(), a.walFetch()},
	}
}

func (a *app) walPush() *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "archive a WAL file; PostgreSQL's archive_command",
		ArgsUsage: "PATH",
		Description: `
PATH is what PostgreSQL puts for %p: a WAL segment, a partial segment, a
timeline history file or a backup history file, absolute or relative to the
data directory. Ends with 0 only when the archive has it, durably. A file that
is there already, with the same content, is a success; with other content it is
an error, since two primaries may be archiving. Nothing is ever replaced.`,
		Flags: configFlags("pgdata", "repository", "cluster_key", "recipients"),
		Action: func(c *cli.Context) error {
			args, err := operands(c, "PATH")
			if err != nil {
				return err
			}
			cfg, err := a.config(c, "repository", "cluster_key", "recipients")
			if err != nil {
				return err
			}
			return a.pushWAL(c.Context, cfg, args[0])
		},
	}
}

// pushReport is the JSON document of a push.
type pushReport struct {
	Name        string `json:"name"`
	SHA256      string `json:"sha256"`
	RawBytes    int64  `json:"raw_bytes"`
	StoredBytes int64  `json:"stored_bytes"` // 0 when it existed
	Existed     bool   `json:"existed"`
}

// pushMemory is where a push begins to collect garbage. A usual segment makes
// far less in all, so that it is done before a collection would pay.
const pushMemory = 64 << 20

func (a *app) pushWAL(ctx context.Context, cfg *Config, path string) error {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(pushMemory)
	keys, err := loadKeys(cfg)
	if err != nil {
		return err
	}
	path, options, err := a.pushSource(ctx, cfg, path)
	if err != nil {
		return err
	}
	open := func(ctx context.Context) (storage.Store, error) { return openStore(ctx, cfg) }
	r, err := repo.OpenWriter(ctx, open, keys, hostName())
	if err != nil {
		return err
	}
	stored, err := wal.Push(ctx, r, path, options)
	if err != nil {
		return err
	}
	report := pushReport{Name: filepath.Base(path), SHA256: stored.Header.SHA256, RawBytes: stored.Header.Size,
		StoredBytes: stored.Bytes, Existed: stored.Existed}
	return a.walDone(report, func(w io.Writer) {
		if stored.Existed {
			_, _ = fmt.Fprintf(w, "%s is in the archive already\n", report.Name)
			return
		}
		_, _ = fmt.Fprintf(w, "%s is archived: %s stored as %s\n", report.Name, sizeText(report.RawBytes), sizeText(report.StoredBytes))
	})
}

// pushSource finds the file, and in the control file of its cluster what a
// segment must carry. The configured data directory counts: a second cluster
// with the first one's configuration must not archive into it.
func (a *app) pushSource(ctx context.Context, cfg *Config, path string) (string, wal.PushOptions, error) {
	var o wal.PushOptions
	dir, err := a.getwd()
	if err != nil {
		return "", o, fmt.Errorf("find the current folder: %w", err)
	}
	dataDir := dir // PostgreSQL runs archive_command in its data directory
	if cfg.PGData != "" {
		dataDir = cfg.PGData
	}
	control, err := wal.ReadControl(ctx, dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", o, usage("%s is not a data directory: it has no %s", dataDir, postgres.ControlPath).
			hinted("set pgdata in the configuration to the data directory of the cluster")
	}
	if err != nil {
		return "", o, err
	}
	o = wal.PushOptions{System: control.SystemID, SegmentSize: control.WALSegmentSize}
	if full := inDir(dir, path); full == path || exists(full) {
		return full, o, nil
	}
	return inDir(dataDir, path), o, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// walDone prints what was done. PostgreSQL copies what its commands print into
// its log, so a person at a terminal alone gets the line of text.
func (a *app) walDone(report any, text func(io.Writer)) error {
	if !a.terminal && !a.json {
		return nil
	}
	return a.outcome(report, text)
}

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
