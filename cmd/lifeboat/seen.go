package main

import (
	"context"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/hoststate"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/report"
	"github.com/lifeboat-dr/lifeboat/verify/seen"
)

// lookBack compares the repository with the newest that this host has seen of it, and
// remembers what is newer now. A repository that has gone back is remembered as it was
// until that is accepted. A host that remembers nothing finds nothing.
func (a *app) lookBack(ctx context.Context, cfg *Config, r *repo.Repo, f seen.Facts) ([]seen.Gone, error) {
	dir := a.hostState(cfg, r.Marker().Repository)
	if dir == nil {
		return nil, nil
	}
	mark, err := hoststate.ReadJSON[seen.Mark](dir, cfg.stateName(seen.File), seen.Version)
	if err != nil {
		a.stateLost("%v: what this host has seen of the repository is not known", err)
	}
	gone, err := mark.Compare(ctx, r, f)
	if err != nil {
		return nil, fmt.Errorf("compare with what this host has seen: %w", err)
	}
	if len(gone) > 0 {
		return gone, nil
	}
	return nil, a.remember(ctx, cfg, r, f, (*seen.Mark).Raise)
}

// remember takes what the repository is now into this host's mark.
func (a *app) remember(ctx context.Context, cfg *Config, r *repo.Repo, f seen.Facts, take func(m *seen.Mark, now seen.Mark) bool) error {
	dir := a.hostState(cfg, r.Marker().Repository)
	if dir == nil {
		return nil
	}
	now, err := seen.Of(ctx, r, f)
	if err != nil {
		return fmt.Errorf("look at the newest objects: %w", err)
	}
	err = hoststate.UpdateJSON(ctx, dir, cfg.stateName(seen.File), seen.Version, func(m *seen.Mark) bool { return take(m, now) })
	if err != nil {
		a.stateLost("%v: a repository that goes back from here is not noticed on this host", err)
	}
	return nil
}

// lookBeforeBackup warns of a repository that has gone back, and says whether it has.
// Nothing of it keeps a backup from being taken: one is needed all the more.
func (a *app) lookBeforeBackup(ctx context.Context, cfg *Config, r *repo.Repo) (back bool) {
	if a.hostState(cfg, r.Marker().Repository) == nil {
		return false
	}
	var gone []seen.Gone
	backups, err := r.LoadBackups(ctx)
	if err == nil {
		gone, err = a.lookBack(ctx, cfg, r, seen.Facts{Backups: backups, Listed: true})
	}
	if err != nil && ctx.Err() == nil {
		a.warn("whether the repository has gone back is not known: %v", err)
	}
	for _, text := range goneTexts(gone) {
		a.warn("%s", text)
	}
	return len(gone) > 0
}

// rememberBackup takes a backup that this host has just committed into its mark.
func (a *app) rememberBackup(ctx context.Context, cfg *Config, r *repo.Repo, label string) {
	own, err := r.LoadBackup(ctx, label)
	if err == nil {
		err = a.remember(ctx, cfg, r, seen.Facts{Backups: []repo.Backup{own}, Listed: true}, (*seen.Mark).Raise)
	}
	if err != nil {
		a.stateLost("that this host has taken backup %s is not remembered: %v", label, err)
	}
}

// rememberDrill takes evidence that this host has just stored into its mark, unless the
// repository has gone back.
func (a *app) rememberDrill(ctx context.Context, cfg *Config, r *repo.Repo, doc *evidence.Document) {
	if _, err := a.lookBack(ctx, cfg, r, seen.Facts{Drills: []*evidence.Document{doc}, Trusted: true}); err != nil {
		a.stateLost("that this host has stored drill %s is not remembered: %v", doc.Drill.ID, err)
	}
}

// newestDrills are those of the last few documents of drills that count here.
// trusted says whether any could.
func (a *app) newestDrills(ctx context.Context, cfg *Config, r *repo.Repo) (drills []*evidence.Document, trusted bool, err error) {
	keys, err := cfg.trustedHosts(r.Marker().Cluster)
	if err != nil || len(keys) == 0 {
		return nil, false, err
	}
	ids, err := evidence.List(ctx, r.Store(), time.Time{})
	if err != nil || len(ids) == 0 {
		return nil, true, err
	}
	const few = 16
	h, err := a.history(ctx, r, keys, evidence.Began(ids[max(0, len(ids)-few)]))
	if err != nil {
		return nil, false, err
	}
	return h.Drills, true, nil
}

// drillsSeen are the facts of a history that was read.
func drillsSeen(h *report.History) seen.Facts {
	return seen.Facts{Drills: h.Drills, Trusted: h.Trusted}
}

func goneTexts(gone []seen.Gone) []string {
	var out []string
	for _, g := range gone {
		out = append(out, "the repository has gone back: "+g.String())
	}
	return out
}

// goneError is the error of a repository that has gone back, nil when it has not.
func goneError(gone []seen.Gone) error {
	if len(gone) == 0 {
		return nil
	}
	more := ""
	if n := len(gone) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return failed(exitMissed, "the repository has gone back: %s%s", gone[0], more).
		hinted("find out who removed it; older versions in the store, or a copy, may have it. If you did that yourself: \"lifeboat verify --accept-rollback\"")
}
