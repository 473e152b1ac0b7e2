package main

import (
	"context"
	"time"

	"github.com/lifeboat-dr/lifeboat/hoststate"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// locksFile is the kind of the host's state that holds what is known of Object Lock.
const locksFile = "object-locks"

// lockRights is what to do when the store does not say what it locks.
const lockRights = "give these credentials s3:GetBucketObjectLockConfiguration and s3:GetObjectRetention: docs/storage.md"

// lockLook remembers on this host until when the store keeps the objects of a
// repository: the next check asks only about what is new.
type lockLook struct {
	app   *app
	name  string
	dir   *hoststate.Dir // nil: nothing is remembered
	known *check.KnownLocks
}

func (a *app) newLockLook(cfg *Config, r *repo.Repo) *lockLook {
	l := &lockLook{app: a, name: cfg.stateName(locksFile), dir: a.hostState(cfg, r.Marker().Repository), known: check.NewKnownLocks()}
	if l.dir == nil {
		return l
	}
	raw, err := l.dir.Read(l.name, check.KnownLocksVersion)
	if err == nil {
		l.known, err = check.ParseKnownLocks(raw)
	}
	if err != nil {
		a.stateLost("%v", err)
	}
	return l
}

// wanted is what the configuration asks of the locks.
func (l *lockLook) wanted(cfg *Config) check.Locks {
	return check.Locks{Mode: cfg.S3.ObjectLockMode, Days: cfg.S3.ObjectLockDays, Known: l.known}
}

// save keeps what is known now, also when the command was interrupted.
func (l *lockLook) save(ctx context.Context) {
	if l.dir == nil || !l.known.Changed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	err := l.dir.Update(ctx, l.name, check.KnownLocksVersion, func(old []byte) ([]byte, error) { return l.known.Encode(old), nil })
	if err != nil {
		l.app.stateLost("what the store said of Object Lock is not remembered: %v", err)
	}
}

// writeLocks says how many objects are kept, where any must be.
func (v *verifyReport) writeLocks(say func(string, ...any)) {
	l := v.Locks
	if l.Mode == "" {
		return
	}
	say("Object Lock: %d of %s kept for %s from when they were stored (%s); %d asked now, %d not known; %d stored before that\n",
		l.Kept, plural(l.Objects, "object"), plural(l.Days, "day"), l.Mode, l.Asked, l.Unknown, l.Over)
}
