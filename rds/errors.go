package rds

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// What an answer of RDS means. An *Error wraps one of them.
var (
	ErrNotFound    = errors.New("there is no such thing")
	ErrExists      = errors.New("there is one of that name already")
	ErrDenied      = errors.New("permission denied")
	ErrCredentials = errors.New("the credentials are not accepted")
	ErrState       = errors.New("its state forbids that")
	ErrQuota       = errors.New("a quota is used up")
	ErrThrottled   = errors.New("RDS asks to slow down")
	ErrUnavailable = errors.New("RDS could not be reached")
	ErrInvalid     = errors.New("RDS refuses the request")
)

// ErrNoSources means that the configuration names no source.
var ErrNoSources = errors.New("the configuration names no rds.sources")

// Error is an answer of RDS that is no success.
type Error struct {
	Action  string // such as rds:CreateDBSnapshot: the right that the call needs
	Code    string // of the API; "" when there was no answer
	Message string
	Err     error // one of the above
}

func (e *Error) Error() string {
	s := strings.TrimSuffix(e.Message, ".")
	if e.Code != "" {
		s = fmt.Sprintf("%s (%s)", s, e.Code)
	}
	return fmt.Sprintf("%s: %s", e.Action, s)
}
func (e *Error) Unwrap() error { return e.Err }

// UnknownSourceError says that no source has the name, or that there are several
// and none was named.
type UnknownSourceError struct {
	Name  string
	Known []string
}

func (e *UnknownSourceError) Error() string {
	if e.Name == "" {
		return "there are several sources, and none is named"
	}
	return fmt.Sprintf("there is no source %q", e.Name)
}

// UnknownRegionError says that a source has nothing in a region.
type UnknownRegionError struct {
	Source, Region string
	Known          []string
}

func (e *UnknownRegionError) Error() string {
	return fmt.Sprintf("source %s has no region %s", e.Source, e.Region)
}

// NoKeyError says that an encrypted snapshot cannot be copied to a region,
// because no KMS key there is known.
type NoKeyError struct{ Source, Region string }

func (e *NoKeyError) Error() string {
	return fmt.Sprintf("source %s is encrypted, and no KMS key in %s is configured: it cannot be copied there", e.Source, e.Region)
}

// StagingError says what of the staging set-up is missing.
type StagingError struct{ Missing []string }

func (e *StagingError) Error() string {
	return "staging is not set up: " + strings.Join(e.Missing, ", ") + " missing"
}

// EngineError says that something is not PostgreSQL, or not the source's engine.
type EngineError struct{ What, Have, Want string }

func (e *EngineError) Error() string {
	return fmt.Sprintf("%s has engine %s, not %s", e.What, e.Have, e.Want)
}

// StateError says that a state forbids what was asked for.
type StateError struct{ What, State, Want string }

func (e *StateError) Error() string {
	return fmt.Sprintf("%s is %s; it must be %s", e.What, e.State, e.Want)
}

// FailedError says that something on RDS came to a state that it does not leave.
type FailedError struct{ What, State string }

func (e *FailedError) Error() string { return fmt.Sprintf("%s is %s", e.What, e.State) }

// MismatchError says that a snapshot or copy is not what it should be.
type MismatchError struct{ What, Field, Have, Want string }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: %s is %s; it should be %s", e.What, e.Field, e.Have, e.Want)
}

// NoSnapshotError says that there is nothing to restore from.
type NoSnapshotError struct{ Source, Region, ID string }

func (e *NoSnapshotError) Error() string {
	if e.ID != "" {
		return fmt.Sprintf("there is no snapshot %s in %s", e.ID, e.Region)
	}
	return fmt.Sprintf("source %s has no snapshot in %s that can be restored", e.Source, e.Region)
}

// TimeError says that a point in time cannot be restored.
type TimeError struct{ Want, Latest time.Time }

func (e *TimeError) Error() string {
	if e.Latest.IsZero() {
		return "the source keeps no automated backups: no point in time can be restored"
	}
	return fmt.Sprintf("%s cannot be restored yet: the latest restorable time is %s", e.Want.UTC().Format(time.RFC3339), e.Latest.UTC().Format(time.RFC3339))
}

// WaitError says that something did not get where it should within its time. It
// goes on by itself.
type WaitError struct {
	What, State string
	Percent     int // -1: not known
	After       time.Duration
}

func (e *WaitError) Error() string {
	s := fmt.Sprintf("%s is still %s after %s", e.What, e.State, evidence.Seconds(e.After.Seconds()))
	if e.Percent >= 0 {
		s += fmt.Sprintf(" (%d%%)", e.Percent)
	}
	return s
}

// RefusedError says that something was not deleted because it could be another's.
type RefusedError struct{ What, Reason string }

func (e *RefusedError) Error() string { return fmt.Sprintf("%s is not deleted: %s", e.What, e.Reason) }

// StandbyError says that there is nothing to fail over to.
type StandbyError struct{ What string }

func (e *StandbyError) Error() string { return e.What + " has no standby to fail over to" }

// transient says whether a poll that failed so may be repeated.
func transient(err error) bool {
	return errors.Is(err, ErrThrottled) || errors.Is(err, ErrUnavailable)
}

// PasswordError says that the variable that was to hold a password does not.
type PasswordError struct{ Variable string }

func (e *PasswordError) Error() string {
	return fmt.Sprintf("the variable %s, which is to hold the password, is not set", e.Variable)
}
