package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// heartbeatReport is the JSON document of a heartbeat.
type heartbeatReport struct {
	LSN     postgres.LSN `json:"lsn"`
	Written bool         `json:"written"` // false on a standby
}

func heartbeatCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "heartbeat",
		Usage: "write a commit that touches no table, so that an idle archive shows its age",
		Description: `
Writes a transactional message to the WAL (pg_logical_emit_message). It is a
real commit, so the newest commit in the archive, and after a restore, is never
much older than the interval between heartbeats. Run it from a timer; "lifeboat
wal stream" writes one every 30 seconds by itself. On a standby it does nothing.`,
		Flags: configFlags("conn"),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c)
			if err != nil {
				return err
			}
			lsn, written, err := wal.Heartbeat(c.Context, cfg.Conn, a.now())
			if err != nil {
				return err
			}
			return a.outcome(heartbeatReport{lsn, written}, func(w io.Writer) {
				if !written {
					_, _ = fmt.Fprintln(w, "The server is a standby: no heartbeat was written")
					return
				}
				_, _ = fmt.Fprintf(w, "Heartbeat at %s\n", lsn)
			})
		},
	}
}
