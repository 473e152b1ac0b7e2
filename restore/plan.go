package restore

import (
	"cmp"
	"slices"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// Plan is what a restore will do. NewPlan makes it; nothing has been written
// when it exists. Its JSON form is what "restore --json" prints.
type Plan struct {
	Backup  repo.Info `json:"-"`
	DataDir string    `json:"data_directory"`
	Label   string    `json:"backup"`

	// Unfinished says that the directories hold an earlier restore that was not
	// completed; Apply removes it first.
	Unfinished bool `json:"unfinished,omitempty"`

	Owner       *Owner       `json:"owner,omitempty"` // nil: the account that runs Apply
	Tablespaces []Tablespace `json:"tablespaces,omitempty"`

	// NewTablespaces are made by records in the WAL to be replayed. PostgreSQL
	// wants their directories to be there, at the very paths of the records.
	NewTablespaces []NewTablespace `json:"new_tablespaces,omitempty"`

	Point    Point             `json:"target"`
	Action   Action            `json:"target_action,omitempty"` // "" without a target
	Timeline postgres.Timeline `json:"timeline"`                // recovery ends on it
	Path     []Span            `json:"timeline_path"`
	WAL      WALRange          `json:"wal"`

	ConsistentLSN  postgres.LSN `json:"consistent_lsn"`
	ConsistentTime time.Time    `json:"consistent_time"`
	StopLSN        postgres.LSN `json:"stop_lsn"`             // where recovery ends
	StopTime       time.Time    `json:"stop_time,omitzero"`   // of the newest commit that it replays; zero: none after the backup began
	NewestTime     time.Time    `json:"newest_time,omitzero"` // of the newest commit in the archive on this path; zero: none was found

	FetchBytes int64    `json:"fetch_bytes"` // of packs, without WAL
	WriteBytes int64    `json:"write_bytes"`
	Files      int64    `json:"files"`
	Disks      []Disk   `json:"disks"`
	Notes      []string `json:"notes,omitempty"`

	Settings []Setting `json:"settings"` // the managed block of postgresql.auto.conf

	// LastLSN is where the last record that is read begins: it is replayed, or
	// recovery stops before it. PostgreSQL logs it as the end of redo.
	LastLSN postgres.LSN `json:"-"`

	allWAL  bool // as in Target
	archive *wal.Index
	way     wal.Path
	readTo  postgres.LSN // end of that record
}

// Owner is the account that files are given to.
type Owner struct {
	User  string `json:"user"` // for people; may be a number
	Group string `json:"group"`
	UID   int    `json:"uid"`
	GID   int    `json:"gid"`

	groups []int // supplementary
}

func (o *Owner) inGroup(gid int) bool { return o.GID == gid || slices.Contains(o.groups, gid) }

// Tablespace is a tablespace of the backup and where it goes.
type Tablespace struct {
	OID     uint32 `json:"oid"`
	From    string `json:"from,omitempty"` // its path when it was backed up
	To      string `json:"to,omitempty"`
	InPlace bool   `json:"in_place,omitempty"` // a directory of the data directory
}

// NewTablespace is a tablespace that recovery will make.
type NewTablespace struct {
	OID  uint32       `json:"oid"`
	Path string       `json:"path"`
	To   string       `json:"to,omitempty"` // with Target.Confine: the directory to be shown there
	LSN  postgres.LSN `json:"lsn"`          // of the record
}

// directory is where its files really lie.
func (n NewTablespace) directory() string { return cmp.Or(n.To, n.Path) }

// Span is a part of the timeline path.
type Span struct {
	Timeline postgres.Timeline `json:"timeline"`
	Begin    postgres.LSN      `json:"begin"`
	End      postgres.LSN      `json:"end"`
}

// WALRange is the WAL that recovery replays.
type WALRange struct {
	Begin    postgres.LSN `json:"begin"`
	End      postgres.LSN `json:"end"`
	First    string       `json:"first_segment"`
	Last     string       `json:"last_segment"`
	Segments int64        `json:"segments"`
	Bytes    int64        `json:"stored_bytes"` // in the store
}

// Disk is a file system and what goes to it.
type Disk struct {
	Paths []string `json:"paths"`
	Need  int64    `json:"need_bytes"` // with a margin
	Free  int64    `json:"free_bytes"`
}

// Setting is one line of postgresql.auto.conf.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
