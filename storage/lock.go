package storage

import (
	"context"
	"time"
)

// Locker is a store that may keep an object although somebody wants it gone.
type Locker interface {
	// LockedUntil is when the lock of the object ends; the zero time when it has
	// none. An object that is held without an end yields Forever.
	// fs.ErrNotExist when there is no such object.
	LockedUntil(ctx context.Context, key string) (time.Time, error)
}

// Forever is the end of a lock that has none.
var Forever = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// LockedUntil asks a store for the lock of an object. A store that knows no
// locks has none.
func LockedUntil(ctx context.Context, s Store, key string) (time.Time, error) {
	if l, ok := s.(Locker); ok {
		return l.LockedUntil(ctx, key)
	}
	return time.Time{}, nil
}

// The modes of a Retention. What is kept in the first can be removed by who has a right
// of its own to do that, and in the second by nobody.
const (
	Governance = "GOVERNANCE"
	Compliance = "COMPLIANCE"
)

// Retention is until when a store keeps an object from being removed. The zero value
// is no retention.
type Retention struct {
	Mode  string // Governance or Compliance
	Until time.Time
}

// RetentionRule is what a store does with new objects that ask for nothing.
type RetentionRule struct {
	Supported bool   // objects can have a retention at all
	Mode      string // of each new object; "" is none
	Days      int    // how long it lasts; a year has 365
}

// Retainer is a store that can say of each object until when it is kept. Legal holds,
// which end whenever somebody takes them off, do not count.
type Retainer interface {
	// Retention of an object. fs.ErrNotExist when there is no such object,
	// ErrDenied when these credentials may not ask.
	Retention(ctx context.Context, key string) (Retention, error)
	// RetentionRule of the store. ErrDenied when these credentials may not ask.
	RetentionRule(ctx context.Context) (RetentionRule, error)
}

// RetentionOf asks a store for the retention of an object. A store that knows none
// has none.
func RetentionOf(ctx context.Context, s Store, key string) (Retention, error) {
	if r, ok := s.(Retainer); ok {
		return r.Retention(ctx, key)
	}
	return Retention{}, nil
}

// RetentionRuleOf asks a store for its rule. A store that knows none has none.
func RetentionRuleOf(ctx context.Context, s Store) (RetentionRule, error) {
	if r, ok := s.(Retainer); ok {
		return r.RetentionRule(ctx)
	}
	return RetentionRule{}, nil
}
