package drill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// HangError says that recovery made no progress.
type HangError struct {
	After time.Duration
	At    postgres.LSN // 0 when it is not known
	Log   string       // last line of the server's log
}

func (e *HangError) Error() string {
	s := fmt.Sprintf("recovery hangs: no progress for %s", e.After)
	if e.At != 0 {
		s += " at " + e.At.String()
	}
	if e.Log != "" {
		s += "; the server's log ends with: " + e.Log
	}
	return s
}

// UnfencedError says that a drill was not started because nothing would have
// kept the server from production's files.
type UnfencedError struct {
	Path   string // that the WAL to be replayed makes a tablespace at
	Reason string // why there is no fence
}

func (e *UnfencedError) Error() string {
	return fmt.Sprintf("the WAL to be replayed makes a tablespace at %s, and nothing keeps the server from the directory there: %s", e.Path, e.Reason)
}

// MemoryError says that the host has too little memory for a server.
type MemoryError struct{ Need, Free int64 }

func (e *MemoryError) Error() string {
	return fmt.Sprintf("too little memory for the server: %d MiB are needed, %d MiB are available", e.Need>>20, e.Free>>20)
}

// StagingError says that the staging directory cannot be used.
type StagingError struct {
	Path   string
	Reason string
}

func (e *StagingError) Error() string {
	return fmt.Sprintf("staging directory %s: %s", e.Path, e.Reason)
}

// provesFailure says whether an error proves that a restore would have failed.
// The others say only that this drill could not find out.
func provesFailure(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	is := func(match ...bool) bool {
		for _, m := range match {
			if m {
				return true
			}
		}
		return false
	}
	return is(
		errors.Is(err, restore.ErrNoBackup), errors.Is(err, restore.ErrUnsafeManifest), errors.Is(err, repo.ErrNoRepository),
		errors.Is(err, repo.ErrWrongIdentity), errors.Is(err, repo.ErrNoIdentity), errors.Is(err, wal.ErrNotArchived),
		of[*restore.BackupError](err), of[*restore.GapError](err), of[*restore.AmbiguousError](err), of[*restore.UnreachableError](err),
		of[*restore.IncompleteError](err), of[*repo.CorruptError](err), of[*repo.UntrustedError](err), of[*repo.FormatError](err),
		of[*wal.GapError](err), of[*wal.HistoryLostError](err), of[*wal.UnknownSystemError](err), of[*wal.HeaderError](err),
		of[*server.ExitError](err), of[*HangError](err),
		of[*MissingBackupError](err), proven(err),
	)
}

// proven says whether another process of the drill has said so.
func proven(err error) bool {
	f, ok := errors.AsType[*Failure](err)
	return ok && f.Proves
}

func of[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// MissingBackupError says that the backup that was asked for is not there.
type MissingBackupError struct{ Label string }

func (e *MissingBackupError) Error() string {
	return fmt.Sprintf("there is no backup %s", e.Label)
}
func (e *MissingBackupError) Unwrap() error { return fs.ErrNotExist }

// SpaceError says that staging is too small.
type SpaceError struct{ Err *restore.SpaceError }

func (e *SpaceError) Error() string { return "staging: " + e.Err.Error() }
func (e *SpaceError) Unwrap() error { return e.Err }

// inStaging tells a want of room in staging from one in a restore.
func inStaging(err error) error {
	if e, ok := errors.AsType[*restore.SpaceError](err); ok {
		return &SpaceError{e}
	}
	return err
}
