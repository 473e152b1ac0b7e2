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
			if cfg.several() {
				return a.listSeveral(c.Context, cfg)
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

// listSeveral lists the backups of each repository. One that does not answer is
// told, and hides nothing of the others.
func (a *app) listSeveral(ctx context.Context, cfg *Config) error {
	infos := make([][]repo.Info, len(cfg.each()))
	errs := make([]error, len(cfg.each()))
	var failures []placeFailure
	reports := []backupReport{}
	for i, one := range cfg.each() {
		r, err := openToRead(ctx, one)
		if err == nil {
			infos[i], err = listBackups(ctx, r)
		}
		if errs[i] = err; err != nil {
			failures = append(failures, placeFailure{one.Name, err})
			reports = append(reports, backupReport{Repository: one.Name, Error: oneLine(err.Error())})
		}
		for _, info := range infos[i] {
			report := newBackupReport(info)
			report.Repository = one.Name
			reports = append(reports, report)
		}
	}
	err := a.result(reports, func(w io.Writer) {
		for i, one := range cfg.each() {
			if i > 0 {
				_, _ = fmt.Fprintln(w)
			}
			_, _ = fmt.Fprintf(w, "Repository %s, %s\n", one.Name, one.Repository)
			if errs[i] != nil {
				_, _ = fmt.Fprintf(w, "unknown: %s\n", oneLine(errs[i].Error()))
				continue
			}
			writeBackups(w, infos[i])
		}
	})
	if err != nil {
		return err
	}
	return failedPlaces("list:", len(errs), failures)
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
