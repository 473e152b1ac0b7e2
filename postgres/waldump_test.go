package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// dumped is a record as pg_waldump or pg_walinspect prints it.
type dumped struct {
	lsn, prev  string
	xid        string
	rmgr       string
	total, fpi int    // bytes of the record, and of its page images
	desc       string // kind of the record and what it says
	blocks     string // "0:1663/5/1259 main 3 FPW"
}

var (
	dumpLine  = regexp.MustCompile(`^rmgr: (\S+)\s+len \(rec/tot\):\s+(\d+)/\s*(\d+), tx:\s+(\d+), lsn: (\S+), prev (\S+), desc: (.*)$`)
	dumpBlock = regexp.MustCompile(`,? *blkref #(\d+): rel (\d+/\d+/\d+)(?: fork (\S+))?(?: blk |: blk |  ?blk )(\d+)( FPW for WAL verification| FPW|(?: \(FPW[^)]*\)[^,]*))?`)
)

// dumpWAL runs pg_waldump on the server's WAL from start to the end of valid
// WAL. path is a directory of segments; tl the timeline of their names.
func dumpWAL(t *testing.T, c *servertest.Cluster, path string, tl postgres.Timeline, start postgres.LSN) []dumped {
	t.Helper()
	cmd := c.Cmd(t, "pg_waldump", "--path", path, "--timeline", tl.String(), "--start", start.String())
	cmd.Env = append(cmd.Env, "TZ=UTC", "LC_ALL=C")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	// At the end of WAL it fails, and says where.
	if err := cmd.Run(); err != nil && !(errors.As(err, new(*exec.ExitError)) && strings.Contains(stderr.String(), "error in WAL record")) {
		t.Fatalf("pg_waldump: %v\n%s", err, stderr.String())
	}
	var list []dumped
	for line := range strings.Lines(out.String()) {
		m := dumpLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			if strings.HasPrefix(line, "rmgr:") {
				t.Fatalf("pg_waldump printed %q", line)
			}
			continue
		}
		d := dumped{rmgr: m[1], xid: m[4], lsn: unpad(m[5]), prev: unpad(m[6])}
		d.total = atoi(t, m[3])
		d.fpi = d.total - atoi(t, m[2])
		d.desc, d.blocks = splitBlocks(m[7])
		list = append(list, d)
	}
	return list
}

// inspectWAL asks pg_walinspect of the running server.
func inspectWAL(t *testing.T, c *servertest.Cluster, start postgres.LSN) []dumped {
	t.Helper()
	c.Exec(t, "create extension if not exists pg_walinspect")
	conn := c.Conn(t)
	rows, err := conn.Query(context.Background(), `set timezone to 'UTC'`)
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	rows, err = conn.Query(context.Background(), `
		select start_lsn::text, prev_lsn::text, xid::text, resource_manager, record_length, fpi_length,
		       record_type || ' ' || coalesce(description, ''), coalesce(block_ref, '')
		from pg_get_wal_records_info($1::text::pg_lsn, pg_current_wal_flush_lsn())`, start.String())
	if err != nil {
		t.Fatal(err)
	}
	var list []dumped
	for rows.Next() {
		var d dumped
		var blocks string
		if err := rows.Scan(&d.lsn, &d.prev, &d.xid, &d.rmgr, &d.total, &d.fpi, &d.desc, &blocks); err != nil {
			t.Fatal(err)
		}
		_, d.blocks = splitBlocks(blocks)
		d.desc = backendTime.ReplaceAllStringFunc(d.desc, asDumped)
		list = append(list, d)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return list
}

// backendTime is a time as the server prints it, without zeros at its end.
var backendTime = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00`)

// asDumped prints such a time as pg_waldump does.
func asDumped(s string) string {
	at, err := time.Parse("2006-01-02 15:04:05-07", s)
	if err != nil {
		return s
	}
	return at.UTC().Format("2006-01-02 15:04:05.000000 UTC")
}

// splitBlocks takes the block references out of a description.
func splitBlocks(s string) (desc, blocks string) {
	var list []string
	first := strings.Index(s, "blkref #")
	if first < 0 {
		return s, ""
	}
	for _, m := range dumpBlock.FindAllStringSubmatch(s[first:], -1) {
		fork := m[3]
		if fork == "" {
			fork = "main"
		}
		image := ""
		switch {
		case strings.Contains(m[5], "for WAL verification"):
			image = " check"
		case m[5] != "":
			image = " FPW"
		}
		list = append(list, fmt.Sprintf("%s:%s %s %s%s", m[1], m[2], fork, m[4], image))
	}
	return strings.TrimRight(s[:first], ", "), strings.Join(list, ", ")
}

// ours prints a record in the same way.
func ours(t *testing.T, r postgres.Record, c *postgres.Contents) dumped {
	t.Helper()
	samePages(t, r)
	if err := r.Decode(c); err != nil {
		t.Fatal(err)
	}
	d := dumped{lsn: r.LSN.String(), prev: r.Prev.String(), xid: fmt.Sprint(r.XID), rmgr: r.Rmgr.String(), total: r.Len()}
	var list []string
	for _, b := range c.Blocks {
		image := ""
		switch {
		case b.HasImage && b.Apply:
			image = " FPW"
		case b.HasImage:
			image = " check"
		}
		d.fpi += len(b.Image)
		list = append(list, fmt.Sprintf("%d:%s %s %d%s", b.ID, b.Rel, b.Fork, b.Block, image))
	}
	d.blocks = strings.Join(list, ", ")
	return d
}

// describe prints an event as the description of its record begins.
func describe(ev postgres.Event) string {
	const stamp = "2006-01-02 15:04:05.000000 UTC"
	onOff := map[bool]string{true: "on", false: "off"}
	switch ev := ev.(type) {
	case postgres.TransactionEnd:
		kind := map[bool]string{true: "COMMIT", false: "ABORT"}[ev.Committed]
		if ev.Prepared {
			return fmt.Sprintf("%s_PREPARED %d: %s", kind, ev.XID, ev.Time.Format(stamp))
		}
		s := kind + " " + ev.Time.Format(stamp)
		if len(ev.Dropped) > 0 {
			s += "; rels:"
			for _, r := range ev.Dropped {
				s += " " + relPath(r, postgres.ForkMain)
			}
		}
		if len(ev.Subxacts) > 0 {
			s += "; subxacts:"
			for _, x := range ev.Subxacts {
				s += fmt.Sprintf(" %d", x)
			}
		}
		return s
	case postgres.TransactionPrepare:
		return fmt.Sprintf("PREPARE gid %s: %s", ev.GID, ev.Time.Format(stamp))
	case postgres.RestorePoint:
		return "RESTORE_POINT " + ev.Name
	case postgres.TablespaceCreate:
		return fmt.Sprintf(`CREATE %d "%s"`, ev.OID, ev.Path)
	case postgres.TablespaceDrop:
		return fmt.Sprintf("DROP %d", ev.OID)
	case postgres.CheckpointEvent:
		kind := map[bool]string{true: "SHUTDOWN", false: "ONLINE"}[ev.Shutdown]
		return fmt.Sprintf("CHECKPOINT_%s redo %s; tli %d; prev tli %d; fpw %v;", kind, ev.Redo, ev.Timeline, ev.PrevTimeline, ev.FullPageWrites)
	case postgres.CheckpointRedo:
		return fmt.Sprintf("CHECKPOINT_REDO wal_level %s", ev.WALLevel)
	case postgres.SegmentSwitch:
		return "SWITCH"
	case postgres.BackupEnd:
		return fmt.Sprintf("BACKUP_END %s", ev.Start)
	case postgres.FullPageWritesChange:
		return fmt.Sprintf("FPW_CHANGE %v", ev.On)
	case postgres.ParameterChange:
		return fmt.Sprintf("PARAMETER_CHANGE max_connections=%d max_worker_processes=%d max_wal_senders=%d max_prepared_xacts=%d "+
			"max_locks_per_xact=%d wal_level=%s wal_log_hints=%s track_commit_timestamp=%s", ev.MaxConnections, ev.MaxWorkerProcesses,
			ev.MaxWALSenders, ev.MaxPreparedXacts, ev.MaxLocksPerXact, ev.WALLevel, onOff[ev.WALLogHints], onOff[ev.TrackCommitTimestamp])
	case postgres.EndOfRecovery:
		return fmt.Sprintf("END_OF_RECOVERY tli %d; prev tli %d; time %s", ev.Timeline, ev.PrevTimeline, ev.Time.Format(stamp))
	case postgres.OverwriteContrecord:
		return fmt.Sprintf("OVERWRITE_CONTRECORD lsn %s; time %s", ev.Overwritten, ev.Time.Format(stamp))
	case postgres.DatabaseCreate:
		if ev.Copied {
			return fmt.Sprintf("CREATE_FILE_COPY copy dir %d/%d to %d/%d", ev.SourceTablespace, ev.SourceDatabase, ev.Tablespace, ev.Database)
		}
		return fmt.Sprintf("CREATE_WAL_LOG create dir %d/%d", ev.Tablespace, ev.Database)
	case postgres.DatabaseDrop:
		return fmt.Sprintf("DROP dir %d/%d", ev.Tablespaces[0], ev.Database)
	case postgres.StorageCreate:
		return fmt.Sprintf("CREATE %s", relPath(ev.Rel, ev.Fork))
	case postgres.StorageTruncate:
		flags := 0
		for bit, set := range map[int]bool{1: ev.Main, 2: ev.VM, 4: ev.FSM} {
			if set {
				flags |= bit
			}
		}
		return fmt.Sprintf("TRUNCATE %s to %d blocks flags %d", relPath(ev.Rel, postgres.ForkMain), ev.Blocks, flags)
	case postgres.LogicalMessage:
		kind := map[bool]string{true: "transactional", false: "non-transactional"}[ev.Transactional]
		return fmt.Sprintf("MESSAGE %s, prefix %q; payload (%d bytes): % X", kind, ev.Prefix, len(ev.Content), ev.Content)
	}
	return ""
}

// relPath is the path of a relation's file as far as it can be told without
// the version: a tablespace's directory is named after that.
func relPath(r postgres.RelFile, f postgres.Fork) string {
	name := fmt.Sprint(r.Number)
	if f != postgres.ForkMain {
		name += "_" + f.String()
	}
	switch r.Tablespace {
	case postgres.DefaultTablespace:
		return filepath.Join("base", fmt.Sprint(r.Database), name)
	case postgres.GlobalTablespace:
		return filepath.Join("global", name)
	}
	return fmt.Sprintf("pg_tblspc/%d/VERSION/%d/%s", r.Tablespace, r.Database, name)
}

var versionDir = regexp.MustCompile(`/PG_\d+_\d+/`)

// agrees says whether a printed description begins as the event does.
func agrees(desc, want string) bool {
	return strings.HasPrefix(versionDir.ReplaceAllString(desc, "/VERSION/"), want)
}

// unpad turns 0/01741570, as pg_waldump prints LSNs, into 0/1741570.
func unpad(s string) string {
	lsn, err := postgres.ParseLSN(s)
	if err != nil {
		return s
	}
	return lsn.String()
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
