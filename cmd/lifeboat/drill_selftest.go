package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/file"
	"github.com/lifeboat-dr/lifeboat/verify/drill"
	"github.com/lifeboat-dr/lifeboat/verify/selftest"
)

func selftestCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "selftest",
		Usage: "break a scratch repository in every way: a drill must catch it",
		Description: `
Starts a PostgreSQL server of its own in a scratch directory, backs it up, and runs
a drill on that backup after each of many breakages: packs that are missing,
damaged or forged, gaps in the WAL, data that is wrong, too little disk, checks
and recoveries that hang. Each line says what was broken, what caught it and how
long that took. Fails when one is not caught, or when the healthy backup does
not pass. Nothing outside the directory is touched; no configuration is read.`,
		Flags: scratchFlags(),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			return a.inScratch(c, a.selftest)
		},
	}
}

// selftestReport is the JSON document of the selftest.
type selftestReport struct {
	Outcomes []selftest.Outcome `json:"outcomes"`
	Caught   int                `json:"caught"`
	Missed   int                `json:"missed"`
}

const selftestRows = 1000

func (a *app) selftest(ctx context.Context, dir, bindir string, _ bool) error {
	s := &story{app: a, dir: dir, data: filepath.Join(dir, "data"), bindir: bindir, config: filepath.Join(dir, "lifeboat.yaml"), silent: true}
	srv, err := s.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { stopServer(srv) }()
	scratch, cfg, err := s.seed(ctx, srv)
	if err != nil {
		return err
	}
	base, err := s.selftestDrill(cfg)
	if err != nil {
		return err
	}
	report := selftestReport{Outcomes: []selftest.Outcome{}}
	_, err = selftest.Run(ctx, *scratch, *base, func(o selftest.Outcome) {
		report.Outcomes = append(report.Outcomes, o)
		if o.Caught {
			report.Caught++
		} else {
			report.Missed++
		}
		if !a.json && !(a.quiet && o.Caught) {
			writeOutcome(a.stdout, o)
		}
	})
	if err != nil {
		return err
	}
	if err := a.outcome(report, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%d of %d caught\n", report.Caught, len(report.Outcomes))
	}); err != nil {
		return err
	}
	if report.Missed > 0 {
		return failed(exitFailed, "a drill did not catch %d of %d breakages", report.Missed, len(report.Outcomes)).
			hinted("this is a defect of Lifeboat: please report it, and trust no drill of this version on this system")
	}
	return nil
}

func writeOutcome(w io.Writer, o selftest.Outcome) {
	mark := "caught"
	if !o.Caught {
		mark = "MISSED"
	}
	_, _ = fmt.Fprintf(w, "%s  %6.1f s  %s\n", mark, o.Seconds, o.Broken)
	for _, line := range fold(oneLine(o.By), 76) {
		_, _ = fmt.Fprintf(w, "                  %s\n", line)
	}
}

// seed fills the server, backs it up, and brings WAL after the backup into the
// archive.
func (s *story) seed(ctx context.Context, srv *server.Server) (*selftest.Scratch, *Config, error) {
	change := func(ctx context.Context, sql string) error { return changeAndArchive(ctx, srv.Conn(), sql) }
	if err := change(ctx, selftest.Table(selftestRows/2)); err != nil {
		return nil, nil, err
	}
	if err := s.lifeboat(ctx, "backup", "--fingerprints"); err != nil {
		return nil, nil, err
	}
	// Several segments, so that one can be missing in the middle.
	more := fmt.Sprintf("insert into lifeboat_selftest select i, now() - interval '1 day' from generate_series(%d, %d) i", selftestRows/2+1, selftestRows)
	for _, sql := range []string{more, "create table lifeboat_more (i int)", "insert into lifeboat_more values (1)"} {
		if err := change(ctx, sql); err != nil {
			return nil, nil, err
		}
	}
	cfg, err := s.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	cfg.Identity = filepath.Join(s.dir, "demo-recovery.key")
	keys, err := loadKeys(cfg)
	if err != nil {
		return nil, nil, err
	}
	store, err := openStore(ctx, cfg)
	restorer := func(dir, identity string) (*exec.Cmd, error) {
		cmd, err := s.restorerOf([]string{"drill", "--config", s.config, "--repository", "file://" + dir, "--identity", identity})
		if err == nil {
			cmd.Env = s.demoEnv(s.dir)
		}
		return cmd, err
	}
	return &selftest.Scratch{Store: store, Keys: keys, Rows: selftestRows, Change: change, Restorer: restorer, Dir: s.dir,
		Init: func(dir string) (storage.Store, error) { return file.Init(dir) }}, cfg, err
}

// changeAndArchive runs SQL, switches the segment, and waits until it is
// archived.
func changeAndArchive(ctx context.Context, conn, sql string) error {
	c, err := pgx.Connect(ctx, conn)
	if err != nil {
		return fmt.Errorf("connect to the scratch server: %w", err)
	}
	defer c.Close(context.WithoutCancel(ctx))
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("change the scratch server: %w", err)
	}
	var segment string
	if err := c.QueryRow(ctx, "select pg_walfile_name(pg_switch_wal())").Scan(&segment); err != nil {
		return fmt.Errorf("switch the segment: %w", err)
	}
	wctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("%s was not archived within a minute", segment))
	defer cancel()
	for {
		var done bool
		err := c.QueryRow(wctx, "select coalesce(last_archived_wal >= $1, false) from pg_stat_archiver", segment).Scan(&done)
		switch {
		case wctx.Err() != nil:
			return context.Cause(wctx)
		case err != nil:
			return fmt.Errorf("wait for the archive: %w", err)
		case done:
			return nil
		}
		select {
		case <-wctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// selftestDrill says how the drills of a selftest are run.
func (s *story) selftestDrill(cfg *Config) (*drill.Options, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's own path: %w", err)
	}
	staging := filepath.Join(s.dir, "staging")
	if err := os.Mkdir(staging, 0o700); err != nil {
		return nil, fmt.Errorf("make a staging directory: %w", err)
	}
	key, err := repo.NewHostKey("demo", repo.NewID())
	if err != nil {
		return nil, err
	}
	return &drill.Options{
		Staging: staging, Role: "postgres", Self: self, Env: s.demoEnv(s.dir), Program: "lifeboat " + version,
		Find: func(major int) (server.Install, error) { return server.Find(major, s.bindir) },
		By:   performer(), Key: *key.Signing, Now: s.now,
	}, nil
}
