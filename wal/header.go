package wal

import (
	"fmt"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// HeaderError says that a file with the name of a WAL segment is not that
// segment.
type HeaderError struct {
	Name   string
	Reason string
	Err    error // may be nil
}

func (e *HeaderError) Error() string {
	if e.Err != nil { // it tells the name
		return fmt.Sprintf("not the WAL segment that its name says: %v", e.Err)
	}
	return fmt.Sprintf("%s is not the WAL segment that its name says: %s", e.Name, e.Reason)
}

func (e *HeaderError) Unwrap() error { return e.Err }

// checkSegment holds the first bytes of a segment's file, and its size in
// bytes, against its name, the system it should be of and the segment size of
// the cluster; 0 stands for any. Partial segments too have their full size.
func checkSegment(name postgres.WALName, first []byte, size int64, o PushOptions) (postgres.SegmentHeader, error) {
	h, err := postgres.CheckSegment(name.String(), size, first)
	if err != nil {
		return h, &HeaderError{Name: name.String(), Err: err}
	}
	var reason string
	switch {
	case o.System != 0 && h.SystemID != o.System:
		reason = fmt.Sprintf("it is of system %s, not of %s", h.SystemID, o.System)
	case o.SegmentSize != 0 && h.SegmentSize != o.SegmentSize:
		reason = fmt.Sprintf("its header tells a segment size of %d bytes, the control file %d", h.SegmentSize, o.SegmentSize)
	case size != int64(h.SegmentSize):
		reason = fmt.Sprintf("it has %d bytes, and segments of its cluster have %d", size, h.SegmentSize)
	default:
		return h, nil
	}
	return h, &HeaderError{Name: name.String(), Reason: reason}
}
