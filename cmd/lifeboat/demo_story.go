package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// How long orders are written before and after the backup.
const (
	demoBefore = 2 * time.Second
	demoAfter  = 3 * time.Second
)

// story is one run of the demo.
type story struct {
	*app
	dir, data string
	bindir    string
	config    string
	install   server.Install
	report    demoReport
	silent    bool // tell no story
	kept      bool // the directory stays
}

// demoReport is the JSON document of the demo. Seconds are measured here.
type demoReport struct {
	Acknowledged    int          `json:"acknowledged"`     // orders whose commit was acknowledged
	Recovered       int          `json:"recovered"`        // of those
	Lost            int          `json:"lost"`             // the others
	ArchivedLost    int          `json:"archived_lost"`    // lost although archived: must be 0
	Altered         int          `json:"altered"`          // recovered with other content: must be 0
	RPOSeconds      float64      `json:"rpo_seconds"`      // from the first lost commit to the disaster; 0 without loss
	RTOSeconds      float64      `json:"rto_seconds"`      // from the start of the restore to the answer of the first query
	RestoreSeconds  float64      `json:"restore_seconds"`  // of which: plan, fetch and write files
	RecoverySeconds float64      `json:"recovery_seconds"` // of which: start, replay WAL, open, count
	ArchivedTo      postgres.LSN `json:"archived_to"`
	Drill           demoDrill    `json:"drill"`
}

// demo tells the story; each step prints what it does.
func (a *app) demo(ctx context.Context, dir, bindir string, kept bool) error {
	s := &story{app: a, dir: dir, data: filepath.Join(dir, "data"), bindir: bindir, config: filepath.Join(dir, "lifeboat.yaml"), kept: kept}
	srv, err := s.startServer(ctx)
	if err != nil {
		return err
	}
	// Whatever happens, no server outlives the demo.
	defer func() { stopServer(srv) }()

	w, err := s.openShop(ctx, srv)
	if err != nil {
		return err
	}
	defer w.stop()
	if err := s.backUpUnderLoad(ctx, w); err != nil {
		return err
	}
	if err := s.rehearse(ctx); err != nil {
		return err
	}
	if err := s.disaster(srv, w); err != nil {
		return err
	}
	archived, err := s.archivedTo(ctx)
	if err != nil {
		return err
	}
	began := a.now()
	restored, err := s.restore(ctx)
	if err != nil {
		return err
	}
	defer func() { stopServer(restored) }()
	if err := s.count(ctx, restored, w, archived, began); err != nil {
		return err
	}
	if err := a.result(s.report, s.report.write); err != nil {
		return err
	}
	return s.report.verdict()
}

func stopServer(srv *server.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if srv.Stop(ctx, server.Immediate) != nil {
		_ = srv.Kill()
	}
}

// step prints a line of the story, on stderr with --json.
func (s *story) step(format string, args ...any) {
	if s.silent {
		return
	}
	if s.json || s.quiet {
		s.note(format, args...)
		return
	}
	_, _ = fmt.Fprintf(s.stdout, format+"\n", args...)
}

// lifeboat runs this program as a person would.
func (s *story) lifeboat(ctx context.Context, args ...string) error {
	s.step("  $ lifeboat %s", strings.Join(args, " "))
	cmd, err := s.program(ctx, args...)
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		_, _ = s.stderr.Write(out)
		return fmt.Errorf("lifeboat %s: %w", args[0], err)
	}
	if args[0] != "init" {
		for line := range bytes.Lines(out) {
			s.step("    %s", bytes.TrimRight(line, "\n"))
		}
	}
	return nil
}

// program is this program, to be run with the configuration of the demo.
func (s *story) program(ctx context.Context, args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's own path: %w", err)
	}
	cmd := exec.CommandContext(ctx, exe, append(args, "--config", s.config)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	cmd.Env, cmd.Dir = s.demoEnv(s.dir), s.dir
	return cmd, nil
}

// startServer makes a scratch server whose WAL is archived from the start.
func (s *story) startServer(ctx context.Context) (*server.Server, error) {
	var err error
	if s.install, err = server.Find(0, s.bindir); err != nil {
		return nil, err
	}
	s.step("1. A scratch PostgreSQL %d server, with checksums, in %s", s.install.Major, s.data)
	if err := s.install.Initdb(ctx, server.InitdbOptions{DataDir: s.data, Checksums: true}); err != nil {
		return nil, err
	}
	s.step("2. Set up: configuration, keys, and a repository in a directory")
	conn := server.ConnString(filepath.Join(s.dir, "sock"), 0, "", "")
	if err := s.lifeboat(ctx, "init", "--cluster", "demo", "--pgdata", s.data, "--repository", "file://"+filepath.Join(s.dir, "repository"), "--conn", conn); err != nil {
		return nil, err
	}
	command, err := archiveCommand(s.config)
	if err != nil {
		return nil, err
	}
	srv, err := server.Start(ctx, s.install, server.Options{
		DataDir: s.data, SocketDir: filepath.Join(s.dir, "sock"), LogFile: filepath.Join(s.dir, "server.log"),
		Settings: map[string]string{"archive_mode": "on", "archive_command": command, "archive_timeout": "1s"},
		Env:      s.demoEnv(s.dir), DieWithParent: true,
	})
	if err != nil {
		return nil, err
	}
	if err := srv.WaitReady(ctx); err != nil {
		stopServer(srv)
		return nil, err
	}
	return srv, nil
}

func (s *story) openShop(ctx context.Context, srv *server.Server) (*witness, error) {
	s.step("3. Orders come in; every acknowledged commit is noted outside of the database")
	return startOrders(ctx, srv.Conn(), s.now)
}

func (s *story) backUpUnderLoad(ctx context.Context, w *witness) error {
	if err := w.wait(ctx, demoBefore); err != nil {
		return err
	}
	s.step("4. A backup, while orders are written")
	if err := s.lifeboat(ctx, "backup"); err != nil {
		return err
	}
	return w.wait(ctx, demoAfter)
}

// disaster kills every process of the server and deletes its files.
func (s *story) disaster(srv *server.Server, w *witness) error {
	w.fall()
	if err := srv.Kill(); err != nil {
		return err
	}
	if err := srv.ReleaseSharedMemory(); err != nil { // the host is gone in the story, not here
		return err
	}
	w.stop()
	if err := os.RemoveAll(s.data); err != nil {
		return fmt.Errorf("delete the data directory: %w", err)
	}
	s.step("6. Disaster: kill -9, and the data directory is deleted. %d orders had been acknowledged", len(w.orders))
	return nil
}

// loadConfig reads the configuration that init has written.
func (s *story) loadConfig() (*Config, error) {
	file, err := readConfig(s.config)
	if err != nil {
		return nil, err
	}
	return assemble(s.config, slices.Concat(defaultSettings(), file.settings))
}

// archivedTo is the end of the WAL that is in the archive: each commit before
// it must come back.
func (s *story) archivedTo(ctx context.Context) (postgres.LSN, error) {
	cfg, err := s.loadConfig()
	if err != nil {
		return 0, err
	}
	r, err := openRepo(ctx, cfg)
	if err != nil {
		return 0, err
	}
	systems, err := r.Systems(ctx)
	if err != nil || len(systems) != 1 {
		return 0, fmt.Errorf("the repository has %d systems, 1 was expected: %w", len(systems), err)
	}
	ix, err := wal.LoadIndex(ctx, r, systems[0])
	if err != nil {
		return 0, err
	}
	seg, ok := ix.Newest(1)
	if !ok {
		return 0, failed(exitFailed, "no WAL was archived")
	}
	return seg.End(), nil
}

func (s *story) restore(ctx context.Context) (*server.Server, error) {
	s.step("7. Restore, with the recovery key and the repository")
	began := s.now()
	key := filepath.Join(s.dir, "demo-recovery.key")
	if err := s.lifeboat(ctx, "restore", "--to", s.data, "--identity", key); err != nil {
		return nil, err
	}
	s.report.RestoreSeconds = s.now().Sub(began).Seconds()
	s.step("8. Start it: PostgreSQL fetches WAL from the archive and replays it")
	srv, err := server.Start(ctx, s.install, server.Options{
		DataDir: s.data, SocketDir: filepath.Join(s.dir, "sock"), LogFile: filepath.Join(s.dir, "restored.log"),
		Env: s.demoEnv(s.dir), DieWithParent: true,
	})
	if err != nil {
		return nil, err
	}
	// Ready is not enough: a server answers queries while it still replays.
	if err := srv.WaitWritable(ctx); err != nil {
		stopServer(srv)
		return nil, err
	}
	return srv, nil
}

// count compares what is there with what was acknowledged.
func (s *story) count(ctx context.Context, srv *server.Server, w *witness, archived postgres.LSN, began time.Time) error {
	conn, err := pgx.Connect(ctx, srv.Conn())
	if err != nil {
		return fmt.Errorf("connect to the restored server: %w", err)
	}
	defer conn.Close(ctx)
	found, err := readOrders(ctx, conn)
	if err != nil {
		return err
	}
	r := &s.report
	r.RTOSeconds = s.now().Sub(began).Seconds()
	r.RecoverySeconds = r.RTOSeconds - r.RestoreSeconds
	r.ArchivedTo = archived
	r.Acknowledged = len(w.orders)
	var firstLost *order
	for i, o := range w.orders {
		item, ok := found[o.id]
		switch {
		case ok && item == o.item:
			r.Recovered++
		case ok:
			r.Altered++
		default:
			r.Lost++
			if firstLost == nil {
				firstLost = &w.orders[i]
			}
			if o.lsn <= archived {
				r.ArchivedLost++
			}
		}
	}
	if firstLost != nil {
		r.RPOSeconds = w.fell.Sub(firstLost.at).Seconds()
	}
	return nil
}

func (r demoReport) write(w io.Writer) {
	_, _ = fmt.Fprintf(w, `
Acknowledged  %d orders
Recovered     %d
Lost          %d, of which archived before the disaster: %d

RPO achieved  %.2f s   the lost commits came this long before the disaster
RTO achieved  %.2f s   restore %.2f s, start, replay and count %.2f s
`, r.Acknowledged, r.Recovered, r.Lost, r.ArchivedLost, r.RPOSeconds, r.RTOSeconds, r.RestoreSeconds, r.RecoverySeconds)
	if d := r.Drill; d.RPOSeconds != nil && d.RTOSeconds != nil {
		_, _ = fmt.Fprintf(w, "The drill, a moment earlier, measured %.2f s and %.2f s, its checks included.\n", *d.RPOSeconds, *d.RTOSeconds)
	}
	if r.Lost > 0 {
		_, _ = fmt.Fprintf(w, "\nWhat was lost had not left the host: archive_command gets whole segments only, here at most one a second.\n")
	}
	if r.Drill.Page != "" {
		_, _ = fmt.Fprintf(w, "\nThe report of the drill, for a browser: %s\n", r.Drill.Page)
	} else {
		_, _ = fmt.Fprintf(w, "\n\"lifeboat demo --dir DIR\" keeps all of it, and the drill's report as a page for a browser.\n")
	}
}

// verdict fails on the one thing that must never happen.
func (r demoReport) verdict() error {
	if r.ArchivedLost > 0 || r.Altered > 0 {
		return failed(exitFailed, "%d orders are missing although they were archived, and %d are altered", r.ArchivedLost, r.Altered).
			hinted("this is a defect of Lifeboat: run the demo again with --dir DIR and report it with that directory")
	}
	if r.Acknowledged == 0 || r.Recovered == 0 {
		return failed(exitUnknown, "no order was acknowledged and recovered: this run shows nothing")
	}
	return nil
}
