// Package postgres holds facts about PostgreSQL 13 to 18: LSNs, timelines and
// segment names, the control file, page checksums, what a base backup leaves
// out, backup_label, and the records of the write-ahead log.
//
// The package is pure: it takes bytes, names and readers, and touches no file,
// clock, environment or network. No function panics or allocates more than a
// small multiple of its input, whatever the input is; the bytes of a bucket
// are hostile until their signature holds.
//
// All on-disk layouts are those of a little-endian, 8-byte-aligned build,
// which is every platform PostgreSQL is packaged for today. A control file or
// WAL segment of another byte order is refused by name.
package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrFormat is wrapped by every error about bytes or names that are not what
// PostgreSQL would have written.
var ErrFormat = errors.New("not a PostgreSQL format")

// LSN is a log sequence number: a byte position in the stream of WAL.
// Zero is PostgreSQL's "invalid" LSN; no record lies there.
type LSN uint64

// ParseLSN reads the form that pg_lsn prints and accepts: two groups of one to
// eight hexadecimal digits around a slash. Zero padding is allowed, blanks,
// signs and prefixes are not.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("%w: LSN %q has no slash", ErrFormat, s)
	}
	h, okHi := parseHex32(hi)
	l, okLo := parseHex32(lo)
	if !okHi || !okLo {
		return 0, fmt.Errorf("%w: LSN %q is not 1 to 8 hexadecimal digits on each side of a slash", ErrFormat, s)
	}
	return LSN(h)<<32 | LSN(l), nil
}

// parseHex32 reads 1 to 8 hexadecimal digits of either case.
func parseHex32(s string) (uint32, bool) {
	if len(s) == 0 || len(s) > 8 {
		return 0, false
	}
	var n uint32
	for i := range len(s) {
		d, ok := hexDigit(s[i])
		if !ok {
			return 0, false
		}
		n = n<<4 | d
	}
	return n, true
}

func hexDigit(c byte) (uint32, bool) {
	switch {
	case c >= '0' && c <= '9':
		return uint32(c - '0'), true
	case c >= 'A' && c <= 'F':
		return uint32(c-'A') + 10, true
	case c >= 'a' && c <= 'f':
		return uint32(c-'a') + 10, true
	}
	return 0, false
}

// String is the form that PostgreSQL 13 to 18 prints: X/X, without padding.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// Valid says whether l is a position at all: zero is not.
func (l LSN) Valid() bool { return l != 0 }

// MarshalText is String; JSON uses it too.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is ParseLSN, whose error it shortens: what is read from a file is
// not quoted.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	if err != nil {
		return fmt.Errorf("%w: not an LSN", ErrFormat)
	}
	*l = v
	return nil
}

// Timeline is a timeline ID. Zero is no timeline.
type Timeline uint32

// ParseTimeline reads a timeline ID as recovery_target_timeline takes it: a
// decimal number, or a hexadecimal one after 0x (the digits of a file name are
// hexadecimal). PostgreSQL would read a leading zero as octal; as nobody means
// that, it is refused. The words "latest" and "current" are the caller's.
func ParseTimeline(s string) (Timeline, error) {
	digits, base := s, 10
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		digits, base = s[2:], 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: timeline %q is neither a decimal number nor a hexadecimal one after 0x", ErrFormat, s)
	case n == 0:
		return 0, fmt.Errorf("%w: timeline %q: timelines start at 1", ErrFormat, s)
	case base == 10 && s[0] == '0':
		return 0, fmt.Errorf("%w: timeline %q: a leading zero is ambiguous", ErrFormat, s)
	}
	return Timeline(n), nil
}

// String is the decimal form, as in a timeline history file.
func (t Timeline) String() string { return strconv.FormatUint(uint64(t), 10) }

// Hex is the form in file names: eight upper-case hexadecimal digits.
func (t Timeline) Hex() string { return fmt.Sprintf("%08X", uint32(t)) }

// HistoryName is the name of the timeline's history file. Timeline 1 has none.
func (t Timeline) HistoryName() string { return t.Hex() + ".history" }

// SystemID is the number that initdb gives a database system. All copies of
// the system share it; pg_upgrade makes a new one.
type SystemID uint64

// ParseSystemID reads the decimal form that pg_controldata prints.
func ParseSystemID(s string) (SystemID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || (s[0] == '0' && s != "0") {
		return 0, fmt.Errorf("%w: system identifier %q is not a decimal number of 64 bits", ErrFormat, s)
	}
	return SystemID(n), nil
}

// String is the decimal form.
func (id SystemID) String() string { return strconv.FormatUint(uint64(id), 10) }

// MarshalText is String. In JSON a system identifier is therefore a string:
// it does not fit the numbers of JavaScript.
func (id SystemID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseSystemID, whose error it shortens as LSN does.
func (id *SystemID) UnmarshalText(b []byte) error {
	v, err := ParseSystemID(string(b))
	if err != nil {
		return fmt.Errorf("%w: not a system identifier", ErrFormat)
	}
	*id = v
	return nil
}

// The little-endian readers that the decoders share.
func u16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }
func u32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func u64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
