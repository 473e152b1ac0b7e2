package postgres

import "strings"

// TablespacePath says whether something can lie at path below pg_tblspc, with
// slashes and relative to the data directory: pg_tblspc/OID, and in it the
// directory of one version, PG_15_202209061, with anything in it (TablespaceDir;
// GetDatabasePath in common/relpath.c). Whatever else lies in the location of a
// tablespace is not PostgreSQL's, and a base backup does not enter it
// (sendTablespace in backup/basebackup.c).
func TablespacePath(path string) bool {
	rest, ok := strings.CutPrefix(path, "pg_tblspc/")
	oid, below, deeper := strings.Cut(rest, "/")
	if _, number := parseOID(oid); !ok || !number {
		return false
	}
	version, _, _ := strings.Cut(below, "/")
	return !deeper || tablespaceVersion(version)
}

// TablespaceFile says whether the regular file at path, which lies below
// pg_tblspc, is one that PostgreSQL has there: a file of a relation, temporary
// ones included, or one of the three that each database has beside them
// (PG_VERSION, pg_filenode.map and pg_internal.init, which gets a process number
// behind it while it is written). It is the same from 13 to 18.
func TablespaceFile(path string) bool {
	if _, ok := ParseRelationPath(path); ok {
		return true
	}
	dir, name, _ := cutLast(path)
	if _, _, ok := parseDatabaseDir(dir); !ok {
		return false
	}
	if number, ok := strings.CutPrefix(name, "pg_internal.init."); ok {
		_, ok = parseOID(number)
		return ok
	}
	return name == "PG_VERSION" || name == "pg_filenode.map" || name == "pg_internal.init"
}

// tablespaceVersion reads the name that TablespaceDir makes.
func tablespaceVersion(name string) bool {
	rest, ok := strings.CutPrefix(name, "PG_")
	major, catalog, two := strings.Cut(rest, "_")
	_, isMajor := parseOID(major)
	_, isCatalog := parseOID(catalog)
	return ok && two && isMajor && isCatalog
}
