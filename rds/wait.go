package rds

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Waiting says how to wait for RDS.
type Waiting struct {
	Poll    time.Duration // between looks; 0 is 15 s
	Limit   time.Duration // for one wait; 0 is 12 h
	Now     func() time.Time
	Observe func(Progress) // may be nil
}

// Progress is where something on RDS stands.
type Progress struct {
	What    string
	State   string
	Percent int // -1: RDS does not say
}

const (
	defaultPoll  = 15 * time.Second
	defaultLimit = 12 * time.Hour
)

func (w Waiting) poll() time.Duration {
	if w.Poll > 0 {
		return w.Poll
	}
	return defaultPoll
}

// pause waits from one look to the next.
func (w Waiting) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(w.poll()):
		return nil
	}
}

// until looks until done, which returns true when it has got there. RDS that asks
// to slow down, or cannot be reached, is asked again until the limit.
func (w Waiting) until(ctx context.Context, what string, look func() (state string, percent int, done bool, err error)) error {
	began, limit := w.Now(), w.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	last, percent := "not known", -1
	for {
		state, p, done, err := look()
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			last, percent = state, p
			if w.Observe != nil {
				w.Observe(Progress{what, state, p})
			}
		case errors.Is(err, context.Canceled) || !transient(err):
			return err
		}
		if after := w.Now().Sub(began); after >= limit {
			if err != nil {
				return err
			}
			return &WaitError{What: what, State: last, Percent: percent, After: after}
		}
		if err := w.pause(ctx); err != nil {
			return err
		}
	}
}

// again repeats a call that RDS asks to slow down for, until the limit.
func (w Waiting) again(ctx context.Context, what string, call func() error) error {
	return w.until(ctx, what, func() (string, int, bool, error) {
		err := call()
		return "", -1, err == nil, err
	})
}

// database waits until an instance or cluster is available, with an address.
func (w Waiting) database(ctx context.Context, api API, kind Kind, id string) (*Database, error) {
	var d *Database
	what := string(kind) + " " + id
	err := w.until(ctx, what, func() (string, int, bool, error) {
		var err error
		if d, err = api.Database(ctx, kind, id); err != nil {
			return "", -1, false, err
		}
		if hopeless(d.Status) {
			return "", -1, false, &FailedError{what, d.Status}
		}
		return d.Status, -1, d.Status == available && d.Host != "", nil
	})
	return d, err
}

// snapshot waits until a snapshot is available.
func (w Waiting) snapshot(ctx context.Context, api API, kind Kind, id string) (*Snapshot, error) {
	var s *Snapshot
	what := "snapshot " + id
	err := w.until(ctx, what, func() (string, int, bool, error) {
		var err error
		if s, err = api.Snapshot(ctx, kind, id); err != nil {
			return "", -1, false, err
		}
		if hopeless(s.Status) {
			return "", -1, false, &FailedError{what, s.Status}
		}
		return s.Status, s.Percent, s.Status == available, nil
	})
	return s, err
}

// gone waits until there is nothing of that name.
func (w Waiting) gone(ctx context.Context, api API, kind Kind, id string) error {
	return w.until(ctx, string(kind)+" "+id, func() (string, int, bool, error) {
		d, err := api.Database(ctx, kind, id)
		if errors.Is(err, ErrNotFound) {
			return "", -1, true, nil
		}
		if errors.Is(err, ErrCredentials) { // they may be renewed meanwhile
			return "not looked at: the credentials are not accepted", -1, false, nil
		}
		if err != nil {
			return "", -1, false, err
		}
		return d.Status, -1, false, nil
	})
}

// hopeless are the states that nothing leaves by itself.
func hopeless(state string) bool {
	return state == "failed" || state == "restore-error" || state == "storage-full" || state == deleting || state == "deleted" ||
		strings.HasPrefix(state, "incompatible-") || strings.HasPrefix(state, "inaccessible-encryption")
}
