package wal

import (
	"context"
	"sync"
	"time"
)

// waiting lets other goroutines end the wait of one.
type waiting struct {
	mu     sync.Mutex
	cancel context.CancelFunc // of the wait under way, nil when there is none
	woken  bool               // since the last wait ended
}

// enter notes how to end the wait that begins now; true when there was a wake
// already, and so no wait.
func (w *waiting) enter(cancel context.CancelFunc) (woken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.woken {
		w.woken = false
		return true
	}
	w.cancel = cancel
	return false
}

func (w *waiting) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel, w.woken = nil, false
}

// wake ends the wait under way, or the next one before it begins.
func (w *waiting) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.woken = true
	if w.cancel != nil {
		w.cancel()
	}
}

// sleep waits that long, or until it is woken or ctx ends.
func (w *waiting) sleep(ctx context.Context, d time.Duration) {
	sctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if w.enter(cancel) {
		return
	}
	<-sctx.Done()
	w.leave()
}
