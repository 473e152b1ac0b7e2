package rds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// protected are the resource ids of production: what must never be deleted,
// whatever its name and tags say.
type protected []string

// protectedIDs asks for them. Without an answer nothing may be deleted, so an
// error is one; a source that is gone has nothing left to protect.
func protectedIDs(ctx context.Context, regions Regions, sources []Source) (protected, error) {
	var ids protected
	for _, s := range sources {
		api, err := regions(s.Region)
		if err != nil {
			return nil, err
		}
		d, err := api.Database(ctx, s.Kind, s.ID)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at source %s before anything is deleted: %w", s.Name, err)
		}
		ids = append(ids, d.ResourceID)
		for _, m := range d.Members {
			member, err := api.Database(ctx, Instance, m.ID)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("look at source %s before anything is deleted: %w", s.Name, err)
			}
			ids = append(ids, member.ResourceID)
		}
	}
	return ids, nil
}

// guardStaging refuses everything but what this very attempt made: it must carry
// our tag, our prefix and the attempt's id in tag and name, and must not be, or
// belong to, a source.
func guardStaging(d *Database, attempt string, p protected, sources []Source) error {
	refuse := func(format string, args ...any) error {
		return &RefusedError{What: fmt.Sprintf("%s %s", d.Kind, d.ID), Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case !isAttempt(attempt):
		return refuse("%q is no id of an attempt", attempt)
	case !strings.HasPrefix(d.ID, DrillPrefix):
		return refuse("its name does not begin with %s", DrillPrefix)
	case d.ID != stagingName(attempt) && d.ID != memberName(attempt):
		return refuse("its name is not that of attempt %s", attempt)
	case d.Tags[TagKind] != tagDrill:
		return refuse("it does not carry the tag %s=%s", TagKind, tagDrill)
	case d.Tags[TagAttempt] != attempt:
		return refuse("it does not carry the tag %s=%s", TagAttempt, attempt)
	case d.ResourceID == "":
		return refuse("its resource id is not known")
	case slices.Contains(p, d.ResourceID):
		return refuse("it is a source: resource id %s", d.ResourceID)
	}
	for _, s := range sources {
		if s.ID == d.ID || d.Kind == Instance && s.Kind == Cluster && d.Cluster == s.ID {
			return refuse("it is, or belongs to, source %s", s.Name)
		}
	}
	if d.Kind == Instance && d.Cluster != "" && d.Cluster != stagingName(attempt) {
		return refuse("it belongs to cluster %s", d.Cluster)
	}
	for _, m := range d.Members {
		if m.ID != memberName(attempt) {
			return refuse("instance %s belongs to it", m.ID)
		}
	}
	return nil
}

// guardSnapshot refuses everything but finished snapshots and copies that
// Lifeboat made of this source.
func guardSnapshot(s *Snapshot, source Source) error {
	refuse := func(format string, args ...any) error {
		return &RefusedError{What: "snapshot " + s.ID, Reason: fmt.Sprintf(format, args...)}
	}
	attempt := s.Tags[TagAttempt]
	switch {
	case s.Tags[TagKind] != tagSnapshot:
		return refuse("it does not carry the tag %s=%s", TagKind, tagSnapshot)
	case s.Tags[TagSource] != source.Name:
		return refuse("it does not carry the tag %s=%s", TagSource, source.Name)
	case !isAttempt(attempt):
		return refuse("it does not carry the id of an attempt")
	case s.ID != snapshotName(source.Name, attempt):
		return refuse("its name is not %s", snapshotName(source.Name, attempt))
	case s.Type != "manual":
		return refuse("it is %s: RDS keeps it by its own rules", s.Type)
	case s.Source != source.ID || s.Kind != source.Kind:
		return refuse("it is of %s %s", s.Kind, s.Source)
	}
	return nil
}

// deleteStaging looks once more and deletes, if the guard lets it. What is not
// there, or goes already, is no error; gone is true when it is not there.
func deleteStaging(ctx context.Context, api API, kind Kind, id, attempt string, p protected, sources []Source) (gone bool, err error) {
	d, err := api.Database(ctx, kind, id)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if err := guardStaging(d, attempt, p, sources); err != nil {
		return false, err
	}
	if d.Status == deleting {
		return false, nil
	}
	err = api.Delete(ctx, kind, id, d.Cluster != "")
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	return false, err
}

// deleteSnapshot looks once more and deletes, if the guard lets it.
func deleteSnapshot(ctx context.Context, api API, kind Kind, id string, source Source) error {
	s, err := api.Snapshot(ctx, kind, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := guardSnapshot(s, source); err != nil {
		return err
	}
	return api.DeleteSnapshot(ctx, kind, id)
}
