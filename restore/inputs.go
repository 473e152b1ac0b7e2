package restore

import (
	"fmt"
	"io/fs"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// Inputs is everything that a plan is made from. Load fills it; a test can.
//
// Not all of it is needed for every plan, and finding out costs time: reading
// WAL most of all. So NewPlan says with a *MissingFactError what it must know
// next, and Load finds that out and asks again.
type Inputs struct {
	Backups     []repo.Info                      // oldest first
	Unread      map[string]error                 // by label: backups that cannot be believed or read
	Notes       []string                         // what came up while they were read
	Archives    map[postgres.SystemID]*wal.Index // the WAL archives
	Contents    map[string]*Contents             // by label: what the manifests say
	Surveys     map[string]*Survey               // by label: what the WAL says, for the target at hand
	Directories map[string]Directory             // by path as in the plan
	Owners      map[string]OwnerFact             // by label
}

// MissingFactError says what NewPlan must know to go on.
type MissingFactError struct {
	Archive     postgres.SystemID // the archive of this system, if not 0
	Backup      *repo.Info        // what follows is about this backup
	Contents    bool              // what its manifest says
	Survey      *wal.Path         // what the WAL from its start along this path says
	Owner       bool              // who is to own its files
	Directories []string          // these directories
}

func (e *MissingFactError) Error() string { return fmt.Sprintf("facts are missing: %+v", *e) }

// Contents is what the manifest of a backup says, and whether its packs are
// there.
type Contents struct {
	Err   error   // why the backup cannot be restored; nil when it can
	Bytes []int64 // to be written: in the data directory, then in each tablespace outside of it
	Files []int64 // likewise
	Fetch int64   // bytes of packs

	HasConf bool // postgresql.conf lay in the data directory
	Standby bool // standby.signal was there

	Strays int64  // files in tablespaces that are not PostgreSQL's, and are not written
	Stray  string // the first of them
}

// Survey is what reading the WAL from a backup's start showed: as much of it
// as recovery to the target would replay.
type Survey struct {
	End  postgres.LSN // end of the last record that is replayed
	Last postgres.LSN // its beginning

	// The record that recovery reads and stops before: begin and end; 0: none.
	BeforeLSN, BeforeEnd postgres.LSN
	Timeline             postgres.Timeline // of that record

	// Reached says that recovery would stop at the target, after that record.
	Reached bool

	// DamagedAhead says that soon after the target there is WAL that cannot be
	// had: PostgreSQL must not read ahead.
	DamagedAhead bool

	Commit    time.Time // of the newest commit up to End; zero when there is none
	CommitLSN postgres.LSN
	Newest    time.Time // of the newest commit of the archive, as far as it was looked for

	// Broken says why what follows End cannot be used although it is archived.
	Broken        error
	BrokenSegment string

	Tablespaces []NewTablespace // that recovery makes outside of the data directory
	InPlace     bool            // it makes some inside
	Parameters  postgres.ParameterChange
}

// Directory is what was found at a path that is to be written to.
type Directory struct {
	Real    string // the path with links resolved, as far as it exists
	Exists  bool
	IsDir   bool
	Names   []string // what is in it, at most a few; the marker is not among them
	Marked  bool     // it holds an unfinished restore
	Control bool     // it holds global/pg_control
	PID     int      // of a server that runs on it; 0 for none
	Err     error    // it could not be looked at

	UID      int     // of its owner
	Self     int     // the account that looked
	Writable bool    // by this process; of the nearest existing parent if it does not exist
	Above    []Above // the existing directories above it, nearest first
	Device   uint64  // of its file system
	Free     int64   // bytes there
}

// Above is a directory that an account must pass to reach another.
type Above struct {
	Path     string
	Mode     fs.FileMode
	UID, GID int
}

// OwnerFact is who the files would belong to.
type OwnerFact struct {
	Owner *Owner // nil: the account that runs the restore
	Err   error
}

// passable says whether the account can go through the directory, by its
// permission bits.
func (a Above) passable(o *Owner) bool {
	switch {
	case a.UID == o.UID:
		return a.Mode&0o100 != 0
	case o.inGroup(a.GID):
		return a.Mode&0o010 != 0
	}
	return a.Mode&0o001 != 0
}
