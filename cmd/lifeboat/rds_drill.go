package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/rds"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
)

func rdsDrill(a *app) *cli.Command {
	return &cli.Command{
		Name:  "drill",
		Usage: "restore into staging, check the data, report RPO and RTO",
		Description: `
Restores into a private instance or cluster, checks it by SQL, measures when it
was available, when the checks had passed and, with --level deep, when every block
had been read once, deletes it, proves that it is gone, and stores signed evidence
in the repository. Nothing passes by default.

--from latest is the newest snapshot in the region; latest-time the automated
backups as far as they go; a time such as 2026-01-31T02:00:00Z a point in time;
anything else the identifier of a snapshot. --region restores a copy in another
region, into the staging set-up there.

What a crashed drill left is removed by the next one, or by "lifeboat rds expire",
when its time to live is over. Of two drills at once the second exits with 75.`,
		Flags: append(rdsFlags(
			&cli.StringFlag{Name: "from", Usage: "latest, latest-time, a `TIME` or a snapshot", Value: rds.FromLatest},
			&cli.StringFlag{Name: "region", Usage: "restore in `REGION`"},
			&cli.StringFlag{Name: "class", Usage: "instance `CLASS`, instead of the configured one"},
			&cli.StringFlag{Name: "due", Usage: "do nothing while the last such drill that passed is younger than `TIME`, such as 7d: of this source, in that region, from a snapshot or from backups"},
			&cli.StringFlag{Name: "junit", Usage: "write the checks as JUnit XML to `FILE`"},
			&cli.StringFlag{Name: "html", Usage: "write the report as one page to `FILE`"},
			&cli.StringFlag{Name: "prometheus", Usage: "write metrics for node_exporter's textfile collector to `FILE` (*.prom)"},
		), configFlags("repository", "signer", "drill.level", "drill.timeout", "rds.timeout")...),
		Action: func(c *cli.Context) error {
			d, err := a.newRDSDrill(c)
			if err != nil {
				return err
			}
			return d.do(c.Context)
		},
	}
}

// rdsDrillRun is one run of "lifeboat rds drill".
type rdsDrillRun struct {
	*rdsRun
	options rds.DrillOptions
	due     time.Duration
	outputs outputs
}

func (a *app) newRDSDrill(c *cli.Context) (*rdsDrillRun, error) {
	r, err := a.newRDS(c, "repository")
	if err != nil {
		return nil, err
	}
	d := &rdsDrillRun{rdsRun: r, options: rds.DrillOptions{Source: r.source, Sources: r.cfg.RDS.Sources, Region: c.String("region"), From: c.String("from"), Class: c.String("class"), Level: evidence.Level(r.cfg.Drill.Level)}}
	if d.options.Level == evidence.Quick {
		return nil, usage("a drill on RDS has no level quick: there is nothing of ours to read there").hinted("--level standard or deep")
	}
	if f := d.options.From; f == "" {
		return nil, usage("--from is empty").hinted("latest, latest-time, a time, or a snapshot as \"lifeboat rds status\" names it")
	} else if at, _, err := restore.ParseTime(f, time.Local); err == nil {
		d.options.Time = at
		if at.After(a.now()) {
			return nil, usage("--from: %s is still to come", f)
		}
	}
	region, err := r.source.In(d.options.Region)
	if err != nil {
		return nil, err
	}
	if err := region.Staging.Check(r.source.Kind); err != nil {
		return nil, err
	}
	if env := r.source.Login.PasswordEnv; env != "" && a.getenv(env) == "" {
		return nil, &rds.PasswordError{Variable: env}
	}
	if c.IsSet("due") {
		if d.due, err = parseDuration(c.String("due")); err != nil {
			return nil, usage("--due: %w", err)
		}
	}
	d.outputs, err = a.newOutputs(c)
	return d, err
}

// files is what both kinds of drill do with their documents.
func (d *rdsDrillRun) files() *drillRun {
	return &drillRun{app: d.app, cfg: d.cfg, outputs: d.outputs}
}

func (d *rdsDrillRun) do(ctx context.Context) error {
	began := d.now()
	r, key, release, held, err := d.openForEvidence(ctx)
	if err != nil {
		return err
	}
	defer release()
	past, err := d.files().pastDrills(ctx, r, key)
	if err != nil {
		return err
	}
	gone, err := d.lookBack(ctx, d.cfg, r, drillsSeen(past))
	if err != nil {
		return err
	}
	if len(gone) > 0 {
		return goneError(gone) // that nothing is due is not known, nor what else was removed
	}
	if done, err := d.notDue(past); done || err != nil {
		return err
	}
	d.progress = d.newProgress("asking RDS")
	defer d.progress.close()
	o := d.options
	o.Connect, o.Timeout, o.Waiting, o.Program, o.By, o.Key, o.Now, o.Began = d.dialer().Connect, d.cfg.Drill.Timeout, d.waiting(), "lifeboat "+version, performer(), key, d.now, began
	o.Left = d.left(past)
	o.Phase = func(name string) { d.progress.setPhase(evidence.PhaseWords(name)) }
	result, err := rds.Drill(held, d.cloud.RDS, r, o)
	d.progress.close()
	doc := result.Document
	if err != nil {
		return d.tellUnstored(doc, err)
	}
	d.rememberDrill(held, d.cfg, r, doc)
	wrote := d.files().writeOutputs(ctx, r, key, doc)
	return d.tell(ctx, doc, result.Err, wrote, "drill")
}

// openForEvidence opens the repository, reads the key that signs, and takes the
// lease that every drill holds: the documents are a chain.
func (r *rdsRun) openForEvidence(ctx context.Context) (*repo.Repo, repo.SigningKey, func(), context.Context, error) {
	repository, err := openRepo(ctx, r.cfg)
	if err != nil {
		return nil, repo.SigningKey{}, nil, nil, err
	}
	key, err := (&drillRun{app: r.app, cfg: r.cfg}).signingKey(repository)
	if err != nil {
		return nil, repo.SigningKey{}, nil, nil, err
	}
	held, release, err := repository.HoldLease(ctx, repo.DrillLease,
		repo.Claim{Holder: hostName() + " (rds " + r.source.Name + ")", Process: processName(), Gone: processGone}, r.now, nil)
	return repository, key, release, held, err
}

// notDue says whether such a drill of this source has passed lately enough: in the
// same region, and from what is restored from now. What a snapshot at home proves,
// its copy elsewhere does not.
func (d *rdsDrillRun) notDue(h *report.History) (bool, error) {
	if d.due == 0 {
		return false, nil
	}
	region := cmp.Or(d.options.Region, d.source.Region)
	for i := len(h.Drills) - 1; i >= 0; i-- {
		x := &h.Drills[i].Drill
		enough := x.Level == evidence.Deep || x.Level == d.options.Level
		if x.RDS == nil || x.RDS.Source != d.source.Name || x.RDS.Region != region || x.RDS.From != d.options.Origin() || x.Verdict != evidence.Passed || !enough {
			continue
		}
		age := d.now().Sub(x.Ended)
		if age >= d.due {
			return false, nil
		}
		return true, d.outcome(map[string]any{"due": false, "last_passed": x.ID}, func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "Not due: drill %s of %s passed %s ago\n", x.ID, d.source.Name, span(age))
		})
	}
	return false, nil
}

// left are the drills in this region that are not proven to have left nothing.
func (d *rdsDrillRun) left(h *report.History) []rds.Left {
	var out []rds.Left
	for _, id := range h.StagingLeft() {
		if x := h.Find(id).Drill.RDS; x != nil && x.Region == cmp.Or(d.options.Region, d.source.Region) {
			out = append(out, rds.Left{ID: id, Attempt: x.Attempt})
		}
	}
	return out
}

// tellUnstored prints what was measured although it is no evidence: it may name
// what is left on RDS.
func (r *rdsRun) tellUnstored(doc *evidence.Document, err error) error {
	doc.Drill.Notes = append(doc.Drill.Notes, "this report could not be stored: it is not signed, and no later report knows of it")
	if printed := r.result(doc.Drill, func(w io.Writer) { _ = report.Text(w, &doc.Drill, r.painter()) }); printed != nil {
		return printed
	}
	return err
}

// tell prints the report and turns the verdict into an exit code.
func (r *rdsRun) tell(ctx context.Context, doc *evidence.Document, cause, wrote error, what string) error {
	if err := r.result(doc.Drill, func(w io.Writer) { _ = report.Text(w, &doc.Drill, r.painter()) }); err != nil {
		return err
	}
	if err := interruption(ctx); err != nil && doc.Drill.Verdict != evidence.Passed {
		return err
	}
	code, text := exitUnknown, "the "+what+" proved nothing either way"
	switch doc.Drill.Verdict {
	case evidence.Passed:
		return wrote
	case evidence.Failed:
		code, text = exitMissed, "the "+what+" failed"
	}
	err := verdictError(code, text, &doc.Drill, cause)
	if cause != nil {
		if _, hint := classify(cause); hint != "" {
			return err
		}
	}
	if own, ok := err.(*commandError); ok {
		return own.hinted("the report above names every reason; \"lifeboat rds status\" shows what is there now")
	}
	return err
}
