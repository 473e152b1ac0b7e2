package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
)

func backupsCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "backups",
		Usage: "list the backups that exist",
		Description: `
Lists every committed backup, the oldest first. Needs the cluster key or an
identity, because what a backup holds is sealed.`,
		Flags: configFlags("repository", "identity"),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			r, err := openRepo(c.Context, cfg)
			if err != nil {
				return err
			}
			infos, err := listBackups(c.Context, r)
			if err != nil {
				return err
			}
			reports := []backupReport{}
			for _, i := range infos {
				reports = append(reports, newBackupReport(i))
			}
			return a.result(reports, func(w io.Writer) { writeBackups(w, infos) })
		},
	}
}

func listBackups(ctx context.Context, r *repo.Repo) ([]repo.Info, error) {
	labels, err := r.Backups(ctx)
	if err != nil {
		return nil, err
	}
	var out []repo.Info
	for _, l := range labels {
		i, err := r.Info(ctx, l)
		if err != nil {
			return nil, fmt.Errorf("read backup %s: %w", l, err)
		}
		out = append(out, i)
	}
	return out, nil
}

func writeBackups(w io.Writer, infos []repo.Info) {
	if len(infos) == 0 {
		_, _ = fmt.Fprintln(w, "no backups yet; \"lifeboat backup\" takes one")
		return
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tab, "LABEL\tFINISHED (UTC)\tTOOK\tSIZE\tSTORED\tTIMELINE\tWAL\tPAGES")
	for _, i := range infos {
		pages := "ok"
		switch {
		case i.BadCount > 0:
			pages = fmt.Sprintf("%d bad", i.BadCount)
		case !i.Checksums:
			pages = "no checksums"
		}
		_, _ = fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%d\t%s to %s\t%s\n", i.Label, i.StopTime.UTC().Format("2006-01-02 15:04:05"),
			span(i.StopTime.Sub(i.StartTime)), sizeText(i.RawBytes), sizeText(i.StoredBytes), i.Timeline, i.StartLSN, i.StopLSN, pages)
	}
	_ = tab.Flush()
}
