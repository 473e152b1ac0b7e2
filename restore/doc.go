// Package restore brings a base backup back as a data directory that
// PostgreSQL can recover from, in three steps: Load gathers what is known,
// NewPlan decides without any I/O what will be done or why it cannot be, and
// Apply does it.
//
// The plan is made before a byte is written, because at three in the morning
// the costly failure is the one that shows up after hours: a gap in the WAL, a
// pack that is gone, a target that cannot be reached, a full disk, a
// tablespace that would land in production's own directory.
//
// Apply writes global/pg_control last. Without it no server starts, so what
// was not restored completely cannot be taken for a database.
package restore
