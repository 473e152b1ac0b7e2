package evidence

import "time"

// FailoverLevel is the level of a failover that was done and measured: it restores
// nothing.
const FailoverLevel Level = "failover"

// RDS is what a drill of a database on Amazon RDS or Aurora adds. Its Backup is
// the snapshot, or the automated backups where a point in time was restored.
type RDS struct {
	Source     string `json:"source"` // its name in the configuration
	Kind       string `json:"kind"`   // instance or cluster
	Identifier string `json:"identifier"`
	ResourceID string `json:"resource_id,omitempty"` // of the source
	Region     string `json:"region"`                // that was restored in
	Engine     string `json:"engine"`                // and its version, of the source
	From       string `json:"from"`                  // snapshot, time or latest-time
	Snapshot   string `json:"snapshot,omitempty"`

	// Restorable is the source's LatestRestorableTime when the drill began, and
	// Exposure how long ago that was: what a restore to a point in time would
	// have lost. Beside the RPO, which was measured inside the copy.
	Restorable *time.Time `json:"latest_restorable_time,omitempty"`
	Exposure   *float64   `json:"exposure,omitempty"`

	Attempt string `json:"attempt"` // in name and tags of what was restored
	Staging string `json:"staging,omitempty"`
	Class   string `json:"class,omitempty"`

	// From the start, in seconds. RDS calls an instance available while most of
	// its blocks are still in S3; Hydrated is when all had been read once.
	Available     *float64 `json:"available,omitempty"`
	Checked       *float64 `json:"checked,omitempty"`
	Hydrated      *float64 `json:"hydrated,omitempty"`
	HydratedBytes int64    `json:"hydrated_bytes,omitempty"`

	Differences []Difference `json:"differences,omitempty"`
}

// Difference is a setting of RDS that the copy has otherwise than the source.
type Difference struct {
	Name     string `json:"name"`
	Source   string `json:"source"`
	Restored string `json:"restored"`
	Asked    bool   `json:"asked"` // the drill asked for it
}

// Failover is a failover that was done and measured.
type Failover struct {
	Source     string `json:"source"`
	Kind       string `json:"kind"`
	Identifier string `json:"identifier"`
	Region     string `json:"region"`
	ZoneBefore string `json:"zone_before"`
	ZoneAfter  string `json:"zone_after,omitempty"`
	Host       string `json:"host"`

	// Writes were tried every Interval seconds. Between the end of the last one
	// before and the end of the first one after lie DowntimeUpper seconds; from
	// the first that failed to the last that did, DowntimeLower.
	Interval      float64    `json:"interval"`
	Probes        int        `json:"probes"`
	Failures      int        `json:"failures"`
	DowntimeLower *float64   `json:"downtime_lower,omitempty"`
	DowntimeUpper *float64   `json:"downtime_upper,omitempty"`
	LastWrite     *time.Time `json:"last_write,omitempty"`
	FirstWrite    *time.Time `json:"first_write,omitempty"`
	Addresses     []string   `json:"addresses,omitempty"` // that the name led to, in order
	Events        []string   `json:"events,omitempty"`    // that RDS reported
}
