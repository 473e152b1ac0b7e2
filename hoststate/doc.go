// Package hoststate keeps what a host remembers of a repository, outside of the
// repository: whoever owns the bucket can take back what is in it, and not what a
// host has seen of it.
//
// Each repository has a directory of its own, named by its id, and in it a small
// file for each kind of memory. Several processes share them, under a lock; no two
// hosts do. A file is replaced whole (written beside, synced, renamed), readable by
// its owner alone, and carries a sum of its content. One that is broken, foreign,
// too large or no regular file counts as absent, and the caller is told: a memory is
// a help, and nothing may stand or fall with it being there.
package hoststate
