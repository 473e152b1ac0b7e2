package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/wal"
)

const (
	// standbyPatience is how long a fetch for a standby tries. Meanwhile the
	// standby neither streams nor can be promoted.
	standbyPatience = 30 * time.Second

	// gapPatience is how long a gap is looked at before it is called one. A
	// server that has fallen behind archives several segments at once, and one
	// may be there before another that precedes it.
	gapPatience = 5 * time.Second

	firstLook = 100 * time.Millisecond
	mostLook  = 2 * time.Second
)

// standbyTime reads --standby and --give-up-after; 0 for no standby.
func standbyTime(c *cli.Context) (time.Duration, error) {
	d := standbyPatience
	if c.IsSet("give-up-after") {
		var err error
		if d, err = durationOf(c, "give-up-after"); err != nil {
			return 0, err
		}
		if d == 0 {
			return 0, usage("--give-up-after: %s is no time at all", c.String("give-up-after"))
		}
	}
	if !c.Bool("standby") {
		if c.IsSet("give-up-after") {
			return 0, usage("--give-up-after is for --standby")
		}
		return 0, nil
	}
	return d, nil
}

// askAgainError is the failure of a store that a standby may be told as "not
// there": it asks again, and does not end recovery on that word.
type askAgainError struct{ err error }

func (e *askAgainError) Error() string { return e.err.Error() }
func (e *askAgainError) Unwrap() error { return e.err }

// patiently fetches from the archive, and looks again for a while where the
// next answer may be another one: at a gap, and, for a standby, whenever the
// store fails.
func (f *fetch) patiently(ctx context.Context, name postgres.WALName, path string) (postgres.SystemID, error) {
	begin := f.now()
	try := ctx
	standby := f.patience > 0 && f.isStandby()
	if standby {
		var cancel context.CancelFunc
		try, cancel = context.WithTimeout(ctx, f.patience)
		defer cancel()
	}
	for pause := firstLook; ; pause = min(2*pause, mostLook) {
		id, err := f.once(try, name, path)
		_, gap := errors.AsType[*wal.GapError](err)
		patience := time.Duration(0)
		switch {
		case err == nil:
			return id, nil
		case standby && (gap || storeFails(err)):
			patience = f.patience
		case gap:
			patience = gapPatience
		}
		if f.now().Sub(begin)+pause < patience && wait(try, pause) == nil {
			continue
		}
		switch {
		case ctx.Err() != nil:
		case standby && patience > 0:
			err = &askAgainError{err}
		case !standby && f.patience > 0 && storeFails(err):
			err = failed(exitFailed, "%w", err).hinted("--standby does not count here: %s has no standby.signal", cmp.Or(f.dataDir, "the current directory"))
		}
		return id, err
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// isStandby says whether the server in whose data directory we run stays in
// recovery until somebody promotes it (readRecoverySignalFile in
// access/transam/xlogrecovery.c: standby.signal beats recovery.signal).
func (f *fetch) isStandby() bool {
	if f.dataDir == "" {
		return false
	}
	_, err := os.Lstat(filepath.Join(f.dataDir, "standby.signal"))
	return err == nil
}

// storeFails says whether an error is the store's, and may pass. What is
// damaged, forged, another cluster's or sealed to another key does not.
func storeFails(err error) bool {
	for _, target := range []error{storage.ErrUnavailable, storage.ErrDenied, storage.ErrCredentials, storage.ErrNoStore, storage.ErrRedirected,
		repo.ErrNoRepository, context.DeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	if _, ok := errors.AsType[*s3.Error](err); ok {
		return true
	}
	// A directory on the network.
	errno, ok := errors.AsType[syscall.Errno](err)
	return ok && slices.Contains([]syscall.Errno{syscall.EIO, syscall.ESTALE, syscall.ENOTCONN, syscall.ETIMEDOUT,
		syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENXIO, syscall.ENODEV}, errno)
}
