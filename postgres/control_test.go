package postgres_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
)

// The files in testdata/control were made by initdb of each major, with
// --data-checksums; only the first bytes are kept.
func controlFile(t testing.TB, major int) []byte {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("testdata/control/%d", major))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestControlFileOfEachMajor(t *testing.T) {
	catalogs := map[int]uint32{13: 202007201, 14: 202107181, 15: 202209061, 16: 202307071, 17: 202406281, 18: 202506291}
	for major, catalog := range catalogs {
		c, err := postgres.ParseControlFile(controlFile(t, major))
		if err != nil {
			t.Errorf("%d: %v", major, err)
			continue
		}
		if c.CatalogVersion != catalog || c.State != postgres.DBShutdowned || c.WALSegmentSize != 16*mib ||
			c.BlockSize != 8192 || c.WALBlockSize != 8192 || c.RelationSegmentSize != 131072 ||
			c.DataChecksumVersion != 1 || !c.CharSigned || c.MaxConnections != 100 || c.NameDataLen != 64 ||
			c.Checkpoint != c.CheckpointCopy.Redo || c.CheckpointCopy.Timeline != 1 || c.WALLevel != postgres.WALLevelReplica {
			t.Errorf("%d: %+v", major, c)
		}
		if major >= 17 && c.CheckpointCopy.WALLevel != postgres.WALLevelReplica {
			t.Errorf("%d: wal_level of the checkpoint is %s", major, c.CheckpointCopy.WALLevel)
		}
	}
}

func TestControlFileDamage(t *testing.T) {
	for _, major := range []int{15, 18} {
		good := controlFile(t, major)
		end := 292
		if major == 18 {
			end = 296
		}
		for i := range good[:end] {
			bad := append([]byte(nil), good...)
			bad[i] ^= 0x10
			_, err := postgres.ParseControlFile(bad)
			if isVersion := i >= 8 && i < 12; isVersion && err == nil || !isVersion && !errors.Is(err, postgres.ErrControlCRC) {
				t.Errorf("%d: a flipped bit in byte %d: %v", major, i, err)
			}
		}
	}
	if _, err := postgres.ParseControlFile(controlFile(t, 15)[:200]); !errors.Is(err, postgres.ErrFormat) {
		t.Errorf("a short file: %v", err)
	}
	if _, err := postgres.ParseControlFile(make([]byte, 8192)); err == nil {
		t.Error("zeros were accepted")
	}
	swapped := append([]byte(nil), controlFile(t, 15)...)
	copy(swapped[8:], []byte{0, 0, 0x05, 0x14})
	if _, err := postgres.ParseControlFile(swapped); err == nil || !strings.Contains(err.Error(), "byte order") {
		t.Errorf("another byte order: %v", err)
	}
}

// TestControlFileAgainstControldata compares each field with what the server's
// own program prints, on a server whose settings differ from the defaults.
func TestControlFileAgainstControldata(t *testing.T) {
	needOwnProgram(t, "pg_controldata")
	c := servertest.New(t, servertest.Options{WALSegmentSize: 1 * mib, Checksums: true, Settings: map[string]string{
		"max_connections": "37", "max_worker_processes": "5", "max_wal_senders": "3", "max_prepared_transactions": "11",
		"max_locks_per_transaction": "77", "track_commit_timestamp": "on", "wal_log_hints": "on", "wal_level": "logical",
	}})
	c.Exec(t, "create table t(i int); insert into t select 1; checkpoint")
	for _, running := range []bool{true, false} {
		if !running {
			c.Kill9(t) // leaves "in production" behind
		}
		out := c.Program(t, "pg_controldata", c.DataDir())
		data, err := os.ReadFile(filepath.Join(c.DataDir(), postgres.ControlPath))
		if err != nil {
			t.Fatal(err)
		}
		if len(data) != postgres.ControlFileSize {
			t.Errorf("the control file has %d bytes", len(data))
		}
		got, err := postgres.ParseControlFile(data)
		if err != nil {
			t.Fatal(err)
		}
		compareControldata(t, got, out)
	}
}

func compareControldata(t *testing.T, c postgres.ControlFile, out string) {
	onOff := func(b bool, on, off string) string {
		if b {
			return on
		}
		return off
	}
	day := func(at time.Time) string { return at.Local().Format("Mon Jan _2 15:04:05 2006") }
	cp := c.CheckpointCopy
	fields := map[string]any{
		"pg_control version number":             c.ControlVersion,
		"Catalog version number":                c.CatalogVersion,
		"Database system identifier":            c.SystemID,
		"Database cluster state":                c.State,
		"pg_control last modified":              day(c.Time),
		"Latest checkpoint location":            c.Checkpoint,
		"Latest checkpoint's REDO location":     cp.Redo,
		"Latest checkpoint's REDO WAL file":     postgres.SegmentAt(cp.Timeline, cp.Redo, c.WALSegmentSize),
		"Latest checkpoint's TimeLineID":        cp.Timeline,
		"Latest checkpoint's PrevTimeLineID":    cp.PrevTimeline,
		"Latest checkpoint's full_page_writes":  onOff(cp.FullPageWrites, "on", "off"),
		"Latest checkpoint's NextXID":           fmt.Sprintf("%d:%d", cp.NextXID>>32, uint32(cp.NextXID)),
		"Latest checkpoint's NextOID":           cp.NextOID,
		"Latest checkpoint's NextMultiXactId":   cp.NextMulti,
		"Latest checkpoint's NextMultiOffset":   cp.NextMultiOffset,
		"Latest checkpoint's oldestXID":         cp.OldestXID,
		"Latest checkpoint's oldestXID's DB":    cp.OldestXIDDatabase,
		"Latest checkpoint's oldestActiveXID":   cp.OldestActiveXID,
		"Latest checkpoint's oldestMultiXid":    cp.OldestMulti,
		"Latest checkpoint's oldestMulti's DB":  cp.OldestMultiDB,
		"Latest checkpoint's oldestCommitTsXid": cp.OldestCommitTsXID,
		"Latest checkpoint's newestCommitTsXid": cp.NewestCommitTsXID,
		"Time of latest checkpoint":             day(cp.Time),
		"Fake LSN counter for unlogged rels":    c.UnloggedLSN,
		"Minimum recovery ending location":      c.MinRecoveryPoint,
		"Min recovery ending loc's timeline":    c.MinRecoveryPointTimeline,
		"Backup start location":                 c.BackupStart,
		"Backup end location":                   c.BackupEnd,
		"End-of-backup record required":         onOff(c.BackupEndRequired, "yes", "no"),
		"wal_level setting":                     c.WALLevel,
		"wal_log_hints setting":                 onOff(c.WALLogHints, "on", "off"),
		"max_connections setting":               c.MaxConnections,
		"max_worker_processes setting":          c.MaxWorkerProcesses,
		"max_wal_senders setting":               c.MaxWALSenders,
		"max_prepared_xacts setting":            c.MaxPreparedXacts,
		"max_locks_per_xact setting":            c.MaxLocksPerXact,
		"track_commit_timestamp setting":        onOff(c.TrackCommitTimestamp, "on", "off"),
		"Maximum data alignment":                c.MaxAlign,
		"Database block size":                   c.BlockSize,
		"Blocks per segment of large relation":  c.RelationSegmentSize,
		"WAL block size":                        c.WALBlockSize,
		"Bytes per WAL segment":                 int64(c.WALSegmentSize),
		"Maximum length of identifiers":         c.NameDataLen,
		"Maximum columns in an index":           c.IndexMaxKeys,
		"Maximum size of a TOAST chunk":         c.ToastMaxChunkSize,
		"Size of a large-object chunk":          c.LargeObjectBlock,
		"Float8 argument passing":               onOff(c.Float8ByValue, "by value", "by reference"),
		"Data page checksum version":            c.DataChecksumVersion,
		"Default char data signedness":          onOff(c.CharSigned, "signed", "unsigned"),
		"Date/time type storage":                "64-bit integers",
	}
	lines := 0
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(line, ":")
		want, known := fields[name]
		if name == "Mock authentication nonce" {
			continue // a secret nobody needs
		}
		if got := strings.TrimSpace(value); !known || got != fmt.Sprint(want) {
			t.Errorf("%s: pg_controldata says %q, ParseControlFile %v (known: %v)", name, got, want, known)
		}
		lines++
	}
	if lines < 49 {
		t.Errorf("pg_controldata printed %d lines:\n%s", lines, out)
	}
}
