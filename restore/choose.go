package restore

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// choose lists the backups that can serve the target as far as their times,
// LSNs and timelines tell, the best first.
func choose(in *Inputs, t Target) ([]candidate, []string, error) {
	backups, err := named(in, t)
	if err != nil {
		return nil, nil, err
	}
	early, err := before(backups, t.Point)
	if err != nil {
		return nil, nil, err
	}
	system := early[len(early)-1].System
	archive := in.Archives[system]
	if archive == nil {
		return nil, nil, &MissingFactError{Archive: system}
	}
	notes := append(slices.Clone(in.Notes), unreadNotes(in, t)...)
	var out []candidate
	var first, unread error
	for _, info := range slices.Backward(early) {
		if info.System != system {
			continue
		}
		path, err := archive.Path(t.Timeline, info.Timeline, info.StopLSN)
		if err != nil {
			first = cmp.Or(first, err)
			if !knownOff(err) {
				unread = cmp.Or(unread, err)
			}
			continue
		}
		out = append(out, candidate{info, archive, path})
	}
	if len(out) == 0 {
		return nil, nil, offTimeline(t.Backup, first, unread)
	}
	if out, err = onNewest(out, t); err != nil {
		return nil, nil, err
	}
	for _, tl := range out[0].path.Skipped {
		notes = append(notes, fmt.Sprintf("timeline %d is not followed: it does not descend from backup %s", tl, out[0].info.Label))
	}
	return out, notes, nil
}

// knownOff says whether the error is the archive's answer that the timeline does
// not lead through a backup. Any other means that a history could not be opened.
func knownOff(err error) bool {
	_, off := errors.AsType[*wal.NotAncestorError](err)
	return off || errors.Is(err, wal.ErrNoHistory)
}

// offTimeline is the error when no backup, or not the one with the label, can
// be brought to the timeline; unread is why that is not even known, nil when it is.
func offTimeline(label string, first, unread error) error {
	switch {
	case label != "" && unread != nil:
		return &BackupError{Label: label, Reason: "whether it lies on the timeline is not known", Err: unread}
	case label != "":
		return &BackupError{Label: label, Reason: "it does not lie on the timeline", Err: first}
	case unread != nil:
		return &BackupError{Reason: "which backups lie on the timeline is not known", Err: unread}
	}
	return &BackupError{Reason: "no backup lies on the timeline", Err: first}
}

// named filters by the label and the system that were asked for.
func named(in *Inputs, t Target) ([]repo.Info, error) {
	if t.Backup != "" {
		if err := in.Unread[t.Backup]; err != nil {
			return nil, &BackupError{Label: t.Backup, Reason: "it cannot be read", Err: err}
		}
	}
	var out []repo.Info
	for _, info := range in.Backups {
		if (t.Backup == "" || info.Label == t.Backup) && (t.System == 0 || info.System == t.System) {
			out = append(out, info)
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case t.Backup != "":
		return nil, &BackupError{Label: t.Backup, Reason: "the repository holds no such backup"}
	case len(in.Backups) > 0:
		return nil, &BackupError{Reason: fmt.Sprintf("the repository holds no backup of system %s", t.System)}
	}
	for _, label := range slices.Sorted(maps.Keys(in.Unread)) {
		return nil, &BackupError{Label: label, Reason: "it cannot be read", Err: in.Unread[label]}
	}
	return nil, ErrNoBackup
}

// before filters by the target: a backup must be consistent before it.
func before(backups []repo.Info, p Point) ([]repo.Info, error) {
	fits := func(info repo.Info) bool {
		switch p.Kind {
		case AtTime:
			return !info.StopTime.After(p.Time)
		case AtLSN:
			return info.StopLSN <= p.LSN
		}
		return true
	}
	var out []repo.Info
	for _, info := range backups {
		if fits(info) {
			out = append(out, info)
		}
	}
	if len(out) == 0 {
		oldest := backups[0]
		return nil, &UnreachableError{Point: p, TooEarly: true,
			Reason: fmt.Sprintf("the oldest backup that could serve, %s, is consistent only from %s UTC (%s) on",
				oldest.Label, oldest.StopTime.UTC().Format(timeForm), oldest.StopLSN)}
	}
	return out, nil
}

// onNewest keeps the backups from which the newest timeline can be reached.
//
// After a restore to a point in the past the newest backup may be one of the
// history that was given up then, and the newest timeline reachable only from
// an older backup. Or the newest timeline is that of a copy that once archived
// here by mistake. Nothing in the archive tells the two apart, and the wrong
// guess brings the wrong data back, so the choice is not ours.
func onNewest(all []candidate, t Target) ([]candidate, error) {
	if t.Backup != "" || t.Timeline != wal.LatestTimeline {
		return all, nil
	}
	best := slices.MaxFunc(all, func(a, b candidate) int { return cmp.Compare(a.path.Timeline, b.path.Timeline) })
	if newest := all[0]; newest.path.Timeline != best.path.Timeline {
		return nil, &AmbiguousError{
			Newest: best.path.Timeline, From: best.info.Label,
			Other: newest.path.Timeline, OtherFrom: newest.info.Label,
		}
	}
	return slices.DeleteFunc(all, func(c candidate) bool { return c.path.Timeline != best.path.Timeline }), nil
}

// unreadNotes tells of backups that were not considered.
func unreadNotes(in *Inputs, t Target) []string {
	var notes []string
	for _, label := range slices.Sorted(maps.Keys(in.Unread)) {
		if t.Backup == "" {
			notes = append(notes, fmt.Sprintf("backup %s is passed over: %v", label, in.Unread[label]))
		}
	}
	return notes
}
