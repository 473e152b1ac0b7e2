package main

import (
	"io"

	"github.com/urfave/cli/v2"
)

func walCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:        "wal",
		Usage:       "push or stream WAL to the archive, fetch it back, see what is there",
		Subcommands: []*cli.Command{a.walPush(), a.walFetch(), a.walPrefetch(), a.walStream(), a.walStatus()},
	}
}

// walDone prints what was done. PostgreSQL copies what its commands print into
// its log, so a person at a terminal alone gets the line of text.
func (a *app) walDone(report any, text func(io.Writer)) error {
	if !a.terminal && !a.json {
		return nil
	}
	return a.outcome(report, text)
}
