package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// mostOpenPause is the longest pause between two tries to open a repository.
const mostOpenPause = 10 * time.Second

// slotOf is the slot of the stream into one of several repositories.
func slotOf(slot string, cfg *Config) string {
	if cfg.slotPart == "" {
		return slot
	}
	return slot + "_" + cfg.slotPart
}

// streamSeveral runs a stream into each repository, each with a connection and a
// slot of its own. So the server itself keeps WAL for the one that is behind, the
// others know nothing of it, and synchronous_standby_names says which of them a
// commit waits for.
func (a *app) streamSeveral(ctx context.Context, cfg *Config, o wal.StreamOptions) error {
	system, err := expectedSystem(ctx, cfg)
	if err != nil {
		return err
	}
	o.System = system
	places := cfg.each()
	for _, one := range places {
		if err := wal.CheckSlotName(slotOf(o.Slot, one)); err != nil {
			return usage("--slot, with the repository's name: %v", err)
		}
	}
	reports, errs := make([]streamReport, len(places)), make([]error, len(places))
	var all sync.WaitGroup
	for i, one := range places {
		own := o
		own.Slot = slotOf(o.Slot, one)
		if i > 0 {
			own.Heartbeat = 0 // one commit is in all of them
		}
		all.Go(func() {
			reports[i], errs[i] = a.streamOne(ctx, one, own)
			if errs[i] != nil {
				a.warn("%s: the stream has ended, the others go on: %v%s", one.Name, errs[i], inBrackets(errs[i]))
				reports[i].Error = oneLine(errs[i].Error())
			}
		})
	}
	all.Wait()
	var failures []placeFailure
	for i, err := range errs {
		if err != nil {
			failures = append(failures, placeFailure{places[i].Name, err})
		}
	}
	err = a.outcome(reports, func(w io.Writer) {
		for _, r := range reports {
			if r.Error == "" {
				_, _ = fmt.Fprintf(w, "%s: stopped: timeline %s is in the archive up to %s\n", r.Repository, r.Timeline, r.Durable)
			}
		}
	})
	if err != nil {
		return err
	}
	return failedPlaces("stream:", len(places), failures)
}

// streamOne streams into one repository until ctx ends. One that is down at the
// start is waited for, as a stream does later on.
func (a *app) streamOne(ctx context.Context, cfg *Config, o wal.StreamOptions) (streamReport, error) {
	log := &streamLog{app: a, prefix: cfg.Name + ": ", slot: o.Slot}
	report := func() streamReport {
		return streamReport{Repository: cfg.Name, Slot: o.Slot, Timeline: log.last.Timeline, Received: log.last.Received, Durable: log.last.Durable}
	}
	r, err := a.openPatiently(ctx, cfg, log)
	if r == nil || err != nil {
		return report(), err
	}
	o.Notify = log.event
	err = wal.Stream(ctx, r, o)
	return report(), err
}

// openPatiently returns nil and nil when ctx ends first.
func (a *app) openPatiently(ctx context.Context, cfg *Config, log *streamLog) (*repo.Repo, error) {
	for pause := time.Second; ; pause = min(2*pause, mostOpenPause) {
		r, err := openToArchive(ctx, cfg)
		switch {
		case err == nil:
			return r, nil
		case ctx.Err() != nil:
			return nil, nil
		case !storeFails(err):
			return nil, err
		}
		log.event(wal.StreamEvent{Kind: wal.StreamFailed, Err: err})
		if wait(ctx, pause) != nil {
			return nil, nil
		}
	}
}
