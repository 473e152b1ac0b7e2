package restore

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// Target says what is to be restored, where to, and up to which point.
type Target struct {
	DataDir     string // absolute and clean; missing or empty
	Backup      string // label; "" leaves the choice to the plan
	Point       Point  // the recovery target
	Timeline    wal.TimelineTarget
	Action      Action    // what the server does when it has reached the point
	Tablespaces []Mapping // where tablespaces go that are not to go back
	Owner       string    // "user" or "user:group"; only root can name another than itself
	System      postgres.SystemID

	// KeepArchiving leaves archive_mode and synchronous_standby_names as they
	// were. Otherwise a copy does not push its WAL into production's archive,
	// and waits for nobody.
	KeepArchiving bool

	// Confine is a directory that holds every tablespace, each under its OID, or
	// "" to leave them at their own paths. PostgreSQL still wants those that the
	// WAL makes at the paths of the records: whoever starts the server must
	// show it NewTablespace.To there. The data directory is confined by its own
	// path.
	Confine string

	// AllWAL says that PlaceWAL will be used, which needs room for all WAL at
	// once.
	AllWAL bool

	// FetchCommand is the program and its arguments that bring one WAL file.
	// The plan adds "--system=ID", PostgreSQL the name and the path.
	FetchCommand []string
}

// PointKind is a kind of recovery target.
type PointKind string

// The kinds, named like PostgreSQL's settings without "recovery_target_".
const (
	ToEnd     PointKind = ""          // to the end of the archive
	Immediate PointKind = "immediate" // as soon as the backup is consistent
	AtTime    PointKind = "time"
	AtXID     PointKind = "xid"
	AtName    PointKind = "name"
	AtLSN     PointKind = "lsn"
)

// Point is a recovery target: PostgreSQL's recovery_target, _time, _xid,
// _name or _lsn. Only the field of its kind counts.
type Point struct {
	Kind PointKind    `json:"kind"`
	Time time.Time    `json:"time,omitzero"`
	XID  uint32       `json:"xid,omitempty"`
	Name string       `json:"name,omitempty"`
	LSN  postgres.LSN `json:"lsn,omitempty"`

	// Exclusive stops just before the point instead of just after it
	// (recovery_target_inclusive = off). It means nothing for ToEnd,
	// Immediate and AtName.
	Exclusive bool `json:"exclusive,omitempty"`
}

// String names the point for people.
func (p Point) String() string {
	var s string
	switch p.Kind {
	case ToEnd:
		return "the end of the archive"
	case Immediate:
		return "the end of the backup"
	case AtTime:
		s = "time " + p.Time.UTC().Format(timeForm) + " UTC"
	case AtXID:
		s = fmt.Sprintf("transaction %d", p.XID)
	case AtName:
		return fmt.Sprintf("restore point %q", p.Name)
	case AtLSN:
		s = "LSN " + p.LSN.String()
	}
	if p.Exclusive {
		s += ", exclusive"
	}
	return s
}

// maxRestorePointName is MAXFNAMELEN - 1 in access/xlog_internal.h: a longer
// name is not valid for recovery_target_name.
const maxRestorePointName = 63

func (p Point) check() error {
	switch p.Kind {
	case ToEnd, Immediate:
		return nil
	case AtTime:
		if p.Time.IsZero() {
			return &TargetError{Reason: "the target time is missing"}
		}
	case AtXID:
		if p.XID < 3 { // FirstNormalTransactionId in access/transam.h
			return &TargetError{Reason: fmt.Sprintf("%d is not the number of a transaction", p.XID)}
		}
	case AtName:
		if p.Name == "" || len(p.Name) > maxRestorePointName || hasControl(p.Name) {
			return &TargetError{Reason: fmt.Sprintf("%q is not the name of a restore point (1 to %d bytes)", p.Name, maxRestorePointName)}
		}
	case AtLSN:
		if !p.LSN.Valid() {
			return &TargetError{Reason: "the target LSN is missing"}
		}
	default:
		return &TargetError{Reason: fmt.Sprintf("unknown kind of target %q", string(p.Kind))}
	}
	return nil
}

// Action is recovery_target_action: what the server does at the target.
type Action string

// The actions. The empty one is PostgreSQL's own default, to pause: the
// server can be looked at, and a later target can still be chosen.
const (
	Pause    Action = "pause"
	Promote  Action = "promote"
	Shutdown Action = "shutdown"
)

// ParseAction reads "pause", "promote" or "shutdown".
func ParseAction(s string) (Action, error) {
	switch a := Action(s); a {
	case "":
		return Pause, nil
	case Pause, Promote, Shutdown:
		return a, nil
	}
	return "", fmt.Errorf("%q is none of pause, promote and shutdown", s)
}

// Mapping moves one tablespace: Old is the path that the backup knows, or the
// OID of the tablespace; New is an absolute path.
type Mapping struct{ Old, New string }

// ParseMapping reads OLD=NEW. A backslash before "=" makes it part of a path,
// as pg_basebackup --tablespace-mapping does.
func ParseMapping(s string) (Mapping, error) {
	var parts [2]strings.Builder
	n := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '=':
			i++
			parts[n].WriteByte('=')
		case s[i] == '=':
			if n == 1 {
				return Mapping{}, fmt.Errorf("%q has more than one \"=\" (write \\= for one in a path)", s)
			}
			n = 1
		default:
			parts[n].WriteByte(s[i])
		}
	}
	m := Mapping{parts[0].String(), parts[1].String()}
	if m.Old == "" || m.New == "" {
		return Mapping{}, errors.New("a tablespace is moved by OLD=NEW, two paths or an OID and a path")
	}
	return m, nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
