package rds

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// write is one that was tried.
type write struct {
	begun, ended time.Time
	err          error
}

// prober tries writes, one after the other, each on a connection of its own and
// with a look at the name server.
type prober struct {
	conn     probe.Conn
	database string
	host     string
	interval time.Duration
	now      func() time.Time
	lookup   func(ctx context.Context, host string) ([]string, error)

	mu        sync.Mutex
	writes    []write
	addresses []string // that the name led to, each time it changed
}

// mostWrite is how long one write may take; a server that is gone without a word
// answers nothing.
const mostWrite = time.Second

// run writes until the context ends.
func (p *prober) run(ctx context.Context) {
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	for {
		w := write{begun: p.now()}
		address, err := p.once(ctx)
		w.ended, w.err = p.now(), err
		if ctx.Err() != nil {
			return // it was cut short: it says nothing
		}
		p.mu.Lock()
		p.writes = append(p.writes, w)
		if n := len(p.addresses); address != "" && (n == 0 || p.addresses[n-1] != address) {
			p.addresses = append(p.addresses, address)
		}
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// once makes a commit that touches no table.
func (p *prober) once(ctx context.Context) (address string, err error) {
	wctx, cancel := context.WithTimeout(ctx, mostWrite)
	defer cancel()
	lookup := p.lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupHost
	}
	addresses, err := lookup(wctx, p.host)
	if err != nil {
		return "", err
	}
	c := p.conn
	c.Lookup = func(context.Context, string) ([]string, error) { return addresses[:1], nil }
	_, err = c.Value(wctx, p.database, "select pg_logical_emit_message(true, 'lifeboat', 'probe')")
	return addresses[0], err
}

// wait waits until the newest write is as wanted.
func (p *prober) wait(ctx context.Context, limit time.Duration, wanted func(write) bool) error {
	deadline := p.now().Add(limit)
	for {
		p.mu.Lock()
		var last write
		n := len(p.writes)
		if n > 0 {
			last = p.writes[n-1]
		}
		p.mu.Unlock()
		if n > 0 && wanted(last) {
			return nil
		}
		if p.now().After(deadline) {
			if last.err != nil {
				return fmt.Errorf("none within %s: %w", limit, last.err)
			}
			return fmt.Errorf("none within %s", limit)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(p.interval, 50*time.Millisecond)):
		}
	}
}

// longestGap is the longest time between two writes that succeeded: at most from
// the end of the one to the end of the other, at least from the begin of the first
// failure between them to the end of the last. ok is false without any write that
// succeeded.
func longestGap(writes []write) (lower, upper float64, last, first time.Time, ok bool) {
	before := -1
	for i, w := range writes {
		if w.err != nil {
			continue
		}
		ok = true
		if before >= 0 {
			if gap := w.ended.Sub(writes[before].ended).Seconds(); gap > upper {
				upper, lower, last, first = evidence.Round(gap), 0, writes[before].ended, w.ended
				if i > before+1 {
					lower = evidence.Round(max(0, writes[i-1].ended.Sub(writes[before+1].begun).Seconds()))
				}
			}
		}
		before = i
	}
	return lower, upper, last, first, ok
}
