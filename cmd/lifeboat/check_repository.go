package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/storetest"
)

func checkRepositoryCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "check-repository",
		Usage: "hold a bucket or directory to what Lifeboat rests on",
		Description: `
Tries on the real store what backups rest on: that an object is never replaced,
that one of two writers at once loses, that a listing is complete and in order,
that a read that breaks off is no shorter object. It works under the prefix
check/ and a random name, with some 50 small objects and one of 20 MiB, and
removes them. A host without the right to delete is told what stays; that is no
failure, since backups and archiving need that right on leases/ only.

Where a repository is there already, its marker is checked too, and whether the
configured keys open the newest that it holds. Nothing of it is changed.`,
		Flags: configFlags("repository", "identity", "cluster_key"),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			if cfg.several() {
				return a.checkSeveral(c.Context, cfg)
			}
			report, err := a.checkRepository(c.Context, cfg)
			if err != nil {
				return err
			}
			if err := a.result(report, report.write); err != nil {
				return err
			}
			return report.failure()
		},
	}
}

// outcomeOf is how a check ended.
type outcomeOf string

const (
	checkOK       outcomeOf = "ok"
	checkFailed   outcomeOf = "failed"
	checkNoDelete outcomeOf = "no right to delete" // all went well up to a deletion
	checkUnknown  outcomeOf = "not checked"
)

// checkReport is the JSON document of check-repository.
type checkReport struct {
	Name       string        `json:"name,omitempty"` // of one of several repositories
	Repository string        `json:"repository"`
	Outcome    outcomeOf     `json:"outcome"`
	Checks     []checkResult `json:"checks"`
	Scratch    string        `json:"scratch"`         // prefix
	Left       int           `json:"left"`            // objects below it; -1: could not be listed
	LockDays   int           `json:"lock_days"`       // for which what was deleted stays as an old version
	Error      string        `json:"error,omitempty"` // why nothing of this one of several is known
	first      error         // of the first check that failed
}

type checkResult struct {
	Check   string    `json:"check"`
	Outcome outcomeOf `json:"outcome"`
	Meaning string    `json:"meaning"`
	Detail  string    `json:"detail,omitempty"`
	Seconds float64   `json:"seconds"`
}

// checkSeveral checks each repository; one that cannot be reached is told at the end.
func (a *app) checkSeveral(ctx context.Context, cfg *Config) error {
	all, err := askEach(ctx, cfg, func(one *Config) (*checkReport, error) { return a.checkRepository(ctx, one) })
	if err != nil {
		return err
	}
	var reports []*checkReport
	for _, one := range all {
		report := one.report
		if !one.told() {
			report = &checkReport{Repository: one.Repository, Outcome: checkUnknown, Checks: []checkResult{}, Error: oneLine(one.err.Error())}
		}
		report.Name = one.Name
		reports = append(reports, report)
	}
	if err := a.result(reports, func(w io.Writer) { writeEach(w, all, (*checkReport).write) }); err != nil {
		return err
	}
	return failedAnswers("check:", all, (*checkReport).failure)
}

// checkRepository runs all checks. An error means that the store could not be
// reached at all, so that nothing is known about it.
func (a *app) checkRepository(ctx context.Context, cfg *Config) (*checkReport, error) {
	keys, err := loadKeys(cfg)
	if err != nil {
		return nil, err
	}
	first, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	second, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	// One refusal now says more than the same one from every check.
	marker, markerErr := repo.ReadMarker(ctx, first)
	if unreachable(markerErr) {
		return nil, markerErr
	}
	p := a.newProgress("checking the store")
	defer p.close()
	report := &checkReport{Repository: cfg.Repository, Outcome: checkOK, Scratch: scratchPrefix(), LockDays: cfg.S3.ObjectLockDays}
	report.checkStore(ctx, first, second)
	p.setPhase("checking the repository")
	k := keyCheck{store: first, keys: keys, marker: marker, markerErr: markerErr, report: report}
	k.run(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return report, nil
}

// unreachable says whether an error is about the store and not about what is
// in it.
func unreachable(err error) bool {
	for _, kind := range []error{storage.ErrNoStore, storage.ErrCredentials, storage.ErrUnavailable, storage.ErrRedirected, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

func scratchPrefix() string {
	var b [8]byte
	rand.Read(b[:])
	return "check/" + hex.EncodeToString(b[:])
}

// checkMeanings says what each check of storetest is for.
var checkMeanings = map[string]string{
	"create, stat, open, delete":        "what is stored can be read back, and a deleted name is free again",
	"a taken key keeps its object":      "no backup and no WAL is ever overwritten",
	"of 16 concurrent creates one wins": "two hosts at once cannot both believe that they wrote",
	"empty object":                      "an object of no bytes is an object",
	"object of 20 MiB":                  "objects of the size of a pack come back as they were",
	"a body is read from its start":     "a retry sends the whole object",
	"a body that fails leaves nothing":  "an upload that breaks off is no object",
	"ranges":                            "parts of a pack can be read alone",
	"missing objects":                   "\"not there\" is told from every other error, so that recovery ends only where the archive ends",
	"listing: order and prefixes":       "a listing is complete and in order, so that gaps are seen",
	"listing: stop early":               "a listing can be left early",
	"invalid keys are refused":          "no key leads out of the repository",
	"a cancelled context":               "work that is interrupted stops, and claims nothing",
	"visible to another handle":         "other hosts see at once what was written or deleted",
	"used by many at once":              "backup, archiving and restore can run at the same time",
	"clean up":                          "what these checks made is gone again",
}

// checkStore holds the store to its contract.
func (r *checkReport) checkStore(ctx context.Context, first, second storage.Store) {
	w := &deletes{Store: first}
	for _, res := range storetest.CheckTwo(ctx, w, &deletes{Store: second}, r.Scratch) {
		outcome := checkOK
		switch {
		case errors.Is(res.Err, errDeleteDenied):
			outcome = checkNoDelete
		case res.Err != nil:
			outcome = checkFailed
		}
		r.add(res.Name, checkMeanings[res.Name], outcome, res.Err, res.Took)
	}
	r.Left = leftovers(ctx, first, r.Scratch+"/")
}

// leftovers counts objects; -1 when they cannot be listed.
func leftovers(ctx context.Context, store storage.Store, prefix string) int {
	n := 0
	for _, err := range store.List(ctx, prefix) {
		if err != nil {
			return -1
		}
		n++
	}
	return n
}

// errDeleteDenied is in the error of a deletion that the store refused.
var errDeleteDenied = errors.New("this host has no right to delete")

// deletes is a store whose refused deletions can be told from other refusals.
type deletes struct{ storage.Store }

// Delete implements storage.Store.
func (d *deletes) Delete(ctx context.Context, key string) error {
	err := d.Store.Delete(ctx, key)
	if errors.Is(err, fs.ErrPermission) {
		return errors.Join(errDeleteDenied, err)
	}
	return err
}

func (r *checkReport) add(name, meaning string, outcome outcomeOf, err error, took time.Duration) {
	res := checkResult{Check: name, Outcome: outcome, Meaning: meaning, Seconds: took.Seconds()}
	if err != nil {
		res.Detail = oneLine(err.Error())
	}
	if outcome == checkFailed {
		r.Outcome = checkFailed
		if r.first == nil {
			r.first = fmt.Errorf("%s: %w", name, err)
		}
	}
	r.Checks = append(r.Checks, res)
}

func (r *checkReport) count(o outcomeOf) int {
	n := 0
	for _, c := range r.Checks {
		if c.Outcome == o {
			n++
		}
	}
	return n
}

// write prints a line for each check, and under those that are not ok what
// was seen.
func (r *checkReport) write(w io.Writer) {
	for _, c := range r.Checks {
		_, _ = fmt.Fprintf(w, "%-18s  %6d ms  %s: %s\n", c.Outcome, int64(c.Seconds*1000), c.Check, c.Meaning)
		if c.Detail != "" {
			_, _ = fmt.Fprintf(w, "%-18s  %9s  %s\n", "", "", c.Detail)
		}
	}
	if r.count(checkNoDelete) > 0 {
		_, _ = fmt.Fprintln(w, "\nThis host has no right to delete, which is a good thing for a database host: backup and\n"+
			"wal push need that right on leases/ only. What comes after a deletion was not checked.")
	}
	switch {
	case r.Left > 0:
		_, _ = fmt.Fprintf(w, "\n%d objects of these checks, about 20 MiB, stay under %s/: whoever may delete there should\nremove them; nothing reads them.\n", r.Left, r.Scratch)
	case r.Left < 0:
		_, _ = fmt.Fprintf(w, "\nWhat stays under %s/ could not be listed; it can be removed, nothing reads it.\n", r.Scratch)
	case r.LockDays > 0:
		_, _ = fmt.Fprintf(w, "\nThe objects of these checks are deleted; as old versions, about 20 MiB, they stay until their\nlock ends in %d days.\n", r.LockDays)
	}
}

// failure is the error to exit with, nil when no check failed.
func (r *checkReport) failure() error {
	if r.first == nil {
		return nil
	}
	code, hint := classify(r.first)
	if hint == "" {
		code, hint = exitFailed, "Lifeboat must not be used on a store that breaks one of these promises: docs/storage.md says what a server must be able to do"
	}
	if code == exitUsage {
		code = exitFailed
	}
	return failed(code, "%d of %d checks failed, the first: %w", r.count(checkFailed), len(r.Checks), r.first).hinted("%s", hint)
}
