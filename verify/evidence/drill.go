package evidence

import (
	"time"
)

// Schema names the form of the document. A field may be added under the same
// name; the meaning of one never changes.
const Schema = "lifeboat-drill-1"

// Verdict is the outcome of a check, of an objective or of a whole drill.
type Verdict string

// The verdicts. The zero value is none of them, and Judge takes it for Unknown:
// nothing passes by default.
const (
	Passed  Verdict = "passed"
	Failed  Verdict = "failed"
	Unknown Verdict = "unknown" // not proven either way
)

// Level is how much a drill proves.
type Level string

// The levels.
const (
	Quick    Level = "quick"    // reads what a restore would need, starts nothing
	Standard Level = "standard" // restores, recovers, checks
	Deep     Level = "deep"     // also reads every page, row and index
)

// Drill is the evidence of one drill. Durations are in seconds, sizes in bytes,
// times in UTC. What was not measured is missing, never zero.
type Drill struct {
	Schema     string    `json:"schema"`
	ID         string    `json:"id"` // UTC time and random digits: also the key under drills/
	Repository string    `json:"repository"`
	Cluster    string    `json:"cluster"`
	Program    string    `json:"program"` // which version of Lifeboat
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended"`
	Level      Level     `json:"level"`
	By         Performer `json:"by"`
	Host       Host      `json:"host"`

	Backup *Backup `json:"backup,omitempty"` // nil: none could be chosen
	Target Target  `json:"target"`
	WAL    *WAL    `json:"wal,omitempty"`

	RDS      *RDS      `json:"rds,omitempty"`      // nil: no drill of a database on Amazon RDS
	Failover *Failover `json:"failover,omitempty"` // nil: nothing was failed over

	Verdict Verdict  `json:"verdict"`
	Reasons []string `json:"reasons,omitempty"` // why it is not passed, the gravest first

	RPO    RPO     `json:"rpo"`
	RTO    RTO     `json:"rto"`
	Phases []Phase `json:"phases"`
	Checks []Check `json:"checks"`
	Fence  *Fence  `json:"fence,omitempty"` // nil: no server was started

	Coverage *Coverage `json:"coverage,omitempty"`
	Cleanup  Cleanup   `json:"cleanup"`
	Notes    []string  `json:"notes,omitempty"`
	Previous *Link     `json:"previous,omitempty"` // nil: the first of the repository
}

// Performer is who ran the drill.
type Performer struct {
	User string `json:"user"`
	Host string `json:"host"`
}

// Host is the machine that it ran on.
type Host struct {
	System      string `json:"system"` // operating system and architecture
	CPUs        int    `json:"cpus"`
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	StagingFree int64  `json:"staging_free_bytes,omitempty"` // before
	PostgreSQL  string `json:"postgresql,omitempty"`         // version of the server in staging
}

// Backup is what was restored.
type Backup struct {
	Label      string    `json:"label"`
	Taken      time.Time `json:"taken"` // when it had stopped
	System     string    `json:"system_identifier"`
	Host       string    `json:"host"` // that it was taken from
	PostgreSQL int       `json:"postgresql_version"`
	Files      int64     `json:"files"`
	Bytes      int64     `json:"bytes"`
	Fetched    int64     `json:"fetched_bytes"` // of packs
	Picked     string    `json:"picked"`        // latest, random or by label
}

// Target is where recovery was to end.
type Target struct {
	Kind     string    `json:"kind"` // end, time, immediate (the end of the backup itself); on RDS snapshot too
	Time     time.Time `json:"time,omitzero"`
	Random   bool      `json:"random,omitempty"` // chosen by chance
	Timeline uint32    `json:"timeline,omitempty"`
}

// WAL is what recovery replayed.
type WAL struct {
	Begin    string `json:"begin"` // LSN
	End      string `json:"end"`
	Segments int64  `json:"segments"`
	Bytes    int64  `json:"bytes"`  // from Begin to End
	Stored   int64  `json:"stored"` // in the archive
}

// RPO is the recovery point: what would have been lost if the primary had died
// when the drill began. See docs/drill.md for the method.
type RPO struct {
	Objective *float64 `json:"objective,omitempty"`
	Verdict   Verdict  `json:"verdict,omitempty"` // empty: no objective

	// The loss lies between the two, ends included. Upper is missing when it
	// is not known.
	Lower *float64 `json:"lower,omitempty"`
	Upper *float64 `json:"upper,omitempty"`

	// Zero says that the loss is proven to be none: no commit lies between the
	// recovered end and what the primary had flushed.
	Zero bool `json:"zero"`

	Basis     string     `json:"basis"`                // primary, archive, host or none: whose clock and position the bounds rest on
	Reason    string     `json:"reason,omitempty"`     // why the basis is not the primary
	Disaster  *time.Time `json:"disaster,omitempty"`   // the assumed moment, by the clock of the basis
	Flushed   string     `json:"flushed,omitempty"`    // LSN that the primary had flushed then
	Recovered string     `json:"recovered,omitempty"`  // LSN at which recovery ended
	Commit    *time.Time `json:"commit,omitempty"`     // newest commit that was brought back, by the primary's clock
	FirstLost *time.Time `json:"first_lost,omitempty"` // oldest commit that was not, where the WAL after the end could be read
	LostBytes *int64     `json:"lost_bytes,omitempty"` // of WAL
	Heartbeat *float64   `json:"heartbeat,omitempty"`  // interval, where it is known
	Skew      *float64   `json:"clock_skew,omitempty"` // by how far the clock of the drill host is ahead of the primary's
}

// RTO is the recovery time: from the start to the last required check.
type RTO struct {
	Objective *float64 `json:"objective,omitempty"`
	Verdict   Verdict  `json:"verdict,omitempty"` // empty: no objective
	Achieved  *float64 `json:"achieved,omitempty"`
	Costliest string   `json:"costliest,omitempty"` // phase that took most
}

// Phase is a part of the time, in the order in which they came.
type Phase struct {
	Name    string  `json:"name"`  // one of the Phase constants
	Start   float64 `json:"start"` // from the start of the drill
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes,omitempty"`   // that it moved or replayed
	Fetched int64   `json:"fetched,omitempty"` // bytes that came from the store in it
}

// The names of phases.
const (
	PhasePlan       = "plan"       // read the repository and the WAL, choose, check room and rights
	PhaseFiles      = "files"      // fetch, open and write the files of the backup
	PhaseWAL        = "wal"        // fetch the WAL
	PhaseTables     = "tables"     // recovery to where the backup noted its tables, and comparing them
	PhaseConsistent = "consistent" // start the server and replay to the end of the backup
	PhaseReplay     = "replay"     // replay to the end
	PhaseAccepting  = "accepting"  // until it takes connections for writing
	PhaseChecks     = "checks"

	PhaseRestore  = "restore"  // on RDS: until the copy is available
	PhaseInstance = "instance" // on Aurora: until the restored cluster has an instance
	PhaseHydrate  = "hydrate"  // on RDS: read every block once; no part of the recovery time
	PhaseFailover = "failover" // until writes succeed again and the zone has changed
)

// Check is one thing that was looked at.
type Check struct {
	Name     string  `json:"name"`
	Kind     string  `json:"kind"` // built-in, sql or command
	Required bool    `json:"required"`
	Verdict  Verdict `json:"verdict"`
	Detail   string  `json:"detail,omitempty"` // one line: what was seen, or why it is not known
	Seconds  float64 `json:"seconds"`
}

// Fence is what kept the server in staging away from the world, as it was seen
// on the running server.
type Fence struct {
	Network string   `json:"network"` // isolated: said of what was tried alone; or why it is not
	Files   string   `json:"files"`   // the same
	User    string   `json:"user"`    // account that ran the server
	Proven  []string `json:"proven"`  // one line each
	Missing []string `json:"missing,omitempty"`
	Loaded  []string `json:"preload_libraries,omitempty"`
	Left    []string `json:"preload_libraries_left_out,omitempty"`

	Layers []Layer   `json:"layers,omitempty"`
	Tried  []Attempt `json:"tried,omitempty"` // ways out, before the server started; empty: nothing was tried
}

// Layer is one part of the fence.
type Layer struct {
	Name   string `json:"name"`
	Held   bool   `json:"held"`
	Reason string `json:"reason,omitempty"` // why it does not hold
}

// Attempt is one way out of the fence that was tried inside.
type Attempt struct {
	What    string `json:"what"`
	Outcome string `json:"outcome"`           // blocked, reached, or unknown: it led nowhere without the fence either
	Error   string `json:"error,omitempty"`   // the system's, inside
	Outside string `json:"outside,omitempty"` // the system's, without the fence
}

// Ways counts the attempts by their outcome.
func (f *Fence) Ways() (blocked, reached, unknown int) {
	for _, a := range f.Tried {
		switch a.Outcome {
		case "blocked":
			blocked++
		case "reached":
			reached++
		default:
			unknown++
		}
	}
	return blocked, reached, unknown
}

// Coverage is what the repository holds beside the backup that was restored.
type Coverage struct {
	Backups []Covered `json:"backups"` // newest first
	From    time.Time `json:"window_from,omitzero"`
	To      time.Time `json:"window_to,omitzero"`
}

// Covered is one backup.
type Covered struct {
	Label  string    `json:"label"`
	Taken  time.Time `json:"taken"`
	Tested time.Time `json:"tested,omitzero"` // by the newest drill that passed with it; zero: never
}

// Cleanup says what became of the staging directory.
type Cleanup struct {
	Done   bool     `json:"done"` // proven gone
	Kept   string   `json:"kept,omitempty"`
	Detail string   `json:"detail,omitempty"`
	Older  []string `json:"older,omitempty"` // ids of crashed drills that were cleaned up
}

// Link names the document before.
type Link struct {
	ID     string `json:"id"`
	SHA256 string `json:"sha256"` // of the whole file
}
