package rds

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Status is what is known of a source now.
type Status struct {
	Source     Source
	Database   *Database // nil: it is not there
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
}

// Look asks RDS for the status of a source. It changes nothing.
func Look(ctx context.Context, regions Regions, s Source, now time.Time) (*Status, error) {
	out := &Status{Source: s, Exposure: -1}
	api, err := regions(s.Region)
	if err != nil {
		return nil, err
	}
	d, err := lookAtSource(ctx, api, s)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
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
			return nil, err
		}
		out.Regions = append(out.Regions, *r)
		out.Leftovers = append(out.Leftovers, left...)
	}
	return out, nil
}

func lookAtRegion(ctx context.Context, regions Regions, s Source, name string) (*RegionStatus, []string, error) {
	api, err := regions(name)
	if err != nil {
		return nil, nil, err
	}
	all, err := api.Snapshots(ctx, s.Kind, s.ID)
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return a.taken().Compare(b.taken()) })
	r := &RegionStatus{Region: name}
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
			return nil, nil, err
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
