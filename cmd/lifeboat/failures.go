package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/copier"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/verify/drill"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// failure is a row of the table from errors to exit codes and hints.
type failure struct {
	match func(error) (hint string, ok bool)
	code  exitCode
}

// is matches errors by errors.Is and gives one hint for all of them.
func is(target error, hint string) func(error) (string, bool) {
	return func(err error) (string, bool) { return hint, errors.Is(err, target) }
}

// as matches errors by type; the hint can use the facts they carry.
func as[E error](hint func(E) string) func(error) (string, bool) {
	return func(err error) (string, bool) {
		e, ok := errors.AsType[E](err)
		if !ok {
			return "", false
		}
		return hint(e), true
	}
}

// sqlState matches what the server answered, by its SQLSTATE (PostgreSQL
// manual, "PostgreSQL Error Codes").
func sqlState(code, hint string) func(error) (string, bool) {
	return func(err error) (string, bool) {
		e, ok := errors.AsType[*pgconn.PgError](err)
		return hint, ok && e.Code == code
	}
}

// failures is the one table from domain errors to exit code and hint. The
// first row that matches counts, so the particular stand before the general.
func failures() []failure {
	return append(rdsFailures(), []failure{
		// drill
		{as(func(e *drill.UnfencedError) string {
			return "run the drill where namespaces are allowed (kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces, seccomp of the container), as root, or on a host that has no such directory"
		}), exitUnknown},
		{as(func(e *drill.MemoryError) string {
			return "stop something else here, or run the drill on a host with more memory"
		}), exitUnknown},
		{as(func(e *drill.StagingError) string {
			return "name an existing directory that this account can write to, with room for the whole cluster: --staging DIR"
		}), exitUnknown},
		{as(func(e *drill.SpaceError) string {
			return "name a directory on a larger file system with --staging DIR, or make room there"
		}), exitUnknown},
		{as(func(e *drill.HangError) string {
			return "look at the server with \"lifeboat drill --keep\"; where recovery is only slow, allow it more with drill.stall"
		}), exitMissed},
		{as(func(e *drill.MissingBackupError) string {
			return "\"lifeboat backups\" lists those that are there"
		}), exitMissed},
		// restore
		{is(restore.ErrNoBackup, "\"lifeboat backup\" takes one; check the repository if there should be some"), exitFailed},
		{as(func(e *restore.AmbiguousError) string {
			return fmt.Sprintf("choose with --target-timeline %s (from backup %s) or --target-timeline %s (from backup %s)", e.Newest, e.From, e.Other, e.OtherFrom)
		}), exitFailed},
		{as(unreachableHint), exitFailed},
		{as(gapHint), exitFailed},
		{as(dirHint), exitFailed},
		{as(func(e *restore.SpaceError) string {
			return "make room, or restore to a larger file system; tablespaces can be moved with --tablespace OLD=NEW"
		}), exitFailed},
		{as(func(e *restore.OwnerError) string {
			return "name the account that runs PostgreSQL here: --owner postgres; of a drill, --drill-owner postgres"
		}), exitFailed},
		{as(func(e *restore.IncompleteError) string {
			return "this is a defect of Lifeboat: please report it; nothing that was written can be started"
		}), exitFailed},
		{is(wal.ErrNoHistory, "name the timeline to recover along with --target-timeline: \"current\" is the backup's own"), exitFailed},
		{backupHint, exitFailed},
		{as(wordHint), exitFailed},
		{as(func(e *restore.TargetError) string { return "\"lifeboat restore --help\" explains targets" }), exitUsage},
		// backup
		{as(func(e *backup.LostTablespaceError) string {
			return "see that its disk is mounted and that this account may read it: without these files there would be no backup of what is in it"
		}), exitFailed},
		{as(func(e *backup.TooManyFilesError) string {
			return "nothing was copied; look in the data directory for a directory that is not PostgreSQL's, such as of an application, and move it elsewhere; the limits are in repo/FORMAT.md"
		}), exitFailed},
		{as(func(e *backup.MismatchError) string {
			return "conn must lead to the server that runs on pgdata, not to another one of its cluster: \"lifeboat config\" prints what counts"
		}), exitFailed},
		// wal
		{as(func(e *wal.GapError) string {
			return "recovery cannot pass the gap: restore to a point before " + e.Missing + ", or from a backup taken after it"
		}), exitFailed},
		{as(func(e *wal.HistoryLostError) string {
			return "a server that is, or was, on timeline " + e.Timeline.String() + " has it in pg_wal: run \"lifeboat wal push pg_wal/" + e.Timeline.HistoryName() + "\" there"
		}), exitFailed},
		{as(func(e *wal.UnknownSystemError) string {
			return "check --system and the repository: \"pg_controldata\" prints the identifier of a data directory"
		}), exitFailed},
		{as(func(e *wal.BadSegmentError) string { return strangerHint }), exitFailed},
		{as(func(e *wal.HeaderError) string {
			return "check that pgdata is the data directory of the server that archives, and that the file is undamaged: pg_waldump reads it"
		}), exitFailed},
		{as(func(e *wal.MissingError) string {
			return "look at pg_stat_archiver and the server's log: archive_command may be failing, or slower than WAL is made"
		}), exitFailed},
		{as(func(e *wal.MissingSlotError) string {
			return "add --create-slot to make it, or name another one with --slot"
		}), exitFailed},
		{as(func(e *wal.LostSlotError) string {
			return "select pg_drop_replication_slot('" + e.Slot + "'), start again with --create-slot, and take a backup at once: none from before passes the gap"
		}), exitFailed},
		{as(func(e *wal.OtherSystemError) string {
			return "conn leads to another cluster: \"lifeboat config\" prints what counts"
		}), exitFailed},
		{as(func(e *wal.RemovedError) string {
			return "take a backup at once: no restore from an older one can pass the gap; if the slot is lost, drop it and start with --create-slot"
		}), exitFailed},
		{as(func(e *wal.SlotAtRiskError) string {
			return "see why the stream is behind (the store, the network), or raise max_slot_wal_keep_size"
		}), exitFailed},
		{as(func(e *wal.SliceConflictError) string {
			return "find out which server is the primary; restore to a point before this segment, or remove the slices of the other one"
		}), exitFailed},
		// copier
		{as(func(e *copier.GapError) string {
			return "copy another backup, or bring the segment into the archive with \"lifeboat wal push\" if a server still has it"
		}), exitFailed},
		{as(func(e *copier.RemovedError) string {
			return "copy another one: \"lifeboat backups\" lists them; \"lifeboat backup pin\" keeps one until it is copied"
		}), exitFailed},
		{is(copier.ErrNoBackup, "\"lifeboat backup\" takes one; --repository says where to copy from"), exitFailed},
		{is(wal.ErrNotArchived, "the archive ends before it"), exitFailed},
		// repo
		{as(func(e *repo.RetiredKeyError) string {
			return "copy the cluster key from the host where \"lifeboat key rotate\" was run, and restart what uses it"
		}), exitFailed},
		{as(func(e *repo.StillSigningError) string {
			return "bring the new cluster key to " + e.Host + ", restart \"lifeboat wal stream\" there, let the server archive a segment, and run it again"
		}), exitFailed},
		{as(func(e *repo.LeasedError) string {
			if e.Unsigned {
				return "try again when it has ended; no key that is believed has signed this lease: if it is renewed for ever, \"lifeboat lease status\" shows who can have, and a host with the cluster key waits four minutes at most"
			}
			return "try again when it has ended; if its holder died, its lease ends by itself within four minutes of its last sign of life by the store's clock (\"lifeboat lease status\" shows it)"
		}), exitBusy},
		{as(func(e *repo.ConflictError) string {
			return "two servers archive to this repository, or this one was put back to an older state: stop the one that is not the primary, or give it a repository of its own"
		}), exitFailed},
		{as(func(e *repo.ForeignError) string {
			if e.What == "repository" {
				return "it was made with another cluster key: check repository and cluster_key; \"lifeboat init\" makes a further place of a repository where nothing is yet"
			}
			return "check repository, cluster and keys in the configuration: one of them is another cluster's"
		}), exitFailed},
		{as(func(e *repo.OtherKeyError) string {
			return "use the key of that cluster, or check repository; if it should be that one, somebody may have tampered with it"
		}), exitFailed},
		{as(func(e *repo.UntrustedError) string {
			return "somebody may have tampered with the repository: check who can write to it, and that signer is the right key"
		}), exitFailed},
		{as(func(e *repo.DisbelievedError) string {
			return "keys were retired there and not here: do the same here (docs/keys.md), and copy again"
		}), exitFailed},
		{as(func(e *repo.CorruptError) string {
			return "the object was damaged in the store: fetch it again; if it stays so, use another backup and look at the store"
		}), exitFailed},
		{is(repo.ErrNoRepository, "check the repository URL; \"lifeboat init\" creates a new repository, and where the marker of this one is gone makes it again with the cluster key"), exitFailed},
		{is(repo.ErrNoIdentity, "name the recovery key with --identity FILE, LIFEBOAT_IDENTITY or identity: in the configuration"), exitFailed},
		{is(repo.ErrWrongIdentity, "it is another cluster's recovery key, one added after this was sealed, or a cluster key, which opens no data: try the others"), exitFailed},
		{is(repo.ErrNoTrust, "use the recovery key file, which names the signer, or set signer: ed25519:…"), exitFailed},
		{is(repo.ErrReadOnly, "set cluster_key and recipients in the configuration of the database host"), exitFailed},
		// verify/expire
		{is(expire.ErrNoneRestorable, "take a backup first; \"lifeboat verify\" tells what is wrong with those that are there"), exitFailed},
		{as(func(e *expire.ClockError) string {
			return "set the clock of this host, and run it again: nothing was removed"
		}), exitFailed},
		{as(func(e *expire.DeniedError) string {
			return "this host may not delete: run \"lifeboat expire\" on another one, whose credentials allow s3:DeleteObject (docs/storage.md, \"Rights\")"
		}), exitFailed},
		// storage
		{as(optionHint), exitUsage},
		{is(storage.ErrNoStore, "check the repository URL: the bucket or directory must exist and be mounted"), exitFailed},
		{is(storage.ErrDenied, "the credentials are valid and lack a right: look at what the policy of the bucket allows: reading, writing and listing are needed"), exitFailed},
		{is(storage.ErrCredentials, "check AWS_PROFILE, AWS_ACCESS_KEY_ID or the instance role; expired ones must be renewed"), exitFailed},
		{is(storage.ErrUnavailable, "check network, endpoint and region, then run it again: nothing is lost"), exitFailed},
		{is(storage.ErrRedirected, "set endpoint and region to those of the bucket; if they are, ask who runs the endpoint, or a proxy before it: nothing was sent where it points"), exitFailed},
		{as(func(e *s3.Error) string {
			return "the store does not do what was asked: check endpoint, region and path_style; \"lifeboat check-repository\" tries all that is needed"
		}), exitFailed},
		// backup, for want of anything that says more
		{as(func(e *backup.ArchivingError) string {
			return "set archive_mode = on and archive_command = 'lifeboat … wal push %p', as \"lifeboat init\" prints it, or run \"lifeboat wal stream\", and look at pg_stat_archiver and the server's log"
		}), exitFailed},
		// postgres/server
		{as(func(e *server.FindError) string {
			return "install PostgreSQL's server programs, or name their directory with pg_bindir"
		}), exitFailed},
		{as(func(e *server.ExitError) string { return "read the server's log" }), exitFailed},
		// the server that is backed up
		{sqlState("58P01", "the slot no longer keeps that WAL: drop it, start with --create-slot, and take a backup"), exitFailed},
		{sqlState("55006", "another stream uses the slot, or one that died has not timed out: each needs a slot of its own"), exitFailed},
		{sqlState("42501", "the role of conn lacks a right: grant it pg_read_all_settings and the execution of pg_backup_start, pg_backup_stop and pg_switch_wal, or use a superuser"), exitFailed},
		{is(wal.ErrConnString, "conn: host=… dbname=…, or a URI, postgresql://user@host/dbname; \"lifeboat config\" prints where it comes from"), exitUsage},
		{as(func(e *pgconn.ConnectError) string {
			return "check that PostgreSQL runs, and conn: \"lifeboat config\" prints what counts; psql with the same string must work"
		}), exitFailed},
		// the system
		{is(context.DeadlineExceeded, "it took too long: check the network, or allow it more time"), exitFailed},
		{is(syscall.ENOSPC, "the disk is full: make room and run it again"), exitFailed},
		{is(syscall.EDQUOT, "the disk quota is used up: make room and run it again"), exitFailed},
		{is(syscall.EROFS, "the file system is mounted read-only"), exitFailed},
		{deniedHint, exitFailed},
	}...)
}
