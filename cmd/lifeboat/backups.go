package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/verify/check"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
	"github.com/lifeboat-dr/lifeboat/verify/seen"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func backupsCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "backups",
		Usage: "list the backups that exist, how well each was checked, and how far it reaches",
		Description: `
Lists every committed backup, the oldest first. Needs the cluster key or an
identity, because what a backup holds is sealed.

CHANGED is what the backup stored again, BY how changes were known. CHECKED is when
"lifeboat verify" last found nothing wrong with it, and whether it read every
byte. DRILLED is when a drill last restored it and passed, of the last 90 days.
REACHES is how far it can be recovered: "to the end" of the archive, to an LSN
before a gap, or "itself" only.`,
		Flags: configFlags("repository", "identity", "drill.trust"),
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
			return a.listOne(c.Context, cfg)
		},
	}
}

// listedBackup is the JSON document of one backup in the list.
type listedBackup struct {
	backupReport
	Checked   *listedCheck `json:"checked,omitempty"`
	Drilled   string       `json:"drilled,omitempty"`
	Reaches   string       `json:"reaches"`             // end, gap, itself, nothing or unknown
	To        postgres.LSN `json:"reaches_to"`          // of end, gap and itself
	Unchecked int          `json:"not_checked"`         // segments on the way there that are only listed
	Pin       *pinReport   `json:"pin,omitempty"`       // one that holds
	PinBad    string       `json:"pin_error,omitempty"` // why its pin cannot be read
}

type listedCheck struct {
	At   string `json:"at"`
	Read bool   `json:"read"` // every byte was read
	OK   bool   `json:"ok"`
}

// listing is what the backups of one repository are.
type listing struct {
	infos   []repo.Info
	list    []listedBackup // one for each
	gone    []seen.Gone    // what this host has seen and is not there any more
	trusted bool           // a key of a drill host is trusted, or there was no drill
}

// gather reads what is said of the backups of a repository.
func (a *app) gather(ctx context.Context, cfg *Config, r *repo.Repo) (*listing, error) {
	backups, err := r.LoadBackups(ctx)
	if err != nil {
		return nil, err
	}
	l := &listing{list: make([]listedBackup, len(backups))}
	at := map[string]*listedBackup{}
	for i, b := range backups {
		l.infos = append(l.infos, b.Info)
		l.list[i] = listedBackup{backupReport: newBackupReport(b.Info), Reaches: "unknown"}
		if b.Err != nil {
			l.list[i].backupReport = backupReport{Label: b.Label, Error: oneLine(b.Err.Error())}
		}
		at[b.Label] = &l.list[i]
	}
	a.warnInfos(backups)
	g, gctx := errgroup.WithContext(ctx) // each fills in fields of its own
	g.Go(func() error { return a.addReach(gctx, r, cfg, l.infos, at) })
	g.Go(func() error { return addChecks(gctx, r, at) })
	g.Go(func() error { return a.addPins(gctx, r, at) })
	g.Go(func() (err error) { l.trusted, err = a.addDrills(gctx, r, cfg, at); return err })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	f := seen.Facts{Backups: backups, Listed: true}
	if f.Drills, f.Trusted, err = a.newestDrills(ctx, cfg, r); err != nil {
		return nil, err
	}
	l.gone, err = a.lookBack(ctx, cfg, r, f)
	return l, err
}

func (l *listing) verdict() error { return goneError(l.gone) }

func (a *app) listOne(ctx context.Context, cfg *Config) error {
	r, err := openRepo(ctx, cfg)
	if err != nil {
		return err
	}
	l, err := a.gather(ctx, cfg, r)
	if err != nil {
		return err
	}
	if err := a.result(l.list, func(w io.Writer) { a.writeListing(l, w) }); err != nil {
		return err
	}
	return l.verdict()
}

func (a *app) writeListing(l *listing, w io.Writer) {
	writeBackups(w, l.infos, l.list, a.now())
	if !l.trusted {
		a.note("no key of a drill host is trusted here, so DRILLED stays empty: set drill.trust")
	}
}

// listSeveral lists the backups of each repository. One that does not answer is
// told, and hides nothing of the others.
func (a *app) listSeveral(ctx context.Context, cfg *Config) error {
	all, err := askEach(ctx, cfg, func(one *Config) (*listing, error) {
		r, err := openOne(ctx, one)
		if err != nil {
			return nil, err
		}
		return a.gather(ctx, one, r)
	})
	if err != nil {
		return err
	}
	reports := []listedBackup{}
	for _, one := range all {
		if !one.told() {
			reports = append(reports, listedBackup{backupReport: backupReport{Repository: one.Name, Error: oneLine(one.err.Error())}, Reaches: "unknown"})
			continue
		}
		for _, b := range one.report.list {
			b.Repository = one.Name
			reports = append(reports, b)
		}
	}
	if err := a.result(reports, func(w io.Writer) { writeEach(w, all, a.writeListing) }); err != nil {
		return err
	}
	return failedAnswers("list:", all, (*listing).verdict)
}

// warnInfos tells of info objects that are damaged. What they say stands in the
// manifests too.
func (a *app) warnInfos(backups []repo.Backup) {
	for _, b := range backups {
		if text := b.Warning(); text != "" {
			a.warn("%s", text)
		}
	}
}

// addReach says how far each backup can be recovered.
func (a *app) addReach(ctx context.Context, r *repo.Repo, cfg *Config, infos []repo.Info, at map[string]*listedBackup) error {
	bySystem := map[postgres.SystemID][]repo.Info{}
	for _, i := range infos {
		if at[i.Label].Error != "" {
			continue
		}
		bySystem[i.System] = append(bySystem[i.System], i)
	}
	archive := a.newArchiveLook(cfg, r, headersPatience)
	defer archive.save(ctx)
	for id, own := range bySystem {
		ix, err := archive.load(ctx, id, func(storage.Info) {})
		if err == nil {
			ix.LearnSegmentSize(own[0].SegSize)
			err = learnHistories(ctx, r, cfg, ix)
		}
		if err != nil {
			return fmt.Errorf("look at the archive of system %s: %w", id, err)
		}
		reach(ix, own, at)
	}
	return nil
}

func reach(ix *wal.Index, own []repo.Info, at map[string]*listedBackup) {
	s := ix.Standing(own)
	for _, u := range s.Useless {
		if _, lacks := errors.AsType[*wal.BackupGapError](u.Err); lacks {
			at[u.Label].Reaches = "nothing"
		}
	}
	stops := map[string]repo.Info{}
	for _, b := range own {
		stops[b.Label] = b
	}
	for _, w := range s.Windows {
		for _, l := range w.Backups {
			b, info := at[l], stops[l]
			b.To, b.Unchecked = w.Reach.End, w.Unchecked
			switch {
			case !w.Reach.Gap:
				b.Reaches = "end"
			case w.Reach.End <= postgres.SegmentAt(info.Timeline, info.StopLSN, info.SegSize).End():
				b.Reaches = "itself"
			default:
				b.Reaches = "gap"
			}
		}
	}
}

// addChecks takes what the newest checks said; one that read every byte says
// more than a later one that did not. One that could not prove a backup says
// nothing of it.
func addChecks(ctx context.Context, r *repo.Repo, at map[string]*listedBackup) error {
	all, err := check.Summaries(ctx, r)
	if err != nil {
		return err
	}
	for label, b := range at {
		for _, s := range all {
			j := slices.IndexFunc(s.Backups, func(b check.BackupResult) bool { return b.Label == label })
			if j < 0 || s.Backups[j].Unproven {
				continue
			}
			c := &listedCheck{At: s.Began.UTC().Format(timeForm), Read: s.Read && s.Sample == 1, OK: s.Backups[j].OK}
			if b.Checked == nil || c.Read && b.Checked.OK {
				b.Checked = c
			}
			if c.Read || !c.OK {
				break
			}
		}
	}
	return nil
}

func (a *app) addPins(ctx context.Context, r *repo.Repo, at map[string]*listedBackup) error {
	pins, err := r.Pins(ctx)
	if err != nil {
		return err
	}
	for _, p := range pins {
		b := at[p.Label]
		switch {
		case b == nil:
		case p.Err != nil:
			b.PinBad = oneLine(p.Err.Error())
		case p.Holds(a.now()):
			pin := newPinReport(p.Pin)
			b.Pin = &pin
		}
	}
	return nil
}

// drilledSince is how far back the evidence is read for the list.
const drilledSince = 90 * 24 * time.Hour

// addDrills takes from the evidence when a backup was last restored by a drill
// that passed. Without a key to trust nothing counts.
func (a *app) addDrills(ctx context.Context, r *repo.Repo, cfg *Config, at map[string]*listedBackup) (trusted bool, err error) {
	keys, err := cfg.trustedHosts(r.Marker().Cluster)
	if err != nil {
		return false, err
	}
	if len(keys) == 0 {
		ids, err := evidence.List(ctx, r.Store(), a.now().Add(-drilledSince))
		return len(ids) == 0, err
	}
	h, err := a.history(ctx, r, keys, a.now().Add(-drilledSince))
	if err != nil {
		return false, err
	}
	for _, d := range h.Drills {
		if d.Drill.Verdict != evidence.Passed || d.Drill.Backup == nil || !report.Restores(d.Drill.Level) {
			continue
		}
		if b := at[d.Drill.Backup.Label]; b != nil {
			b.Drilled = d.Drill.Ended.UTC().Format(timeForm)
		}
	}
	return true, nil
}
