package repo

import (
	"encoding/json"
	"time"
)

// parseFile reads a file record. What is not in the form that a ManifestWriter
// gives most of them is left to encoding/json, which decides.
func parseFile(line []byte, f *FileEntry) error {
	r := packReader{b: line}
	*f = FileEntry{}
	r.file(f)
	if !r.bad && len(r.b) == 0 {
		return nil
	}
	*f = FileEntry{}
	return json.Unmarshal(line, f)
}

func (r *packReader) file(f *FileEntry) {
	r.text(`{"type":"`)
	if f.Type = Regular; !r.has(`file`) {
		f.Type = Dir
		r.text(`dir`)
	}
	r.text(`","path":"`)
	f.Path = r.plain()
	r.text(`","mode":`)
	mode := r.number()
	if f.Mode = uint32(mode); int64(f.Mode) != mode {
		r.bad = true
	}
	if r.has(`,"size":`) {
		f.Size = r.number()
	}
	if r.has(`,"mtime":"`) {
		text := r.plain()
		r.text(`"`)
		if f.ModTime.UnmarshalText([]byte(text)) != nil {
			r.bad = true
		}
		if _, offset := f.ModTime.Zone(); offset != 0 || f.ModTime.Location() != time.UTC {
			r.bad = true
		}
	}
	if r.has(`,"id":"`) {
		f.ID = r.plain()
		r.text(`"`)
	}
	if r.has(`,"sum":"`) {
		f.Sum = r.hex()
		r.text(`"`)
	}
	r.text(`}`)
	r.has("\n")
}

// plain is a text that stands in JSON as it is.
func (r *packReader) plain() string {
	i := 0
	for i < len(r.b) && r.b[i] >= ' ' && r.b[i] < 0x7f && r.b[i] != '"' && r.b[i] != '\\' {
		i++
	}
	s := string(r.b[:i])
	r.b = r.b[i:]
	return s
}
