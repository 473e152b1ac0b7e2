package drill

import (
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// Options says what a drill does.
type Options struct {
	Level evidence.Level

	// Pick is Latest, Random or the label of a backup. A backup that was picked
	// is never replaced by an older one: that the newest cannot be restored is
	// what a drill is there to find out.
	Pick string

	// Policy is what is kept: Random leaves out the backups whose WAL it does
	// not keep to the end. The zero value leaves out none.
	Policy expire.Policy

	// Time, unless zero, is recovered to instead of the end of the archive;
	// RandomTime picks one between the backup and the newest commit. The loss
	// is not measured then.
	Time       time.Time
	RandomTime bool

	// Staging is an existing directory, in which each drill makes one of its own.
	Staging string
	Reserve int64  // bytes that must stay free in it
	Owner   string // account for files and server, "USER[:GROUP]"; for root only

	RPO, RTO  time.Duration // objectives; 0 is none
	Checks    []probe.Check
	Libraries Libraries

	// Conn is the libpq connection string of the primary; "" when it is not to
	// be asked. Role is the superuser to log in as on the restored server.
	Conn, Role string
	Heartbeat  time.Duration // interval of heartbeats, 0 when it is not known

	// Find finds the programs of a major version of PostgreSQL.
	Find func(major int) (server.Install, error)
	// Self is the path of this program, whose main hands fence.Argument to
	// fence.Enter and HelpArgument to ServeHelper.
	Self string

	// Adopt says that this process starts nothing beside the drill: what the restored
	// server leaves behind becomes a child of it when the helper is killed, and is ended.
	Adopt bool

	Keep    bool          // leave the server running and the directory in place
	Timeout time.Duration // for the whole drill; 0 is none
	Stall   time.Duration // recovery that makes no progress for so long hangs; 0 is 5 minutes

	Settings map[string]string // more settings for the server, for tests of the drill itself

	// GoneBack is what this host has seen of the repository and is not there any
	// more: what is left may restore, and the drill has failed all the same.
	GoneBack []string

	Env     []string // of this process, for commands; only PATH, HOME, locale and the like are handed on
	Program string   // version of Lifeboat
	By      evidence.Performer
	Key     repo.SigningKey  // signs the evidence
	Trusted []repo.PublicKey // hosts whose evidence of earlier drills counts, beside this one
	Now     func() time.Time
	Began   time.Time      // from when on the recovery time counts; zero is now
	Observe func(Progress) // may be nil; called from several goroutines, often
}

// What Options.Pick can be, beside a label.
const (
	Latest = "latest"
	Random = "random"
)

// Libraries says which of production's shared_preload_libraries are loaded:
// all of them, or those that are listed.
type Libraries struct {
	Listed bool
	Names  []string
}

// Progress is where a running drill stands.
type Progress struct {
	Phase       string // of package evidence
	Done, Total int64  // bytes; Total 0 is unknown
}

const (
	defaultStall = 5 * time.Minute
	checkLimit   = 5 * time.Minute // for a built-in check
	deepLimit    = 12 * time.Hour  // for one that reads everything
)

func (o Options) observe(phase string, done, total int64) {
	if o.Observe != nil {
		o.Observe(Progress{phase, done, total})
	}
}
