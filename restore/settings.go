package restore

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// recoverySettings is what the restored server is told, in the order in which
// it has to read it.
func (p *Plan) recoverySettings(t Target, s *Survey) ([]Setting, error) {
	fetch := slices.Concat(t.FetchCommand, []string{"--system=" + p.Backup.System.String()})
	command, err := postgres.CommandLine(fetch, "%f", "%p")
	if err != nil {
		return nil, &TargetError{err.Error()}
	}
	set := []Setting{{"restore_command", command}, {"recovery_target_timeline", p.timelineSetting()}}
	set = append(set, targetSettings(p.Point, p.Action)...)
	if !t.KeepArchiving {
		// A commit would wait for a standby, or a stream to the archive, that
		// this server does not have.
		set = append(set, Setting{"archive_mode", "off"}, Setting{"synchronous_standby_names", ""})
	}
	set = append(set, p.inPlaceSettings(s)...)
	set = append(set, p.standbySettings()...)
	if s.DamagedAhead && p.Backup.PGVersion >= 150000 {
		// Reading ahead, PostgreSQL asks for the segment behind the target before
		// it has replayed the target, and a gap there stops it (xlogprefetcher.c).
		set = append(set, Setting{"recovery_prefetch", "off"})
	}
	return append(set, p.sizeSettings(s)...), nil
}

// timelineSetting names the timeline of the plan, not "latest": what is
// archived meanwhile must not change where recovery goes. PostgreSQL wants the
// history file of a timeline that is named by its number; the backup's own may
// not have been archived.
func (p *Plan) timelineSetting() string {
	if p.Timeline == p.Backup.Timeline {
		return "current"
	}
	return p.Timeline.String()
}

// targetSettings sets all recovery_target settings, since what is left over
// from an earlier recovery would count or clash. The one that counts comes
// last: to PostgreSQL, setting any of them to ” takes the others back (the
// assign hooks in access/transam/xlogrecovery.c; utils/misc/guc.c before 15).
func targetSettings(point Point, action Action) []Setting {
	var chosen Setting
	switch point.Kind {
	case Immediate:
		chosen = Setting{"recovery_target", "immediate"}
	case AtTime:
		chosen = Setting{"recovery_target_time", point.Time.UTC().Format("2006-01-02 15:04:05.000000") + "+00"}
	case AtXID:
		chosen = Setting{"recovery_target_xid", strconv.FormatUint(uint64(point.XID), 10)}
	case AtName:
		chosen = Setting{"recovery_target_name", point.Name}
	case AtLSN:
		chosen = Setting{"recovery_target_lsn", point.LSN.String()}
	}
	if action == "" {
		action = Promote // without a target it counts for nothing
	}
	set := []Setting{{"recovery_target_action", string(action)}, {"recovery_target_inclusive", onOff(!point.Exclusive)}}
	for _, name := range []string{"recovery_target", "recovery_target_time", "recovery_target_xid", "recovery_target_name", "recovery_target_lsn"} {
		if name != chosen.Name {
			set = append(set, Setting{name, ""})
		}
	}
	if chosen.Name != "" {
		set = append(set, chosen)
	}
	return set
}

// inPlaceSettings allow tablespaces in place where there are some. When it is
// consistent, recovery stops at a directory in pg_tblspc unless it is told that
// they may be there (CheckTablespaceDirectory in access/transam/xlogrecovery.c).
func (p *Plan) inPlaceSettings(s *Survey) []Setting {
	if s.InPlace || slices.ContainsFunc(p.Tablespaces, func(t Tablespace) bool { return t.InPlace }) {
		return []Setting{{"allow_in_place_tablespaces", "on"}}
	}
	return nil
}

// standbySettings takes back what was set for the server that was backed up
// and would harm here.
func (p *Plan) standbySettings() []Setting {
	set := []Setting{
		// These two could remove WAL from the archive, or do anything else.
		{"archive_cleanup_command", ""},
		{"recovery_end_command", ""},
		{"recovery_min_apply_delay", "0"},
		// There is no standby yet: the first commit would wait for ever.
		{"synchronous_standby_names", ""},
	}
	if p.Action == Pause {
		set = append(set, Setting{"hot_standby", "on"}) // or it would shut down instead
	}
	return set
}

// sizeSettings are those that recovery needs at least as large as they were on
// the primary, at any time whose WAL is replayed (CheckRequiredParameterValues
// in access/transam/xlogrecovery.c).
func (p *Plan) sizeSettings(s *Survey) []Setting {
	var set []Setting
	for _, need := range []struct {
		name string
		wal  int32
	}{
		{"max_connections", s.Parameters.MaxConnections},
		{"max_worker_processes", s.Parameters.MaxWorkerProcesses},
		{"max_wal_senders", s.Parameters.MaxWALSenders},
		{"max_prepared_transactions", s.Parameters.MaxPreparedXacts},
		{"max_locks_per_transaction", s.Parameters.MaxLocksPerXact},
	} {
		then, err := strconv.Atoi(p.Backup.Settings[need.name])
		if err != nil && need.wal == 0 {
			continue // not known, and not changed since
		}
		set = append(set, Setting{need.name, strconv.Itoa(max(then, int(need.wal)))})
	}
	return set
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// addNotes says what a person should know before it is done.
func (p *Plan) addNotes(t Target, c *Contents) {
	note := func(format string, args ...any) { p.Notes = append(p.Notes, fmt.Sprintf(format, args...)) }
	if p.Unfinished {
		note("an unfinished restore lies there; it is removed first")
	}
	for _, n := range p.NewTablespaces {
		note("the WAL makes tablespace %d at %s; the directory is made for it", n.OID, n.Path)
	}
	switch p.Action {
	case Pause:
		note("recovery pauses at the target and the server can only be read; \"select pg_wal_replay_resume()\" then opens it for writing")
	case Shutdown:
		note("the server shuts down at the target, at each start again, until recovery_target_action or the target is changed")
	}
	if !t.KeepArchiving {
		note("archive_mode is off in what is restored; \"alter system reset archive_mode\" and a restart turn archiving on again")
		if names := p.Backup.Settings["synchronous_standby_names"]; names != "" {
			note("synchronous_standby_names is empty in what is restored; it was %s", names)
		}
	}
	if c.Standby {
		note("the backup holds a standby.signal; it is left out, so this will be no standby")
	}
	if c.Strays > 0 {
		note("%d files in the directories of tablespaces are not PostgreSQL's and are left out, the first is %.200q", c.Strays, c.Stray)
	}
	if !c.HasConf {
		note("the configuration lay outside of the data directory, so a minimal %s is written", mainConf)
	}
	if libs := strings.TrimSpace(p.Backup.Settings["shared_preload_libraries"]); libs != "" {
		note("the server needs the libraries %s to start", libs)
	}
	if p.Backup.BadCount > 0 {
		note("the backup holds %d pages with a bad checksum", p.Backup.BadCount)
	}
	if p.Point.Kind == ToEnd && p.StopTime.IsZero() {
		note("the archive holds no commit after the backup began")
	}
}
