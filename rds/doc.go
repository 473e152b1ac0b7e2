// Package rds keeps databases on Amazon RDS and Aurora out of harm's way, and
// rehearses their recovery: snapshots and their copies in other regions, drills,
// expiry, failover with the downtime of writes measured, and the rights needed.
//
// There is no data directory, so nothing of Lifeboat's own format is involved:
// Amazon keeps the data. What is the same as for other clusters are the checks,
// the evidence, the report and the exit codes.
//
// Deleting is the danger here. All deletes go through guard.go, which looks at
// what is there right before it deletes and refuses everything that was not made
// by the very attempt that wants it gone.
package rds
