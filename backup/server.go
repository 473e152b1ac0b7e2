package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// server is the one connection that a backup holds. Backup mode lives and
// dies with it.
type server struct{ conn *pgx.Conn }

// facts is what the server and its control file say, before the start.
type facts struct {
	control     postgres.ControlFile
	version     int  // server_version_num
	standby     bool // it is in recovery
	settings    map[string]string
	tablespaces []repo.Tablespace // after the start
	owner       string
	group       string
	otherStart  string // see otherStart
}

// checksums says whether pages have checksums.
func (f facts) checksums() bool { return f.control.DataChecksumVersion != 0 }

func connect(ctx context.Context, conn string) (*server, error) {
	cfg, err := pgx.ParseConfig(conn)
	if err != nil {
		return nil, wal.ErrConnString
	}
	cfg.RuntimeParams["application_name"] = "lifeboat"
	// A backup may wait long between statements, and must not be cut off.
	cfg.RuntimeParams["statement_timeout"] = "0"
	cfg.RuntimeParams["idle_session_timeout"] = "0"
	cfg.RuntimeParams["lock_timeout"] = "0"
	c, err := pgx.ConnectConfig(ctx, cfg)
	var pgErr interface{ SQLState() string }
	if errors.As(err, &pgErr) && pgErr.SQLState() == "42704" { // idle_session_timeout came with 14
		delete(cfg.RuntimeParams, "idle_session_timeout")
		c, err = pgx.ConnectConfig(ctx, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the server: %w", err)
	}
	return &server{c}, nil
}

// close ends the session; the server leaves backup mode by itself if a backup
// is under way.
func (s *server) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// recoverySettings are those that recovery compares with the primary's, and
// those that tell where configuration lies.
var recoverySettings = []string{
	"max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions",
	"max_locks_per_transaction", "wal_level", "shared_preload_libraries", "config_file", "hba_file",
	"ident_file", "data_directory", "server_encoding", "TimeZone", "synchronous_standby_names",
}

// match makes sure that the server is the one of the data directory and that
// it can be backed up, and gathers the facts.
func (s *server) match(ctx context.Context, dataDir string) (facts, error) {
	f, err := s.settle(ctx, dataDir)
	if err != nil {
		return f, err
	}
	if f.otherStart, err = s.otherStart(ctx, dataDir); err != nil {
		return f, err
	}
	if f.settings, err = s.readSettings(ctx); err != nil {
		return f, err
	}
	f.owner, f.group = owner(dataDir)
	return f, nil
}

// identify reads the control file, and asks the server whether it is of the
// same system.
func (s *server) identify(ctx context.Context, dataDir string) (facts, error) {
	var f facts
	var err error
	if f.control, err = readControlFile(ctx, dataDir); err != nil {
		return f, err
	}
	var system, dir string
	err = s.conn.QueryRow(ctx, `select current_setting('server_version_num')::int, pg_is_in_recovery(),
		(select system_identifier::text from pg_control_system()), current_setting('data_directory')`).
		Scan(&f.version, &f.standby, &system, &dir)
	if err != nil {
		return f, fmt.Errorf("ask the server who it is: %w", err)
	}
	switch v := postgres.ServerVersion(f.version); {
	case system != f.control.SystemID.String():
		return f, &MismatchError{fmt.Sprintf("the server (in %s) has system identifier %s, but the files in %s have %s",
			dir, system, dataDir, f.control.SystemID)}
	case !v.Supported():
		return f, &MismatchError{fmt.Sprintf("the server is PostgreSQL %s; %d to %d are supported", v, postgres.MinMajor, postgres.MaxMajor)}
	}
	return f, nil
}

func (s *server) readSettings(ctx context.Context) (map[string]string, error) {
	rows, err := s.conn.Query(ctx, "select name, coalesce(setting, '') from pg_settings where name = any($1)", recoverySettings)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	out := map[string]string{}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		out[name] = value
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return out, nil
}

func (s *server) readTablespaces(ctx context.Context) ([]repo.Tablespace, error) {
	rows, err := s.conn.Query(ctx, `select oid, pg_tablespace_location(oid) from pg_tablespace
		where spcname not in ('pg_default', 'pg_global') order by oid`)
	if err != nil {
		return nil, fmt.Errorf("read tablespaces: %w", err)
	}
	var out []repo.Tablespace
	var t repo.Tablespace
	_, err = pgx.ForEachRow(rows, []any{&t.OID, &t.Path}, func() error {
		// The location of a tablespace in place is its path in the data directory.
		if !filepath.IsAbs(t.Path) {
			t.Path, t.InPlace = "", true
		}
		out = append(out, t)
		t = repo.Tablespace{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tablespaces: %w", err)
	}
	return out, nil
}

// proveArchiving makes sure that WAL reaches the archive.
func proveArchiving(ctx context.Context, r *repo.Repo, s *server, f facts, o Options) error {
	if f.standby {
		return proveReplayed(ctx, r, s, f, o)
	}
	return proveWritten(ctx, r, s, f, o)
}

// proveReplayed waits until the segment before the one that a standby replays
// is in the archive. A standby can end no segment; its primary has.
func proveReplayed(ctx context.Context, r *repo.Repo, s *server, f facts, o Options) error {
	var at postgres.LSN
	var timeline postgres.Timeline
	err := s.conn.QueryRow(ctx, "select pg_last_wal_replay_lsn()::text, timeline_id from pg_control_checkpoint()").Scan(lsnText{&at}, &timeline)
	if err != nil {
		return fmt.Errorf("ask how far the standby is: %w", err)
	}
	size := f.control.WALSegmentSize
	begun := postgres.SegmentAt(timeline, at, size).Start()
	if begun < postgres.LSN(size) {
		return nil
	}
	return waitArchived(ctx, r, s, f, timeline, begun-1, begun, o)
}

// proveWritten writes a record, ends the segment it is in, and waits until
// that segment is in the archive.
func proveWritten(ctx context.Context, r *repo.Repo, s *server, f facts, o Options) error {
	var mode, command, library string
	var streamed bool
	err := s.conn.QueryRow(ctx, `select current_setting('archive_mode'), current_setting('archive_command'),
		coalesce(current_setting('archive_library', true), ''),
		exists (select from pg_replication_slots where slot_type = 'physical' and active)`).Scan(&mode, &command, &library, &streamed)
	if err != nil {
		return fmt.Errorf("read the archive settings: %w", err)
	}
	switch {
	case streamed: // perhaps to us; the archive itself will tell
	case mode == "off":
		return &ArchivingError{Reason: "archive_mode is off, and nothing streams WAL"}
	case library == "" && (command == "" || command == "(disabled)"):
		return &ArchivingError{Reason: "archive_command is empty, and nothing streams WAL"}
	}
	var written, end postgres.LSN
	var timeline postgres.Timeline
	err = s.conn.QueryRow(ctx, `select pg_logical_emit_message(false, 'lifeboat', 'archive check')::text`).Scan(lsnText{&written})
	if err == nil {
		err = s.conn.QueryRow(ctx, `select pg_switch_wal()::text, timeline_id from pg_control_checkpoint()`).Scan(lsnText{&end}, &timeline)
	}
	if err != nil {
		return fmt.Errorf("end the current WAL segment: %w", err)
	}
	return waitArchived(ctx, r, s, f, timeline, written-1, end, o)
}

// archivePoll is how often the archive is asked again, at the longest.
const archivePoll = 500 * time.Millisecond

// waitArchived waits for all WAL from one position to another, and sees to it that
// it is this server's. When it does not come, the error says what the server's
// archiver last said.
func waitArchived(ctx context.Context, r *repo.Repo, s *server, f facts, tl postgres.Timeline, from, to postgres.LSN, o Options) error {
	wctx, cancel := context.WithTimeoutCause(ctx, o.WALTimeout, fmt.Errorf("gave up after %s", o.WALTimeout))
	defer cancel()
	of := wal.Stretch{System: f.control.SystemID, Timeline: tl, From: from, To: to, Size: f.control.WALSegmentSize}
	err := wal.WaitArchived(wctx, r, of, archivePoll)
	if err == nil {
		return compareArchived(ctx, r, s, of, o)
	}
	if _, bad := errors.AsType[*wal.BadSegmentError](err); bad || ctx.Err() != nil {
		return err // the archiver cannot help it
	}
	reason := "WAL up to " + to.String() + " was not seen in the archive"
	if f.standby {
		return &ArchivingError{reason + "; this is a standby, its primary archives, and a segment only when it is full or switched", err}
	}
	var failed string
	if s.conn.QueryRow(ctx, `select last_failed_wal from pg_stat_archiver
		where last_failed_time > coalesce(last_archived_time, '-infinity')`).Scan(&failed) == nil {
		reason += ", and archive_command last failed for " + failed + " (see the server's log)"
	}
	return &ArchivingError{reason, err}
}

// start puts the server into backup mode, with an immediate checkpoint.
func (s *server) start(ctx context.Context, label string, f facts) (position, error) {
	call := "pg_backup_start($1, true)"
	if f.version < 150000 {
		call = "pg_start_backup($1, true, false)" // its name before 15; not exclusive
	}
	var p position
	err := s.conn.QueryRow(ctx, "select "+call+"::text, clock_timestamp()", label).Scan(lsnText{&p.LSN}, &p.Time)
	if err != nil {
		return p, fmt.Errorf("start the backup on the server: %w", err)
	}
	// The checkpoint, or on a standby the restart point, that it starts at.
	err = s.conn.QueryRow(ctx, `select timeline_id, (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end)::text
		from pg_control_checkpoint()`).Scan(&p.Timeline, lsnText{&p.reached})
	if err != nil {
		return p, fmt.Errorf("ask for the timeline: %w", err)
	}
	return p, nil
}

// stop ends backup mode and returns what recovery needs to know.
func (s *server) stop(ctx context.Context) (position, error) {
	var version int
	var p position
	if err := s.conn.QueryRow(ctx, "select current_setting('server_version_num')::int").Scan(&version); err != nil {
		return p, fmt.Errorf("the server was lost during the backup: %w", err)
	}
	call := "pg_backup_stop(false)"
	if version < 150000 {
		call = "pg_stop_backup(false, false)"
	}
	err := s.conn.QueryRow(ctx, "select lsn::text, labelfile, coalesce(spcmapfile, ''), clock_timestamp() from "+call).
		Scan(lsnText{&p.LSN}, &p.label, &p.spcmap, &p.Time)
	if sqlState(err) == "55000" { // object_not_in_prerequisite_state: do_pg_backup_stop in access/transam/xlog.c
		return p, &MismatchError{"the server has ended the backup: " + err.Error()}
	}
	if err != nil {
		return p, fmt.Errorf("stop the backup on the server: %w", err)
	}
	l, err := postgres.ParseBackupLabel([]byte(p.label))
	if err != nil {
		return p, err
	}
	p.Timeline = l.StartTimeline
	return p, nil
}

// checkTimeline makes sure that the server stayed on one timeline. A standby
// goes over to another when its primary is replaced.
func checkTimeline(ctx context.Context, dataDir string, f facts, start, stop position) error {
	ends := stop.Timeline // by backup_label, that of the start
	if f.standby {
		c, err := readControlFile(ctx, dataDir)
		if err != nil {
			return err
		}
		ends = max(ends, c.MinRecoveryPointTimeline)
	}
	if ends != start.Timeline {
		return &MismatchError{fmt.Sprintf("the server went over from timeline %s to %s during the backup", start.Timeline, ends)}
	}
	return nil
}

// info is the manifest's first record as far as the server decides it.
func (f facts) info(start, stop position) repo.Info {
	c := f.control
	return repo.Info{
		System: c.SystemID, Timeline: start.Timeline, StartLSN: start.LSN, StopLSN: stop.LSN,
		StartTime: start.Time.UTC(), StopTime: stop.Time.UTC(), PGVersion: f.version,
		Catalog: c.CatalogVersion, SegSize: c.WALSegmentSize, BlockSize: int(c.BlockSize),
		Checksums: c.DataChecksumVersion != 0, BackupLabel: stop.label, TablespaceMap: stop.spcmap,
		Tablespaces: f.tablespaces, Owner: f.owner, Group: f.group, Settings: f.settings,
	}
}

// readControlFile reads global/pg_control. The server writes it in place, so
// a read can be torn: the checksum tells, and the next try is whole.
func readControlFile(ctx context.Context, dataDir string) (postgres.ControlFile, error) {
	_, c, err := readControlFrom(ctx, filepath.Join(dataDir, filepath.FromSlash(controlPath)))
	return c, err
}

func readControlFrom(ctx context.Context, path string) ([]byte, postgres.ControlFile, error) {
	for try := 0; ; try++ {
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, postgres.ControlFile{}, &MismatchError{"there is no " + path + ": this is not a data directory"}
		}
		if err != nil {
			return nil, postgres.ControlFile{}, fmt.Errorf("read the control file: %w", err)
		}
		c, err := postgres.ParseControlFile(raw)
		if err == nil || !errors.Is(err, postgres.ErrControlCRC) || try == 20 {
			if err != nil {
				err = fmt.Errorf("read %s: %w", path, err)
			}
			return raw, c, err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, c, err
		}
	}
}

// checkSameStorage makes sure that the files are those that the server writes:
// its checkpoint at the start must show in the control file we read. A copy of
// the data directory elsewhere has the same identifier and stands still.
func checkSameStorage(dataDir string, f facts, start position) error {
	c, err := readControlFile(context.Background(), dataDir)
	if err != nil {
		return err
	}
	if c.CheckpointCopy.Redo < start.LSN || c.SystemID != f.control.SystemID {
		return &MismatchError{fmt.Sprintf("the control file in %s is at checkpoint %s, but the server has just made one at %s: "+
			"these are not the files that the server works on", dataDir, c.CheckpointCopy.Redo, start.LSN)}
	}
	return nil
}

// owner names who owns the data directory, by number where there is no name.
func owner(dir string) (string, string) {
	fi, err := os.Stat(dir)
	if err != nil {
		return "", ""
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", ""
	}
	name, group := strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return name, group
}

// lsnText scans an LSN that was cast to text.
type lsnText struct{ lsn *postgres.LSN }

// Scan implements sql.Scanner.
func (t lsnText) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("an LSN came as %T", src)
	}
	var err error
	*t.lsn, err = postgres.ParseLSN(strings.TrimSpace(s))
	return err
}
