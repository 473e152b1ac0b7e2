package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/verify/check"
	"github.com/lifeboat-dr/lifeboat/verify/seen"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func verifyCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "check the repository: signatures, packs, WAL, and with --read every byte",
		Description: `
Opens every manifest, compares its packs with what the store lists, reads the
signed header of all WAL that this host has not read yet, and follows the WAL
from each backup. Where the bucket or s3.object_lock_mode locks new objects, asks
for the lock of each that this host does not know yet. With --read the objects
are read and compared with their hashes; with an identity every frame is opened
too. Says of each finding what it spoils and what to do. A drill proves more:
that a restore works.

Where there are several repositories each is checked.

What this host has seen before and is not there any more, the newest backup, WAL,
evidence or statement of keys, is a finding, "gone-back", and ends in exit code 3.
Any other finding ends in exit code 1. What could not be checked, a store that fails
included, ends in 4, and is never called ok. Changes nothing but its own record
of what was read, which needs the cluster key; without it, it checks all the same.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "read", Usage: "read the objects, not only what is listed"},
			&cli.StringFlag{Name: "sample", Usage: "with --read: read `SHARE` of the objects, such as 5%, chosen at random", Value: "100%"},
			&cli.StringFlag{Name: "seed", Usage: "choose the sample by `N`, to read the same objects again; else by chance, and it is printed"},
			&cli.StringFlag{Name: "since", Usage: "with --read: leave out what was read since `TIME`, such as 7d ago or 2026-01-31T02:00:00Z; goes on with a check that was stopped"},
			&cli.BoolFlag{Name: "accept-rollback", Usage: "take the repository as it is now for the newest that this host has seen: after you have removed the newest yourself, or put an older copy in its place"},
		}, configFlags("repository", "identity", "cluster_key", "jobs", "expire.pitr_window")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			o, err := a.checkOptions(c, cfg)
			if err != nil {
				return err
			}
			return a.verify(c.Context, cfg, o, c.Bool("accept-rollback"))
		},
	}
}

func (a *app) checkOptions(c *cli.Context, cfg *Config) (check.Options, error) {
	o := check.Options{Read: c.Bool("read"), Jobs: workers(cfg.Jobs), Policy: cfg.Expire, Seed: rand.Uint64N(1 << 32), Now: a.now, Host: hostName(),
		Warn: func(s string) { a.warn("%s", s) }}
	for _, name := range []string{"sample", "seed", "since"} {
		if c.IsSet(name) && !o.Read {
			return o, usage("--%s chooses what to read, and nothing is read without --read", name).hinted("add --read")
		}
	}
	var err error
	if o.Sample, err = parseShare(c.String("sample")); err != nil {
		return o, usage("--sample: %w", err)
	}
	if text := c.String("seed"); text != "" {
		if o.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			return o, usage("--seed: %q is not a whole number", text)
		}
	}
	if text := c.String("since"); text != "" {
		if o.Since, err = parseSince(text, a.now()); err != nil {
			return o, usage("--since: %w", err)
		}
	}
	return o, nil
}

// parseShare reads "5%", "0.5%" or "100%".
func parseShare(text string) (float64, error) {
	digits, ok := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(n > 0 && n <= 100) {
		return 0, fmt.Errorf("%q is not a share over 0%% and up to 100%%", text)
	}
	return n / 100, nil
}

// parseSince reads a moment, or how long ago it was.
func parseSince(text string, now time.Time) (time.Time, error) {
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	d, err := parseDuration(strings.TrimSuffix(text, " ago"))
	if err != nil || d == 0 {
		return time.Time{}, fmt.Errorf("%q is neither a length of time such as 7d nor a time such as 2026-01-31T02:00:00Z", text)
	}
	return now.Add(-d), nil
}

func (a *app) verify(ctx context.Context, cfg *Config, o check.Options, accept bool) error {
	if cfg.several() {
		return a.verifySeveral(ctx, cfg, o, accept)
	}
	report, err := a.verifyOne(ctx, cfg, o, accept)
	if err != nil {
		return err
	}
	if err := a.outcome(report, report.write); err != nil {
		return err
	}
	return report.verdict()
}

// verifyOne checks one repository. An error means that nothing is proven.
func (a *app) verifyOne(ctx context.Context, cfg *Config, o check.Options, accept bool) (*verifyReport, error) {
	r, err := openOne(ctx, cfg)
	if err != nil {
		return nil, unprovenBy(err)
	}
	p := a.newProgress("listing")
	defer p.close()
	o.Learn = func(ctx context.Context, ix *wal.Index) error { return learnHistories(ctx, r, cfg, ix) }
	archive := a.newArchiveLook(cfg, r, 0)
	defer archive.save(ctx)
	o.Headers = archive.check
	locks := a.newLockLook(cfg, r)
	defer locks.save(ctx)
	o.Locks = locks.wanted(cfg)
	o.Observe = func(e check.Progress) {
		switch e.Phase {
		case "headers":
			p.setCount("reading WAL headers", "headers")
		case "locks":
			p.setCount("asking for Object Lock", "objects")
		default:
			p.setPhase(checkPhases[e.Phase])
		}
		if e.Total > 0 {
			p.update(e.Done, e.Total)
		}
	}
	res, err := check.Run(ctx, r, o)
	if err != nil {
		return nil, unprovenBy(fmt.Errorf("the check could not be done to its end, so nothing is proven: %w", err))
	}
	if err := a.addGone(ctx, cfg, r, res, accept); err != nil {
		return nil, unprovenBy(err)
	}
	a.recordCheck(ctx, r, res, o)
	return newVerifyReport(res, o), nil
}

// addGone adds the findings of a repository that has gone back, or accepts it as it
// is: from now on, this host knows no other.
func (a *app) addGone(ctx context.Context, cfg *Config, r *repo.Repo, res *check.Result, accept bool) error {
	backups, err := r.LoadBackups(ctx)
	if err != nil {
		return err
	}
	f := seen.Facts{Backups: backups, Listed: true, Archives: res.Archives}
	if f.Drills, f.Trusted, err = a.newestDrills(ctx, cfg, r); err != nil {
		return err
	}
	if accept {
		return a.remember(ctx, cfg, r, f, func(m *seen.Mark, now seen.Mark) bool { *m = now; return true })
	}
	gone, err := a.lookBack(ctx, cfg, r, f)
	for _, g := range gone {
		res.Findings = append(res.Findings, check.Gone(g.Object, g.Reason))
	}
	return err
}

// verifySeveral checks each repository; what one does not prove, another does not
// prove for it.
func (a *app) verifySeveral(ctx context.Context, cfg *Config, o check.Options, accept bool) error {
	all, err := askEach(ctx, cfg, func(one *Config) (*verifyReport, error) { return a.verifyOne(ctx, one, o, accept) })
	if err != nil {
		return err
	}
	var reports []*verifyReport
	for _, one := range all {
		report := one.report
		if !one.told() {
			report = &verifyReport{Error: oneLine(one.err.Error()), Findings: []*check.Finding{}, Backups: []check.BackupResult{}, Read: o.Read, Sample: o.Sample, Seed: o.Seed, Began: a.now().UTC().Format(timeForm)}
		}
		report.Name = one.Name
		reports = append(reports, report)
	}
	if err := a.outcome(reports, func(w io.Writer) { writeEach(w, all, (*verifyReport).write) }); err != nil {
		return err
	}
	return failedAnswers("verify:", all, (*verifyReport).verdict)
}

// recordCheck notes what was found, for "lifeboat backups". A host that cannot
// sign leaves it.
func (a *app) recordCheck(ctx context.Context, r *repo.Repo, res *check.Result, o check.Options) {
	err := check.Record(ctx, r, res, o)
	switch {
	case errors.Is(err, repo.ErrReadOnly):
		a.note("this host has no cluster key, so what was checked is not recorded in the repository")
	case err != nil:
		a.warn("what was checked is not recorded in the repository: %v", err)
	}
}

var checkPhases = map[string]string{"list": "listing", "backups": "opening the manifests", "wal": "following the WAL", "read": "reading"}

// unprovenBy gives an error of the store the code of what is not proven; a
// mistake in the configuration and the like keep theirs.
func unprovenBy(err error) error {
	_, hint := classify(err)
	for _, kind := range []error{storage.ErrUnavailable, storage.ErrDenied, storage.ErrCredentials, storage.ErrNoStore, storage.ErrRedirected} {
		if errors.Is(err, kind) {
			return failed(exitUnknown, "%w", err).hinted("%s", hint)
		}
	}
	if _, own := errors.AsType[*commandError](err); own || repo.AboutObject(err) || errors.Is(err, repo.ErrNoRepository) || errors.Is(err, repo.ErrNoTrust) {
		return err
	}
	return failed(exitUnknown, "%w", err).hinted("%s", hint)
}

// verifyReport is the JSON document of a check.
type verifyReport struct {
	Name     string               `json:"repository,omitempty"` // of several
	Error    string               `json:"error,omitempty"`      // why nothing of this one of several is proven
	Findings []*check.Finding     `json:"findings"`
	Backups  []check.BackupResult `json:"backups"`
	Unproven []string             `json:"unproven,omitempty"`
	Unknown  []string             `json:"unknown_objects,omitempty"` // at most 100
	Strange  int                  `json:"unknown_count"`
	Listed   check.Count          `json:"listed"`
	Read     bool                 `json:"read"`
	Identity bool                 `json:"identity"` // data was opened
	Sample   float64              `json:"sample"`
	Seed     uint64               `json:"seed"`
	Wanted   check.Count          `json:"to_read"` // all that a full read covers
	Done     check.Count          `json:"was_read"`
	Skipped  check.Count          `json:"skipped"`
	Frames   int64                `json:"frames_opened"`
	Locks    check.LockResult     `json:"object_lock"`
	Recorded string               `json:"recorded,omitempty"`

	locksRefused bool

	Began   string  `json:"began"`
	Seconds float64 `json:"seconds"`
}

func newVerifyReport(res *check.Result, o check.Options) *verifyReport {
	return &verifyReport{Findings: res.Findings, Backups: slices.Concat([]check.BackupResult{}, res.Backups), Unproven: res.Unproven,
		Unknown: res.Unknown[:min(len(res.Unknown), 100)], Strange: len(res.Unknown), Listed: res.Listed, Read: o.Read, Identity: res.Identity, Sample: o.Sample,
		Seed: o.Seed, Wanted: res.Wanted, Done: res.Read, Skipped: res.Skipped, Frames: res.Frames, Recorded: res.Recorded, Locks: res.Locks, locksRefused: res.LocksRefused,
		Began: res.Began.UTC().Format(timeForm), Seconds: res.Ended.Sub(res.Began).Seconds()}
}

func (v *verifyReport) write(w io.Writer) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	for _, f := range v.Findings {
		writeFinding(say, f)
	}
	for _, u := range v.Unproven {
		say("not proven: %s\n", oneLine(u))
	}
	if v.Strange > 0 {
		say("%s of a kind that Lifeboat does not know, the first is %s; left alone\n", plural(v.Strange, "object"), v.Unknown[0])
	}
	good, open := 0, ""
	for _, b := range v.Backups {
		switch {
		case b.OK:
			good++
		case b.Unproven:
			open += ", " + b.Label
		}
	}
	if open != "" {
		say("neither ok nor damaged, as not all of them could be checked: %s\n", open[2:])
	}
	say("checked: %s, %d without a finding; %s listed (%s)\n", plural(len(v.Backups), "backup"), good, plural(int(v.Listed.Objects), "object"), sizeText(v.Listed.Bytes))
	v.writeLocks(say)
	v.writeRead(say)
	if len(v.Findings) == 0 && len(v.Unproven) == 0 {
		say("no findings, in %s\n", span(time.Duration(v.Seconds*float64(time.Second))))
		return
	}
	say("%s, in %s\n", plural(len(v.Findings), "finding"), span(time.Duration(v.Seconds*float64(time.Second))))
}

func writeFinding(say func(string, ...any), f *check.Finding) {
	say("%s: %s\n  what     %s\n", f.Code, f.Object, oneLine(f.Problem))
	if len(f.Backups) > 0 {
		say("  backups  %s\n", strings.Join(f.Backups, ", "))
	}
	if len(f.Files) > 0 {
		more := ""
		if n := f.FileCount - int64(len(f.Files)); n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		if f.FilesMore {
			more += ", and perhaps others"
		}
		say("  files    %s%s\n", oneLine(strings.Join(f.Files, ", ")), more)
	}
	say("  points   %s\n  do       %s\n\n", f.Points, f.Do)
}

func (v *verifyReport) writeRead(say func(string, ...any)) {
	if !v.Read {
		say("read: nothing; --read compares every byte\n")
		return
	}
	how := "hashes compared; an identity would open each frame"
	if v.Identity {
		how = fmt.Sprintf("%s opened", plural(int(v.Frames), "frame"))
	}
	say("read: %d of %s (%s), %s, %.0f objects/s, %s/s\n", v.Done.Objects, plural(int(v.Wanted.Objects), "object"), sizeText(v.Done.Bytes), how,
		float64(v.Done.Objects)/max(v.Seconds, 1e-3), sizeText(int64(float64(v.Done.Bytes)/max(v.Seconds, 1e-3))))
	if v.Sample < 1 {
		say("sample: %.4g%%, --seed %d\n", v.Sample*100, v.Seed)
	}
	if v.Skipped.Objects > 0 {
		say("left out: %s (%s) that were read since\n", plural(int(v.Skipped.Objects), "object"), sizeText(v.Skipped.Bytes))
	}
}

func isGone(f *check.Finding) bool { return f.Code == check.GoneBack }

func (v *verifyReport) verdict() error {
	switch {
	case slices.ContainsFunc(v.Findings, isGone):
		first := v.Findings[slices.IndexFunc(v.Findings, isGone)]
		return failed(exitMissed, "the repository has gone back: %s: %s", first.Object, first.Problem).hinted("%s", first.Do)
	case len(v.Findings) > 0:
		first := v.Findings[0]
		return failed(exitFailed, "%s, the first: %s %s", plural(len(v.Findings), "finding"), first.Code, first.Object).hinted("%s", first.Do)
	case v.locksRefused && len(v.Unproven) == 1:
		return failed(exitUnknown, "not all could be checked: %s", v.Unproven[0]).hinted("%s", lockRights)
	case len(v.Unproven) > 0:
		return failed(exitUnknown, "not all could be checked: %s", v.Unproven[0]).
			hinted("run it where the cluster key or an identity is: --identity FILE, or cluster_key in the configuration")
	}
	return nil
}
