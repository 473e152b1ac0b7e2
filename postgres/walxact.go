package postgres

import "time"

// TransactionEnd is a commit or an abort: of a transaction, or of one that was
// prepared before. A recovery target of a time or a transaction stops at these
// records (recoveryStopsBefore in access/transam/xlogrecovery.c).
type TransactionEnd struct {
	XID       uint32 // of the top-level transaction; zero if it never had one
	Committed bool
	Prepared  bool      // by COMMIT PREPARED or ROLLBACK PREPARED
	GID       string    // of the prepared transaction, if wal_level is logical
	Time      time.Time // on the clock of the server that wrote the record

	Database uint32 // zero if the record does not say
	Subxacts []uint32
	Dropped  []RelFile // whose files go away with the end of the transaction

	// Where replication brought the transaction from, if it did.
	OriginLSN  LSN
	OriginTime time.Time
}

// TransactionPrepare is PREPARE TRANSACTION. Nothing is visible before the
// TransactionEnd with the same XID.
type TransactionPrepare struct {
	XID      uint32
	GID      string
	Time     time.Time
	Database uint32
}

func (TransactionEnd) walEvent()     {}
func (TransactionPrepare) walEvent() {}

// The kinds of transaction records and what they hold (access/xact.h).
const (
	xactKindMask       = 0x70
	xactHasInfo        = 0x80
	xactCommit         = 0x00
	xactPrepare        = 0x10
	xactAbort          = 0x20
	xactCommitPrepared = 0x30
	xactAbortPrepared  = 0x40

	xinfoDatabase     = 1 << 0
	xinfoSubxacts     = 1 << 1
	xinfoRelFiles     = 1 << 2
	xinfoInvals       = 1 << 3
	xinfoTwoPhase     = 1 << 4
	xinfoOrigin       = 1 << 5
	xinfoGID          = 1 << 7
	xinfoDroppedStats = 1 << 8 // from PostgreSQL 15 on

	invalidationBytes = 16
)

func transactionEvent(r Record, data []byte) (Event, bool) {
	end := TransactionEnd{XID: r.XID}
	switch r.Info & xactKindMask {
	case xactCommit:
		end.Committed = true
	case xactCommitPrepared:
		end.Committed, end.Prepared = true, true
	case xactAbort:
	case xactAbortPrepared:
		end.Prepared = true
	case xactPrepare:
		return prepareEvent(r, data)
	default:
		return nil, true
	}
	ok := end.decode(r, data)
	return end, ok
}

// decode follows ParseCommitRecord and ParseAbortRecord
// (access/rmgrdesc/xactdesc.c), which differ in the invalidations alone.
func (e *TransactionEnd) decode(r Record, data []byte) bool {
	c := cursor{b: data}
	e.Time = c.time()
	var info uint32
	if r.Info&xactHasInfo != 0 {
		info = c.u32()
	}
	if info&xinfoDatabase != 0 {
		e.Database = c.u32()
		c.u32() // its tablespace
	}
	if info&xinfoSubxacts != 0 {
		e.Subxacts = c.oids()
	}
	if info&xinfoRelFiles != 0 {
		e.Dropped = c.relFiles()
	}
	if info&xinfoDroppedStats != 0 {
		c.items(droppedStatBytes(r.major))
	}
	if info&xinfoInvals != 0 && e.Committed {
		c.items(invalidationBytes)
	}
	if info&xinfoTwoPhase != 0 {
		e.XID = c.u32()
		if info&xinfoGID != 0 {
			e.GID = c.text()
		}
	}
	if info&xinfoOrigin != 0 {
		e.OriginLSN, e.OriginTime = LSN(c.u64()), c.time()
	}
	return !c.bad
}

// droppedStatBytes is the size of xl_xact_stats_item: PostgreSQL 18 widened
// the object's ID.
func droppedStatBytes(major int) int {
	if major >= 18 {
		return 16
	}
	return 12
}

// prepareEvent reads the start of xl_xact_prepare.
func prepareEvent(r Record, data []byte) (Event, bool) {
	c := cursor{b: data}
	c.take(8) // magic number and length of the state file
	p := TransactionPrepare{XID: c.u32(), Database: c.u32(), Time: c.time()}
	c.take(4 + 3*4) // owner; numbers of subtransactions and dropped files
	if r.major >= 15 {
		c.take(2 * 4) // numbers of dropped statistics
	}
	c.take(4 + 2)                    // number of invalidations; a flag and its padding
	gidLen := int(c.u16())           // with its zero byte
	c.take(8 + 8)                    // origin
	gid := cursor{b: c.take(gidLen)} // the header is a multiple of 8 bytes
	p.GID = gid.text()
	return p, !c.bad && !gid.bad
}

// relFiles reads a count and as many RelFileLocators.
func (c *cursor) relFiles() []RelFile {
	items, n := c.items(relFileBytes)
	list := make([]RelFile, 0, n)
	in := cursor{b: items}
	for range n {
		list = append(list, in.relFile())
	}
	return list
}
