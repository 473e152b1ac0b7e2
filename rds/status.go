package rds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Status is what is known of a source now.
type Status struct {
	Source     Source
	Database   *Database // nil: it is not there, or Err says why that is not known
	Err        error
	Regions    []RegionStatus
	Restorable time.Time
	Exposure   time.Duration // since the latest restorable time; below 0: not known
	Leftovers  []string      // of drills, their time to live over or not
}

// RegionStatus is what lies in a region.
type RegionStatus struct {
	Region  string
	Count   int       // snapshots that can be restored, automated ones included
	Ours    int       // those that Lifeboat took
	Newest  *Snapshot // that can be restored
	Pending *Snapshot // newest that is still being made
	Key     bool      // a KMS key is configured there
	Err     error     // why the rest is not known
}

// Look asks RDS for the status of a source. It changes nothing. A region that does
// not answer keeps none of the others from being told: that is the night on which
// they matter. The error is of all that failed, and the status is there nonetheless.
func Look(ctx context.Context, regions Regions, s Source, now time.Time) (*Status, error) {
	out := &Status{Source: s, Exposure: -1}
	var failed []error
	d, err := lookAtHome(ctx, regions, s)
	if err != nil && !errors.Is(err, ErrNotFound) {
		out.Err, failed = err, append(failed, err)
	}
	if err == nil {
		out.Database, out.Restorable = d, d.Restorable
		if !d.Restorable.IsZero() {
			out.Exposure = max(0, now.Sub(d.Restorable))
		}
	}
	for _, name := range s.regions() {
		r, left, err := lookAtRegion(ctx, regions, s, name)
		if err != nil {
			err = fmt.Errorf("look at %s: %w", name, err)
			r.Err, failed = err, append(failed, err)
		}
		out.Regions = append(out.Regions, *r)
		out.Leftovers = append(out.Leftovers, left...)
	}
	return out, errors.Join(failed...)
}

func lookAtHome(ctx context.Context, regions Regions, s Source) (*Database, error) {
	api, err := regions(s.Region)
	if err != nil {
		return nil, err
	}
	return lookAtSource(ctx, api, s)
}

func lookAtRegion(ctx context.Context, regions Regions, s Source, name string) (*RegionStatus, []string, error) {
	r := &RegionStatus{Region: name}
	api, err := regions(name)
	if err != nil {
		return r, nil, err
	}
	all, err := api.Snapshots(ctx, s.Kind, s.ID)
	if err != nil {
		return r, nil, err
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return a.taken().Compare(b.taken()) })
	if i := slices.IndexFunc(s.DR, func(r Region) bool { return r.Name == name }); i >= 0 {
		r.Key = s.DR[i].KMSKey != ""
	}
	for _, x := range all {
		switch {
		case x.Status == available:
			r.Count++
			r.Newest = &x
			if guardSnapshot(&x, s) == nil {
				r.Ours++
			}
		case !hopeless(x.Status):
			r.Pending = &x
		}
	}
	var left []string
	for _, kind := range []Kind{Instance, Cluster} {
		databases, err := api.Databases(ctx, kind)
		if err != nil {
			return r, left, err
		}
		for _, d := range databases {
			if d.Tags[TagKind] == tagDrill && d.Tags[TagSource] == s.Name {
				left = append(left, d.ID+" in "+name)
			}
		}
	}
	return r, left, nil
}

// Taken is when the data of a snapshot is of.
func (s Snapshot) Taken() time.Time { return s.taken() }
