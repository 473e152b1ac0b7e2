package repo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"runtime"
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

// ManifestsAtOnce is how many manifests a command has open at a time: one may take all of
// the memory that a command may.
const ManifestsAtOnce = 1

// parseInfo reads an info record. What it can hold any number of are lists and maps with
// strings, which are counted before they take ten times the memory of their text.
func parseInfo(line []byte, info *Info) error {
	if bytes.Count(line, []byte(`"`)) > 2*maxInfoTexts {
		return fmt.Errorf("it has more than %d strings", maxInfoTexts)
	}
	return json.Unmarshal(line, info)
}

// ManifestReader reads a manifest record by record: Info is read at once,
// then Files, then Packs. It takes at most 256 MiB, whatever somebody has signed.
type ManifestReader struct {
	Info  Info
	Files *Files
	key   string
	rc    io.ReadCloser
	lines *bufio.Reader
	line  []byte // the last record
	seen  int64
	text  int // bytes that were read since the collector ran
	used  bool
}

// OpenManifest fetches and verifies the manifest of a backup and reads its
// info and its files. fs.ErrNotExist when there is no such backup.
func (r *Repo) OpenManifest(ctx context.Context, label string) (*ManifestReader, error) {
	return r.OpenManifestEach(ctx, label, func(int, FileEntry) {})
}

// OpenManifestEach is OpenManifest for who needs all of the file records: each gets them
// in their order, before they were checked against each other.
func (r *Repo) OpenManifestEach(ctx context.Context, label string, each func(i int, f FileEntry)) (*ManifestReader, error) {
	m, err := r.openManifest(ctx, label)
	if err != nil {
		return nil, err
	}
	if err := m.readFiles(each); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// manifestInfo is the info of a manifest, of which no more is read, and its bytes.
func (r *Repo) manifestInfo(ctx context.Context, label string) (Info, int, error) {
	r.large.Lock()
	defer r.large.Unlock()
	m, err := r.openManifest(ctx, label)
	if err != nil {
		return Info{}, 0, err
	}
	return m.Info, len(m.line), m.Close()
}

// openManifest reads up to the file records.
func (r *Repo) openManifest(ctx context.Context, label string) (*ManifestReader, error) {
	if err := CheckLabel(label); err != nil {
		return nil, err
	}
	key := ManifestKey(label)
	_, rc, err := r.OpenEnvelope(ctx, key, KindManifest)
	if err != nil {
		return nil, err
	}
	m := newManifestReader(key, rc)
	if err := m.readInfo(r, label); err != nil {
		rc.Close()
		return nil, err
	}
	return m, nil
}

func newManifestReader(key string, rc io.ReadCloser) *ManifestReader {
	return &ManifestReader{key: key, rc: rc, lines: bufio.NewReaderSize(rc, 1<<16)}
}

func (m *ManifestReader) readInfo(r *Repo, label string) error {
	if err := m.recordWith(maxInfo, func(line []byte) error { return parseInfo(line, &m.Info) }); err != nil {
		return err
	}
	if err := r.checkInfo(m.key, label, m.Info); err != nil {
		return err
	}
	return nil
}

// readFiles reads the file records.
func (m *ManifestReader) readFiles(each func(int, FileEntry)) error {
	files := newFiles(int(m.Info.Files))
	var raw int64
	for i := range int(m.Info.Files) {
		var f FileEntry
		if err := m.recordWith(maxFileRecord, func(line []byte) error { return parseFile(line, &f) }); err != nil {
			return err
		}
		if err := files.add(f); err != nil {
			return &CorruptError{m.key, "a file record is not valid", err}
		}
		raw += f.Size
		each(i, f)
	}
	if raw != m.Info.RawBytes {
		return &CorruptError{m.key, fmt.Sprintf("its files have %d bytes, not %d", raw, m.Info.RawBytes), nil}
	}
	m.Files = files
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
		filled := newCoverage(m.Files.Len())
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
	m.collect(len(line))
	if err := parse(line); err != nil {
		return &CorruptError{m.key, fmt.Sprintf("record %d cannot be parsed", m.seen), err}
	}
	return nil
}

// collectAfter is how much text is read before the collector runs. By itself it waits
// until a heap has doubled, and that of a large manifest must not.
const (
	collectAfter = 8 << 20
	collectFrom  = 100_000 // file records
)

// collect counts text that was read, and runs the collector when it is time to.
func (m *ManifestReader) collect(n int) {
	if m.text += n; m.text >= collectAfter {
		m.text = 0
		if m.Info.Files >= collectFrom || n >= collectAfter {
			runtime.GC()
		}
	}
}

// Close frees what the reader holds.
func (m *ManifestReader) Close() error { return m.rc.Close() }
