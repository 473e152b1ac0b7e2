package restore

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

var (
	// ErrNoBackup means that the repository holds no backup at all.
	ErrNoBackup = errors.New("there is no backup in the repository")

	// ErrUnsafeManifest is wrapped by errors about a manifest whose paths
	// contradict each other or lead out of the directory they belong to.
	ErrUnsafeManifest = errors.New("the manifest cannot be restored safely")
)

// TargetError says that the target contradicts itself or what is known.
type TargetError struct{ Reason string }

func (e *TargetError) Error() string { return e.Reason }

// BackupError says that the backup asked for cannot be used, or that none can.
type BackupError struct {
	Label  string // "" when it is about all of them
	Reason string
	Err    error // may be nil
}

func (e *BackupError) Error() string {
	s := e.Reason
	if e.Label != "" {
		s = fmt.Sprintf("backup %s cannot be used: %s", e.Label, e.Reason)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *BackupError) Unwrap() error { return e.Err }

// Window is what can be reached from a backup with the archive as it is.
type Window struct {
	Backup    string            `json:"backup"`
	Timeline  postgres.Timeline `json:"timeline"`
	FirstLSN  postgres.LSN      `json:"first_lsn"`           // consistent from here on
	FirstTime time.Time         `json:"first_time,omitzero"` // when the backup stopped
	LastLSN   postgres.LSN      `json:"last_lsn"`            // of the last record that can be replayed
	LastTime  time.Time         `json:"last_time,omitzero"`  // of the newest commit; zero when there is none after the backup
}

func (w Window) String() string {
	last := "no commit after it"
	if !w.LastTime.IsZero() {
		last = w.LastTime.UTC().Format(timeForm) + " UTC"
	}
	return fmt.Sprintf("from %s UTC (%s) to %s (%s) on timeline %d",
		w.FirstTime.UTC().Format(timeForm), w.FirstLSN, last, w.LastLSN, w.Timeline)
}

// UnreachableError says that recovery could not stop at the point: PostgreSQL
// would replay everything and end in "recovery ended before configured
// recovery target was reached".
type UnreachableError struct {
	Point    Point
	Reason   string
	TooEarly bool   // it lies before the backup, not behind the archive's end
	Window   Window // empty when no backup could be looked at
}

func (e *UnreachableError) Error() string {
	switch {
	case e.Window.Backup == "":
		return fmt.Sprintf("%s cannot be reached: %s", e.Point, e.Reason)
	case e.TooEarly:
		return fmt.Sprintf("%s cannot be reached: %s, which is from %s UTC (%s) on", e.Point, e.Reason,
			e.Window.FirstTime.UTC().Format(timeForm), e.Window.FirstLSN)
	}
	return fmt.Sprintf("%s cannot be reached: %s; reachable is %s", e.Point, e.Reason, e.Window)
}

// AmbiguousError says that the newest backup and the newest timeline belong to
// different histories of the cluster, so "latest" has two meanings.
type AmbiguousError struct {
	Newest    postgres.Timeline // the newest timeline
	From      string            // the backup from which it can be reached
	Other     postgres.Timeline // where the newest backup leads
	OtherFrom string            // the newest backup
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("the newest timeline, %d, cannot be reached from the newest backup, %s, which leads to timeline %d",
		e.Newest, e.OtherFrom, e.Other)
}

// GapError says that WAL is missing from the archive, or cannot be used,
// between what is needed and more of it.
type GapError struct {
	Missing string       // the first WAL segment that is not usable
	LSN     postgres.LSN // where the usable WAL ends
	Reason  string       // "" for a segment that is not there
	Needed  bool         // the backup itself cannot become consistent without it
	Window  Window       // reachable without the rest; empty when Needed
	Err     error        // may be nil
}

func (e *GapError) Error() string {
	reason := e.Reason
	if reason == "" {
		reason = "is not in the archive"
	}
	s := fmt.Sprintf("there is a gap in the WAL: %s %s", e.Missing, reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Needed {
		return s + "; the backup needs it to become consistent"
	}
	return s + "; reachable is " + e.Window.String()
}

func (e *GapError) Unwrap() error { return e.Err }

// DirError says that a directory cannot take what is to be written.
type DirError struct {
	Path   string
	Kind   DirProblem
	Detail string
}

// DirProblem tells the reasons of a DirError apart.
type DirProblem string

// The problems.
const (
	NotEmpty      DirProblem = "not empty"
	NotADir       DirProblem = "not a directory"
	ServerRunning DirProblem = "server running"
	NoRights      DirProblem = "no rights"
	Overlap       DirProblem = "overlap"
	BadPath       DirProblem = "bad path"
)

func (e *DirError) Error() string {
	switch e.Kind {
	case NotEmpty:
		return fmt.Sprintf("%s is not empty%s", e.Path, prefixed(e.Detail))
	case NotADir:
		return fmt.Sprintf("%s is there and is not a directory%s", e.Path, prefixed(e.Detail))
	case ServerRunning:
		return fmt.Sprintf("%s is the data directory of a running server%s", e.Path, prefixed(e.Detail))
	case NoRights:
		return fmt.Sprintf("no rights to restore into %s%s", e.Path, prefixed(e.Detail))
	}
	return fmt.Sprintf("cannot restore into %s%s", e.Path, prefixed(e.Detail))
}

func prefixed(detail string) string {
	if detail == "" {
		return ""
	}
	return ": " + detail
}

// SpaceError says that a file system is too small for what would be written.
type SpaceError struct {
	Paths []string // the directories on it
	Need  int64    // bytes, with the margin
	Free  int64    // bytes that this account may use
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("too little disk for %s: %d bytes are needed, %d are free",
		strings.Join(e.Paths, " and "), e.Need, e.Free)
}

// OwnerError says that the files cannot be given to the account that has to
// run the server.
type OwnerError struct {
	Owner  string
	Reason string
}

func (e *OwnerError) Error() string {
	if e.Owner == "" {
		return e.Reason
	}
	return fmt.Sprintf("the files cannot be given to %s: %s", e.Owner, e.Reason)
}

// IncompleteError says that a file did not get all its bytes, although nothing
// failed: a fault in this program. What was written cannot be started.
type IncompleteError struct {
	Path    string
	Size    int64
	Written int64
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%s is not complete: %d of %d bytes were written", e.Path, e.Written, e.Size)
}
