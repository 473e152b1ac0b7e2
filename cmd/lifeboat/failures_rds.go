package main

import (
	"fmt"
	"strings"

	"github.com/lifeboat-dr/lifeboat/rds"
)

// rdsFailures are the rows of the table of failures for databases on RDS.
func rdsFailures() []failure {
	return []failure{
		{is(rds.ErrNoSources, "name your databases below rds: sources: in the configuration; docs/rds.md shows how"), exitUsage},
		{as(func(e *rds.UnknownSourceError) string {
			return "one of: " + strings.Join(e.Known, ", ") + "; --source NAME"
		}), exitUsage},
		{as(func(e *rds.UnknownRegionError) string {
			return "one of: " + strings.Join(e.Known, ", ") + "; others are named below dr: in the configuration"
		}), exitUsage},
		{as(func(e *rds.NoKeyError) string {
			return fmt.Sprintf("set kms_key of %s below dr: in the configuration, or give --kms-key ARN; nothing was made", e.Region)
		}), exitUsage},
		{as(func(e *rds.StagingError) string {
			return "set them below staging: of the region: RDS would take its defaults, which are the default security group and default parameters"
		}), exitUsage},
		{as(func(e *rds.PasswordError) string { return "export it, or use secret: or iam: of the login" }), exitUsage},
		{as(func(e *rds.EngineError) string {
			return "check instance, cluster and the name of the snapshot: only PostgreSQL and Aurora PostgreSQL are known here"
		}), exitFailed},
		{as(func(e *rds.StateError) string {
			return "wait until it is, and run it again; \"lifeboat rds status\" shows its state"
		}), exitFailed},
		{as(func(e *rds.FailedError) string { return "the RDS console and its events say why" }), exitFailed},
		{as(func(e *rds.MismatchError) string {
			return "do not count on it: look at who made or changed it, and take another"
		}), exitFailed},
		{as(func(e *rds.NoSnapshotError) string {
			return "\"lifeboat rds status\" shows what there is; \"lifeboat rds snapshot --copy-to\" makes copies"
		}), exitMissed},
		{as(func(e *rds.TimeError) string { return "give an earlier time, or --from latest-time" }), exitUsage},
		{as(func(e *rds.WaitError) string {
			return "it goes on at RDS; run the command again, or allow it more with rds.timeout"
		}), exitFailed},
		{as(func(e *rds.RefusedError) string {
			return "Lifeboat deletes only what it made itself; if this is to go, delete it by hand"
		}), exitFailed},
		{as(func(e *rds.StandbyError) string { return "make it Multi-AZ, or give the cluster a second instance" }), exitFailed},
		{is(rds.ErrNoHeartbeat, "\"lifeboat rds heartbeat --create\" makes it"), exitFailed},
		{as(rdsAnswerHint), exitFailed},
	}
}

// rdsAnswerHint is the hint for an answer of Amazon's.
func rdsAnswerHint(e *rds.Error) string {
	switch e.Err {
	case rds.ErrDenied:
		return "the credentials lack the right " + e.Action + ": \"lifeboat rds policy\" prints what each role needs"
	case rds.ErrCredentials:
		return "check AWS_PROFILE, AWS_ACCESS_KEY_ID or the instance role; expired ones must be renewed; what RDS has begun goes on"
	case rds.ErrNotFound:
		return "check identifiers, region and account"
	case rds.ErrState:
		return "wait until it is available, and run it again; \"lifeboat rds status\" shows its state"
	case rds.ErrQuota:
		return "\"lifeboat rds expire\" makes room; or ask AWS for a higher quota"
	case rds.ErrThrottled, rds.ErrUnavailable:
		return "run it again: what was begun goes on at RDS and is taken up"
	}
	return "RDS names what it does not like: check the configuration"
}
