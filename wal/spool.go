package wal

// SpoolDir is the folder, in the data directory, in which push notes what it
// has made durable ahead of being asked, and fetch keeps what it got ahead. It
// lives and dies with the cluster whose WAL it is about, it is on PostgreSQL's
// own file system, so that a segment is handed over by a rename, and its
// account can write there. Nothing in it is ever needed: without it push and
// fetch only do their work later. A base backup leaves it out.
const SpoolDir = "lifeboat.spool"
