package postgres

import (
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// The majors whose formats the package knows.
const (
	MinMajor = 13
	MaxMajor = 18
)

// castagnoli is the polynomial of PostgreSQL's CRC-32C. The table is built by
// the standard library and never changes.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ParseVersionFile reads the bytes of a PG_VERSION file: a major of
// PostgreSQL. It refuses a major outside MinMajor to MaxMajor.
func ParseVersionFile(data []byte) (int, error) {
	s := strings.TrimRight(string(data[:min(len(data), 64)]), " \t\r\n")
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: PG_VERSION does not hold a version", ErrFormat)
	}
	if n < MinMajor || n > MaxMajor {
		return 0, fmt.Errorf("PostgreSQL %d is not supported; %d to %d are", n, MinMajor, MaxMajor)
	}
	return n, nil
}

// ServerVersion is a server's version as server_version_num gives it: the
// major times 10000 plus the minor.
type ServerVersion int

// Major is the part before the dot.
func (v ServerVersion) Major() int { return int(v) / 10000 }

// Minor is the part after the dot.
func (v ServerVersion) Minor() int { return int(v) % 10000 }

func (v ServerVersion) String() string { return fmt.Sprintf("%d.%d", v.Major(), v.Minor()) }

// Supported says whether the major is one whose formats the package knows.
func (v ServerVersion) Supported() bool { return v.Major() >= MinMajor && v.Major() <= MaxMajor }

// MajorOfMagic is the major that writes WAL pages with this magic number
// (XLOG_PAGE_MAGIC in access/xlog_internal.h), and false for any other.
func MajorOfMagic(magic uint16) (int, bool) {
	switch magic {
	case 0xD106:
		return 13, true
	case 0xD10D:
		return 14, true
	case 0xD110:
		return 15, true
	case 0xD113:
		return 16, true
	case 0xD116:
		return 17, true
	case 0xD118:
		return 18, true
	}
	return 0, false
}

// TablespaceDir is the directory inside a tablespace's location in which a
// cluster of this major and catalog version keeps its files
// (TABLESPACE_VERSION_DIRECTORY). Other directories there are other clusters'.
func TablespaceDir(major int, catalogVersion uint32) string {
	return fmt.Sprintf("PG_%d_%d", major, catalogVersion)
}

// timestamp turns a TimestampTz, microseconds since 2000-01-01 UTC, into a
// time. It does not check the range; absurd values wrap.
func timestamp(us int64) time.Time {
	const epoch = 946684800 * 1000000 // 2000-01-01 after 1970-01-01, microseconds
	return time.UnixMicro(us + epoch).UTC()
}
