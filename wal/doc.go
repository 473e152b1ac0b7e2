// Package wal is the WAL archive of a repository: it pushes what PostgreSQL's
// archive_command names, fetches what its restore_command asks for, and knows
// what the archive holds, where it has gaps, and how its timelines descend.
//
// Two rules shape it. A push succeeds only once the store has acknowledged
// the bytes, and replaces nothing. A fetch says "not archived" only when that
// is proven, because PostgreSQL ends recovery on that word.
package wal
