package rds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Expired is something that was deleted, or would be.
type Expired struct {
	Region string
	Kind   Kind
	ID     string
	Taken  time.Time
	Why    string
	Gone   bool // false with a dry run, or when it could not be deleted
}

// ExpireOptions says what Expire does.
type ExpireOptions struct {
	Source  Source
	Sources []Source
	DryRun  bool
	Waiting Waiting
}

// Expire deletes snapshots of ours that retention does not keep, in every region
// of the source, and what crashed drills left there and whose time to live is
// over. The newest good snapshot of a region is always kept, and so is one that a
// copy is still being made of. A region that fails does not stop the others; the
// error is of all that failed.
func Expire(ctx context.Context, regions Regions, o ExpireOptions) ([]Expired, error) {
	p, err := protectedIDs(ctx, regions, o.Sources)
	if err != nil {
		return nil, err
	}
	var out []Expired
	var failed []error
	all := map[string][]Snapshot{}
	for _, name := range o.Source.regions() {
		api, err := regions(name)
		if err == nil {
			all[name], err = api.Snapshots(ctx, o.Source.Kind, o.Source.ID)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("list the snapshots in %s: %w", name, err))
		}
	}
	for _, name := range o.Source.regions() {
		api, err := regions(name)
		if err != nil {
			continue
		}
		if name == o.Source.Region && len(failed) > 0 {
			// Whether a copy needs one of these is not known.
			failed = append(failed, fmt.Errorf("nothing was deleted in %s, since not every region answers", name))
		} else {
			for _, e := range superfluous(all[name], o.Source, busyAttempts(all), o.Waiting.Now()) {
				e.Region = name
				if !o.DryRun {
					if err := deleteSnapshot(ctx, api, o.Source.Kind, e.ID, o.Source); err != nil {
						failed = append(failed, fmt.Errorf("delete snapshot %s in %s: %w", e.ID, name, err))
					} else {
						e.Gone = true
					}
				}
				out = append(out, e)
			}
		}
		reaped, err := reap(ctx, api, p, o.Sources, o.Waiting, "", o.DryRun)
		for _, e := range reaped {
			e.Region = name
			out = append(out, e)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return out, errors.Join(failed...)
}

// busyAttempts are those of which a copy is not finished.
func busyAttempts(all map[string][]Snapshot) map[string]bool {
	busy := map[string]bool{}
	for _, list := range all {
		for _, s := range list {
			if s.CopyOf != "" && s.Status != available && !hopeless(s.Status) {
				busy[s.Tags[TagAttempt]] = true
			}
		}
	}
	return busy
}

// unverified says that a run waited for it and did not find it as it should be, or
// has not come so far. It takes the place of none that was verified.
func (s Snapshot) unverified() bool { return s.Tags[TagWait] != "" && s.Tags[TagDone] == "" }

// superfluous are those of one region that retention does not keep.
func superfluous(list []Snapshot, source Source, busy map[string]bool, now time.Time) []Expired {
	var ours []Snapshot
	for _, s := range list {
		if guardSnapshot(&s, source) == nil {
			ours = append(ours, s)
		}
	}
	slices.SortFunc(ours, func(a, b Snapshot) int { return strings.Compare(b.Tags[TagAttempt], a.Tags[TagAttempt]) })
	var out []Expired
	good := 0 // of those so far, and they are newer
	for _, s := range ours {
		taken := attemptTime(s.Tags[TagAttempt])
		e := Expired{Kind: s.Kind, ID: s.ID, Taken: taken}
		switch {
		case hopeless(s.Status):
			e.Why = "it is " + s.Status
		case s.Status != available:
			continue // it is still being made
		default:
			newer := good
			if !s.unverified() {
				good++
			}
			switch {
			case newer == 0 || busy[s.Tags[TagAttempt]]:
				continue
			case source.Keep > 0 && newer >= source.Keep:
				e.Why = fmt.Sprintf("%d newer ones are kept", source.Keep)
			case source.KeepFor > 0 && now.Sub(taken) > source.KeepFor:
				e.Why = "it is older than " + source.KeepFor.String()
			default:
				continue
			}
		}
		if s.Status == deleting {
			continue
		}
		out = append(out, e)
	}
	return out
}

// reap removes what drills have left whose time to live is over, but for those of
// one attempt. It does not wait until RDS has finished. One that cannot be removed
// does not stop the others; the error is of all.
func reap(ctx context.Context, api API, p protected, sources []Source, w Waiting, own string, dryRun bool) ([]Expired, error) {
	var out []Expired
	var failed []error
	for _, kind := range []Kind{Instance, Cluster} {
		all, err := api.Databases(ctx, kind)
		if err != nil {
			failed = append(failed, fmt.Errorf("look for what drills have left: %w", err))
			continue
		}
		for _, d := range all {
			attempt, until := d.Tags[TagAttempt], d.Tags.time(TagUntil)
			if attempt == own || d.Tags[TagKind] != tagDrill || until.IsZero() || w.Now().Before(until) {
				continue
			}
			if guardStaging(&d, attempt, p, sources) != nil || d.Status == deleting {
				continue
			}
			e := Expired{Kind: kind, ID: d.ID, Taken: d.Created, Why: "a drill left it; its time to live ended " + stamp(until)}
			if !dryRun {
				if _, err := deleteStaging(ctx, api, kind, d.ID, attempt, p, sources); err != nil {
					failed = append(failed, fmt.Errorf("remove %s, which a drill left: %w", d.ID, err))
				} else {
					e.Gone = true
				}
			}
			out = append(out, e)
		}
	}
	return out, errors.Join(failed...)
}
