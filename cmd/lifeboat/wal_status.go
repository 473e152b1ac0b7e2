package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/verify/seen"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func (a *app) walStatus() *cli.Command {
	flags := append([]cli.Flag{
		&cli.StringFlag{Name: "system", Usage: "system identifier of the cluster whose WAL it is, `ID`; else that of pgdata, or all in the repository"},
		&cli.StringFlag{Name: "slot", Value: "lifeboat", Usage: "replication slot of \"lifeboat wal stream\", which may still bring what is missing, `NAME`"},
		headersFlag(),
		&cli.StringFlag{Name: "heartbeat", Usage: "how often heartbeats are written, if they are: the exposure then has a lower bound too, `TIME`"},
	}, configFlags("pgdata", "conn", "repository", "cluster_key", "identity", "signer")...)
	return &cli.Command{
		Name:  "status",
		Usage: "show what is archived, gaps, what can be restored and what would be lost",
		Description: `
Lists the archive, reads the signed header of each WAL object that this host has
not read yet, and asks the server how far it is. The repository and a key
are enough for all but the exposure: run it anywhere. To read commit times it
needs an identity, and says "unknown" without one; it does not guess.

What bears the name of a segment and is not it ends what can be restored there,
like a gap. What was not read, for want of time or rights, is "listed, not
checked"; a claim that rests on it ends in exit code 4.

A gap that a backup would have to be recovered through is a failure (exit code
1). No failure is one that the server still has the WAL of and will archive, one
before the oldest backup, one on a timeline past the point where it was left, and
one that "lifeboat expire" made after a backup that is older than expire.pitr_window.`,
		Flags: flags,
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository")
			if err != nil {
				return err
			}
			s := &walStatus{app: a, cfg: cfg, slot: c.String("slot")}
			if s.heartbeat, err = durationOf(c, "heartbeat"); err != nil {
				return err
			}
			if s.within, err = durationOf(c, headersWithin); err != nil {
				return err
			}
			if err := wal.CheckSlotName(s.slot); err != nil {
				return usage("--slot: %v", err)
			}
			return s.run(c.Context, c.String("system"), c.IsSet("slot"))
		},
	}
}

// walStatus is the command at work.
type walStatus struct {
	*app
	cfg       *Config
	slot      string
	heartbeat time.Duration
	within    time.Duration // for the headers of one system

	repo      *repo.Repo
	archive   *archiveLook
	loaded    []repo.Backup
	backups   []repo.Info // those of them that are known, the oldest first
	archives  map[postgres.SystemID]*wal.Index
	unread    []unusableReport
	server    *wal.ServerState
	serverErr error // why there is none
}

func (s *walStatus) run(ctx context.Context, named string, ownSlot bool) error {
	if s.cfg.several() {
		return s.runSeveral(ctx, named, ownSlot)
	}
	report, err := s.look(ctx, named)
	if err != nil {
		return err
	}
	if err := s.result(report, func(w io.Writer) { report.write(w) }); err != nil {
		return err
	}
	return report.verdict()
}

// look reports on one repository.
func (s *walStatus) look(ctx context.Context, named string) (*walStatusReport, error) {
	var err error
	if s.repo, err = openOne(ctx, s.cfg); err != nil {
		return nil, err
	}
	s.archive = s.newArchiveLook(s.cfg, s.repo, s.within)
	defer s.archive.save(ctx)
	if err := s.loadBackups(ctx); err != nil {
		return nil, err
	}
	systems, err := s.systems(ctx, named)
	if err != nil {
		return nil, err
	}
	report := &walStatusReport{Name: s.cfg.Name, Repository: s.cfg.Repository, Heartbeat: s.heartbeat.Seconds(), Systems: []systemReport{}, Unreadable: s.unread, rpo: s.cfg.Drill.RPO}
	for _, id := range systems {
		one, err := s.system(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("look at the archive of system %s: %w", id, err)
		}
		report.Systems = append(report.Systems, *one)
	}
	report.Gone, err = s.lookBack(ctx, s.cfg, s.repo, seen.Facts{Backups: s.loaded, Listed: true, Archives: s.archives})
	return report, err
}

// runSeveral reports on each repository. Each has a stream and a slot of its own.
func (s *walStatus) runSeveral(ctx context.Context, named string, ownSlot bool) error {
	all, err := askEach(ctx, s.cfg, func(one *Config) (*walStatusReport, error) {
		v := &walStatus{app: s.app, cfg: one, slot: s.slot, heartbeat: s.heartbeat, within: s.within}
		if !ownSlot {
			v.slot = slotOf(s.slot, one)
		}
		return v.look(ctx, named)
	})
	if err != nil {
		return err
	}
	var reports []*walStatusReport
	for _, one := range all {
		report := one.report
		if !one.told() {
			report = &walStatusReport{Name: one.Name, Repository: one.Repository, Systems: []systemReport{}, Error: oneLine(one.err.Error())}
		}
		reports = append(reports, report)
	}
	if err := s.result(reports, func(w io.Writer) { writeEach(w, all, (*walStatusReport).write) }); err != nil {
		return err
	}
	return failedAnswers("status:", all, (*walStatusReport).verdict)
}

// loadBackups reads what the backups are. One that is damaged is reported, and
// does not hide the others.
func (s *walStatus) loadBackups(ctx context.Context) error {
	backups, err := s.repo.LoadBackups(ctx)
	if err != nil {
		return err
	}
	for _, b := range backups {
		if b.Err != nil {
			s.unread = append(s.unread, newUnusable(b.Label, b.Err))
			continue
		}
		s.backups = append(s.backups, b.Info)
	}
	s.loaded, s.archives = backups, map[postgres.SystemID]*wal.Index{}
	s.warnInfos(backups)
	return nil
}

// systems are those to report on: the named one, that of the data directory, or
// all that the repository knows.
func (s *walStatus) systems(ctx context.Context, named string) ([]postgres.SystemID, error) {
	if named != "" {
		id, err := parseSystem(named)
		return []postgres.SystemID{id}, err
	}
	id, err := expectedSystem(ctx, s.cfg)
	if err != nil || id != 0 {
		return []postgres.SystemID{id}, err
	}
	return knownSystems(ctx, s.repo)
}

// system reports on the archive of one system. A gap is looked at again:
// segments that come in while the archive is listed look like one, and so do
// pushes of several segments, where no server tells that it still has them.
func (s *walStatus) system(ctx context.Context, id postgres.SystemID) (*systemReport, error) {
	v := &systemView{walStatus: s, id: id}
	for _, b := range s.backups {
		if b.System == id {
			v.backups = append(v.backups, b)
		}
	}
	for try, deadline := 0, s.now().Add(gapPatience); ; try++ {
		if err := v.load(ctx); err != nil {
			return nil, err
		}
		s.askServer(ctx) // after the listing, so that the exposure is no less than it is
		known := s.server != nil && s.server.System == id
		if !v.lost() || known && try > 0 || !known && s.now().After(deadline) {
			return v.report(ctx)
		}
		if !known {
			wait, cancel := context.WithTimeout(ctx, time.Second)
			<-wait.Done()
			cancel()
		}
	}
}

// lost says whether there is a gap that is a failure.
func (v *systemView) lost() bool {
	return slices.ContainsFunc(v.standing.Gaps, func(g wal.Gap) bool { return v.state(g) == gapLoss })
}

// askServer asks where the server is. Not to reach it is no failure: then the
// exposure is unknown, and it is not tried again.
func (s *walStatus) askServer(ctx context.Context) {
	if s.serverErr != nil {
		return
	}
	state, err := wal.AskServer(ctx, s.cfg.Conn, s.slot)
	if err != nil {
		s.server, s.serverErr = nil, err
		return
	}
	s.server = &state
}

// systemView is what is known of one system.
type systemView struct {
	*walStatus
	id       postgres.SystemID
	backups  []repo.Info
	index    *wal.Index
	standing wal.Standing
	lasting  map[string]bool // backups of which the policy wants all WAL to the end
	commits  map[commitPlace]commitFound
}

// commitPlace is an end of archived WAL, and commitFound the newest commit
// before it.
type commitPlace struct {
	timeline postgres.Timeline
	end      postgres.LSN
}

type commitFound struct {
	wal.Commit
	err error
}

func (v *systemView) load(ctx context.Context) error {
	ix, err := v.archive.load(ctx, v.id, func(storage.Info) {})
	if err != nil {
		return err
	}
	v.learnSegmentSize(ctx, ix)
	if err := learnHistories(ctx, v.repo, v.cfg, ix); err != nil {
		return err
	}
	v.archives[v.id] = ix
	v.index, v.standing, v.commits = ix, ix.Standing(v.backups), map[commitPlace]commitFound{}
	if !slices.ContainsFunc(v.standing.Gaps, func(g wal.Gap) bool { return len(g.NeededBy) > 0 }) {
		return nil // nobody asks
	}
	learn := func(ctx context.Context, ix *wal.Index) error { return learnHistories(ctx, v.repo, v.cfg, ix) }
	v.lasting, err = expire.ReadContinuous(ctx, v.repo, v.cfg.Expire, v.walStatus.backups, expire.Look{Headers: v.archive.check, Learn: learn}, v.now())
	return err
}

// learnSegmentSize is for an archive in which there is no whole segment yet: its
// slices do not tell it without an identity.
func (v *systemView) learnSegmentSize(ctx context.Context, ix *wal.Index) {
	if ix.UncountedSlices() && len(v.backups) > 0 {
		ix.LearnSegmentSize(v.backups[0].SegSize)
	}
	if ix.UncountedSlices() && v.cfg.PGData != "" {
		if control, err := wal.ReadControl(ctx, v.cfg.PGData); err == nil && control.SystemID == v.id {
			ix.LearnSegmentSize(control.WALSegmentSize)
		}
	}
}

// newest is the newest commit on a path before the end of its WAL.
func (v *systemView) newest(ctx context.Context, p wal.Path, end postgres.LSN) commitFound {
	place := commitPlace{p.Timeline, end}
	if found, ok := v.commits[place]; ok {
		return found
	}
	var found commitFound
	switch {
	case !v.repo.CanOpenData():
		found.err = repo.ErrNoIdentity
	default:
		found.Commit, found.err = v.index.NewestCommit(ctx, v.repo, p, 0, end)
		if found.err == nil && found.Time.IsZero() {
			found.err = errors.New("the last segments hold no commit")
		}
	}
	v.commits[place] = found
	return found
}

// end is where the archive ends: on its newest timeline.
func (v *systemView) end() (p wal.Path, end postgres.LSN, ok bool) {
	for _, tl := range slices.Backward(v.index.Timelines()) {
		if ranges := v.index.Ranges(tl); len(ranges) > 0 {
			return v.pathOf(tl), ranges[len(ranges)-1].End, true
		}
	}
	return p, 0, false
}

// pathOf is the way to a timeline from its beginning, or the timeline alone
// when its history is not known.
func (v *systemView) pathOf(tl postgres.Timeline) wal.Path {
	h, err := v.index.History(tl)
	if err != nil {
		h = postgres.History{Timeline: tl}
	}
	return wal.Path{Timeline: tl, Spans: h.Path()}
}

// archived is how far the server's WAL can be restored: the end of the window
// on its timeline, or where there is no window at all, of what is archived of it.
func (v *systemView) archived(tl postgres.Timeline) (p wal.Path, end postgres.LSN, ok bool) {
	for _, w := range v.standing.Windows {
		if w.Path.Timeline == tl && w.Reach.End > end {
			p, end, ok = w.Path, w.Reach.End, true
		}
	}
	if ranges := v.index.Ranges(tl); len(v.standing.Windows) == 0 && len(ranges) > 0 {
		p, end, ok = v.pathOf(tl), ranges[len(ranges)-1].End, true
	}
	return p, end, ok
}

// stopsAfter says whether the gap lies before the stop of a backup, which then is
// never consistent.
func (v *systemView) stopsAfter(label string, g wal.Gap) bool {
	return slices.ContainsFunc(v.backups, func(b repo.Info) bool { return b.Label == label && b.StopLSN > g.First.Start() })
}

// gapState says what a gap means.
type gapState string

const (
	gapLoss    gapState = "loss"       // backups cannot be recovered past it
	gapPending gapState = "pending"    // the server has it and will archive it
	gapUnused  gapState = "not needed" // by any backup
)

func (v *systemView) state(g wal.Gap) gapState {
	if !slices.ContainsFunc(g.NeededBy, func(label string) bool { return v.lasting[label] || v.stopsAfter(label, g) }) {
		return gapUnused // also one that expire made
	}
	if v.server == nil || v.server.System != v.id {
		return gapLoss
	}
	if g.Bad != nil {
		return gapLoss // the server cannot archive it: its name is taken
	}
	for no := g.First.No; no <= g.Last.No; no++ {
		seg := postgres.Segment{Timeline: g.First.Timeline, No: no, Size: g.First.Size}
		if g.Last.Timeline != g.First.Timeline && no == g.Last.No {
			seg = g.Last
		}
		if !v.server.WillArchive(seg) {
			return gapLoss
		}
	}
	return gapPending
}
