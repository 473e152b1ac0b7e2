package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

func demoCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "lose a scratch database and get it back, to see how it works",
		Description: `
Starts a PostgreSQL server of its own in a scratch directory, sets Lifeboat up
with a repository in a directory, takes a backup while orders are written, runs a
drill, kills the server with SIGKILL, deletes its data directory, restores, and
counts: each order whose commit was acknowledged was noted outside of the
database. Prints the RPO and RTO that it achieved and those that the drill had
said, and fails when a commit that was archived is missing. Nothing outside the
directory is touched. Needs PostgreSQL's server programs, no cloud, and not to be
root (root becomes postgres or nobody).`,
		Flags: scratchFlags(),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			return a.inScratch(c, a.demo)
		},
	}
}

func scratchFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "dir", Usage: "work in `DIR`, which must not exist or be empty, and keep it; else in a temporary directory that is removed"},
		&cli.BoolFlag{Name: "temporary", Hidden: true, Usage: "who named the directory will remove it"},
	}, configFlags("pg_bindir")...)
}

// inScratch does work in a scratch directory as an account that can run servers.
func (a *app) inScratch(c *cli.Context, work func(ctx context.Context, dir, bindir string, kept bool) error) error {
	bindir, err := a.abs(c.String("pg-bindir"))
	if err != nil {
		return err
	}
	dir, remove, err := a.demoDir(c.String("dir"))
	if err != nil {
		return err
	}
	defer remove()
	kept := c.String("dir") != "" && !c.Bool("temporary")
	if os.Geteuid() == 0 {
		return a.demoUnprivileged(c.Context, dir, kept)
	}
	return work(c.Context, dir, bindir, kept)
}

// demoDir makes the scratch directory; remove takes it away again if it is ours.
func (a *app) demoDir(named string) (dir string, remove func(), err error) {
	if named == "" {
		dir, err = os.MkdirTemp("", "lifeboat-demo-")
		return dir, func() {
			if err := os.RemoveAll(dir); err != nil {
				a.warn("cannot remove %s: %v", dir, err)
			}
		}, err
	}
	if dir, err = a.abs(named); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("make the directory of the demo: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 && !slices.Equal(names(entries), []string{"lifeboat"}) {
		return "", nil, usage("%s is not empty", dir).hinted("name a directory that does not exist")
	}
	return dir, func() {}, err
}

func names(entries []os.DirEntry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// demoUnprivileged runs the demo as another account, because PostgreSQL does
// not run as root. The program is copied to where that account can run it.
func (a *app) demoUnprivileged(ctx context.Context, dir string, kept bool) error {
	account, err := server.LookupAccount("postgres")
	if err != nil {
		if account, err = server.LookupAccount("nobody"); err != nil {
			return failed(exitFailed, "PostgreSQL does not run as root, and there is neither an account postgres nor nobody").
				hinted("run the demo as another user")
		}
	}
	exe := filepath.Join(dir, "lifeboat")
	if err := copyExecutable(exe); err != nil {
		return err
	}
	for _, p := range []string{dir, exe} {
		if err := os.Chown(p, int(account.UID), int(account.GID)); err != nil {
			return fmt.Errorf("give %s to %s: %w", p, account, err)
		}
	}
	a.note("root runs no PostgreSQL server: going on as %s", account)
	cmd := exec.CommandContext(ctx, exe, slices.Concat(a.args, []string{"--dir", dir, fmt.Sprintf("--temporary=%t", !kept)})...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	cmd.Dir = dir
	cmd.Env = a.demoEnv(dir)
	cmd.Stdout, cmd.Stderr = a.stdout, a.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: account.UID, Gid: account.GID, Groups: account.Groups}}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &commandError{code: exitCode(exit.ExitCode()), err: errors.New("it failed, see above")}
	}
	return err
}

// demoEnv is the environment without what would lead Lifeboat or libpq astray.
func (a *app) demoEnv(home string) []string {
	env := slices.DeleteFunc(slices.Clone(a.environ), func(e string) bool {
		return strings.HasPrefix(e, "LIFEBOAT_") || strings.HasPrefix(e, "PG") || strings.HasPrefix(e, "HOME=")
	})
	return append(env, "HOME="+home)
}

func copyExecutable(to string) error {
	from, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own path: %w", err)
	}
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy this program: %w", err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return fmt.Errorf("copy this program: %w", err)
	}
	_, err = io.Copy(dst, src)
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("copy this program: %w", err)
	}
	return nil
}
