package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

func backupCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "backup",
		Usage: "take a base backup of the running server",
		Description: `
Runs on the database host, as the user that owns the data directory; on a
standby's too. The first backup reads everything, each later one what has
changed since. Makes sure first that WAL reaches the archive, because a backup
without its WAL cannot start. A backup exists once the last line is printed; whatever ends it
before leaves nothing but unused objects. Pages with a bad checksum are named,
the backup is kept, and the command fails.`,
		Subcommands: []*cli.Command{a.backupPin(), a.backupUnpin()},
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "full", Usage: "refer to no older backup: read everything"},
			&cli.BoolFlag{Name: "scan", Usage: "believe no summary of changes: look at every page"},
		}, configFlags("pgdata", "conn", "repository", "jobs", "compression", "wal_timeout", "fingerprints", "max_pack_age")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "pgdata", "repository", "cluster_key", "recipients")
			if err != nil {
				return err
			}
			if cfg.several() {
				return a.backUpSeveral(c.Context, cfg, c.Bool("full"), c.Bool("scan"))
			}
			info, err := a.takeBackup(c.Context, cfg, c.Bool("full"), c.Bool("scan"))
			if err != nil {
				return err
			}
			if err := a.outcome(newBackupReport(*info), func(w io.Writer) { writeBackup(w, *info) }); err != nil {
				return err
			}
			return badPages(*info)
		},
	}
}

// takeBackup runs a backup with progress on the screen.
func (a *app) takeBackup(ctx context.Context, cfg *Config, full, scan bool) (*repo.Info, error) {
	// Nearly all memory is buffers that are used again; a heap that may double
	// before it is collected would only hold garbage.
	debug.SetGCPercent(25)
	level, err := repo.ParseLevel(cfg.Compression)
	if err != nil {
		return nil, usage("%v", err)
	}
	r, err := openOne(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a.sweep(ctx, r.Store())
	p := a.newProgress("starting")
	defer p.close()
	back := a.lookBeforeBackup(ctx, cfg, r)
	info, err := backup.Run(ctx, r, backup.Options{
		DataDir: cfg.PGData, Conn: cfg.Conn, Jobs: workers(cfg.Jobs), Level: level, WALTimeout: cfg.WALTimeout, Fingerprints: cfg.Fingerprints,
		Full: full, Scan: scan, MaxPackAge: cfg.MaxPackAge,
		Host: hostName(), Process: processName(), Gone: processGone, Program: "lifeboat " + version, Now: a.now,
		Warn: func(s string) { a.warn("%s", s) },
		Observe: func(e backup.Progress) {
			p.setPhase(backupPhases[e.Phase])
			if e.Total > 0 {
				p.update(e.Done, e.Total)
			}
		},
	})
	if err == nil && !back {
		a.rememberBackup(ctx, cfg, r, info.Label)
	}
	return info, err
}

// sweeper is a store in which crashes leave files that only it knows of.
type sweeper interface {
	Sweep(ctx context.Context, before time.Time) (removed int, err error)
}

// sweepAge is older than any write that is still under way.
const sweepAge = 24 * time.Hour

// sweep removes what crashes left in the store long ago. That it fails is no
// reason not to take a backup.
func (a *app) sweep(ctx context.Context, store storage.Store) {
	s, ok := store.(sweeper)
	if !ok {
		return
	}
	removed, err := s.Sweep(ctx, a.now().Add(-sweepAge))
	if removed > 0 {
		a.note("removed %d unfinished files that crashes had left in the repository", removed)
	}
	if err != nil && ctx.Err() == nil {
		a.warn("cannot remove what crashes left in the repository: %v", err)
	}
}

var backupPhases = map[string]string{
	"archive":    "checking the WAL archive",
	"checkpoint": "waiting for a checkpoint",
	"changes":    "finding out what has changed",
	"copy":       "backing up",
	"tables":     "noting what is in the tables",
	"wal":        "waiting for WAL to be archived",
}

// workers is the number of workers that jobs asks for.
func workers(jobs int) int {
	if jobs > 0 {
		return jobs
	}
	return min(runtime.GOMAXPROCS(0), 16)
}

// badPages is the error of a backup that holds damaged pages.
func badPages(info repo.Info) error {
	if info.BadCount == 0 {
		return nil
	}
	first := info.BadPages[0]
	return failed(exitFailed, "backup %s is kept, but %d pages have a bad checksum, the first is block %d of %s (computed %04X, stored %04X)",
		info.Label, info.BadCount, first.Block, first.Path, first.Want, first.Have).
		hinted("the database itself is damaged there: check the disk, and restore or rebuild the relation; \"lifeboat backups --json\" lists them")
}

// backupReport is the JSON document of a backup.
type backupReport struct {
	Repository  string            `json:"repository,omitempty"` // which, where there are several
	Label       string            `json:"label"`
	Cluster     string            `json:"cluster"`
	System      postgres.SystemID `json:"system"`
	PGVersion   string            `json:"pg_version"`
	Timeline    postgres.Timeline `json:"timeline"`
	StartLSN    postgres.LSN      `json:"start_lsn"`
	StopLSN     postgres.LSN      `json:"stop_lsn"`
	StartTime   string            `json:"start_time"`
	StopTime    string            `json:"stop_time"`
	Seconds     float64           `json:"seconds"`
	Host        string            `json:"host"`
	Files       int64             `json:"files"`
	RawBytes    int64             `json:"raw_bytes"`
	StoredBytes int64             `json:"stored_bytes"`
	NewBytes    int64             `json:"new_bytes"`

	Base         string `json:"base,omitempty"` // the backup whose pages were taken over
	Changes      string `json:"changes,omitempty"`
	ChangesWhy   string `json:"changes_why,omitempty"`
	ReadBytes    int64  `json:"read_bytes"`
	ChangedBytes int64  `json:"changed_bytes"`

	BadCount int64          `json:"bad_pages"`
	BadPages []repo.BadPage `json:"bad_page_list,omitempty"`
	Error    string         `json:"error,omitempty"` // of this one of several repositories; then nothing else counts
}

const timeForm = "2006-01-02T15:04:05Z07:00"

func newBackupReport(i repo.Info) backupReport {
	return backupReport{
		Label: i.Label, Cluster: i.Cluster, System: i.System, PGVersion: postgres.ServerVersion(i.PGVersion).String(),
		Timeline: i.Timeline, StartLSN: i.StartLSN, StopLSN: i.StopLSN,
		StartTime: i.StartTime.Format(timeForm), StopTime: i.StopTime.Format(timeForm),
		Seconds: i.StopTime.Sub(i.StartTime).Seconds(), Host: i.Host, Files: i.Files,
		RawBytes: i.RawBytes, StoredBytes: i.StoredBytes, NewBytes: i.NewBytes,
		Base: i.Base, Changes: i.Changes, ChangesWhy: i.ChangesWhy, ReadBytes: i.ReadBytes, ChangedBytes: i.ChangedBytes,
		BadCount: i.BadCount, BadPages: i.BadPages,
	}
}

func writeBackup(w io.Writer, i repo.Info) {
	ratio := 0.0
	if i.RawBytes > 0 {
		ratio = float64(i.StoredBytes) / float64(i.RawBytes)
	}
	_, _ = fmt.Fprintf(w, "backup %s done: %d files, %s stored as %s (ratio %.2f) in %s, WAL %s to %s on timeline %d is archived\n",
		i.Label, i.Files, sizeText(i.RawBytes), sizeText(i.StoredBytes), ratio, span(i.StopTime.Sub(i.StartTime)),
		i.StartLSN, i.StopLSN, i.Timeline)
	if i.Base != "" {
		_, _ = fmt.Fprintf(w, "since backup %s %s changed: %s read, %s sent; changes known from %s%s\n",
			i.Base, sizeText(i.ChangedBytes), sizeText(i.ReadBytes), sizeText(i.NewBytes), changeSources[i.Changes], because(i.ChangesWhy))
		return
	}
	_, _ = fmt.Fprintf(w, "a full backup%s\n", because(i.ChangesWhy))
}

// changeSources are the words for how changes were known.
var changeSources = map[string]string{
	repo.ChangesWALSummaries: "PostgreSQL's WAL summaries",
	repo.ChangesBlocks:       "block summaries of the WAL",
	repo.ChangesScan:         "a scan of all pages",
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}
