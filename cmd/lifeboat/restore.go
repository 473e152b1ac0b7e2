package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func restoreCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "restore",
		Usage: "bring a backup back as a data directory that recovers",
		Description: `
Prints a plan first, and refuses before it writes anything when the plan cannot
work: a gap in the WAL, missing objects, a target that cannot be reached, a
directory that is not empty, too little disk. --dry-run stops after the plan.

Without a target, recovery goes to the end of the archive and opens the server.
At a target it pauses, as is PostgreSQL's default: the server can be looked at,
"select pg_wal_replay_resume()" opens it for writing, and a later target can
still be set instead. --target-action promote opens it at once.

What is restored does not archive (archive_mode is off), so that a copy cannot
write into production's archive; --keep-archiving leaves that as it was.
global/pg_control is written last: a restore that was interrupted cannot be
started, and running it again removes what it left.

--target-time takes RFC 3339 and PostgreSQL's forms, such as "2026-01-31
02:00:00+01"; without a zone it is read in the local one, and the plan says so.
A tablespace's directory is made only when --tablespace names it: the path is
what the backup says. It is moved by --tablespace OLD=NEW, where OLD is its path or its
OID; the others go back to where they were. One made after the backup is made
by the WAL, at the path it had.`,
		Flags: append(restoreFlags(), configFlags("repository", "identity", "signer", "jobs", "pg_bindir")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository", "identity")
			if err != nil {
				return err
			}
			run, err := a.newRestoration(c, cfg)
			if err != nil {
				return err
			}
			return run.do(c.Context)
		},
	}
}

func restoreFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "to", Usage: "data directory to make, `DIR`: missing or empty"},
		&cli.StringFlag{Name: "backup", Usage: "restore the backup `LABEL`; else the newest that can serve the target"},
		&cli.StringFlag{Name: "target-time", Usage: "recover up to `TIME`"},
		&cli.StringFlag{Name: "target-lsn", Usage: "recover up to `LSN`"},
		&cli.StringFlag{Name: "target-name", Usage: "recover up to the restore point `NAME` (pg_create_restore_point)"},
		&cli.StringFlag{Name: "target-xid", Usage: "recover up to the end of transaction `XID`"},
		&cli.BoolFlag{Name: "target-immediate", Usage: "recover only until the backup is consistent"},
		&cli.BoolFlag{Name: "target-exclusive", Usage: "stop just before the target instead of just after it"},
		&cli.StringFlag{Name: "target-timeline", Usage: "recover along timeline `T`: latest, current (the backup's) or a number", Value: "latest"},
		&cli.StringFlag{Name: "target-action", Usage: "`ACTION` at the target: pause, promote or shutdown", DefaultText: "pause"},
		&cli.StringSliceFlag{Name: "tablespace", Usage: "move a tablespace, `OLD=NEW`; can be repeated"},
		&cli.StringFlag{Name: "owner", Usage: "account that the files are given to, `USER[:GROUP]`; for root only"},
		&cli.StringFlag{Name: "system", Usage: "restore the PostgreSQL system with this identifier, `ID`, where the cluster has been several"},
		&cli.BoolFlag{Name: "keep-archiving", Usage: "leave archive_mode as it was: for the new primary, never for a copy"},
		&cli.BoolFlag{Name: "start", Usage: "start the server and wait until recovery is over or paused"},
		&cli.StringFlag{Name: "port", Usage: "`PORT` of the server that --start starts; it listens on a Unix socket only", Value: strconv.Itoa(server.DefaultPort)},
		&cli.BoolFlag{Name: "dry-run", Usage: "print the plan and stop"},
	}
}

// restoration is one run of "lifeboat restore".
type restoration struct {
	*app
	cfg    *Config
	target restore.Target
	zone   string // in which --target-time was read
	start  bool
	port   int
	dryRun bool

	install    server.Install // with start
	progress   *progress
	source     string // its name, where there are several repositories
	passedOver []passedOver
}

func (a *app) newRestoration(c *cli.Context, cfg *Config) (*restoration, error) {
	r := &restoration{app: a, cfg: cfg, start: c.Bool("start"), dryRun: c.Bool("dry-run")}
	if c.String("to") == "" {
		return nil, usage("--to is missing: where to restore to").hinted("name a directory that is missing or empty: --to DIR")
	}
	var err error
	if r.port, err = portOf(c, "port"); err != nil {
		return nil, err
	}
	if c.IsSet("port") && !r.start {
		return nil, usage("--port is that of the server that --start starts, and there is no --start").hinted("add --start, or leave out --port")
	}
	t := &r.target
	if t.DataDir, err = a.absClean(c.String("to")); err != nil {
		return nil, err
	}
	if t.Point, r.zone, err = targetPoint(c); err != nil {
		return nil, err
	}
	if t.Timeline, err = wal.ParseTimelineTarget(c.String("target-timeline")); err != nil {
		return nil, usage("--target-timeline: %v", err)
	}
	if c.IsSet("target-action") {
		if t.Action, err = restore.ParseAction(c.String("target-action")); err != nil {
			return nil, usage("--target-action: %v", err)
		}
		if t.Point.Kind == restore.ToEnd {
			return nil, usage("--target-action needs a target").hinted("without one, recovery goes to the end of the archive and opens the server")
		}
	}
	if err := r.moreTarget(c); err != nil {
		return nil, err
	}
	t.FetchCommand, err = fetchCommand(cfg)
	return r, err
}

func (r *restoration) moreTarget(c *cli.Context) error {
	t := &r.target
	if t.Backup = c.String("backup"); t.Backup != "" {
		if err := repo.CheckLabel(t.Backup); err != nil {
			return usage("--backup: %v", err).hinted("\"lifeboat backups\" lists them")
		}
	}
	for _, s := range c.StringSlice("tablespace") {
		m, err := restore.ParseMapping(s)
		if err != nil {
			return usage("--tablespace: %v", err)
		}
		if m.New, err = r.absClean(m.New); err != nil {
			return err
		}
		t.Tablespaces = append(t.Tablespaces, m)
	}
	if s := c.String("system"); s != "" {
		id, err := postgres.ParseSystemID(s)
		if err != nil {
			return usage("--system: %v", err)
		}
		t.System = id
	}
	t.Owner, t.KeepArchiving = c.String("owner"), c.Bool("keep-archiving")
	return nil
}

// targetPoint reads the one recovery target that may be given.
func targetPoint(c *cli.Context) (p restore.Point, zone string, err error) {
	given := []string{}
	for _, name := range []string{"target-time", "target-lsn", "target-name", "target-xid", "target-immediate"} {
		if c.IsSet(name) && (name != "target-immediate" || c.Bool(name)) {
			given = append(given, name)
		}
	}
	p.Exclusive = c.Bool("target-exclusive")
	switch {
	case len(given) > 1:
		return p, "", usage("--%s and --%s: there can be only one target", given[0], given[1]).hinted("leave out all but one")
	case len(given) == 0:
		if p.Exclusive {
			return p, "", usage("--target-exclusive needs a target").hinted("add the target before which recovery is to stop, such as --target-time")
		}
		return p, "", nil
	}
	value := c.String(given[0])
	switch given[0] {
	case "target-time":
		p.Kind = restore.AtTime
		p.Time, zone, err = restore.ParseTime(value, time.Local)
	case "target-lsn":
		p.Kind = restore.AtLSN
		p.LSN, err = postgres.ParseLSN(value)
	case "target-name":
		p.Kind, p.Name = restore.AtName, value
	case "target-xid":
		p.Kind = restore.AtXID
		p.XID, err = parseXID(value)
	case "target-immediate":
		p.Kind = restore.Immediate
	}
	if err != nil {
		return p, "", usage("--%s: %w", given[0], err)
	}
	return p, zone, nil
}

// parseXID reads a transaction's number, also one with its epoch in the upper
// half, as pg_current_xact_id() prints it: recovery compares the lower half.
func parseXID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not the number of a transaction", s)
	}
	return uint32(n), nil
}

// restoreReport is the JSON document of a restore.
type restoreReport struct {
	Repository string         `json:"repository,omitempty"`  // that it comes from, where there are several
	PassedOver []passedOver   `json:"passed_over,omitempty"` // those that were not taken
	Plan       *restore.Plan  `json:"plan"`
	Zone       string         `json:"target_time_zone,omitempty"`
	Restored   bool           `json:"restored"` // false with --dry-run
	Seconds    float64        `json:"seconds"`
	Notes      []string       `json:"notes,omitempty"`  // what came up while it was written
	Server     *restoreServer `json:"server,omitempty"` // with --start
}

// do reads, plans, writes and, if asked, starts.
func (r *restoration) do(ctx context.Context) error {
	// Nearly all memory is packs that come and go; a heap that may double before
	// it is collected would only hold garbage.
	debug.SetGCPercent(25)
	began := r.now()
	repository, plan, err := r.choose(ctx)
	if err != nil {
		return r.withCommand(err)
	}
	plan.Notes = append(plan.Notes, r.credentialNotes()...)
	report := restoreReport{Repository: r.source, PassedOver: r.passedOver, Plan: plan, Zone: r.zone}
	if r.start {
		// That it is missing is better known now than after the files are written.
		if r.install, err = server.Find(postgres.ServerVersion(plan.Backup.PGVersion).Major(), r.cfg.PGBinDir); err != nil {
			return err
		}
	}
	if err := r.showPlan(plan); err != nil {
		return err
	}
	// The account that runs the server must be able to fetch WAL.
	if err := r.tryFetch(ctx, plan); err != nil {
		return err
	}
	if r.dryRun {
		return r.result(report, func(io.Writer) {})
	}
	if err := r.apply(ctx, repository, plan, &report); err != nil {
		return err
	}
	report.Restored, report.Seconds = true, r.now().Sub(began).Seconds()
	if r.start {
		if report.Server, err = r.startServer(ctx, plan); err != nil {
			return err
		}
	}
	return r.outcome(report, func(w io.Writer) { r.writeDone(w, &report) })
}

func (r *restoration) makePlan(ctx context.Context, repository *repo.Repo) (*restore.Plan, error) {
	r.progress = r.newProgress(restorePhases[restore.ReadPhase])
	defer r.progress.close()
	in, err := restore.Load(ctx, repository, r.target, restore.Options{Observe: r.observe})
	if err != nil {
		return nil, err
	}
	return restore.NewPlan(in, r.target)
}

func (r *restoration) apply(ctx context.Context, repository *repo.Repo, p *restore.Plan, report *restoreReport) error {
	r.progress = r.newProgress(restorePhases[restore.WritePhase])
	defer r.progress.close()
	return restore.Apply(ctx, repository, p, restore.Options{
		Jobs: r.cfg.Jobs, Observe: r.observe,
		Note: func(s string) {
			report.Notes = append(report.Notes, s)
			r.note("%s", s)
		},
	})
}

func (r *restoration) observe(e restore.Progress) {
	r.progress.setPhase(restorePhases[e.Phase])
	if e.Total > 0 {
		r.progress.update(e.Done, e.Total)
	}
}

var restorePhases = map[restore.Phase]string{
	restore.ReadPhase:   "reading the repository",
	restore.SurveyPhase: "reading the WAL",
	restore.WritePhase:  "restoring",
	restore.SyncPhase:   "syncing to disk",
}
