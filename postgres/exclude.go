package postgres

import "strings"

// Excluded says whether a base backup leaves out the file or directory at path,
// which is relative to the data directory, with slashes. The rules are those
// of backup/basebackup.c (replication/basebackup.c before 15) and the manual's
// "Making a Base Backup Using the Low Level API":
//
//   - the contents of the directories of EmptyDir, which themselves are kept;
//   - what a starting server makes again or must not find: postmaster.pid and
//     .opts, pg_internal.init, the backup_label, tablespace_map and
//     backup_manifest of an earlier restore, half-written settings;
//   - temporary files (pgsql_tmp…) and temporary relations (t3_16384);
//   - .DS_Store, which macOS leaves in any directory.
//
// backup_label.old and tablespace_map.old are kept, as the server keeps them.
//
// Some rules need more than a path: see UnloggedFiles, and walk in a
// tablespace only the directory that TablespaceDir names. The control file is
// not excluded; it is to be copied last.
func Excluded(path string) bool {
	dir, name, nested := cutLast(path)
	if nested && insideEmptyDir(dir) {
		return true
	}
	return excludedName(name) || isTemporaryRelation(path)
}

// EmptyDir says whether a base backup keeps the directory at path, relative to
// the data directory, but nothing that is in it.
func EmptyDir(path string) bool {
	_, name, nested := cutLast(path)
	switch name {
	case "pg_wal":
		return !nested
	// Statistics, replication slots and state that a restarted server builds
	// again. PostgreSQL knows these names at any depth.
	case "pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans":
		return true
	}
	return false
}

// insideEmptyDir says whether dir is an EmptyDir or lies in one.
func insideEmptyDir(dir string) bool {
	for {
		if EmptyDir(dir) {
			return true
		}
		parent, _, nested := cutLast(dir)
		if !nested {
			return false
		}
		dir = parent
	}
}

// excludedName holds for names left out in every directory.
func excludedName(name string) bool {
	switch name {
	case "postmaster.pid", "postmaster.opts", "postgresql.auto.conf.tmp", "current_logfiles.tmp",
		"backup_label", "tablespace_map", "backup_manifest", ".DS_Store":
		return true
	}
	// pg_internal.init gets a process number behind it while it is written.
	return strings.HasPrefix(name, "pg_internal.init") || strings.HasPrefix(name, "pgsql_tmp")
}

func isTemporaryRelation(path string) bool {
	f, ok := ParseRelationPath(path)
	return ok && f.Temp
}

// Unlogged is the set of relations in one directory that are unlogged.
type Unlogged map[uint32]struct{}

// UnloggedFiles finds the unlogged relations among the names of all files in
// the directory of one database (base/5, not global): those that have an init
// fork. List the directory again right before copying it: a relation can become
// unlogged at any time.
func UnloggedFiles(names []string) Unlogged {
	var u Unlogged
	for _, name := range names {
		f, ok := parseRelationName(name)
		if ok && !f.Temp && f.Fork == ForkInit && f.Segment == 0 {
			if u == nil {
				u = Unlogged{}
			}
			u[f.Number] = struct{}{}
		}
	}
	return u
}

// Excludes says whether a base backup leaves out the file with this name in
// the directory: every file of an unlogged relation but its init fork, from which
// recovery makes the relation again, empty.
func (u Unlogged) Excludes(name string) bool {
	if len(u) == 0 {
		return false
	}
	f, ok := parseRelationName(name)
	if !ok || f.Temp || f.Fork == ForkInit {
		return false
	}
	_, unlogged := u[f.Number]
	return unlogged
}
