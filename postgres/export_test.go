package postgres

// RecordBody is the record's bytes after its header.
func RecordBody(r Record) []byte { return r.raw[recordHeaderSize:] }

// MakeRecord is a record with this body, as a WALReader would return it.
func MakeRecord(major int, m Rmgr, info uint8, body []byte) Record {
	raw := append(make([]byte, recordHeaderSize), body...)
	raw[16], raw[17] = info, byte(m)
	r := parseRecord(raw)
	r.major = major
	return r
}
