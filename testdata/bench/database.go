package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

//go:embed database.sql
var databaseSQL string

// loadSQL is a pgbench script. It runs beside pgbench's own transactions while
// the WAL segments are written that both tools push later.
//
//go:embed load.sql
var loadSQL string

// pgbenchScale makes about 15 MB of pgbench tables and indexes a unit.
const pgbenchScale = "60"

// segmentsKept is how many WAL segments of that load are kept.
const segmentsKept = 32

// database is the server that is backed up, running, and what was recorded
// when its data directory was built.
type database struct {
	dir      string   // of data, segments and the script
	segments []string // paths of real WAL segments of this cluster, oldest first
	server   *server.Server
	bytes    int64 // of the data directory without pg_wal
}

func (d *database) dataDir() string { return filepath.Join(d.dir, "data") }

// archiver is the archive_command of the server: a script, so that it can be
// exchanged without a word to the server. pgBackRest looks for its own name in
// the command.
func (d *database) archiver() string { return filepath.Join(d.dir, "lifeboat-or-pgbackrest") }

// openDatabase builds the data directory, unless an earlier run did, and starts
// a server on it.
func (b *bench) openDatabase(ctx context.Context) error {
	recipe := sha256.Sum256([]byte(databaseSQL + loadSQL + pgbenchScale + b.install.Version))
	d := &database{dir: filepath.Join(b.opt.work, "database-"+hex.EncodeToString(recipe[:6]))}
	b.db = d
	built := filepath.Join(d.dir, "built")
	if _, err := os.Stat(built); errors.Is(err, fs.ErrNotExist) {
		b.note("building the database in %s; that takes a few minutes, once", d.dir)
		if err := b.buildDatabase(ctx, d); err != nil {
			return fmt.Errorf("build the database: %w", err)
		}
		if err := os.WriteFile(built, nil, 0o644); err != nil {
			return err
		}
	}
	segments, err := filepath.Glob(filepath.Join(d.dir, "segments", strings.Repeat("[0-9A-F]", 24)))
	if err != nil {
		return err
	}
	slices.Sort(segments)
	d.segments = segments
	if err := b.archiveWith("exit 0"); err != nil {
		return err
	}
	if err := b.startServer(ctx, d); err != nil {
		return err
	}
	// Recovery after a killed run, and the restart, have written pages.
	if _, err := b.sql(ctx, "checkpoint"); err != nil {
		return err
	}
	d.bytes, err = dirSize(d.dataDir(), "pg_wal")
	return err
}

func (b *bench) startServer(ctx context.Context, d *database) error {
	settings := map[string]string{
		"archive_mode": "on", "archive_command": shellQuote(d.archiver()) + " %p", "autovacuum": "off",
		"shared_buffers": "256MB", "maintenance_work_mem": "512MB", "synchronous_commit": "off",
		"max_wal_size": "2GB", "checkpoint_timeout": "1d",
	}
	if b.wants("backlog") {
		settings["wal_keep_size"] = "2GB" // the same segments are archived again and again
	}
	var err error
	d.server, err = server.Start(ctx, b.install, server.Options{
		DataDir: d.dataDir(), SocketDir: filepath.Join(b.dir, "s"), Account: b.account, DieWithParent: true, Env: b.environment(),
		Settings: settings,
	})
	if err != nil {
		return err
	}
	return d.server.WaitReady(ctx)
}

func (d *database) stop() error {
	if d == nil || d.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return d.server.Stop(ctx, server.Fast)
}

// archiveWith makes a line of shell the archive_command; $1 is the segment.
func (b *bench) archiveWith(line string) error {
	d := b.db
	next := d.archiver() + ".next"
	if err := b.writeFile(next, "#!/bin/sh\n"+line+"\n", 0o700); err != nil {
		return err
	}
	return os.Rename(next, d.archiver())
}

// freshCluster starts a new cluster in the place of what was there, which
// archives nothing yet, and makes the directory for segments that are to be kept.
func (b *bench) freshCluster(ctx context.Context, d *database) (segments string, err error) {
	if err := os.RemoveAll(d.dir); err != nil {
		return "", err
	}
	segments = filepath.Join(d.dir, "segments")
	for _, dir := range []string{d.dir, segments} {
		if err := b.mkdir(dir); err != nil {
			return "", err
		}
	}
	err = b.install.Initdb(ctx, server.InitdbOptions{DataDir: d.dataDir(), Checksums: true, NoSync: true, Account: b.account})
	if err != nil {
		return "", err
	}
	if err := b.archiveWith("exit 0"); err != nil {
		return "", err
	}
	return segments, b.startServer(ctx, d)
}

// buildDatabase fills a fresh cluster, and then keeps the WAL of a mixed load.
func (b *bench) buildDatabase(ctx context.Context, d *database) (err error) {
	segments, err := b.freshCluster(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	if err := b.pgbench(ctx, "--initialize", "--init-steps=dtGvp", "--scale="+pgbenchScale, "--quiet"); err != nil {
		return err
	}
	script := filepath.Join(d.dir, "load.sql")
	if err := os.WriteFile(script, []byte(loadSQL), 0o644); err != nil {
		return err
	}
	for _, sql := range []string{databaseSQL, "create sequence more_files", "checkpoint", "select pg_switch_wal()"} {
		if _, err := b.sql(ctx, sql); err != nil {
			return err
		}
	}
	if err := b.archiveWith("cp \"$1\" " + shellQuote(segments)); err != nil {
		return err
	}
	for {
		kept, err := os.ReadDir(segments)
		if err != nil {
			return err
		}
		if len(kept) > segmentsKept { // the last may be half a copy
			break
		}
		err = b.pgbench(ctx, "--client=2", "--transactions=2000", "--no-vacuum", "--builtin=tpcb-like", "--file="+script)
		if err != nil {
			return err
		}
	}
	if err := b.archiveWith("exit 0"); err != nil {
		return err
	}
	if _, err := b.sql(ctx, "vacuum analyze"); err != nil {
		return err
	}
	return d.keepWhole(segments)
}

// keepWhole removes the segments beyond those wanted: the newest is perhaps
// still being copied.
func (d *database) keepWhole(segments string) error {
	kept, err := os.ReadDir(segments) // sorted by name, and so by age
	if err != nil {
		return err
	}
	for _, e := range kept[segmentsKept:] {
		if err := os.Remove(filepath.Join(segments, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// sql runs SQL and returns what it printed.
func (b *bench) sql(ctx context.Context, text string) (string, error) {
	cmd := b.client(ctx, "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")
	cmd.Stdin = strings.NewReader(text)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

func (b *bench) pgbench(ctx context.Context, args ...string) error {
	if out, err := b.client(ctx, "pgbench", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// client is a program of PostgreSQL's that connects to the server.
func (b *bench) client(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.install.Path(program), args...)
	cmd.Dir = b.db.dir
	s := b.db.server
	cmd.Env = append(b.environment(), "PGHOST="+s.SocketDir(), "PGPORT="+strconv.Itoa(s.Port()), "PGUSER=postgres", "PGDATABASE=postgres")
	cmd.SysProcAttr = b.asAccount()
	return cmd
}

// asAccount starts a process as the account of the server, in a process group
// of its own; when the harness dies so does the process.
func (b *bench) asAccount() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: b.account.UID, Gid: b.account.GID, Groups: b.account.Groups}
	}
	return attr
}

// environment is what the tools get of the caller's environment: nothing that
// could configure them.
func (b *bench) environment() []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + b.dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
}

// mkdir makes a directory of the account.
func (b *bench) mkdir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(dir, int(b.account.UID), int(b.account.GID))
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// dirSize adds up the files below dir, without the directories named.
func dirSize(dir string, without ...string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a server at work
		}
		if err != nil {
			return err
		}
		if e.IsDir() && slices.Contains(without, e.Name()) {
			return filepath.SkipDir
		}
		if e.Type().IsRegular() {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			total += info.Size()
		}
		return nil
	})
	return total, err
}
