package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/rds"
)

// rdsExpireReport is the JSON document of expire.
type rdsExpireReport struct {
	Source  string          `json:"source"`
	DryRun  bool            `json:"dry_run"`
	Expired []rdsExpiredOne `json:"expired"`
}

// rdsExpiredOne is a snapshot, or what a drill left.
type rdsExpiredOne struct {
	Region  string    `json:"region"`
	ID      string    `json:"id"`
	Taken   time.Time `json:"taken"`
	Why     string    `json:"why"`
	Deleted bool      `json:"deleted"`
}

func rdsExpire(a *app) *cli.Command {
	return &cli.Command{
		Name:  "expire",
		Usage: "delete snapshots that retention does not keep, and what crashed drills left",
		Description: `
Deletes, in every region of the source, snapshots and copies that Lifeboat took and
that neither keep: nor keep_for: keeps. The newest good one of a region is always
kept, and so is one that a copy is still being made of. Nothing is deleted that
does not carry Lifeboat's tags and name and belong to this source. Copies that
drills left are removed when their time to live is over.`,
		Flags: append(rdsFlags(&cli.BoolFlag{Name: "dry-run", Usage: "print what would be deleted, and delete nothing"}), configFlags()...),
		Action: func(c *cli.Context) error {
			r, err := a.newRDS(c)
			if err != nil {
				return err
			}
			dry := c.Bool("dry-run")
			gone, failed := rds.Expire(c.Context, r.cloud.RDS, rds.ExpireOptions{Source: r.source, Sources: r.cfg.RDS.Sources, DryRun: dry, Waiting: r.waiting()})
			report := rdsExpireReport{Source: r.source.Name, DryRun: dry, Expired: []rdsExpiredOne{}}
			for _, e := range gone {
				report.Expired = append(report.Expired, rdsExpiredOne{e.Region, e.ID, e.Taken.UTC(), e.Why, e.Gone})
			}
			if failed != nil && len(gone) == 0 {
				return failed
			}
			if err := a.outcome(report, func(w io.Writer) { report.write(w) }); err != nil {
				return err
			}
			return failed
		},
	}
}

func (r rdsExpireReport) write(w io.Writer) {
	if len(r.Expired) == 0 {
		_, _ = fmt.Fprintf(w, "Nothing of %s is to be deleted\n", r.Source)
	}
	for _, e := range r.Expired {
		word := "Deleted"
		switch {
		case r.DryRun:
			word = "Would delete"
		case !e.Deleted:
			word = "NOT deleted"
		}
		_, _ = fmt.Fprintf(w, "%s %s in %s: %s\n", word, e.ID, e.Region, e.Why)
	}
}
