package main

import (
	"context"
	"fmt"
	"io"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// backUpSeveral takes a backup for each repository, one after another: each has
// a label and packs of its own, so that none depends on another. One that fails
// does not stop the others.
func (a *app) backUpSeveral(ctx context.Context, cfg *Config, full, scan bool) error {
	var done []*repo.Info
	var failures []placeFailure
	reports := []backupReport{}
	var bad error
	for _, one := range cfg.each() {
		info, err := a.takeBackup(ctx, one, full, scan)
		if ctx.Err() != nil && err != nil {
			return err
		}
		if err == nil {
			report := newBackupReport(*info)
			report.Repository = one.Name
			reports = append(reports, report)
			if bad == nil {
				bad = badPages(*info)
			}
		} else {
			a.warn("repository %s: %v", one.Name, err)
			failures = append(failures, placeFailure{one.Name, err})
			reports = append(reports, backupReport{Repository: one.Name, Error: oneLine(err.Error())})
		}
		done = append(done, info)
	}
	err := a.outcome(reports, func(w io.Writer) {
		for i, info := range done {
			if info != nil {
				_, _ = fmt.Fprintf(w, "%s: ", cfg.each()[i].Name)
				writeBackup(w, *info)
			}
		}
	})
	if err != nil {
		return err
	}
	if err := failedPlaces("backup:", len(reports), failures); err != nil {
		return err
	}
	return bad
}
