package repo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
)

// checkInfo says whether an info record that was signed for this place is of this backup.
func (r *Repo) checkInfo(key, label string, info Info) error {
	if err := CheckLabel(label); err != nil {
		return err
	}
	if info.Format != Format {
		return &FormatError{key, info.Format}
	}
	if info.Label != label || info.Repository != r.marker.Repository || info.Cluster != r.marker.Cluster {
		return &UntrustedError{key, "it is of another backup, cluster or repository"}
	}
	if err := info.check(); err != nil {
		return &CorruptError{key, "its figures make no sense", err}
	}
	return nil
}

// ManifestReader reads a manifest record by record: Info is read at once,
// then Files, then Packs.
type ManifestReader struct {
	Info  Info
	Files []FileEntry
	key   string
	rc    io.ReadCloser
	lines *bufio.Reader
	line  []byte // the last record
	seen  int64
	used  bool
}

// OpenManifest fetches and verifies the manifest of a backup and reads its
// info and its files. fs.ErrNotExist when there is no such backup.
func (r *Repo) OpenManifest(ctx context.Context, label string) (*ManifestReader, error) {
	if err := CheckLabel(label); err != nil {
		return nil, err
	}
	key := ManifestKey(label)
	_, rc, err := r.OpenEnvelope(ctx, key, KindManifest)
	if err != nil {
		return nil, err
	}
	m := newManifestReader(key, rc)
	if err := m.readHead(r, label); err != nil {
		rc.Close()
		return nil, err
	}
	return m, nil
}

func newManifestReader(key string, rc io.ReadCloser) *ManifestReader {
	return &ManifestReader{key: key, rc: rc, lines: bufio.NewReaderSize(rc, 1<<16)}
}

func (m *ManifestReader) readHead(r *Repo, label string) error {
	if err := m.record(&m.Info); err != nil {
		return err
	}
	if err := r.checkInfo(m.key, label, m.Info); err != nil {
		return err
	}
	return m.readFiles()
}

// readFiles reads the file records into as much memory as their number, which Info
// bounds, and the sum of their texts, which is bounded as they come, allow.
func (m *ManifestReader) readFiles() error {
	m.Files = make([]FileEntry, 0, m.Info.Files)
	var raw int64
	names := 0
	for range m.Info.Files {
		var f FileEntry
		if err := m.recordWith(maxFileRecord, func(line []byte) error { return json.Unmarshal(line, &f) }); err != nil {
			return err
		}
		if err := f.Check(); err != nil {
			return &CorruptError{m.key, "a file record is not valid", err}
		}
		if names += f.texts(); names > maxNames {
			return &CorruptError{m.key, fmt.Sprintf("the names of its files have more than %d bytes", maxNames), nil}
		}
		// The two types that there are take no memory of their own.
		if f.Type == Dir {
			f.Type = Dir
		} else {
			f.Type = Regular
		}
		raw += f.Size
		m.Files = append(m.Files, f)
	}
	if err := checkFiles(m.Files); err != nil {
		return &CorruptError{m.key, "a file record is not valid", err}
	}
	if raw != m.Info.RawBytes {
		return &CorruptError{m.key, fmt.Sprintf("its files have %d bytes, not %d", raw, m.Info.RawBytes), nil}
	}
	return nil
}

// Packs yields the packs. The sequence ends without an error only when the
// manifest was complete and as signed to its last byte, and its packs fill
// every byte of every file. It can be run once.
func (m *ManifestReader) Packs() iter.Seq2[PackEntry, error] {
	return func(yield func(PackEntry, error) bool) {
		if m.used {
			yield(PackEntry{}, fmt.Errorf("read %s: its packs were read already", m.key))
			return
		}
		m.used = true
		filled := newCoverage(len(m.Files))
		var frames, stored int64
		for range m.Info.Packs {
			p, err := m.pack()
			if err != nil {
				yield(PackEntry{}, err)
				return
			}
			filled.add(p)
			frames += int64(len(p.Frames))
			stored += p.Size
			if !yield(p, nil) {
				return
			}
		}
		if err := m.readEnd(frames, stored, &filled); err != nil {
			yield(PackEntry{}, err)
		}
	}
}

var errTooManySpans = fmt.Errorf("it has more than %d spans", maxSpans)

func (m *ManifestReader) pack() (PackEntry, error) {
	var p PackEntry
	if err := m.recordWith(maxRecord, func(line []byte) error {
		// Counted before they take ten times the memory of their text.
		if bytes.Count(line, []byte("[")) > maxSpans+packFrames+1 {
			return errTooManySpans
		}
		return parsePack(line, &p)
	}); err != nil {
		return p, err
	}
	if err := p.Check(m.Files); err != nil {
		return p, &CorruptError{m.key, "a pack record is not valid", err}
	}
	return p, nil
}

func (m *ManifestReader) readEnd(frames, stored int64, filled *coverage) error {
	var end endRecord
	if err := m.record(&end); err != nil {
		return err
	}
	if !end.End || end.Files != m.Info.Files || end.Packs != m.Info.Packs {
		return &CorruptError{m.key, "its end record is missing or counts otherwise", nil}
	}
	if _, err := m.lines.ReadByte(); err != io.EOF {
		return &CorruptError{m.key, "something follows its end", err}
	}
	if frames != m.Info.Frames || stored != m.Info.StoredBytes {
		return &CorruptError{m.key, "its packs are not what its info counts", nil}
	}
	if err := filled.check(m.Files); err != nil {
		return &CorruptError{m.key, "it is not complete", err}
	}
	return nil
}

func (m *ManifestReader) record(into any) error {
	return m.recordWith(maxInfo, func(line []byte) error { return json.Unmarshal(line, into) })
}

// recordWith reads the next record, of at most limit bytes; parse gets its line, which
// it must not keep.
func (m *ManifestReader) recordWith(limit int, parse func([]byte) error) error {
	m.seen++
	line := m.line[:0]
	for {
		part, err := m.lines.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return &CorruptError{m.key, fmt.Sprintf("record %d is too long", m.seen), nil}
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull {
			return &CorruptError{m.key, fmt.Sprintf("record %d cannot be read", m.seen), err}
		}
	}
	m.line = line
	if err := parse(line); err != nil {
		return &CorruptError{m.key, fmt.Sprintf("record %d cannot be parsed", m.seen), err}
	}
	return nil
}

// Close frees what the reader holds.
func (m *ManifestReader) Close() error { return m.rc.Close() }
