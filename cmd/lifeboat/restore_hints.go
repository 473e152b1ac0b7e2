package main

import (
	"errors"
	"fmt"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// backupHint is for a backup that cannot be used. Where a key does not fit or the
// store fails, no other backup helps, and the rows after this one say what does.
func backupHint(err error) (string, bool) {
	if _, ok := errors.AsType[*restore.BackupError](err); !ok {
		return "", false
	}
	for _, other := range []error{repo.ErrNoIdentity, repo.ErrWrongIdentity,
		storage.ErrNoStore, storage.ErrDenied, storage.ErrCredentials, storage.ErrUnavailable, storage.ErrRedirected} {
		if errors.Is(err, other) {
			return "", false
		}
	}
	return "use another backup: \"lifeboat backups\" lists them", true
}

// withCommand gives the refusal of an older backup the command line that takes it.
func (r *restoration) withCommand(err error) error {
	e, ok := errors.AsType[*restore.UnbelievedError](err)
	if !ok {
		return err
	}
	line := "lifeboat"
	for _, word := range r.args {
		line += " " + postgres.ShellWord(word)
	}
	return failed(exitFailed, "%w", err).hinted("if you want the older one: %s --backup %s; \"lifeboat verify\" says more of the other", line, e.Older)
}

// unreachableHint says which target would do instead.
func unreachableHint(e *restore.UnreachableError) string {
	switch {
	case e.TooEarly:
		return "choose a later target, or --backup with an older backup if there is one: \"lifeboat backups\" lists them"
	case e.Point.Kind == restore.AtTime && !e.Window.LastTime.IsZero() && e.Point.Time.After(e.Window.LastTime):
		return "leave the target out to restore everything that is archived, or choose an earlier one"
	case e.Point.Kind == restore.AtTime:
		return "leave the target out to restore everything that is archived"
	}
	return "choose a target in that window, or leave it out to restore everything that is archived"
}

// gapHint says how to get around a gap.
func gapHint(e *restore.GapError) string {
	if e.Needed {
		return "use another backup with --backup: \"lifeboat backups\" lists them"
	}
	return fmt.Sprintf("restore up to the gap with --target-lsn %s, or use a backup taken after it", e.Window.LastLSN)
}

// wordHint is what to type when the tablespaces are meant to go where they were.
func wordHint(e *restore.WordError) string {
	return "if that is where they belong, add " + e.Flags() + "; another directory behind \"=\" moves one"
}

// dirHint says what to do about a directory that cannot be used.
func dirHint(e *restore.DirError) string {
	switch e.Kind {
	case restore.ServerRunning:
		return "stop that server and move its data directory away, or restore to another directory"
	case restore.NotEmpty:
		return "choose a directory that is missing or empty, or move away what is in it; tablespaces are moved with --tablespace OLD=NEW"
	case restore.NoRights:
		return "run it as the account that runs PostgreSQL, or as root, and restore to a directory that this account can get to"
	case restore.Overlap:
		return "give each tablespace a directory of its own, outside of the data directory: --tablespace OLD=NEW"
	}
	return "choose another directory"
}
