package wal

import "github.com/lifeboat-dr/lifeboat/wal/queue"

// SpoolDir is the directory, in the data directory, of what push and fetch do
// ahead of being asked.
const SpoolDir = queue.SpoolDir
