package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
)

// passedOver is one of several repositories that a restore does not take.
type passedOver struct {
	Repository string `json:"repository"`
	Reason     string `json:"reason"`
}

// option is a repository with a plan that works.
type option struct {
	cfg   *Config
	repo  *repo.Repo
	plan  *restore.Plan
	fetch []string // Target.FetchCommand
}

// choose takes the nearest repository that has all that the target needs, and
// says why not those before it. Recovery to the end of the archive needs the WAL
// of whichever got the most: the nearest may have been down when the end came.
func (r *restoration) choose(ctx context.Context) (*repo.Repo, *restore.Plan, error) {
	if !r.cfg.several() {
		repository, err := openRepo(ctx, r.cfg)
		if err != nil {
			return nil, nil, err
		}
		plan, err := r.makePlan(ctx, repository)
		return repository, plan, err
	}
	var options []option
	var failures []placeFailure
	for _, one := range r.cfg.each() {
		o, err := r.consider(ctx, one)
		if ctx.Err() != nil || noneDoesBetter(err) {
			return nil, nil, err
		}
		if err != nil {
			failures = append(failures, placeFailure{one.Name, err})
			continue
		}
		options = append(options, o)
		if r.target.Point.Kind != restore.ToEnd {
			break // the nearest that reaches the target
		}
	}
	if len(options) == 0 {
		return nil, nil, failedPlaces("restore:", len(failures), failures)
	}
	best := furthest(options)
	r.tell(options, best, failures)
	r.source, r.target.FetchCommand = best.cfg.Name, best.fetch
	return best.repo, best.plan, nil
}

func (r *restoration) consider(ctx context.Context, cfg *Config) (option, error) {
	repository, err := openOne(ctx, cfg)
	if err != nil {
		return option{}, err
	}
	// Recovery takes WAL from the repository of the plan alone. With all of them it
	// could never end where one is lost, because what that one holds is not known.
	chosen := *cfg
	chosen.Chosen = true
	if r.target.FetchCommand, err = fetchCommand(&chosen); err != nil {
		return option{}, err
	}
	plan, err := r.makePlan(ctx, repository)
	return option{cfg, repository, plan, r.target.FetchCommand}, err
}

// noneDoesBetter says whether an error ends the choice: it is about where to
// restore to, or the target has two meanings, and a repository that happens to
// hold but one of them is no answer to which was meant.
func noneDoesBetter(err error) bool {
	_, directory := errors.AsType[*restore.DirError](err)
	_, space := errors.AsType[*restore.SpaceError](err)
	_, owner := errors.AsType[*restore.OwnerError](err)
	_, target := errors.AsType[*restore.TargetError](err)
	_, ambiguous := errors.AsType[*restore.AmbiguousError](err)
	return directory || space || owner || target || ambiguous
}

// furthest is the first of those from which recovery gets the furthest.
func furthest(options []option) option {
	best := options[0]
	for _, o := range options[1:] {
		if further(o.plan, best.plan) {
			best = o
		}
	}
	return best
}

// further says whether a plan gets further than another. Between systems, as
// after pg_upgrade, only time counts: timelines and positions begin again.
func further(a, b *restore.Plan) bool {
	switch {
	case a.Backup.System != b.Backup.System:
		return a.Backup.StopTime.After(b.Backup.StopTime)
	case a.Timeline != b.Timeline:
		return a.Timeline > b.Timeline
	}
	return a.StopLSN > b.StopLSN
}

// tell notes in the plan which repository it is about, and why the others were
// not taken.
func (r *restoration) tell(options []option, best option, failures []placeFailure) {
	notes := []string{fmt.Sprintf("from the repository %s, %s", best.cfg.Name, best.cfg.Repository)}
	pass := func(name, reason string) {
		r.passedOver = append(r.passedOver, passedOver{name, reason})
		notes = append(notes, fmt.Sprintf("not from %s: %s", name, reason))
	}
	for _, f := range failures {
		reason := oneLine(f.err.Error())
		if storeFails(f.err) && r.target.Point.Kind == restore.ToEnd {
			reason += "; it may hold newer WAL"
		}
		pass(f.name, reason)
	}
	for _, o := range options {
		switch {
		case o.cfg == best.cfg:
		case o.plan.Backup.System != best.plan.Backup.System:
			pass(o.cfg.Name, fmt.Sprintf("its backup %s is of another system, %s, and older than %s of system %s", o.plan.Backup.Label, o.plan.Backup.System, best.plan.Backup.Label, best.plan.Backup.System))
		case o.plan.Timeline == best.plan.Timeline && o.plan.StopLSN == best.plan.StopLSN:
			pass(o.cfg.Name, fmt.Sprintf("it gets as far, and %s is nearer", best.cfg.Name))
		default:
			pass(o.cfg.Name, fmt.Sprintf("its WAL ends at %s on timeline %d, before %s on timeline %d", o.plan.StopLSN, o.plan.Timeline, best.plan.StopLSN, best.plan.Timeline))
		}
	}
	best.plan.Notes = append(notes, best.plan.Notes...)
}
