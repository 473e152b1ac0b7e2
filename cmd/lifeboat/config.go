package main

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// Config is what the configuration says, after file, environment and flags
// have been put together.
type Config struct {
	Cluster    string
	PGData     string // absolute
	Conn       string // libpq connection string or URI; may hold a password
	Repository string // file:///path or s3://bucket/prefix, without parameters
	S3         S3Config

	ClusterKey string   // path
	Signers    []string // ed25519:…
	Recipients []string // age recipients
	Identity   string   // path

	Jobs         int    // 0: as many as there are cores
	Compression  string // fastest, default or better
	PGBinDir     string
	WALTimeout   time.Duration
	Fingerprints bool
	MaxPackAge   time.Duration // 0 for never
	StoreTimeout time.Duration
	State        string // directory of what this host remembers; "" for stateDirectory's

	BlockSummaries bool
	Drill          DrillConfig
	Expire         expire.Policy
	RDS            RDSConfig

	// File is the configuration file that was read, "" when there is none.
	File string

	// Of one of several repositories: what it is called, whether it was asked
	// for by that name, and, in the nearest when none was, all of them.
	Name     string
	Chosen   bool
	places   []*Config
	listed   []*Config // all of them, also when one was asked for
	slotPart string    // Name as it can stand in the name of a replication slot

	origins map[string]origin // by key
}

// S3Config is how to reach a bucket and how to store in it. Credentials are
// not here: they come from the AWS SDK's own chain.
type S3Config struct {
	Endpoint       string // URL; "" for AWS
	Region         string
	PathStyle      bool
	CAFile         string
	SSE            string // "", AES256, aws:kms or aws:kms:dsse
	SSEKMSKey      string
	StorageClass   string
	ObjectLockMode string // "", GOVERNANCE or COMPLIANCE
	ObjectLockDays int
}

// DrillConfig is how restores are rehearsed.
type DrillConfig struct {
	Staging   string
	Level     string
	RPO, RTO  time.Duration
	Key       string   // path of the key that signs the evidence
	Trust     []string // ed25519:… of the hosts whose evidence counts
	Owner     string
	Role      string
	Libraries []string
	Heartbeat time.Duration
	Timeout   time.Duration
	Stall     time.Duration
	Checks    []probe.Check
}

// mostKept is the largest number of backups that a rule can keep.
const mostKept = 100000

// key describes one key of the configuration. Parsing the file, environment,
// flags, "lifeboat config" and the file that "lifeboat init" writes all go by
// the one list below, so they cannot drift.
type key struct {
	name     string // in the file; "s3.region" is region: under s3:
	flag     string // without dashes; "" is the name with dashes
	value    string // the word for the value in help
	help     string // one sentence, no full stop
	def      string // default
	url      string // parameter of an s3:// URL that says the same, "" for none
	path     bool   // a path: relative ones are relative to the file
	choices  []string
	minimum  int // of a number
	maximum  int // of a number, 0 for no limit
	check    func(string) error
	mask     func(string) string // how a value that may hold a secret is shown
	field    func(*Config) any   // pointer to string, []string, bool, int or time.Duration
	optional string              // what it means when it is not set, for the file
}

// env is the environment variable of a key.
func (k *key) env() string {
	return "LIFEBOAT_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

func (k *key) flagName() string {
	if k.flag != "" {
		return k.flag
	}
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '_' {
			return '-'
		}
		return r
	}, k.name)
}

// show is a value of the key as it may be printed.
func (k *key) show(value string) string {
	if k.mask != nil {
		return k.mask(value)
	}
	return value
}

// keys is the list of all keys, in the order in which the file has them. It is
// made once: every command has a flag for each of them, and a push is waited for.
func keys() []*key {
	makeKeys.Do(func() { theKeys = newKeys() })
	return theKeys
}

var (
	makeKeys sync.Once
	theKeys  []*key
)

func newKeys() []*key {
	return append([]*key{
		{name: "cluster", value: "NAME", help: "name of the PostgreSQL cluster", check: repo.CheckClusterName,
			field: func(c *Config) any { return &c.Cluster }},
		{name: "pgdata", value: "DIR", path: true, help: "data directory of the cluster",
			field: func(c *Config) any { return &c.PGData }},
		{name: "conn", value: "LIBPQ", mask: maskConn, optional: "libpq's own defaults and PG* variables",
			help:  "libpq connection string or URI of the running server; a password is better kept in ~/.pgpass",
			field: func(c *Config) any { return &c.Conn }},
		{name: "repository", value: "URL", check: checkRepository, mask: maskURL,
			help:  "where backups and WAL go: file:///path or s3://bucket/prefix",
			field: func(c *Config) any { return &c.Repository }},
		{name: "s3.endpoint", value: "URL", url: "endpoint", mask: maskURL, optional: "AWS",
			help:  "URL of an S3 server that is not AWS's",
			field: func(c *Config) any { return &c.S3.Endpoint }},
		{name: "s3.region", value: "REGION", url: "region", optional: "what the AWS SDK finds",
			help:  "region of the bucket",
			field: func(c *Config) any { return &c.S3.Region }},
		{name: "s3.path_style", url: "path_style", def: "false",
			help:  "name the bucket in the path of the URL instead of the host name; most servers that are not AWS's want it",
			field: func(c *Config) any { return &c.S3.PathStyle }},
		{name: "s3.ca_file", value: "FILE", url: "ca_file", path: true, optional: "the system's",
			help:  "certificates (PEM) of the authorities to trust",
			field: func(c *Config) any { return &c.S3.CAFile }},
		{name: "s3.sse", value: "METHOD", url: "sse", choices: []string{"AES256", "aws:kms", "aws:kms:dsse"}, optional: "the bucket's default",
			help:  "server-side encryption on top of Lifeboat's own",
			field: func(c *Config) any { return &c.S3.SSE }},
		{name: "s3.sse_kms_key", value: "KEY", url: "sse_kms_key", optional: "the account's default key",
			help:  "KMS key for s3.sse aws:kms and aws:kms:dsse",
			field: func(c *Config) any { return &c.S3.SSEKMSKey }},
		{name: "s3.storage_class", value: "CLASS", url: "storage_class", optional: "the bucket's default",
			help:  "storage class of new objects; one that can be read without delay",
			field: func(c *Config) any { return &c.S3.StorageClass }},
		{name: "s3.object_lock_mode", value: "MODE", url: "object_lock_mode",
			choices: []string{"GOVERNANCE", "COMPLIANCE"}, optional: "no Object Lock",
			help:  "Object Lock mode of new objects",
			field: func(c *Config) any { return &c.S3.ObjectLockMode }},
		{name: "s3.object_lock_days", value: "DAYS", url: "object_lock_days", def: "0", maximum: 36500,
			help:  "days for which Object Lock keeps new objects",
			field: func(c *Config) any { return &c.S3.ObjectLockDays }},
		{name: "cluster_key", value: "FILE", path: true, check: checkPath,
			help:  "the cluster key: signs what this host writes, and opens metadata",
			field: func(c *Config) any { return &c.ClusterKey }},
		{name: "signer", value: "KEY", check: checkSigner, optional: "those named in the recovery key file",
			help:  "public signing key to trust, ed25519:…; can be repeated",
			field: func(c *Config) any { return &c.Signers }},
		{name: "recipients", flag: "recipient", value: "AGE", check: checkRecipient,
			help:  "age recipient that can open the backups; can be repeated",
			field: func(c *Config) any { return &c.Recipients }},
		{name: "identity", value: "FILE", path: true, check: checkPath,
			help:  "recovery key or age identity that opens the backups; needed to restore, keep it off the database host",
			field: func(c *Config) any { return &c.Identity }},
		{name: "jobs", value: "N", def: "0", maximum: 16,
			help:  "workers; 0 is one for each core, at most 16",
			field: func(c *Config) any { return &c.Jobs }},
		{name: "compression", value: "LEVEL", def: "fastest", choices: []string{"fastest", "default", "better"},
			help:  "zstd level",
			field: func(c *Config) any { return &c.Compression }},
		{name: "pg_bindir", value: "DIR", path: true, optional: "found by pg_config and PATH",
			help:  "directory of PostgreSQL's programs, for what starts a server",
			field: func(c *Config) any { return &c.PGBinDir }},
		{name: "wal_timeout", value: "TIME", def: "5m",
			help:  "how long a backup waits for its WAL to be archived",
			field: func(c *Config) any { return &c.WALTimeout }},
		{name: "fingerprints", def: "false",
			help:  "note at each backup what is in the tables (rows, a hash of a sample), for drills to compare; reads up to 1 GiB of each table",
			field: func(c *Config) any { return &c.Fingerprints }},
		{name: "max_pack_age", value: "TIME", def: "30d",
			help:  "no stored page gets older: each backup reads a share of the oldest again, so that none has to read everything; 0s is never",
			field: func(c *Config) any { return &c.MaxPackAge }},
		{name: "block_summaries", def: "true",
			help:  "wal push and wal stream note which pages change, so that a backup need not look at all; not needed where summarize_wal is on",
			field: func(c *Config) any { return &c.BlockSummaries }},
		{name: "store_timeout", value: "TIME", def: "30s", check: checkStoreTimeout,
			help:  "how long wal push, wal stream and commands on several repositories wait for a store that shows no sign of life; a slow one is not given up",
			field: func(c *Config) any { return &c.StoreTimeout }},
		{name: "state", value: "DIR", path: true, optional: "/var/lib/lifeboat-ACCOUNT or /var/lib/lifeboat if it can be written, else ~/.local/state/lifeboat",
			help:  "directory of what this host remembers of the repository, so that one that has gone back is noticed",
			field: func(c *Config) any { return &c.State }},
		{name: "drill.staging", flag: "staging", value: "DIR", path: true, def: "/var/tmp",
			help:  "directory in which a drill makes its own and removes it again; it needs room for a whole restore and its WAL",
			field: func(c *Config) any { return &c.Drill.Staging }},
		{name: "drill.level", flag: "level", value: "LEVEL", def: "standard", choices: []string{"quick", "standard", "deep"},
			help:  "how much a drill proves: quick reads what a restore needs, standard restores and checks, deep also reads every page, row and index",
			field: func(c *Config) any { return &c.Drill.Level }},
		{name: "drill.rpo", flag: "rpo", value: "TIME", optional: "no objective",
			help:  "the most that may be lost, as time",
			field: func(c *Config) any { return &c.Drill.RPO }},
		{name: "drill.rto", flag: "rto", value: "TIME", optional: "no objective",
			help:  "the longest that a restore may take until all required checks have passed",
			field: func(c *Config) any { return &c.Drill.RTO }},
		{name: "drill.key", value: "FILE", path: true, check: checkPath, optional: "CLUSTER-drill.key beside the configuration",
			help:  "the key with which this host signs the evidence of its drills; the first drill makes it",
			field: func(c *Config) any { return &c.Drill.Key }},
		{name: "drill.trust", value: "KEY", check: checkSigner, optional: "this host's own",
			help:  "public key of a host whose evidence counts, ed25519:…; can be repeated",
			field: func(c *Config) any { return &c.Drill.Trust }},
		{name: "drill.owner", value: "USER", optional: "one that owns nothing else on the host",
			help:  "account that runs the server of a drill, USER[:GROUP]; for root only",
			field: func(c *Config) any { return &c.Drill.Owner }},
		{name: "drill.role", value: "ROLE", def: "postgres",
			help:  "superuser as whom a drill logs in to the restored server",
			field: func(c *Config) any { return &c.Drill.Role }},
		{name: "drill.libraries", value: "NAME", optional: "all that production loads",
			help:  "those of production's shared_preload_libraries that a drill loads; can be repeated",
			field: func(c *Config) any { return &c.Drill.Libraries }},
		{name: "drill.heartbeat", value: "TIME", optional: "not known",
			help:  "how often heartbeats are written, if they are: the loss that a drill reports then has a lower bound too",
			field: func(c *Config) any { return &c.Drill.Heartbeat }},
		{name: "drill.timeout", value: "TIME", optional: "none",
			help:  "how long a drill may take as a whole",
			field: func(c *Config) any { return &c.Drill.Timeout }},
		{name: "drill.stall", value: "TIME", def: "5m",
			help:  "how long a recovery may make no progress",
			field: func(c *Config) any { return &c.Drill.Stall }},
		{name: "expire.keep_last", flag: "keep-last", value: "N", def: "0", maximum: mostKept,
			help:  "keep the newest N backups",
			field: func(c *Config) any { return &c.Expire.KeepLast }},
		{name: "expire.keep_daily", flag: "keep-daily", value: "N", def: "0", maximum: mostKept,
			help:  "keep the newest backup of each of the last N days that have one, in UTC",
			field: func(c *Config) any { return &c.Expire.KeepDaily }},
		{name: "expire.keep_weekly", flag: "keep-weekly", value: "N", def: "0", maximum: mostKept,
			help:  "the same of the last N weeks, which begin on Monday",
			field: func(c *Config) any { return &c.Expire.KeepWeekly }},
		{name: "expire.keep_monthly", flag: "keep-monthly", value: "N", def: "0", maximum: mostKept,
			help:  "the same of the last N months",
			field: func(c *Config) any { return &c.Expire.KeepMonthly }},
		{name: "expire.keep_yearly", flag: "keep-yearly", value: "N", def: "0", maximum: mostKept,
			help:  "the same of the last N years",
			field: func(c *Config) any { return &c.Expire.KeepYearly }},
		{name: "expire.pitr_window", flag: "pitr-window", value: "TIME", optional: "WAL stays from the oldest backup on that a rule above keeps",
			help:  "keep every moment of the last TIME restorable: the backups within it, the newest before it, and the WAL from that one on",
			field: func(c *Config) any { return &c.Expire.Window }},
	}, rdsKeys()...)
}

// section is a group of keys that stand below one word in the file.
type section struct{ name, comment string }

// sections are the groups, in the order in which the file has them.
func sections() []section {
	return []section{
		{"s3", "For s3:// repositories. Credentials do not belong here: they come from the AWS\n" +
			"# SDK's own chain (environment, ~/.aws, instance role)."},
		{"drill", "Restore drills. Your own checks of the restored data stand here too, as a list\n" +
			"# \"checks:\"; docs/drill.md shows how."},
		{"expire", "What \"lifeboat expire\" keeps. A backup stays when any rule keeps it, and the\n" +
			"# newest that is restorable always does. Without a rule nothing is removed."},
		{"rds", "Databases on Amazon RDS and Aurora stand here as a list \"sources:\"; docs/rds.md\n" +
			"# shows how."},
	}
}

// sectionOf is the group of a key, "" for none, and its name there.
func sectionOf(name string) (section, rest string) {
	if section, rest, ok := strings.Cut(name, "."); ok {
		return section, rest
	}
	return "", name
}

// configuration is the category of the flags that are keys.
const configuration = "Configuration"

// configFlags returns a flag for every key of the configuration. Help shows
// the named ones; the others work too.
func configFlags(visible ...string) []cli.Flag {
	flags := make([]cli.Flag, 0, len(keys()))
	var c Config // for the kinds of the fields
	for _, k := range keys() {
		hidden := !slices.Contains(visible, k.name)
		help := k.help
		if k.value != "" {
			help += " `" + k.value + "`" // description takes it off again
		}
		switch k.field(&c).(type) {
		case *[]string:
			flags = append(flags, &cli.StringSliceFlag{Name: k.flagName(), Usage: help, Category: configuration, Hidden: hidden})
		case *bool:
			flags = append(flags, &cli.BoolFlag{Name: k.flagName(), Usage: help, Category: configuration, Hidden: hidden})
		default:
			flags = append(flags, &cli.StringFlag{Name: k.flagName(), Usage: help, DefaultText: k.def, Category: configuration, Hidden: hidden})
		}
	}
	return flags
}

// nearestKey is the key that a person who wrote name most likely meant.
func nearestKey(name string, spelt func(*key) string) string {
	var names []string
	for _, k := range keys() {
		names = append(names, spelt(k))
	}
	return nearest(name, names)
}

// origin is where a value came from.
type origin struct {
	kind originKind
	name string // of the flag or the variable
	file string
	line int
	url  bool // as a parameter of the repository URL
}

// originKind orders the origins: the later beats the earlier.
type originKind int

const (
	originDefault originKind = iota
	originFile
	originEnv
	originFlag
)

// String is "flag --jobs", "env LIFEBOAT_JOBS", "/etc/lifeboat.yaml:7" or
// "default".
func (o origin) String() string {
	var s string
	switch o.kind {
	case originFlag:
		s = "flag --" + o.name
	case originEnv:
		s = "env " + o.name
	case originFile:
		s = fileLine(o.file, o.line)
	default:
		return "default"
	}
	if o.url {
		s += ", in the URL"
	}
	return s
}
