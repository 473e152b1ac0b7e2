package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func expireCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "expire",
		Usage: "remove the backups, packs and WAL that the policy does not keep",
		Description: `
Prints what goes, what stays and why, and what can be restored before and after.
A backup stays when any rule of the policy keeps it (expire.keep_last and the
others), while it is pinned, and when it is the newest that is found restorable.
WAL that a kept backup needs stays, and so does all that a running backup uses.

Where there are several repositories each is expired by the same policy.

Needs the right to delete, and the cluster key or an identity to read what
backups are: a host that is not the database's can run it. Stopped at any moment
it leaves every kept backup restorable; run it again.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print the plan and remove nothing"},
		}, configFlags("expire.keep_last", "expire.keep_daily", "expire.keep_weekly", "expire.keep_monthly", "expire.keep_yearly", "expire.pitr_window",
			"repository", "identity", "pgdata")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			return a.expire(c.Context, cfg, c.Bool("dry-run"))
		},
	}
}

func (a *app) expire(ctx context.Context, cfg *Config, dry bool) error {
	if err := cfg.Expire.Check(); errors.Is(err, expire.ErrNoPolicy) {
		return usage("%w", err).hinted("set expire: keep_last, keep_daily, keep_weekly, keep_monthly, keep_yearly or pitr_window in the configuration, or --keep-last N and the like")
	} else if err != nil {
		return usage("expire: %w", err)
	}
	if cfg.several() {
		return a.expireSeveral(ctx, cfg, dry)
	}
	report, err := a.expireOne(ctx, cfg, dry)
	if report == nil {
		return err
	}
	if printed := a.outcome(report, report.write); printed != nil {
		return errors.Join(err, printed)
	}
	if err == nil {
		err = report.verdict()
	}
	return err
}

// expireOne expires one repository. There can be a report beside an error: the
// plan is of use also when it could not be carried out to its end.
func (a *app) expireOne(ctx context.Context, cfg *Config, dry bool) (*expireReport, error) {
	r, err := openOne(ctx, cfg)
	if err != nil {
		return nil, err
	}
	archive := a.newArchiveLook(cfg, r, 0)
	defer archive.save(ctx)
	p := a.newProgress("reading the backups")
	defer p.close()
	res, err := expire.Run(ctx, r, expire.Options{
		Policy: cfg.Expire, DryRun: dry, Claim: claim("expire"), Now: a.now,
		Look: expire.Look{Headers: archive.check, Learn: func(ctx context.Context, ix *wal.Index) error { return learnHistories(ctx, r, cfg, ix) }},
		Warn: func(s string) { a.warn("%s", s) },
		Observe: func(e expire.Event) {
			if e.Removed != "" {
				p.setPhase("removing")
			}
		},
	})
	if res == nil {
		return nil, err
	}
	return newExpireReport(res, dry, err), err
}

// expireSeveral expires each repository by the same policy: each has backups of
// its own.
func (a *app) expireSeveral(ctx context.Context, cfg *Config, dry bool) error {
	all, err := askEach(ctx, cfg, func(one *Config) (*expireReport, error) { return a.expireOne(ctx, one, dry) })
	if err != nil {
		return err
	}
	var reports []*expireReport
	for _, one := range all {
		report := one.report
		if !one.told() {
			report = &expireReport{DryRun: dry, Policy: cfg.Expire.String(), Backups: []expireBackup{}, Windows: []expireWindows{}}
		}
		report.Name = one.Name
		if one.err != nil {
			report.Error = oneLine(one.err.Error())
		}
		reports = append(reports, report)
	}
	if err := a.outcome(reports, func(w io.Writer) { writeEach(w, all, (*expireReport).write) }); err != nil {
		return err
	}
	return failedAnswers("expire:", all, (*expireReport).verdict)
}

// learnHistories reads the timeline history files of the data directory, where
// there is no identity to read the archived ones.
func learnHistories(ctx context.Context, r *repo.Repo, cfg *Config, ix *wal.Index) error {
	if cfg.PGData == "" || r.CanOpenData() {
		return nil
	}
	for _, tl := range ix.Timelines() {
		content, err := os.ReadFile(filepath.Join(cfg.PGData, "pg_wal", tl.HistoryName()))
		if err != nil {
			continue // it may be elsewhere, or not ours to read
		}
		if err := ix.LearnHistory(ctx, r, tl, content); err != nil {
			return fmt.Errorf("read the history of timeline %s: %w", tl, err)
		}
	}
	return nil
}
