package postgres

import (
	"fmt"
	"strconv"
	"strings"
)

// Fork is one of the files that hold a relation.
type Fork uint8

// The forks (ForkNumber in common/relpath.h).
const (
	ForkMain Fork = iota
	ForkFSM       // free space map; its changes are not in the WAL
	ForkVM        // visibility map
	ForkInit      // what an unlogged relation is reset to
)

func (f Fork) String() string {
	names := [...]string{"main", "fsm", "vm", "init"}
	if int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprintf("fork %d", uint8(f))
}

// The tablespaces that every cluster has (pg_tablespace.dat).
const (
	DefaultTablespace uint32 = 1663 // pg_default, in the directory base
	GlobalTablespace  uint32 = 1664 // pg_global, in the directory global
)

// RelFile names the storage of a relation (RelFileLocator). It lives in the
// file system and changes when the relation is rewritten; the number is not
// the relation's OID.
type RelFile struct {
	Tablespace uint32
	Database   uint32 // zero in pg_global
	Number     uint32
}

// String is the form of pg_waldump: tablespace/database/number.
func (r RelFile) String() string {
	return fmt.Sprintf("%d/%d/%d", r.Tablespace, r.Database, r.Number)
}

// RelationFile is one file of a relation, as its path tells.
type RelationFile struct {
	RelFile
	Fork    Fork
	Segment uint32 // 0 for the first file; the others end in .1, .2 and so on
	Temp    bool   // of a temporary relation, left out of a backup
	Backend uint32 // whose temporary relation
}

// FirstBlock is the number of the file's first page within the fork.
// relationSegmentSize is the control file's RelationSegmentSize, in pages.
// It wraps beyond the largest relation that there can be, 2^32-2 pages.
func (f RelationFile) FirstBlock(relationSegmentSize uint32) uint32 {
	return f.Segment * relationSegmentSize
}

// ParseRelationPath reads a path relative to the data directory, with slashes:
// base/5/16384_fsm.1, global/1262, pg_tblspc/16400/PG_15_202209061/5/16401,
// base/5/t3_16500. It is true for exactly the files that consist of pages:
// pg_filenode.map, PG_VERSION, pg_internal.init and pg_control lie in the same
// directories and do not.
func ParseRelationPath(path string) (RelationFile, bool) {
	dir, name, ok := cutLast(path)
	if !ok {
		return RelationFile{}, false
	}
	f, ok := parseRelationName(name)
	if !ok {
		return RelationFile{}, false
	}
	f.Tablespace, f.Database, ok = parseDatabaseDir(dir)
	if !ok || (f.Temp && f.Tablespace == GlobalTablespace) {
		return RelationFile{}, false
	}
	return f, true
}

func cutLast(path string) (dir, name string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// parseDatabaseDir reads the path of a directory that holds relations.
func parseDatabaseDir(dir string) (tablespace, database uint32, ok bool) {
	if dir == "global" {
		return GlobalTablespace, 0, true
	}
	parent, db, ok := cutLast(dir)
	if !ok {
		return 0, 0, false
	}
	database, ok = parseOID(db)
	if !ok {
		return 0, 0, false
	}
	if parent == "base" {
		return DefaultTablespace, database, true
	}
	rest, ok := strings.CutPrefix(parent, "pg_tblspc/")
	if !ok {
		return 0, 0, false
	}
	oid, version, ok := strings.Cut(rest, "/")
	if !ok || !tablespaceVersion(version) {
		return 0, 0, false
	}
	tablespace, ok = parseOID(oid)
	return tablespace, database, ok
}

// parseRelationName reads the name of a file of a relation: digits, or t,
// digits, _ and digits for a temporary one; then the fork; then the segment
// (parse_filename_for_nontemp_relation and looks_like_temp_rel_name in
// storage/file/reinit.c and fd.c).
func parseRelationName(name string) (RelationFile, bool) {
	var f RelationFile
	ok := true
	base, seg, hasSeg := strings.Cut(name, ".")
	if hasSeg {
		if f.Segment, ok = parseOID(seg); !ok {
			return RelationFile{}, false
		}
	}
	if rest, isTemp := strings.CutPrefix(base, "t"); isTemp {
		backend, number, found := strings.Cut(rest, "_")
		if !found {
			return RelationFile{}, false
		}
		// Backend 0 exists from PostgreSQL 17 on.
		if backend != "0" {
			if f.Backend, ok = parseOID(backend); !ok {
				return RelationFile{}, false
			}
		}
		f.Temp, base = true, number
	}
	number, fork, hasFork := strings.Cut(base, "_")
	if f.Number, ok = parseOID(number); !ok {
		return RelationFile{}, false
	}
	if hasFork {
		switch fork {
		case "fsm":
			f.Fork = ForkFSM
		case "vm":
			f.Fork = ForkVM
		case "init":
			f.Fork = ForkInit
		default:
			return RelationFile{}, false
		}
	}
	return f, true
}

// parseOID reads a decimal number from 1 to 2^32-1 without leading zeros.
func parseOID(s string) (uint32, bool) {
	if s == "" || len(s) > 10 || s[0] < '1' || s[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}
