package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/check"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func backupsCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:  "backups",
		Usage: "list the backups that exist, how well each is proven, and how far it reaches",
		Description: `
Lists every committed backup, the oldest first. Needs the cluster key or an
identity, because what a backup holds is sealed.

CHANGED is what the backup stored anew, BY how changes were known. CHECKED is when
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
	Checked *listedCheck `json:"checked,omitempty"`
	Drilled string       `json:"drilled,omitempty"`
	Reaches string       `json:"reaches"`             // end, gap, itself, nothing or unknown
	To      postgres.LSN `json:"reaches_to"`          // of end, gap and itself
	Pin     *pinReport   `json:"pin,omitempty"`       // one that holds
	PinBad  string       `json:"pin_error,omitempty"` // why its pin cannot be read
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
	trusted bool           // a key of a drill host is trusted, or there was no drill
}

// gather reads what is said of the backups of a repository.
func (a *app) gather(ctx context.Context, cfg *Config, r *repo.Repo) (l listing, err error) {
	if l.infos, err = listBackups(ctx, r); err != nil {
		return l, err
	}
	l.list = make([]listedBackup, len(l.infos))
	at := map[string]*listedBackup{}
	for i, info := range l.infos {
		l.list[i] = listedBackup{backupReport: newBackupReport(info), Reaches: "unknown"}
		at[info.Label] = &l.list[i]
	}
	g, gctx := errgroup.WithContext(ctx) // each fills in fields of its own
	g.Go(func() error { return addReach(gctx, r, cfg, l.infos, at) })
	g.Go(func() error { return addChecks(gctx, r, at) })
	g.Go(func() error { return a.addPins(gctx, r, at) })
	g.Go(func() (err error) { l.trusted, err = a.addDrills(gctx, r, cfg, at); return err })
	return l, g.Wait()
}

func (a *app) listOne(ctx context.Context, cfg *Config) error {
	r, err := openRepo(ctx, cfg)
	if err != nil {
		return err
	}
	l, err := a.gather(ctx, cfg, r)
	if err != nil {
		return err
	}
	return a.result(l.list, func(w io.Writer) { a.writeListing(w, l) })
}

func (a *app) writeListing(w io.Writer, l listing) {
	writeBackups(w, l.infos, l.list, a.now())
	if !l.trusted {
		a.note("no key of a drill host is trusted here, so DRILLED stays empty: set drill.trust")
	}
}

// listSeveral lists the backups of each repository. One that does not answer is
// told, and hides nothing of the others.
func (a *app) listSeveral(ctx context.Context, cfg *Config) error {
	places := cfg.each()
	found, errs := make([]listing, len(places)), make([]error, len(places))
	var failures []placeFailure
	reports := []listedBackup{}
	for i, one := range places {
		r, err := openToRead(ctx, one)
		if err == nil {
			found[i], err = a.gather(ctx, one, r)
		}
		if errs[i] = err; err != nil {
			failures = append(failures, placeFailure{one.Name, err})
			reports = append(reports, listedBackup{backupReport: backupReport{Repository: one.Name, Error: oneLine(err.Error())}, Reaches: "unknown"})
			continue
		}
		for _, b := range found[i].list {
			b.Repository = one.Name
			reports = append(reports, b)
		}
	}
	err := a.result(reports, func(w io.Writer) {
		for i, one := range places {
			if i > 0 {
				_, _ = fmt.Fprintln(w)
			}
			_, _ = fmt.Fprintf(w, "Repository %s, %s\n", one.Name, one.Repository)
			if errs[i] != nil {
				_, _ = fmt.Fprintf(w, "unknown: %s\n", oneLine(errs[i].Error()))
				continue
			}
			a.writeListing(w, found[i])
		}
	})
	if err != nil {
		return err
	}
	return failedPlaces("list:", len(errs), failures)
}

// listBackups reads what the backups are, one small request each.
func listBackups(ctx context.Context, r *repo.Repo) ([]repo.Info, error) {
	labels, err := r.Backups(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]repo.Info, len(labels))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, l := range labels {
		g.Go(func() error {
			info, err := r.Info(gctx, l)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // or just expired
				return fmt.Errorf("read backup %s: %w", l, err)
			}
			out[i] = info
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(out, func(i repo.Info) bool { return i.Label == "" }), nil
}

// addReach says how far each backup can be recovered.
func addReach(ctx context.Context, r *repo.Repo, cfg *Config, infos []repo.Info, at map[string]*listedBackup) error {
	bySystem := map[postgres.SystemID][]repo.Info{}
	for _, i := range infos {
		bySystem[i.System] = append(bySystem[i.System], i)
	}
	for id, own := range bySystem {
		ix, err := wal.LoadIndex(ctx, r, id)
		if err == nil {
			err = errors.Join(ix.LearnSegmentSize(own[0].SegSize), learnHistories(ctx, r, cfg, ix))
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
			b.To = w.Reach.End
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
// more than a later one that did not.
func addChecks(ctx context.Context, r *repo.Repo, at map[string]*listedBackup) error {
	all, err := check.Summaries(ctx, r)
	if err != nil {
		return err
	}
	for label, b := range at {
		for _, s := range all {
			j := slices.IndexFunc(s.Backups, func(b check.BackupResult) bool { return b.Label == label })
			if j < 0 {
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

func writeBackups(w io.Writer, infos []repo.Info, list []listedBackup, now time.Time) {
	if len(infos) == 0 {
		_, _ = fmt.Fprintln(w, "no backups yet; \"lifeboat backup\" takes one")
		return
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tab, "LABEL\tFINISHED (UTC)\tSIZE\tSTORED\tCHANGED\tBY\tCHECKED\tDRILLED\tREACHES")
	for i, info := range infos {
		b := list[i]
		_, _ = fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", info.Label, info.StopTime.UTC().Format("2006-01-02 15:04"),
			sizeText(info.RawBytes), sizeText(info.StoredBytes), changedText(info), changesText(info.Changes), b.checkedText(now), agoText(b.Drilled, now), b.reachText())
	}
	_ = tab.Flush()
	bare := 0
	for i, info := range infos {
		writeRemarks(w, info, list[i])
		if !info.Checksums {
			bare++
		}
	}
	if bare > 0 {
		_, _ = fmt.Fprintf(w, "%s of a cluster without page checksums: damage in the database is not noticed\n", plural(bare, "backup"))
	}
}

// writeRemarks prints what few backups have and a person must see.
func writeRemarks(w io.Writer, info repo.Info, b listedBackup) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if info.BadCount > 0 {
		say("%s: %d bad pages, which were damaged in the database", info.Label, info.BadCount)
	}
	switch {
	case b.PinBad != "":
		say("%s: its pin cannot be read, so it is kept: %s", info.Label, b.PinBad)
	case b.Pin != nil && b.Pin.Until == "":
		say("%s: pinned by %s%s", info.Label, b.Pin.By, colon(b.Pin.Reason))
	case b.Pin != nil:
		say("%s: pinned until %.10s by %s%s", info.Label, b.Pin.Until, b.Pin.By, colon(b.Pin.Reason))
	}
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + oneLine(s)
}

func changedText(i repo.Info) string {
	if i.Changes == "" { // of a version that did not note it
		return sizeText(i.RawBytes)
	}
	return sizeText(i.ChangedBytes)
}

func changesText(changes string) string {
	switch changes {
	case "", repo.ChangesFull:
		return "full"
	case repo.ChangesWALSummaries:
		return "summaries"
	}
	return changes
}

func (b listedBackup) checkedText(now time.Time) string {
	switch c := b.Checked; {
	case c == nil:
		return "-"
	case !c.OK:
		return "DAMAGED"
	case c.Read:
		return agoText(c.At, now) + ", read"
	default:
		return agoText(c.At, now)
	}
}

// agoText says how long ago something was, in one unit.
func agoText(at string, now time.Time) string {
	t, err := time.Parse(timeForm, at)
	if err != nil {
		return "-"
	}
	switch d := now.Sub(t); {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", d/time.Hour)
	default:
		return fmt.Sprintf("%dd ago", d/(24*time.Hour))
	}
}

func (b listedBackup) reachText() string {
	switch b.Reaches {
	case "end":
		return "to the end"
	case "gap":
		return "to " + b.To.String()
	case "itself":
		return "itself"
	case "nothing":
		return "NOTHING"
	}
	return "unknown"
}
