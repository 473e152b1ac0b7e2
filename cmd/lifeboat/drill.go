package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/verify/drill"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
	"github.com/lifeboat-dr/lifeboat/verify/seen"
)

func drillCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:        "drill",
		Subcommands: []*cli.Command{selftestCommand(a)},
		Usage:       "restore into staging, check the data, report the RPO and RTO achieved",
		Description: `
Restores the newest backup and its WAL into a directory of its own, starts the
server fenced off from network and files, checks the data, measures what would
have been lost and how long it took, removes everything, and stores signed
evidence in the repository. Nothing passes by default: what was not proven is
unknown.

Levels: quick reads manifests, packs and WAL and starts nothing; standard
restores, recovers and checks; deep also reads every page (pg_checksums), every
index (pg_amcheck) and every row (pg_dump). Your own checks stand in the
configuration: docs/drill.md.

A newest backup that cannot be restored is a failure, and no older one takes
its place. The primary is asked for its clock and position if conn leads to
it; else the loss is bounded by this host's clock, and the report says so.

With --due 7d nothing is done while the last drill that passed is younger, so
any scheduler may call it often. Of two drills at once the second exits with
75. --keep leaves the server running and prints how to connect.`,
		Flags: append(drillFlags(), configFlags("repository", "identity", "signer", "conn", "jobs", "pg_bindir",
			"drill.staging", "drill.level", "drill.rpo", "drill.rto", "drill.owner", "drill.timeout")...),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			if a.restorer {
				return a.serveRestorer(c)
			}
			d, err := a.newDrill(c)
			if err != nil {
				return err
			}
			return d.do(c.Context)
		},
	}
}

func drillFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "pick", Usage: "which backup: latest, random or a `LABEL`", Value: drill.Latest},
		&cli.StringFlag{Name: "target-time", Usage: "recover up to `TIME`, or to a random one: random"},
		&cli.StringFlag{Name: "due", Usage: "do nothing while the last drill that passed is younger than `TIME`, such as 7d"},
		&cli.BoolFlag{Name: "keep", Usage: "leave the server running and its directory in place"},
		&cli.StringFlag{Name: "junit", Usage: "write the checks as JUnit XML to `FILE`"},
		&cli.StringFlag{Name: "html", Usage: "write the report as one page to `FILE`"},
		&cli.StringFlag{Name: "prometheus", Usage: "write metrics for node_exporter's textfile collector to `FILE` (*.prom)"},
	}
}

// drillRun is one run of "lifeboat drill".
type drillRun struct {
	*app
	cfg      *Config
	pick     string
	time     time.Time
	random   bool
	due      time.Duration
	keep     bool
	gone     []seen.Gone // what this host has seen and is not in the repository any more
	outputs  outputs
	progress *progress
	began    time.Time
}

// outputs are the files that a drill or a report writes.
type outputs struct{ junit, html, prometheus string }

func (a *app) newDrill(c *cli.Context) (*drillRun, error) {
	cfg, err := a.config(c, "repository", "identity")
	if err != nil {
		return nil, err
	}
	d := &drillRun{app: a, cfg: cfg, pick: c.String("pick"), keep: c.Bool("keep")}
	if d.pick != drill.Latest && d.pick != drill.Random {
		if err := repo.CheckLabel(d.pick); err != nil {
			return nil, usage("--pick: %v", err).hinted("latest, random, or a label as \"lifeboat backups\" lists them")
		}
	}
	switch text := c.String("target-time"); text {
	case "":
	case drill.Random:
		d.random = true
	default:
		if d.time, _, err = restore.ParseTime(text, time.Local); err != nil {
			return nil, usage("--target-time: %w", err)
		}
	}
	if c.IsSet("due") {
		if d.due, err = parseDuration(c.String("due")); err != nil {
			return nil, usage("--due: %w", err)
		}
	}
	d.outputs, err = a.newOutputs(c)
	return d, err
}

func (a *app) newOutputs(c *cli.Context) (o outputs, err error) {
	taken := map[string]string{}
	for name, field := range map[string]*string{"junit": &o.junit, "html": &o.html, "prometheus": &o.prometheus} {
		if *field, err = a.abs(c.String(name)); err != nil {
			return o, err
		}
		if *field == "" {
			continue
		}
		path := filepath.Clean(*field)
		if other := taken[path]; other != "" {
			return o, usage("--%s and --%s name the same file, %s", min(name, other), max(name, other), path).hinted("give each output a file of its own")
		}
		taken[path] = name
		// Better now than after the drill.
		if info, err := os.Stat(filepath.Dir(*field)); err != nil || !info.IsDir() {
			return o, usage("--%s: there is no directory %s", name, filepath.Dir(*field))
		}
	}
	return o, nil
}

// do runs the drill, tells what came of it, and fails by its verdict.
func (d *drillRun) do(ctx context.Context) error {
	debug.SetGCPercent(25) // as for a restore
	d.began = d.now()
	r, restorer, err := d.openWithout(ctx, d.cfg, d.args)
	if err != nil {
		return err
	}
	defer restorer.Close()
	key, err := d.signingKey(r)
	if err != nil {
		return err
	}
	if d.gone, err = d.lookBehind(ctx, r); err != nil {
		return err
	}
	if done, err := d.notDue(ctx, r, key); done || err != nil {
		return err
	}
	held, release, err := r.HoldLease(ctx, repo.DrillLease,
		repo.Claim{Holder: hostName() + " (drill)", Process: processName(), Gone: processGone}, d.now, nil)
	if err != nil {
		return err
	}
	defer release()
	// Another one may have passed while this one waited for its turn.
	if done, err := d.notDue(ctx, r, key); done || err != nil {
		return err
	}
	result, err := d.run(held, r, restorer, key)
	if err != nil {
		return err
	}
	d.rememberDrill(held, d.cfg, r, result.Document)
	return d.tell(ctx, r, key, result)
}

// lookBehind compares the repository with what this host has seen of it. This process
// has no key to open what the backups are.
func (d *drillRun) lookBehind(ctx context.Context, r *repo.Repo) ([]seen.Gone, error) {
	f := seen.Facts{Listed: true}
	var err error
	if f.Backups, err = r.SignedBackups(ctx); err != nil {
		return nil, err
	}
	if f.Drills, f.Trusted, err = d.newestDrills(ctx, d.cfg, r); err != nil {
		return nil, err
	}
	gone, err := d.lookBack(ctx, d.cfg, r, f)
	for _, g := range gone {
		d.warn("the repository has gone back: %s", g)
	}
	return gone, err
}

func (d *drillRun) run(ctx context.Context, r *repo.Repo, restorer *drill.Restorer, key repo.SigningKey) (*drill.Result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's own path: %w", err)
	}
	trusted, err := d.cfg.trustedHosts(r.Marker().Cluster)
	if err != nil {
		return nil, err
	}
	d.progress = d.newProgress(drillPhases[evidence.PhasePlan])
	defer d.progress.close()
	c := d.cfg.Drill
	return drill.Run(ctx, r, restorer, drill.Options{
		Level: evidence.Level(c.Level), Pick: d.pick, Policy: d.cfg.Expire, Time: d.time, RandomTime: d.random,
		Staging: c.Staging, Owner: c.Owner, RPO: c.RPO, RTO: c.RTO, Checks: c.Checks,
		Libraries: drill.Libraries{Listed: len(c.Libraries) > 0, Names: c.Libraries},
		Conn:      d.primary(), Role: c.Role, Heartbeat: c.Heartbeat,
		Find: func(major int) (server.Install, error) { return server.Find(major, d.cfg.PGBinDir) },
		Self: self, Adopt: d.alone, Keep: d.keep, Timeout: c.Timeout, Stall: c.Stall,
		Env: d.environ, Program: "lifeboat " + version, By: performer(), Key: key, Trusted: trusted, Now: d.now, Began: d.began,
		GoneBack: goneTexts(d.gone), Observe: d.observe,
	})
}

// primary is where the primary can be asked; "" when nothing says where.
func (d *drillRun) primary() string {
	if _, set := d.cfg.origins["conn"]; !set {
		return ""
	}
	if d.cfg.Conn == "" {
		return "application_name=lifeboat"
	}
	return d.cfg.Conn
}

func performer() evidence.Performer {
	p := evidence.Performer{Host: hostName(), User: fmt.Sprintf("uid %d", os.Geteuid())}
	if u, err := user.Current(); err == nil {
		p.User = u.Username
	}
	return p
}

func (d *drillRun) observe(e drill.Progress) {
	d.progress.setPhase(drillPhases[e.Phase])
	if e.Total > 0 {
		d.progress.update(e.Done, e.Total)
	}
}

var drillPhases = map[string]string{
	evidence.PhasePlan:       "reading the archive",
	evidence.PhaseFiles:      "restoring",
	evidence.PhaseWAL:        "fetching WAL",
	evidence.PhaseTables:     "comparing tables",
	evidence.PhaseConsistent: "recovering",
	evidence.PhaseReplay:     "recovering",
	evidence.PhaseAccepting:  "opening the server",
	evidence.PhaseChecks:     "checking",
}

// notDue says whether a drill has passed lately enough.
func (d *drillRun) notDue(ctx context.Context, r *repo.Repo, key repo.SigningKey) (bool, error) {
	if d.due == 0 || len(d.gone) > 0 {
		return false, nil
	}
	h, err := d.pastDrills(ctx, r, key)
	if err != nil {
		return false, err
	}
	last := lastPassed(h, evidence.Level(d.cfg.Drill.Level))
	if last == nil || d.now().Sub(last.Drill.Ended) >= d.due {
		return false, nil
	}
	age := d.now().Sub(last.Drill.Ended)
	return true, d.outcome(map[string]any{"due": false, "last_passed": last.Drill.ID}, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "Not due: drill %s passed %s ago\n", last.Drill.ID, span(age))
	})
}

// pastDrills are those of all hosts that are trusted, this one included.
func (d *drillRun) pastDrills(ctx context.Context, r *repo.Repo, key repo.SigningKey) (*report.History, error) {
	trusted, err := d.cfg.trustedHosts(r.Marker().Cluster)
	if err != nil {
		return nil, err
	}
	return d.history(ctx, r, append(trusted, key.Public()), time.Time{})
}

// lastPassed is the newest drill that passed and proved at least as much as one
// of this level.
func lastPassed(h *report.History, level evidence.Level) *evidence.Document {
	order := []evidence.Level{evidence.Quick, evidence.Standard, evidence.Deep}
	for _, doc := range slices.Backward(h.Drills) {
		if doc.Drill.RDS == nil && doc.Drill.Verdict == evidence.Passed && slices.Index(order, doc.Drill.Level) >= slices.Index(order, level) {
			return doc
		}
	}
	return nil
}

// signingKey reads the key of this host, and makes it if there is none.
func (d *drillRun) signingKey(r *repo.Repo) (repo.SigningKey, error) {
	path := d.cfg.drillKeyPath(r.Marker().Cluster)
	if _, err := os.Lstat(path); err == nil {
		f, err := readKeyFile(path, "drill.key")
		if err != nil {
			return repo.SigningKey{}, err
		}
		if f.Signing == nil {
			return repo.SigningKey{}, usage("drill.key: %s holds no signing key", path)
		}
		return *f.Signing, nil
	}
	f, err := repo.NewHostKey(r.Marker().Cluster, r.Marker().Repository)
	if err != nil {
		return repo.SigningKey{}, err
	}
	text := f.Marshal("Lifeboat drill key: this host signs the evidence of its drills with it.\nWhoever has it can forge evidence. It opens and signs nothing else.")
	if err := writeNew(path, text); err != nil {
		return repo.SigningKey{}, fmt.Errorf("make this host's drill key: %w", err)
	}
	d.note("made the key that signs this host's evidence: %s", path)
	d.note("its public half, for drill.trust on hosts that verify: %s", f.Signing.Public())
	return *f.Signing, nil
}

// drillKeyPath is where the key of this host lies.
func (c *Config) drillKeyPath(cluster string) string {
	if c.Drill.Key != "" {
		return c.Drill.Key
	}
	dir := "."
	for _, beside := range []string{c.File, c.Identity} {
		if beside != "" {
			dir = filepath.Dir(beside)
			break
		}
	}
	return filepath.Join(dir, strings.ToLower(cluster)+"-drill.key")
}
