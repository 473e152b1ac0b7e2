package main

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/wal"
)

// againEvery is how often a repository that has the file is given what has become
// ready meanwhile, while the call waits for another repository.
const againEvery = 500 * time.Millisecond

// pushSeveral archives a file in several repositories at once.
func (a *app) pushSeveral(ctx context.Context, pushes []*push) error {
	known := 0
	for _, p := range pushes {
		if p.recall() {
			known++
		}
	}
	if known == len(pushes) {
		return a.pushDone(severalPushed(pushes))
	}
	errs := make([]error, len(pushes))
	var own, all sync.WaitGroup
	done := make(chan struct{}) // closed when every repository has the file or has failed
	own.Add(len(pushes))
	for i, p := range pushes {
		all.Go(func() {
			recalled := p.recall()
			if !recalled {
				errs[i] = p.run(ctx)
			}
			own.Done()
			if errs[i] == nil {
				p.keepUp(ctx, recalled, done)
			}
		})
	}
	own.Wait()
	close(done)
	all.Wait()
	var failures []placeFailure
	for i, err := range errs {
		if err != nil {
			failures = append(failures, placeFailure{pushes[i].cfg.Name, err})
		}
	}
	if err := failedPlaces("push:", len(pushes), failures); err != nil {
		return err
	}
	return a.pushDone(severalPushed(pushes))
}

// keepUp looks ahead, at once where the file itself was remembered, and then
// again and again until done. A repository that hangs may be waited for as long
// as store_timeout, and PostgreSQL, which calls once at a time, then asks for the
// same file again: without this the others would fall behind because of it.
func (p *push) keepUp(ctx context.Context, now bool, done <-chan struct{}) {
	tick := time.NewTicker(againEvery)
	defer tick.Stop()
	for ; ; now = true {
		if now {
			if r, err := p.open(ctx); err == nil {
				p.report.Others += wal.LookAhead(ctx, r, p.path, p.options, p.ahead())
			}
		}
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// severalPushed puts the reports of several repositories together: the file
// existed if it did in all, and what was pushed ahead is what all have.
func severalPushed(pushes []*push) pushReport {
	sum := pushes[0].report
	sum.StoredBytes = 0
	for _, p := range pushes {
		r := p.report
		sum.StoredBytes += r.StoredBytes
		sum.Existed = sum.Existed && r.Existed
		sum.Others = min(sum.Others, r.Others)
		sum.Beside = cmp.Or(sum.Beside, r.Beside)
		sum.Repositories = append(sum.Repositories, pushedTo{p.cfg.Name, r.StoredBytes, r.Existed, r.Others})
	}
	return sum
}
