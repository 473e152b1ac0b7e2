package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
)

// The furthest is that of the newest system, and within it of the highest
// timeline and position; the nearest of several that get as far.
func TestFurthest(t *testing.T) {
	plan := func(system postgres.SystemID, day int, tl postgres.Timeline, stop postgres.LSN) option {
		return option{plan: &restore.Plan{Backup: repo.Info{System: system, StopTime: time.Date(2026, 6, day, 0, 0, 0, 0, time.UTC)}, Timeline: tl, StopLSN: stop}}
	}
	for name, c := range map[string]struct {
		options []option
		want    int
	}{
		"the nearest of those as far":            {[]option{plan(1, 1, 1, 100), plan(1, 2, 1, 100)}, 0},
		"more WAL":                               {[]option{plan(1, 2, 1, 100), plan(1, 1, 1, 101)}, 1},
		"a newer timeline":                       {[]option{plan(1, 2, 1, 200), plan(1, 1, 2, 100)}, 1},
		"the nearest missed an upgrade":          {[]option{plan(1, 1, 3, 900), plan(2, 2, 1, 100)}, 1},
		"the nearest has it, the other does not": {[]option{plan(2, 2, 1, 100), plan(1, 1, 3, 900)}, 0},
	} {
		for i := range c.options {
			c.options[i].cfg = &Config{Name: fmt.Sprint(i)}
		}
		if got := furthest(c.options); got.cfg != c.options[c.want].cfg {
			t.Errorf("%s: %s, not %d", name, got.cfg.Name, c.want)
		}
	}
	r := &restoration{}
	two := []option{plan(1, 1, 3, 900), plan(2, 2, 1, 100)}
	two[0].cfg, two[1].cfg = &Config{Name: "near"}, &Config{Name: "far"}
	r.tell(two, two[1], nil)
	if len(r.passedOver) != 1 || r.passedOver[0].Repository != "near" {
		t.Errorf("passed over: %+v", r.passedOver)
	}
}

// A target with two meanings is no reason to ask a repository that holds but
// one of them.
func TestAmbiguousEndsTheChoice(t *testing.T) {
	if !noneDoesBetter(fmt.Errorf("plan: %w", &restore.AmbiguousError{Newest: 2, Other: 1})) || noneDoesBetter(&restore.GapError{}) {
		t.Error("another repository is asked, or not where it could help")
	}
}
