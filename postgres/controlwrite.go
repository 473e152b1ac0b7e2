package postgres

import (
	"encoding/binary"
	"hash/crc32"
)

// WithCheckpoint returns a copy of the bytes of a control file that names
// another place for the last checkpoint record, with the checksum made right.
// Errors are those of ParseControlFile.
//
// A restored backup must be recovered from the checkpoint that its
// backup_label names. The control file of a backup, which was copied later,
// names a later one; should somebody remove backup_label, recovery would begin
// there and yield a damaged cluster without a word. With a place that holds no
// checkpoint it refuses instead.
func WithCheckpoint(data []byte, lsn LSN) ([]byte, error) {
	if _, err := ParseControlFile(data); err != nil {
		return nil, err
	}
	crcAt, err := controlLayout(u32(data[8:]))
	if err != nil {
		return nil, err
	}
	out := append([]byte(nil), data...)
	binary.LittleEndian.PutUint64(out[32:], uint64(lsn))
	binary.LittleEndian.PutUint32(out[crcAt:], crc32.Checksum(out[:crcAt], castagnoli))
	return out, nil
}

// NoCheckpoint is an LSN for WithCheckpoint: one that a server takes for an LSN
// (XRecOffIsValid in access/xlogrecord.h) and where no cluster has a
// checkpoint, since the first WAL of every cluster is at 0/1000000 or beyond.
const NoCheckpoint LSN = 0xDEAD
