package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/seen"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// walStatusReport is the JSON document of "lifeboat wal status".
type walStatusReport struct {
	Name       string           `json:"name,omitempty"` // of one of several repositories
	Repository string           `json:"repository"`
	Heartbeat  float64          `json:"heartbeat_seconds,omitempty"` // as it was said
	Systems    []systemReport   `json:"systems"`
	Unreadable []unusableReport `json:"unreadable_backups,omitempty"` // of which system, nobody can tell
	Gone       []seen.Gone      `json:"gone_back,omitempty"`          // what this host has seen and is not there any more
	Error      string           `json:"error,omitempty"`              // of one of several repositories that told nothing

	rpo time.Duration // the objective; 0 for none
}

type systemReport struct {
	System      postgres.SystemID    `json:"system"`
	SegmentSize postgres.SegmentSize `json:"wal_segment_size,omitempty"`
	Windows     []windowReport       `json:"windows"`
	Unusable    []unusableReport     `json:"unusable_backups,omitempty"`
	Headers     headersReport        `json:"headers"`
	Timelines   []timelineReport     `json:"timelines"`
	Gaps        []gapReport          `json:"gaps"`
	Newest      newestReport         `json:"newest_commit"`
	Exposure    exposureReport       `json:"exposure"`
	Notes       []string             `json:"notes,omitempty"`
}

// windowReport is a stretch of WAL of which every moment can be restored.
type windowReport struct {
	Backups   []string          `json:"backups"`
	Timeline  postgres.Timeline `json:"timeline"`
	BeginLSN  postgres.LSN      `json:"begin_lsn"`
	BeginTime time.Time         `json:"begin_time"`
	EndLSN    postgres.LSN      `json:"end_lsn"`
	EndTime   *time.Time        `json:"end_time"` // of the newest commit; null when unknown
	Unknown   string            `json:"unknown,omitempty"`
	Unchecked int               `json:"not_checked"` // segments of it that are only listed
}

type unusableReport struct {
	Backup string `json:"backup"`
	Reason string `json:"reason"`
	err    error
}

func newUnusable(label string, err error) unusableReport {
	return unusableReport{label, oneLine(err.Error()), err}
}

// unjudged says that it is not known whether the backup can be used. One that
// lacks WAL cannot; its gap says whether that is for good.
func (u unusableReport) unjudged() bool {
	_, lacks := errors.AsType[*wal.BackupGapError](u.err)
	return !lacks && !errors.Is(u.err, wal.ErrNoHistory)
}

type timelineReport struct {
	Timeline postgres.Timeline `json:"timeline"`
	Parent   postgres.Timeline `json:"parent,omitempty"`
	Switch   postgres.LSN      `json:"switch_lsn,omitempty"` // where it left its parent
	Reason   string            `json:"reason,omitempty"`     // of the switch, in the server's words
	Unknown  string            `json:"unknown,omitempty"`    // why its parent is not known
	Ranges   []rangeReport     `json:"ranges"`
}

type rangeReport struct {
	Begin    postgres.LSN `json:"begin"`
	End      postgres.LSN `json:"end"`
	First    string       `json:"first_segment"`
	Last     string       `json:"last_segment"`
	Segments int          `json:"segments"`
	InSlices bool         `json:"in_slices"` // the last one is not complete yet
}

type gapReport struct {
	First    string       `json:"first_missing"`
	Last     string       `json:"last_missing"`
	Segments int          `json:"segments"`
	Held     postgres.LSN `json:"archived_to"`
	Next     postgres.LSN `json:"archived_from,omitempty"`
	Problem  string       `json:"problem,omitempty"` // of what bears the name of the first, if something does
	State    gapState     `json:"state"`
	NeededBy []string     `json:"needed_by"`
}

type newestReport struct {
	Time    *time.Time   `json:"time"`
	LSN     postgres.LSN `json:"lsn,omitempty"`
	Unknown string       `json:"unknown,omitempty"`
}

// exposureReport is what would be lost if the server died now. Figures that
// are not known are null.
type exposureReport struct {
	Bytes    *int64            `json:"bytes"`
	Least    *float64          `json:"least_seconds"`
	Most     *float64          `json:"most_seconds"`
	Unknown  string            `json:"unknown,omitempty"`
	Timeline postgres.Timeline `json:"server_timeline,omitempty"`
	Server   postgres.LSN      `json:"server_lsn,omitempty"`
	Time     *time.Time        `json:"server_time,omitempty"`
	Standby  bool              `json:"standby,omitempty"`
	Archived postgres.LSN      `json:"archived_to,omitempty"`
}

// noIdentity is why commit times are not known where there is no identity.
const noIdentity = "the WAL is sealed: run it where the recovery key is, with --identity FILE"

func (v *systemView) report(ctx context.Context) (*systemReport, error) {
	r := &systemReport{System: v.id, SegmentSize: v.index.SegmentSize(), Windows: []windowReport{}, Timelines: []timelineReport{}, Gaps: []gapReport{}}
	for _, w := range v.standing.Windows {
		r.Windows = append(r.Windows, v.windowReport(ctx, w))
	}
	for _, u := range v.standing.Useless {
		r.Unusable = append(r.Unusable, newUnusable(u.Label, u.Err))
	}
	for _, tl := range v.index.Timelines() {
		r.Timelines = append(r.Timelines, v.timelineReport(tl))
	}
	for _, g := range v.standing.Gaps {
		gap := gapReport{First: g.First.Name(), Last: g.Last.Name(), Segments: g.Segments(), Held: g.Held, Next: g.Next, State: v.state(g), NeededBy: append([]string{}, g.NeededBy...)}
		if g.Bad != nil {
			gap.Problem = oneLine(g.Bad.Error())
		}
		r.Gaps = append(r.Gaps, gap)
	}
	r.Headers = newHeadersReport(v.index, v.within)
	r.Newest = v.newestReport(ctx)
	r.Exposure = v.exposureReport(ctx)
	r.Notes = v.notes()
	return r, ctx.Err()
}

func (v *systemView) windowReport(ctx context.Context, w wal.Window) windowReport {
	r := windowReport{Backups: w.Backups, Timeline: w.Path.Timeline, BeginLSN: w.Begin, BeginTime: w.BeginTime.UTC(), EndLSN: w.Reach.End, Unchecked: w.Unchecked}
	switch found := v.newest(ctx, w.Path, w.Reach.End); {
	case found.err != nil:
		r.Unknown = unknownText(found.err)
	case found.Time.Before(w.BeginTime): // nothing was committed since
		r.EndTime = &r.BeginTime
	default:
		at := found.Time.UTC()
		r.EndTime = &at
	}
	return r
}

func (v *systemView) timelineReport(tl postgres.Timeline) timelineReport {
	r := timelineReport{Timeline: tl, Ranges: []rangeReport{}}
	h, err := v.index.History(tl)
	switch n := len(h.Entries); {
	case err != nil:
		r.Unknown = unknownText(err)
	case n > 0:
		r.Parent, r.Switch, r.Reason = h.Entries[n-1].Timeline, h.Entries[n-1].Switch, oneLine(h.Entries[n-1].Reason)
	case tl > 1 && !v.index.HasHistory(tl):
		r.Unknown = wal.ErrNoHistory.Error()
	}
	size := v.index.SegmentSize()
	for _, g := range v.index.Ranges(tl) {
		last := postgres.SegmentEndingAt(tl, g.End, size)
		r.Ranges = append(r.Ranges, rangeReport{g.Begin, g.End, postgres.SegmentAt(tl, g.Begin, size).Name(), last.Name(),
			g.Segments(size), !v.index.HasWhole(last)})
	}
	return r
}

func (v *systemView) newestReport(ctx context.Context) newestReport {
	p, end, ok := v.end()
	if !ok {
		return newestReport{Unknown: "no WAL is archived"}
	}
	found := v.newest(ctx, p, end)
	if found.err != nil {
		return newestReport{Unknown: unknownText(found.err)}
	}
	at := found.Time.UTC()
	return newestReport{Time: &at, LSN: found.LSN}
}

func (v *systemView) exposureReport(ctx context.Context) exposureReport {
	switch {
	case v.serverErr != nil:
		return exposureReport{Unknown: "the server was not reached: " + oneLine(v.serverErr.Error())}
	case v.server.System != v.id:
		return exposureReport{Unknown: fmt.Sprintf("conn leads to system %s", v.server.System)}
	}
	s := v.server
	now := s.Now.UTC()
	r := exposureReport{Timeline: s.Timeline, Server: s.Flushed, Time: &now, Standby: s.Standby}
	p, end, ok := v.archived(s.Timeline)
	if !ok {
		r.Unknown = fmt.Sprintf("the server is on timeline %s, and no restore leads there", s.Timeline)
		return r
	}
	found := v.newest(ctx, p, end)
	e := s.Exposure(end, found.Commit, v.heartbeat)
	if r.Archived = end; e.Ahead != nil {
		r.Unknown = oneLine(e.Ahead.Error())
		return r
	}
	if r.Bytes = &e.Bytes; !e.Known {
		r.Unknown = unknownText(found.err)
		return r
	}
	least, most := e.Least.Seconds(), e.Most.Seconds()
	r.Least, r.Most = &least, &most
	return r
}

// notes are what else a person should know.
func (v *systemView) notes() []string {
	var out []string
	timelines := v.index.Timelines()
	if len(v.backups) == 0 {
		out = append(out, "there is no backup of this system: WAL alone restores nothing; \"lifeboat backup\" takes one")
	}
	if v.server != nil && v.server.System == v.id && len(timelines) > 0 && v.server.Timeline < timelines[len(timelines)-1] {
		out = append(out, fmt.Sprintf("the server is on timeline %s, and the archive has gone on to timeline %s: if conn leads to an old primary, stop it",
			v.server.Timeline, timelines[len(timelines)-1]))
	}
	if v.index.UncountedSlices() {
		out = append(out, "a stream has stored the beginning of a segment, and no whole one: how far it gets is known where the recovery key is, with --identity FILE")
	}
	if n := v.index.Foreign(); n > 0 {
		out = append(out, fmt.Sprintf("%d objects in the archive's directory are no WAL files", n))
	}
	return out
}

func unknownText(err error) string {
	if errors.Is(err, repo.ErrNoIdentity) {
		return noIdentity
	}
	return oneLine(err.Error())
}

// verdict is the error with which the command ends, after the report.
func (r *walStatusReport) verdict() error {
	if err := goneError(r.Gone); err != nil {
		return err
	}
	var unknown error
	for _, s := range r.Systems {
		for _, g := range s.Gaps {
			if g.State == gapLoss {
				return s.gapError(g)
			}
		}
		for _, u := range s.Unusable {
			switch {
			case errors.Is(u.err, wal.ErrNoHistory):
				return fmt.Errorf("backup %s: %w", u.Backup, u.err)
			case u.unjudged() && unknown == nil:
				unknown = unjudgedError(u)
			}
		}
	}
	if unknown != nil {
		return unknown
	}
	return cmp.Or(r.nothing(), r.missed(), r.unchecked())
}

// nothing is the error of an archive out of which nobody could restore.
func (r *walStatusReport) nothing() error {
	if slices.ContainsFunc(r.Systems, func(s systemReport) bool { return len(s.Windows) > 0 }) {
		return nil
	}
	return failed(exitFailed, "nothing can be restored from %s", r.Repository).
		hinted("take a backup with \"lifeboat backup\"; the report says what is wrong with those that are there")
}

// unchecked is the error of what can be restored by the names of objects alone.
func (r *walStatusReport) unchecked() error {
	for _, s := range r.Systems {
		for _, w := range s.Windows {
			if w.Unchecked > 0 {
				return uncheckedError("what can be restored from backup "+labelsText(w.Backups), w.Unchecked, s.Headers.Why)
			}
		}
	}
	return nil
}

// missed is the error of commits that would be lost now and are older than the
// objective for that allows. What may be lost, and may be nothing, is in the report.
func (r *walStatusReport) missed() error {
	for _, s := range r.Systems {
		least := s.Exposure.Least
		if r.rpo > 0 && least != nil && *least > r.rpo.Seconds() {
			return failed(exitMissed, "the commits of the last %s at least would be lost now; the objective, drill.rpo, is %s", span(time.Duration(*least*float64(time.Second))), span(r.rpo)).
				hinted("see why the server cannot archive: pg_stat_archiver, and the server's log")
		}
	}
	return nil
}

// gapError names the first gap, and as a hint what can be restored all the same.
func (s *systemReport) gapError(g gapReport) error {
	if g.Problem != "" {
		return failed(exitFailed, "what is archived as WAL segment %s is not it, and backup %s cannot be recovered past %s: %s", g.First, labelsText(g.NeededBy), g.Held, g.Problem).
			hinted("%s; %s", s.canRestore(), strangerHint)
	}
	missing := "WAL segment " + g.First + " is"
	if g.Segments > 1 {
		missing = fmt.Sprintf("%d WAL segments, the first %s, are", g.Segments, g.First)
	}
	return failed(exitFailed, "%s missing from the archive: backup %s cannot be recovered past %s", missing, labelsText(g.NeededBy), g.Held).
		hinted("%s; if a server still has %s in pg_wal, archive it with \"lifeboat wal push\", else take a backup now", s.canRestore(), g.First)
}

func unjudgedError(u unusableReport) error {
	return failed(exitUnknown, "what backup %s can restore is not known: %s", u.Backup, u.Reason).
		hinted("run it with the recovery key (--identity FILE); \"lifeboat restore --dry-run\" tells more of one backup")
}

// canRestore says in one line what can be restored.
func (s *systemReport) canRestore() string {
	if len(s.Windows) == 0 {
		return "nothing can be restored"
	}
	var parts []string
	for _, w := range s.Windows {
		parts = append(parts, w.text())
	}
	return "what can still be restored is " + strings.Join(parts, ", and ")
}

func labelsText(labels []string) string {
	switch len(labels) {
	case 1:
		return labels[0]
	case 2:
		return labels[0] + " or " + labels[1]
	}
	return fmt.Sprintf("%s or %d later ones", labels[0], len(labels)-1)
}

// text is a window in words.
func (w windowReport) text() string {
	end := cmp.Or(w.EndTime, &time.Time{})
	to := fmt.Sprintf("%s (time unknown)", w.EndLSN)
	if !end.IsZero() {
		to = fmt.Sprintf("%s (%s)", utc(*end), w.EndLSN)
	}
	text := fmt.Sprintf("every moment from %s (%s) to %s on timeline %s", utc(w.BeginTime), w.BeginLSN, to, w.Timeline)
	if w.Unchecked > 0 {
		text += fmt.Sprintf(", if %s of it that %s listed, not checked, %s what %s called", plural(w.Unchecked, "segment"), isAre(w.Unchecked), isAre(w.Unchecked), itThey(w.Unchecked))
	}
	return text
}
