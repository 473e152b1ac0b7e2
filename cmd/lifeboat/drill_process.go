package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/drill"
)

// enterDrill does what a drill has started this program once more for: to hold the
// recovery identity until the restore is written, or to have to do with the
// restored server.
func enterDrill() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[1] {
	case drill.RestoreArgument:
		a := newApp()
		a.restorer = true
		os.Exit(a.run(os.Args[2:]))
	case drill.HelpArgument:
		ctx, stop := withSignals(context.Background())
		err := drill.ServeHelper(ctx, time.Now, os.Stdin, os.Stdout, explained)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, oneLine(err.Error()))
			os.Exit(int(exitFailed))
		}
		os.Exit(int(exitOK))
	}
}

// explained is what people are told of an error of a drill's process.
func explained(err error) (hint string, code int) {
	c, hint := classify(err)
	return hint, int(c)
}

// restorerOf is the command of the process that holds the recovery identity of a
// drill: this program with the same command line.
func (a *app) restorerOf(args []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's own path: %w", err)
	}
	cmd := exec.Command(self, append([]string{drill.RestoreArgument}, args...)...)
	cmd.Env = a.environ
	return cmd, nil
}

// serveRestorer is that process.
func (a *app) serveRestorer(c *cli.Context) error {
	if err := drill.Protect(); err != nil {
		return err
	}
	jobs := 0
	open := func(ctx context.Context) (*repo.Repo, []repo.PublicKey, error) {
		cfg, err := a.config(c, "repository", "identity")
		if err != nil {
			return nil, nil, err
		}
		keys, err := loadKeys(cfg)
		if err != nil {
			return nil, nil, err
		}
		jobs = cfg.Jobs
		r, err := openRepo(ctx, cfg)
		return r, keys.Trusted, err
	}
	return drill.ServeRestorer(c.Context, os.Stdin, os.Stdout, drill.RestorerOptions{
		Open: open, Explain: explained, Jobs: func() int { return jobs }, Now: a.now,
	})
}

// openWithout starts the process that holds the recovery identity, and opens the
// repository here without one: this process signs the evidence, and lives while
// the restored server runs.
func (a *app) openWithout(ctx context.Context, cfg *Config, args []string) (*repo.Repo, *drill.Restorer, error) {
	if err := drill.Protect(); err != nil {
		return nil, nil, err
	}
	cmd, err := a.restorerOf(args)
	if err != nil {
		return nil, nil, err
	}
	restorer, err := drill.StartRestorer(ctx, cmd)
	if err != nil {
		return nil, nil, err
	}
	store, err := openStore(ctx, cfg)
	if err != nil {
		return nil, nil, errors.Join(err, restorer.Close())
	}
	r, err := repo.Open(ctx, store, repo.Keys{Trusted: restorer.Signers()}, hostName())
	if err != nil {
		return nil, nil, errors.Join(err, restorer.Close())
	}
	return r, restorer, nil
}
