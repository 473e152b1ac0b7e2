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
