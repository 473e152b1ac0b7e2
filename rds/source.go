package rds

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// Kind is what a source is.
type Kind string

// The kinds.
const (
	Instance Kind = "instance" // an RDS instance with storage of its own
	Cluster  Kind = "cluster"  // an Aurora cluster
)

// Source is a database that is to be recovered one day.
type Source struct {
	Name   string // in commands, reports and tags
	Kind   Kind
	ID     string // its identifier on RDS
	Region string
	KMSKey string // that it is encrypted with; for policies alone

	Staging Staging  // in its own region
	DR      []Region // where copies of its snapshots go

	Keep    int           // newest snapshots that are kept in each region; 0 is no limit by number
	KeepFor time.Duration // how long one is kept; 0 is no limit by age

	RPO, RTO  time.Duration // objectives; 0 is none
	Checks    []probe.Check
	Heartbeat time.Duration // interval of "lifeboat rds heartbeat"; 0 when it is not known
	TTL       time.Duration // after which what a crashed drill left is removed
	Login     Login
}

// Region is one where copies go.
type Region struct {
	Name    string
	KMSKey  string // there; needed when the source is encrypted
	Staging Staging
}

// Staging is where a drill restores to. RDS takes its own defaults for what is
// not named: the default security group, and no parameters of yours.
type Staging struct {
	SubnetGroup           string
	SecurityGroups        []string
	ParameterGroup        string // of the instance
	ClusterParameterGroup string // of an Aurora cluster
	OptionGroup           string // of an instance
	Class                 string // "" is the source's own
}

// Login is how to log in to the source and to what was restored from it.
type Login struct {
	Role        string
	Database    string // "" is postgres
	PasswordEnv string // name of an environment variable
	Secret      string // ARN or name in Secrets Manager
	IAM         bool   // a token of IAM database authentication
	CAFile      string // certificates of RDS; "" encrypts and does not verify
}

// Find returns the source of that name; "" is the only one.
func Find(sources []Source, name string) (Source, error) {
	if len(sources) == 0 {
		return Source{}, ErrNoSources
	}
	if name == "" && len(sources) == 1 {
		return sources[0], nil
	}
	var names []string
	for _, s := range sources {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Source{}, &UnknownSourceError{Name: name, Known: names}
}

// In is the source's set-up of a region: its own, or one where copies go.
func (s Source) In(region string) (Region, error) {
	if region == "" || region == s.Region {
		return Region{Name: s.Region, Staging: s.Staging}, nil
	}
	if i := slices.IndexFunc(s.DR, func(r Region) bool { return r.Name == region }); i >= 0 {
		return s.DR[i], nil
	}
	return Region{}, &UnknownRegionError{Source: s.Name, Region: region, Known: s.regions()}
}

// defaultTTL is how long a drill may take before a reaper removes what it made.
const defaultTTL = 24 * time.Hour

func (s Source) ttl() time.Duration {
	if s.TTL > 0 {
		return s.TTL
	}
	return defaultTTL
}

func (s Source) regions() []string {
	names := []string{s.Region}
	for _, r := range s.DR {
		names = append(names, r.Name)
	}
	return names
}

// Check says what of the staging set-up is missing: RDS would take its own
// defaults for it.
func (g Staging) Check(kind Kind) error {
	var missing []string
	need := func(name, value string) {
		if value == "" {
			missing = append(missing, name)
		}
	}
	need("subnet_group", g.SubnetGroup)
	need("security_groups", strings.Join(g.SecurityGroups, ""))
	need("parameter_group", g.ParameterGroup)
	if kind == Cluster {
		need("cluster_parameter_group", g.ClusterParameterGroup)
	} else {
		need("option_group", g.OptionGroup)
	}
	if len(missing) > 0 {
		return &StagingError{Missing: missing}
	}
	return nil
}

func (s Source) String() string { return fmt.Sprintf("%s %s in %s", s.Kind, s.ID, s.Region) }
