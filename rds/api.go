package rds

import (
	"context"
	"time"
)

// API is RDS in one region, as far as Lifeboat needs it. Errors are *Error.
//
// A call that changes something may be repeated below this interface when no
// answer came: its name makes a second one fail with ErrExists, never make two.
type API interface {
	Database(ctx context.Context, kind Kind, id string) (*Database, error)
	Databases(ctx context.Context, kind Kind) ([]Database, error)

	Snapshot(ctx context.Context, kind Kind, id string) (*Snapshot, error)
	// Snapshots lists those of a source, copies included, automated ones too.
	Snapshots(ctx context.Context, kind Kind, source string) ([]Snapshot, error)
	CreateSnapshot(ctx context.Context, kind Kind, source, id string, tags Tags) (*Snapshot, error)
	// CopySnapshot is called in the region that the copy is to lie in.
	CopySnapshot(ctx context.Context, c Copy) (*Snapshot, error)
	DeleteSnapshot(ctx context.Context, kind Kind, id string) error
	Tag(ctx context.Context, arn string, tags Tags) error

	Restore(ctx context.Context, r Restore) (*Database, error)
	// AddInstance gives an Aurora cluster, which is restored without any, a server.
	AddInstance(ctx context.Context, r Restore, cluster string) (*Database, error)
	// Delete deletes without a final snapshot and without keeping backups; member
	// says that it is an instance of a cluster, which has neither.
	Delete(ctx context.Context, kind Kind, id string, member bool) error

	// Failover fails over; target is the instance of a cluster that is to take over,
	// "" leaves that to RDS.
	Failover(ctx context.Context, kind Kind, id, target string) error
	Events(ctx context.Context, kind Kind, id string, since time.Time) ([]Event, error)
}

// Regions gives the API of a region.
type Regions func(region string) (API, error)

// Tags are names and values.
type Tags map[string]string

// Database is an instance or a cluster. A field that does not apply is zero.
type Database struct {
	Kind       Kind
	ID         string
	ResourceID string // never used again for another
	ARN        string
	Status     string
	Created    time.Time

	Engine, EngineVersion string
	Class                 string
	Host                  string // "" while it has no address
	Port                  int
	Storage               int // GiB
	StorageType           string
	IOPS                  int
	Encrypted             bool
	KMSKey                string

	MultiAZ             bool
	Zone, SecondaryZone string
	Public, Protected   bool
	SubnetGroup         string
	SecurityGroups      []string
	ParameterGroup      string
	OptionGroup         string
	RetentionDays       int // of automated backups
	Restorable          time.Time
	Cluster             string   // of an instance that belongs to one
	Members             []Member // of a cluster
	Tags                Tags
}

// Member is an instance of a cluster.
type Member struct {
	ID     string
	Writer bool
}

// Snapshot is a snapshot of an instance or a cluster, or a copy of one.
type Snapshot struct {
	Kind                  Kind
	ID, ARN               string
	Source                string // identifier of what it was taken of
	ResourceID            string // of the same
	Type                  string // manual, automated, shared …
	Status                string
	Percent               int // -1: RDS does not say
	Created               time.Time
	Engine, EngineVersion string
	Storage               int // GiB
	Encrypted             bool
	KMSKey                string
	CopyOf                string // ARN
	Tags                  Tags
}

// Copy is a request for a copy.
type Copy struct {
	Of          Snapshot
	From        string // region
	ID          string
	KMSKey      string
	OptionGroup string
	Tags        Tags
}

// Restore is a request for a new instance or cluster: from a snapshot, or from
// the source's backups at a time, or at the latest one that is there.
type Restore struct {
	Kind     Kind
	ID       string
	Snapshot string // identifier or ARN
	Source   string // identifier; with Time or Latest
	Time     time.Time
	Latest   bool
	Engine   string
	Version  string
	Staging  Staging
	Class    string
	IAM      bool // IAM database authentication
	Port     int
	Tags     Tags
}

// Event is something that RDS says has happened.
type Event struct {
	At      time.Time
	Message string
}

// The states that count.
const (
	available = "available"
	deleting  = "deleting"
)
