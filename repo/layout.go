package repo

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// The names of all objects. See FORMAT.md, "Keys of objects".
const (
	MarkerKey     = "lifeboat.json"
	backupsPrefix = "backups/"
	packsPrefix   = "packs/"
	systemsPrefix = "systems/"
	walPrefix     = "wal/"
	leasesPrefix  = "leases/"
	blocksPrefix  = "blocks/"
)

// ManifestKey is the commit point of the backup with this label.
func ManifestKey(label string) string { return backupsPrefix + label + "/manifest" }

// InfoKey holds the first record of the manifest once more, so that listing
// backups does not read whole manifests.
func InfoKey(label string) string { return backupsPrefix + label + "/info" }

// FingerprintsKey holds the fingerprints of the tables, for backups that took
// some.
func FingerprintsKey(label string) string { return backupsPrefix + label + "/fingerprints" }

// AdoptionKey is where a backup that is not committed says of which backups it
// takes over packs.
func AdoptionKey(label string) string { return backupsPrefix + label + "/adoption" }

// PartKey is where a running backup notes, for the n-th time from 1 on, what
// it has stored.
func PartKey(label string, n int) string {
	return fmt.Sprintf("%s%s/part-%06d", backupsPrefix, label, n)
}

// PackKey is where the pack with this id (64 hex digits) lies.
func PackKey(id string) string { return packsPrefix + id }

// SystemKey registers a PostgreSQL system that the cluster has been.
func SystemKey(system postgres.SystemID) string { return systemsPrefix + system.String() }

// WALPrefix is the directory of one timeline of one system, with its slash.
func WALPrefix(system postgres.SystemID, tl postgres.Timeline) string {
	return fmt.Sprintf("%s%s/%s/", walPrefix, system, tl.Hex())
}

// SystemWALPrefix is the directory of all WAL of one system, with its slash.
func SystemWALPrefix(system postgres.SystemID) string {
	return fmt.Sprintf("%s%s/", walPrefix, system)
}

// WALKey is where the WAL file of this name lies: a segment, a partial
// segment, a timeline history file or a backup history file.
func WALKey(system postgres.SystemID, name postgres.WALName) string {
	return WALPrefix(system, name.Timeline) + name.String()
}

// BlocksPrefix is the directory of the block summaries of one timeline of one
// system, with its slash.
func BlocksPrefix(system postgres.SystemID, tl postgres.Timeline) string {
	return fmt.Sprintf("%s%s/%s/", blocksPrefix, system, tl.Hex())
}

// BlocksKey is where the block summary of the records that begin from one
// position (included) to another (not included) lies.
func BlocksKey(system postgres.SystemID, tl postgres.Timeline, from, to postgres.LSN) string {
	return BlocksPrefix(system, tl) + fmt.Sprintf("%016X-%016X", uint64(from), uint64(to))
}

// ParseBlocks reads what BlocksKey puts behind BlocksPrefix. False for every
// other key.
func ParseBlocks(rest string) (from, to postgres.LSN, ok bool) {
	m := blocksPattern().FindStringSubmatch(rest)
	if m == nil {
		return 0, 0, false
	}
	a, _ := strconv.ParseUint(m[1], 16, 64) // sixteen digits always fit
	b, _ := strconv.ParseUint(m[2], 16, 64)
	return postgres.LSN(a), postgres.LSN(b), a < b
}

var blocksPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9A-F]{16})-([0-9A-F]{16})$`)
})

// SlicePrefix is the directory of the slices of a segment (24 digits) that is not
// complete yet, with its slash.
func SlicePrefix(system postgres.SystemID, tl postgres.Timeline, segment string) string {
	return WALPrefix(system, tl) + segment + sliceSuffix
}

// SliceKey is where the bytes of a segment from offset from (included) to to
// (not included) lie while the segment is not complete.
func SliceKey(system postgres.SystemID, tl postgres.Timeline, segment string, from, to int64) string {
	return WALPrefix(system, tl) + SliceName(segment, from, to)
}

// SliceName is what SliceKey puts behind WALPrefix.
func SliceName(segment string, from, to int64) string {
	return fmt.Sprintf("%s%s%08X-%08X", segment, sliceSuffix, from, to)
}

// ParseSlice reads what SliceKey puts behind WALPrefix: the 24 digits of the
// segment and the two offsets. False for every other key.
func ParseSlice(rest string) (segment string, from, to int64, ok bool) {
	m := slicePattern().FindStringSubmatch(rest)
	if m == nil {
		return "", 0, 0, false
	}
	from, _ = strconv.ParseInt(m[2], 16, 64) // eight digits always fit
	to, _ = strconv.ParseInt(m[3], 16, 64)
	return m[1], from, to, from < to && to <= int64(postgres.MaxSegmentSize)
}

// ParseWALKey reads what WALKey or SliceKey made for a system: the name of the
// file, or of the segment that the slice is of. False for every other key.
func ParseWALKey(system postgres.SystemID, key string) (postgres.WALName, bool) {
	directory, file, _ := strings.Cut(strings.TrimPrefix(key, SystemWALPrefix(system)), "/")
	if segment, _, _, ok := ParseSlice(file); ok {
		file = segment
	}
	name, err := postgres.ParseWALName(file)
	return name, err == nil && name.Timeline.Hex() == directory
}

const sliceSuffix = ".d/"

var slicePattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9A-F]{24})\.d/([0-9A-F]{8})-([0-9A-F]{8})$`)
})

var labelPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$`)
})

// CheckLabel says whether label can name a backup: YYYYMMDDTHHMMSSZ-xxxxxx,
// the time in UTC, 256ths of its second in two hex digits, and four random ones.
// Labels sort by time.
func CheckLabel(label string) error {
	if !labelPattern().MatchString(label) {
		return fmt.Errorf("%q is not the label of a backup (they look like 20260131T020000Z-1a2b3c)", label)
	}
	return nil
}

// labelOfManifest returns the label when key names a manifest.
func labelOfManifest(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, backupsPrefix)
	if !ok {
		return "", false
	}
	label, ok := strings.CutSuffix(strings.TrimSuffix(rest, besideSuffix), "/manifest")
	return label, ok && CheckLabel(label) == nil
}

// CheckClusterName says whether name can name a cluster: 1 to 64 lower-case
// letters, digits, "-" and "_", beginning with a letter or digit.
func CheckClusterName(name string) error {
	if !isWord(name, 64, lowerLetters+decimals, lowerLetters+decimals+"_-") {
		return fmt.Errorf("cluster name %q: 1 to 64 of a-z, 0-9, - and _ are allowed, beginning with a letter or digit", name)
	}
	return nil
}

// checkRepositoryID accepts what NewID makes.
func checkRepositoryID(id string) error {
	if !isHex(id, 16) {
		return fmt.Errorf("repository id %.40q is not 32 hexadecimal digits", id)
	}
	return nil
}
