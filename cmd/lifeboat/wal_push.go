package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/wal"
)

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
	Others      int    `json:"others"` // pushed ahead

	// Beside is under which name it was stored, where something that nobody who is
	// believed has signed has its own; of several repositories, in one of them.
	Beside string `json:"beside,omitempty"`

	Repositories []pushedTo `json:"repositories,omitempty"` // where there are several
}

// pushedTo is what one of several repositories took.
type pushedTo struct {
	Repository  string `json:"repository"`
	StoredBytes int64  `json:"stored_bytes"`
	Existed     bool   `json:"existed"`
	Others      int    `json:"others"`
}

const (
	// pushMemory is where a push begins to collect garbage. A usual segment
	// makes far less in all, so that it is done before a collection would pay.
	pushMemory = 72 << 20

	// A push that looks ahead begins nothing more after aheadBegin, so that
	// pg_stat_archiver moves and who stops the server does not wait, and gives
	// up after aheadFinish what is not done.
	aheadBegin  = 5 * time.Second
	aheadFinish = 10 * time.Second
)

// pushWAL archives the file in every repository. What each takes is its own
// affair: one that is down does not keep the file, and what comes after it, from
// the others; PostgreSQL is told 0 only when all have it.
func (a *app) pushWAL(ctx context.Context, cfg *Config, path string) error {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(pushMemory * int64(len(cfg.each())))
	keys, err := loadKeys(cfg)
	if err != nil {
		return err
	}
	path, dataDir, options, err := a.pushSource(ctx, cfg, path)
	if err != nil {
		return err
	}
	var pushes []*push
	for _, one := range cfg.each() {
		pushes = append(pushes, &push{cfg: one, keys: keys, path: path, options: options,
			memory: a.remembered(one, keys, dataDir, options.System)})
	}
	if len(pushes) == 1 {
		if err := pushes[0].run(ctx); err != nil {
			return err
		}
		return a.pushDone(pushes[0].report)
	}
	return a.pushSeveral(ctx, pushes)
}

// push is a file on its way into one repository.
type push struct {
	cfg     *Config
	keys    repo.Keys
	path    string
	options wal.PushOptions
	memory  wal.PushMemory
	report  pushReport
}

// recall says whether the repository is known to have the file.
func (p *push) recall() bool {
	sum, known := p.memory.Recall(p.path)
	if known {
		p.report = pushReport{Name: filepath.Base(p.path), SHA256: sum, RawBytes: fileSize(p.path), Existed: true}
	}
	return known
}

func (p *push) open(ctx context.Context) (*repo.Repo, error) {
	open := func(ctx context.Context) (storage.Store, error) {
		return openStoreWithin(ctx, p.cfg, p.cfg.StoreTimeout)
	}
	return repo.OpenWriter(ctx, open, p.keys, hostName())
}

func (p *push) ahead() wal.Ahead {
	return wal.Ahead{Memory: p.memory, Sealers: min(max(runtime.GOMAXPROCS(0), 2), 4), Blocks: p.cfg.BlockSummaries, Begin: aheadBegin, Finish: aheadFinish}
}

// run archives the file, and looks ahead.
func (p *push) run(ctx context.Context) error {
	if p.recall() {
		return nil
	}
	r, err := p.open(ctx)
	if err != nil {
		return err
	}
	if err := wal.PushHistory(ctx, r, p.path, p.options, p.memory); err != nil {
		return err
	}
	stored, others, err := wal.PushAhead(ctx, r, p.path, p.options, p.ahead())
	if err != nil {
		return p.explained(err)
	}
	p.report = pushReport{Name: filepath.Base(p.path), SHA256: stored.Header.SHA256, RawBytes: stored.Header.Size,
		StoredBytes: stored.Bytes, Existed: stored.Existed, Others: others, Beside: stored.Beside}
	return nil
}

// explained tells a person who pushes by hand what belongs there.
func (p *push) explained(err error) error {
	if _, bad := postgres.ParseWALName(filepath.Base(p.path)); bad == nil && exists(p.path) || storeFails(err) {
		return err
	}
	return failed(exitFailed, "%w", err).hinted("PostgreSQL gives %%p, the path relative to pgdata: \"lifeboat wal push pg_wal/000000010000000000000001\"")
}

// remembered is what this data directory remembers about a repository.
// Whatever decides where an object goes belongs into its address.
func (a *app) remembered(cfg *Config, keys repo.Keys, dataDir string, system postgres.SystemID) wal.PushMemory {
	m := wal.PushMemory{DataDir: dataDir, Name: cfg.Name, System: system, Now: a.now, Address: cfg.address()}
	if keys.Cluster != nil {
		m.Repository = keys.Cluster.Repository
	}
	return m
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func (a *app) pushDone(report pushReport) error {
	if report.Beside != "" {
		a.warn("%s is archived beside its own name, which is taken by something that nobody who is believed has signed: find out who else can write to the store", report.Name)
	}
	return a.walDone(report, func(w io.Writer) {
		if report.Existed {
			_, _ = fmt.Fprintf(w, "%s is in the archive already", report.Name)
		} else {
			_, _ = fmt.Fprintf(w, "%s is archived: %s stored as %s", report.Name, sizeText(report.RawBytes), sizeText(report.StoredBytes))
		}
		if report.Others > 0 {
			_, _ = fmt.Fprintf(w, ", and %d more", report.Others)
		}
		_, _ = fmt.Fprintln(w)
	})
}

// pushSource finds the file, and in the control file of its cluster what a
// segment must carry. The configured data directory counts: a second cluster
// with the first one's configuration must not archive into it.
func (a *app) pushSource(ctx context.Context, cfg *Config, path string) (file, dataDir string, o wal.PushOptions, err error) {
	dir, err := a.getwd()
	if err != nil {
		return "", "", o, fmt.Errorf("find the current directory: %w", err)
	}
	dataDir = dir // PostgreSQL runs archive_command in its data directory
	if cfg.PGData != "" {
		dataDir = cfg.PGData
	}
	control, err := wal.ReadControl(ctx, dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", o, usage("%s is not a data directory: it has no %s", dataDir, postgres.ControlPath).
			hinted("set pgdata in the configuration to the data directory of the cluster")
	}
	if err != nil {
		return "", "", o, err
	}
	if control.State == postgres.DBInProduction {
		// What a fetch that was killed left behind, before the promotion.
		_ = wal.ClearFetched(dataDir)
	}
	o = wal.PushOptions{System: control.SystemID, SegmentSize: control.WALSegmentSize}
	if full := inDir(dir, path); full == path || exists(full) {
		return full, dataDir, o, nil
	}
	return inDir(dataDir, path), dataDir, o, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
