package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

const (
	// queueWait is how long a fetch waits for a prefetch that has begun with
	// the very segment that PostgreSQL wants, before it does so itself.
	queueWait = 15 * time.Second

	// prefetchTime bounds the life of a prefetch. It is at most 256 MiB.
	prefetchTime = 10 * time.Minute

	// prefetchSpare is what a prefetch leaves free on the file system of the
	// data directory.
	prefetchSpare = 1 << 30
)

// fetchQueued fetches by way of the queue: what is in it is handed over, and
// what comes next is fetched ahead. No error of the queue is an answer.
func (f *fetch) fetchQueued(ctx context.Context, name postgres.WALName, path string) (postgres.SystemID, error) {
	f.openQueue()
	if f.queue == nil {
		return f.patiently(ctx, name, path)
	}
	if name.Kind != postgres.WALSegment {
		// Recovery begins, ends, or looks for another way to go.
		f.queueNote(f.queue.Clear())
		return f.patiently(ctx, name, path)
	}
	wait, cancel := context.WithTimeout(ctx, queueWait)
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
		f.queueNote(f.startPrefetch())
	}
	return f.control.SystemID, nil
}

// openQueue finds the queue of the data directory, if there is to be one.
func (f *fetch) openQueue() {
	if f.dataDir == "" || !f.prefetch {
		return
	}
	if id, err := postgres.ParseSystemID(f.system); f.system != "" && (err != nil || id != f.control.SystemID) {
		return
	}
	var err error
	f.queue, err = wal.NewQueue(f.dataDir, f.control, f.cfg.fetchSource())
	f.queueNote(err)
}

// fetchSource tells one source of WAL from another: what was fetched from one,
// with its keys, is not what another one would have answered.
func (c *Config) fetchSource() string {
	s := fmt.Sprint(c.Repository, "\n", c.S3.Endpoint, "\n", c.S3.Region, "\n", c.ClusterKey, "\n", c.Identity, "\n", c.Signers)
	for _, path := range []string{c.ClusterKey, c.Identity} {
		if info, err := os.Stat(path); err == nil {
			s += "\n" + strconv.FormatInt(info.ModTime().UnixNano(), 10)
		}
	}
	return s
}

// queueNote tells in a line that fetching ahead does not work.
func (f *fetch) queueNote(err error) {
	if err != nil {
		f.note("lifeboat: nothing is fetched ahead: %v", err)
	}
}

// startPrefetch starts the process that fetches ahead, which nobody waits for.
// It is this program with our configuration, in a session of its own, so that
// no signal to the server's processes reaches it, and with none of the files
// that PostgreSQL has left open for us: it must hold no socket, no pipe to the
// server's log.
func (f *fetch) startPrefetch() error {
	args, err := fetchCommand(f.cfg)
	if err != nil {
		return err
	}
	args[slices.Index(args, "fetch")] = "prefetch"
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = f.dataDir
	cmd.Env = f.environ
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	closeOnExec()
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// closeOnExec keeps all descriptors from the programs that we start.
func closeOnExec() {
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if fd, err := strconv.Atoi(filepath.Base(e.Name())); err == nil && fd > 2 {
				syscall.CloseOnExec(fd)
			}
		}
		return
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
Run in a data directory that is being recovered, it fetches into
lifeboat.spool/fetch what follows the segment that was asked for last, and ends.`,
		Flags: configFlags("repository", "identity", "signer"),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository", "identity")
			if err != nil {
				return err
			}
			return a.prefetch(c.Context, cfg)
		},
	}
}

func (a *app) prefetch(ctx context.Context, cfg *Config) error {
	ctx, cancel := context.WithTimeout(ctx, prefetchTime)
	defer cancel()
	f := fetch{app: a, cfg: cfg, prefetch: true}
	if err := f.findDataDir(ctx); err != nil {
		return err
	}
	f.openQueue()
	if f.queue == nil {
		return usage("this is no data directory: it has no %s", postgres.ControlPath)
	}
	open := func(ctx context.Context) (*repo.Repo, error) { return openRepo(ctx, cfg) }
	n, err := f.queue.Fill(ctx, open, wal.Filling{Decoders: workers(cfg.Jobs), Spare: prefetchSpare})
	if err == nil {
		a.note("lifeboat: %d segments were fetched ahead", n)
	}
	return err
}
