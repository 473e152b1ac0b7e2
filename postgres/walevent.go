package postgres

import (
	"fmt"
	"time"
)

// Event is what a record means to a backup, a recovery or a report, as one of
// the types below. Most records are none: they change pages, which Decode
// tells.
type Event interface{ walEvent() }

// CheckpointEvent is the end of a checkpoint. Redo can be before the record.
// A shutdown checkpoint that follows recovery also begins a timeline.
type CheckpointEvent struct {
	Checkpoint
	Shutdown bool
}

// CheckpointRedo marks the redo point of a checkpoint; from PostgreSQL 17 on.
type CheckpointRedo struct{ WALLevel WALLevel }

// SegmentSwitch ends a segment before it is full.
type SegmentSwitch struct{}

// BackupEnd is where a backup that began at Start is consistent.
type BackupEnd struct{ Start LSN }

// ParameterChange tells standbys the settings they must match.
type ParameterChange struct {
	MaxConnections       int32
	MaxWorkerProcesses   int32
	MaxWALSenders        int32
	MaxPreparedXacts     int32
	MaxLocksPerXact      int32
	WALLevel             WALLevel
	WALLogHints          bool
	TrackCommitTimestamp bool
}

// RestorePoint is what pg_create_restore_point wrote.
type RestorePoint struct {
	Name string
	Time time.Time
}

// EndOfRecovery begins a timeline, when no shutdown checkpoint does.
type EndOfRecovery struct {
	Time         time.Time
	Timeline     Timeline
	PrevTimeline Timeline
}

// OverwriteContrecord stands where the rest of the record at Overwritten would
// have been, which a crash cut off.
type OverwriteContrecord struct {
	Overwritten LSN
	Time        time.Time
}

// FullPageWritesChange reports the setting full_page_writes.
type FullPageWritesChange struct{ On bool }

// TablespaceCreate is replayed at Path, an absolute path, or "" for a
// tablespace in place.
type TablespaceCreate struct {
	OID  uint32
	Path string
}

// TablespaceDrop removes a tablespace.
type TablespaceDrop struct{ OID uint32 }

// DatabaseCreate makes the directory of a database. If Copied is set, its files
// are copied from the source's directory, page by page nothing else is in the
// WAL; otherwise records of the pages follow (from PostgreSQL 15 on).
type DatabaseCreate struct {
	Database, Tablespace             uint32
	Copied                           bool
	SourceDatabase, SourceTablespace uint32 // if Copied
}

// DatabaseDrop removes the directories of a database in some tablespaces.
type DatabaseDrop struct {
	Database    uint32
	Tablespaces []uint32
}

// StorageCreate makes an empty file for a relation's fork.
type StorageCreate struct {
	Rel  RelFile
	Fork Fork
}

// StorageTruncate cuts a relation to Blocks pages. The free space map and the
// visibility map, if said, shrink to what that needs.
type StorageTruncate struct {
	Rel           RelFile
	Blocks        uint32
	Main, VM, FSM bool
}

// LogicalMessage is what pg_logical_emit_message wrote.
type LogicalMessage struct {
	Database      uint32
	Transactional bool
	Prefix        string
	Content       []byte // valid as long as the record
}

func (CheckpointEvent) walEvent()      {}
func (CheckpointRedo) walEvent()       {}
func (SegmentSwitch) walEvent()        {}
func (BackupEnd) walEvent()            {}
func (ParameterChange) walEvent()      {}
func (RestorePoint) walEvent()         {}
func (EndOfRecovery) walEvent()        {}
func (OverwriteContrecord) walEvent()  {}
func (FullPageWritesChange) walEvent() {}
func (TablespaceCreate) walEvent()     {}
func (TablespaceDrop) walEvent()       {}
func (DatabaseCreate) walEvent()       {}
func (DatabaseDrop) walEvent()         {}
func (StorageCreate) walEvent()        {}
func (StorageTruncate) walEvent()      {}
func (LogicalMessage) walEvent()       {}

// The kinds of record that Event knows, in the upper bits of Info.
const (
	// catalog/pg_control.h
	xlogCheckpointShutdown  = 0x00
	xlogCheckpointOnline    = 0x10
	xlogSwitch              = 0x40
	xlogBackupEnd           = 0x50
	xlogParameterChange     = 0x60
	xlogRestorePoint        = 0x70
	xlogFPWChange           = 0x80
	xlogEndOfRecovery       = 0x90
	xlogOverwriteContrecord = 0xD0
	xlogCheckpointRedo      = 0xE0 // 17
	// commands/tablespace.h
	tablespaceCreate = 0x00
	tablespaceDrop   = 0x10
	// commands/dbcommands_xlog.h; the second and third have moved
	databaseCreateCopy = 0x00
	databaseDrop13     = 0x10 // 13 and 14
	databaseCreateLog  = 0x10 // from 15 on
	databaseDrop15     = 0x20
	// catalog/storage_xlog.h
	storageCreate   = 0x10
	storageTruncate = 0x20
	// replication/message.h
	logicalMessage = 0x00
)

// restorePointName is the size of a restore point's name in its record.
const restorePointName = 64

// Event says what the record means; nil if it is none of the events. It reads
// nothing of a record that cannot be one. An error wraps ErrFormat.
func (r Record) Event() (Event, error) {
	var interpret func(Record, []byte) (Event, bool)
	switch r.Rmgr {
	case RmgrXLOG:
		interpret = xlogEvent
	case RmgrTransaction:
		interpret = transactionEvent
	case RmgrStorage:
		interpret = storageEvent
	case RmgrDatabase:
		interpret = databaseEvent
	case RmgrTablespace:
		interpret = tablespaceEvent
	case RmgrLogicalMessage:
		interpret = messageEvent
	default:
		return nil, nil
	}
	data, err := r.Data()
	if err != nil {
		return nil, err
	}
	ev, ok := interpret(r, data)
	if !ok {
		return nil, fmt.Errorf("%w: WAL record at %s of %s, info %02X, has a body of %d bytes that does not fit",
			ErrFormat, r.LSN, r.Rmgr, r.Info, len(data))
	}
	return ev, nil
}

// The interpreters return no event for a kind they pass over, and false for a
// body that does not fit its kind.

func xlogEvent(r Record, data []byte) (Event, bool) {
	c := cursor{b: data}
	var ev Event
	switch kind := r.Info & infoMask; kind {
	case xlogCheckpointShutdown, xlogCheckpointOnline:
		if len(data) < checkpointSize {
			return nil, false
		}
		ev = CheckpointEvent{decodeCheckpoint(data, r.major >= 17), kind == xlogCheckpointShutdown}
	case xlogSwitch:
		ev = SegmentSwitch{}
	case xlogBackupEnd:
		ev = BackupEnd{Start: LSN(c.u64())}
	case xlogParameterChange:
		ev = ParameterChange{
			MaxConnections: int32(c.u32()), MaxWorkerProcesses: int32(c.u32()), MaxWALSenders: int32(c.u32()),
			MaxPreparedXacts: int32(c.u32()), MaxLocksPerXact: int32(c.u32()), WALLevel: WALLevel(c.u32()),
			WALLogHints: c.u8() != 0, TrackCommitTimestamp: c.u8() != 0,
		}
	case xlogRestorePoint:
		p := RestorePoint{Time: c.time()}
		name := cursor{b: c.take(restorePointName)}
		p.Name = name.text()
		c.bad = c.bad || name.bad
		ev = p
	case xlogFPWChange:
		ev = FullPageWritesChange{On: c.u8() != 0}
	case xlogEndOfRecovery:
		ev = EndOfRecovery{Time: c.time(), Timeline: Timeline(c.u32()), PrevTimeline: Timeline(c.u32())}
	case xlogOverwriteContrecord:
		ev = OverwriteContrecord{Overwritten: LSN(c.u64()), Time: c.time()}
	case xlogCheckpointRedo:
		ev = CheckpointRedo{WALLevel: WALLevel(c.u32())}
	}
	return ev, !c.bad
}

func tablespaceEvent(r Record, data []byte) (Event, bool) {
	c := cursor{b: data}
	switch r.Info & infoMask {
	case tablespaceCreate:
		ev := TablespaceCreate{OID: c.u32(), Path: c.text()}
		return ev, !c.bad
	case tablespaceDrop:
		ev := TablespaceDrop{OID: c.u32()}
		return ev, !c.bad
	}
	return nil, true
}

func databaseEvent(r Record, data []byte) (Event, bool) {
	c := cursor{b: data}
	drop, createLog := byte(databaseDrop15), byte(databaseCreateLog)
	if r.major < 15 {
		drop, createLog = databaseDrop13, 0xFF
	}
	switch r.Info & infoMask {
	case databaseCreateCopy:
		ev := DatabaseCreate{Database: c.u32(), Tablespace: c.u32(), Copied: true,
			SourceDatabase: c.u32(), SourceTablespace: c.u32()}
		return ev, !c.bad
	case createLog:
		ev := DatabaseCreate{Database: c.u32(), Tablespace: c.u32()}
		return ev, !c.bad
	case drop:
		ev := DatabaseDrop{Database: c.u32()}
		ev.Tablespaces = c.oids()
		return ev, !c.bad
	}
	return nil, true
}

func storageEvent(r Record, data []byte) (Event, bool) {
	c := cursor{b: data}
	switch r.Info & infoMask {
	case storageCreate:
		rel, fork := c.relFile(), c.u32()
		return StorageCreate{Rel: rel, Fork: Fork(fork)}, !c.bad && fork <= uint32(ForkInit)
	case storageTruncate:
		ev := StorageTruncate{Blocks: c.u32(), Rel: c.relFile()}
		flags := c.u32()
		ev.Main, ev.VM, ev.FSM = flags&1 != 0, flags&2 != 0, flags&4 != 0
		return ev, !c.bad
	}
	return nil, true
}

func messageEvent(r Record, data []byte) (Event, bool) {
	if r.Info&infoMask != logicalMessage {
		return nil, true
	}
	c := cursor{b: data}
	ev := LogicalMessage{Database: c.u32(), Transactional: c.u8() != 0}
	c.take(3)
	prefix, content := c.u64(), c.u64()
	if c.bad || prefix == 0 || prefix > uint64(len(c.b)) || content != uint64(len(c.b))-prefix {
		return nil, false
	}
	p := c.take(int(prefix))
	if p[len(p)-1] != 0 {
		return nil, false
	}
	ev.Prefix, ev.Content = string(p[:len(p)-1]), c.b
	return ev, true
}

func (c *cursor) time() time.Time { return timestamp(int64(c.u64())) }

// oids reads a count and as many OIDs or transaction IDs.
func (c *cursor) oids() []uint32 {
	items, n := c.items(4)
	list := make([]uint32, 0, n)
	for ; len(items) > 0; items = items[4:] {
		list = append(list, u32(items))
	}
	return list
}
