package postgres

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"time"
)

// ErrControlCRC means that the bytes of a control file do not match their
// checksum. PostgreSQL writes the file in place while others read it, so a
// reader of a running server reads again before it believes in damage.
var ErrControlCRC = errors.New("the checksum of the control file does not match")

// ControlFileSize is the size of global/pg_control in bytes. The part with
// meaning is under 300 bytes, so that one sector holds it.
const ControlFileSize = 8192

// ControlPath is the place of the control file in a data directory.
const ControlPath = "global/pg_control"

// DBState is the state of a database system (DBState in catalog/pg_control.h).
type DBState uint32

// The states, as pg_controldata names them.
const (
	DBStartup DBState = iota
	DBShutdowned
	DBShutdownedInRecovery
	DBShutdowning
	DBInCrashRecovery
	DBInArchiveRecovery
	DBInProduction
)

// String is the wording of pg_controldata.
func (s DBState) String() string {
	names := [...]string{"starting up", "shut down", "shut down in recovery", "shutting down",
		"in crash recovery", "in archive recovery", "in production"}
	if int64(s) < int64(len(names)) {
		return names[s]
	}
	return fmt.Sprintf("unrecognized status code %d", uint32(s))
}

// WALLevel is the value of wal_level.
type WALLevel int32

// The levels (WalLevel in access/xlog.h). Minimal cannot be archived.
const (
	WALLevelMinimal WALLevel = iota
	WALLevelReplica
	WALLevelLogical
)

func (l WALLevel) String() string {
	names := [...]string{"minimal", "replica", "logical"}
	if l >= 0 && int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("unrecognized wal_level %d", int32(l))
}

// Checkpoint is the body of a checkpoint record (struct CheckPoint), as it is
// in WAL and, for the last one, in the control file.
type Checkpoint struct {
	Redo              LSN // where replay of this checkpoint starts
	Timeline          Timeline
	PrevTimeline      Timeline // differs from Timeline when the record began a new one
	FullPageWrites    bool
	WALLevel          WALLevel // from PostgreSQL 17 on; else WALLevelMinimal
	NextXID           uint64   // with its epoch in the upper 32 bits
	NextOID           uint32
	NextMulti         uint32
	NextMultiOffset   uint32
	OldestXID         uint32
	OldestXIDDatabase uint32
	OldestMulti       uint32
	OldestMultiDB     uint32
	Time              time.Time // to the second
	OldestCommitTsXID uint32
	NewestCommitTsXID uint32
	OldestActiveXID   uint32
}

// ControlFile is what global/pg_control says.
type ControlFile struct {
	SystemID       SystemID
	ControlVersion uint32
	CatalogVersion uint32
	State          DBState
	Time           time.Time // last update, to the second

	Checkpoint     LSN // the last checkpoint record
	CheckpointCopy Checkpoint
	UnloggedLSN    LSN

	MinRecoveryPoint         LSN
	MinRecoveryPointTimeline Timeline
	BackupStart              LSN
	BackupEnd                LSN
	BackupEndRequired        bool

	WALLevel             WALLevel
	WALLogHints          bool
	MaxConnections       int32
	MaxWorkerProcesses   int32
	MaxWALSenders        int32
	MaxPreparedXacts     int32
	MaxLocksPerXact      int32
	TrackCommitTimestamp bool

	MaxAlign            uint32
	BlockSize           uint32 // bytes in a page of a relation
	RelationSegmentSize uint32 // pages in a file of a relation
	WALBlockSize        uint32
	WALSegmentSize      SegmentSize
	NameDataLen         uint32
	IndexMaxKeys        uint32
	ToastMaxChunkSize   uint32
	LargeObjectBlock    uint32
	Float8ByValue       bool
	DataChecksumVersion uint32 // zero: pages have no checksums
	CharSigned          bool   // PostgreSQL 18's default_char_signedness; true before
}

// The control versions of the supported majors, PG_CONTROL_VERSION.
const (
	controlVersion13 = 1300 // 13, 14, 15 and 16
	controlVersion17 = 1700
	controlVersion18 = 1800
)

// Offsets in struct ControlFileData. They are the same for all supported
// versions up to the data checksum version; 18 put one byte after that.
const (
	controlCheckpoint = 40
	checkpointSize    = 88
	controlCRC13      = 288
	controlCRC18      = 292
	controlMin        = controlCRC18 + 4
)

// ParseControlFile reads the bytes of global/pg_control of PostgreSQL 13 to
// 18. Only the first 296 bytes count. It returns ErrControlCRC when the bytes
// are torn or damaged, and another error, wrapping ErrFormat, for a file that
// is too short, of another byte order or of another version.
func ParseControlFile(data []byte) (ControlFile, error) {
	if len(data) < controlMin {
		return ControlFile{}, fmt.Errorf("%w: control file of %d bytes, want at least %d", ErrFormat, len(data), controlMin)
	}
	crcAt, err := controlLayout(u32(data[8:]))
	if err != nil {
		return ControlFile{}, err
	}
	if got, want := crc32.Checksum(data[:crcAt], castagnoli), u32(data[crcAt:]); got != want {
		return ControlFile{}, fmt.Errorf("%w: computed %08X, stored %08X", ErrControlCRC, got, want)
	}
	c := decodeControl(data)
	if err := c.check(data); err != nil {
		return ControlFile{}, err
	}
	return c, nil
}

// controlLayout is the offset of the checksum for a control version.
func controlLayout(version uint32) (int, error) {
	switch version {
	case controlVersion13, controlVersion17:
		return controlCRC13, nil
	case controlVersion18:
		return controlCRC18, nil
	}
	if swapped := bits.ReverseBytes32(version); swapped >= 900 && swapped < 3000 {
		return 0, fmt.Errorf("%w: the control file is of another byte order", ErrFormat)
	}
	return 0, fmt.Errorf("%w: control file version %d; known are %d (PostgreSQL 13 to 16), %d (17) and %d (18)",
		ErrFormat, version, controlVersion13, controlVersion17, controlVersion18)
}

func decodeControl(b []byte) ControlFile {
	c := ControlFile{
		SystemID:       SystemID(u64(b)),
		ControlVersion: u32(b[8:]),
		CatalogVersion: u32(b[12:]),
		State:          DBState(u32(b[16:])),
		Time:           time.Unix(int64(u64(b[24:])), 0).UTC(),
		Checkpoint:     LSN(u64(b[32:])),
		UnloggedLSN:    LSN(u64(b[128:])),

		MinRecoveryPoint:         LSN(u64(b[136:])),
		MinRecoveryPointTimeline: Timeline(u32(b[144:])),
		BackupStart:              LSN(u64(b[152:])),
		BackupEnd:                LSN(u64(b[160:])),
		BackupEndRequired:        b[168] != 0,

		WALLevel:             WALLevel(u32(b[172:])),
		WALLogHints:          b[176] != 0,
		MaxConnections:       int32(u32(b[180:])),
		MaxWorkerProcesses:   int32(u32(b[184:])),
		MaxWALSenders:        int32(u32(b[188:])),
		MaxPreparedXacts:     int32(u32(b[192:])),
		MaxLocksPerXact:      int32(u32(b[196:])),
		TrackCommitTimestamp: b[200] != 0,

		MaxAlign:            u32(b[204:]),
		BlockSize:           u32(b[216:]),
		RelationSegmentSize: u32(b[220:]),
		WALBlockSize:        u32(b[224:]),
		WALSegmentSize:      SegmentSize(u32(b[228:])),
		NameDataLen:         u32(b[232:]),
		IndexMaxKeys:        u32(b[236:]),
		ToastMaxChunkSize:   u32(b[240:]),
		LargeObjectBlock:    u32(b[244:]),
		Float8ByValue:       b[248] != 0,
		DataChecksumVersion: u32(b[252:]),
		CharSigned:          true,
	}
	walLevel := c.ControlVersion >= controlVersion17
	c.CheckpointCopy = decodeCheckpoint(b[controlCheckpoint:controlCheckpoint+checkpointSize], walLevel)
	if c.ControlVersion >= controlVersion18 {
		c.CharSigned = b[256] != 0
	}
	return c
}

// decodeCheckpoint reads struct CheckPoint. PostgreSQL 17 put wal_level where
// padding had been.
func decodeCheckpoint(b []byte, walLevel bool) Checkpoint {
	c := Checkpoint{
		Redo:              LSN(u64(b)),
		Timeline:          Timeline(u32(b[8:])),
		PrevTimeline:      Timeline(u32(b[12:])),
		FullPageWrites:    b[16] != 0,
		NextXID:           u64(b[24:]),
		NextOID:           u32(b[32:]),
		NextMulti:         u32(b[36:]),
		NextMultiOffset:   u32(b[40:]),
		OldestXID:         u32(b[44:]),
		OldestXIDDatabase: u32(b[48:]),
		OldestMulti:       u32(b[52:]),
		OldestMultiDB:     u32(b[56:]),
		Time:              time.Unix(int64(u64(b[64:])), 0).UTC(),
		OldestCommitTsXID: u32(b[72:]),
		NewestCommitTsXID: u32(b[76:]),
		OldestActiveXID:   u32(b[80:]),
	}
	if walLevel {
		c.WALLevel = WALLevel(u32(b[20:]))
	}
	return c
}

// check refuses values that no server writes, before others divide by them or
// size buffers with them. The checksum matched, so this is not a torn read.
func (c ControlFile) check(data []byte) error {
	// pg_control carries the number 1234567.0 to tell floating-point formats.
	if f := math.Float64frombits(u64(data[208:])); f != 1234567.0 {
		return fmt.Errorf("%w: the control file's floating-point mark is %g", ErrFormat, f)
	}
	if !c.WALSegmentSize.Valid() {
		return fmt.Errorf("%w: the control file's WAL segment size is %d", ErrFormat, c.WALSegmentSize)
	}
	if !validBlockSize(c.BlockSize, 32<<10) || !validBlockSize(c.WALBlockSize, 64<<10) {
		return fmt.Errorf("%w: the control file's block sizes are %d and, for WAL, %d", ErrFormat, c.BlockSize, c.WALBlockSize)
	}
	if c.RelationSegmentSize == 0 {
		return fmt.Errorf("%w: the control file's relation segment size is zero", ErrFormat)
	}
	return nil
}

// validBlockSize says whether n is a power of two from 1 KiB to the maximum,
// what configure allows for --with-blocksize and --with-wal-blocksize.
func validBlockSize(n, maximum uint32) bool {
	return n >= 1<<10 && n <= maximum && n&(n-1) == 0
}
