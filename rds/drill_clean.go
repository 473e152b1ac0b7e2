package rds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// cleanUp deletes what was restored and proves that it is gone.
func (d *drill) cleanUp(ctx context.Context) {
	c := &d.doc.Cleanup
	if !d.asked {
		c.Done = true
		return
	}
	if d.unsure {
		d.lookForLate(ctx)
	}
	// The instance of a cluster first, since a cluster with one is not deleted; and
	// again after it, since one that was made late may have come in between.
	things := []thing{{Instance, d.request.ID}}
	if member := (thing{Instance, memberName(d.doc.RDS.Attempt)}); d.o.Source.Kind == Cluster {
		things = []thing{member, {Cluster, d.request.ID}, member}
	}
	for _, t := range things {
		if err := d.remove(ctx, t); err != nil {
			c.Detail = probe.OneLine(err.Error())
			return
		}
	}
	c.Done = true
}

// thing is what a drill makes.
type thing struct {
	kind Kind
	id   string
}

func (t thing) String() string { return string(t.kind) + " " + t.id }

// latePolls is how often a drill looks for what RDS was asked for and gave no answer
// about: two minutes, by default.
const latePolls = 8

// lookForLate waits for what such a request may still make.
func (d *drill) lookForLate(ctx context.Context) {
	late := thing{d.o.Source.Kind, d.request.ID}
	if d.copy != nil {
		late = thing{Instance, memberName(d.doc.RDS.Attempt)}
	}
	w := d.o.Waiting
	w.Limit = latePolls * w.poll()
	// That there is nothing in the end is what is hoped for.
	_ = w.until(ctx, late.String(), func() (string, int, bool, error) {
		_, err := d.api.Database(ctx, late.kind, late.id)
		if errors.Is(err, ErrNotFound) {
			return "not there", -1, false, nil
		}
		return "", -1, err == nil, err
	})
}

// noteReaped waits until what crashed drills left is gone too, and looks for what
// others have removed meanwhile: expiry, or a person.
func (d *drill) noteReaped(ctx context.Context) {
	for _, x := range d.reaped {
		if err := d.o.Waiting.gone(ctx, d.api, x.Kind, x.ID); err != nil {
			d.doc.Notes = append(d.doc.Notes, probe.OneLine("what an earlier drill left is being deleted: "+err.Error()))
			continue
		}
		attempt := strings.TrimPrefix(x.ID, DrillPrefix)
		d.doc.Cleanup.Older = append(d.doc.Cleanup.Older, strings.ToUpper(attempt[:16])+attempt[16:])
	}
	for _, l := range d.o.Left {
		if d.api != nil && !slices.Contains(d.doc.Cleanup.Older, l.ID) && d.nothingOf(ctx, l.Attempt) {
			d.doc.Cleanup.Older = append(d.doc.Cleanup.Older, l.ID)
		}
	}
}

// nothingOf says whether an attempt is proven to have left nothing in this region.
func (d *drill) nothingOf(ctx context.Context, attempt string) bool {
	for _, t := range []thing{{Instance, stagingName(attempt)}, {Instance, memberName(attempt)}, {Cluster, stagingName(attempt)}} {
		if _, err := d.api.Database(ctx, t.kind, t.id); !errors.Is(err, ErrNotFound) {
			return false
		}
	}
	return true
}

// remove deletes one thing, as soon as its state allows, and waits until it is
// gone. Credentials that have run out are tried again: they may be renewed meanwhile.
func (d *drill) remove(ctx context.Context, t thing) error {
	attempt := d.doc.RDS.Attempt
	var expired error
	err := d.o.Waiting.until(ctx, t.String(), func() (string, int, bool, error) {
		_, err := deleteStaging(ctx, d.api, t.kind, t.id, attempt, d.protect, d.o.Sources)
		if errors.Is(err, ErrState) && t.kind == Cluster { // it may have got its instance after we looked
			if _, late := deleteStaging(ctx, d.api, Instance, memberName(attempt), attempt, d.protect, d.o.Sources); late != nil && !errors.Is(late, ErrState) {
				return "", -1, false, late
			}
		}
		if errors.Is(err, ErrState) { // it is still being made
			return "busy", -1, false, nil
		}
		if errors.Is(err, ErrCredentials) {
			expired = err
			return "not looked at: the credentials are not accepted", -1, false, nil
		}
		if ctx.Err() == nil {
			expired = nil // at the end of its time a request says no more than that
		}
		return "", -1, err == nil, err
	})
	if expired != nil {
		err = expired
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", t, err)
	}
	if err := d.o.Waiting.gone(ctx, d.api, t.kind, t.id); err != nil {
		return fmt.Errorf("prove that %s is gone: %w", t, err)
	}
	return nil
}

// sweep removes what crashed attempts left behind in this region.
func (d *drill) sweep(ctx context.Context) {
	if d.api == nil || d.protect == nil {
		return
	}
	reaped, err := reap(ctx, d.api, d.protect, d.o.Sources, d.o.Waiting, d.doc.RDS.Attempt, false)
	for _, x := range reaped {
		if x.Gone && x.Kind == d.o.Source.Kind && !strings.HasSuffix(x.ID, memberSuffix) {
			d.reaped = append(d.reaped, x)
		}
	}
	if err != nil {
		d.doc.Notes = append(d.doc.Notes, probe.OneLine("what earlier drills left could not be looked for: "+err.Error()))
	}
}
