package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

const (
	maxInfo      = 2 << 20 // bytes of an info record
	maxInfoTexts = 1 << 16 // strings in it: each name of a field, and each value that is one

	maxRecord = 32 << 20 // bytes of any other record, its end included
	maxSpans  = 1 << 20  // of a pack record

	maxFileRecord = 8 << 20 // bytes of a file record, its end included
)

// ManifestWriter collects a manifest while the backup runs. Packs are added
// as they are stored, in any order; they go to compressed spools, not to
// memory. Its methods are not safe for concurrent use.
type ManifestWriter struct {
	repo  *Repo
	own   *packSpool // of the packs that this backup stored
	older *packSpool
	line  []byte // of the last record

	packs, frames, stored int64
	filled                coverage
}

// NewManifestWriter begins a manifest. Close it.
func (r *Repo) NewManifestWriter() *ManifestWriter {
	return &ManifestWriter{repo: r, own: newPackSpool(), older: newPackSpool(), filled: newCoverage(0)}
}

// Add notes a pack that this backup has stored. It refuses an entry that no reader
// would accept; what depends on the files is checked by Commit.
func (w *ManifestWriter) Add(p PackEntry) error { return w.add(p, w.own) }

// AddOlder notes a pack that an older backup has stored, as Add does. In the
// manifest these come after all others: a restore then writes first what is
// scattered, the pages that have changed, and after that what lies around them, so
// that both go to disk in one piece.
func (w *ManifestWriter) AddOlder(p PackEntry) error { return w.add(p, w.older) }

func (w *ManifestWriter) add(p PackEntry, to *packSpool) error {
	if err := p.checkFrames(); err != nil {
		return fmt.Errorf("add to manifest: %w", err)
	}
	w.line = append(appendPack(w.line[:0], &p), '\n')
	line := w.line
	if len(line) > maxRecord {
		return fmt.Errorf("a manifest record has %d bytes, at most %d are allowed", len(line), maxRecord)
	}
	w.filled.add(p)
	w.packs++
	w.frames += int64(len(p.Frames))
	w.stored += p.Size
	return to.write(line)
}

// packSpool holds records of packs, compressed.
type packSpool struct {
	spool  *spool
	zw     *zstd.Encoder
	size   int64 // raw bytes
	closed bool
}

func newPackSpool() *packSpool {
	s := &packSpool{spool: newSpool(), zw: newEncoder(Fastest)}
	s.zw.Reset(s.spool)
	return s
}

func (s *packSpool) write(line []byte) error {
	s.size += int64(len(line))
	if _, err := s.zw.Write(line); err != nil {
		return fmt.Errorf("spool manifest: %w", err)
	}
	return nil
}

// reader reads all that was written, from its start; nothing can be written after.
func (s *packSpool) reader() (io.ReadCloser, error) {
	if !s.closed {
		if err := s.zw.Close(); err != nil {
			return nil, fmt.Errorf("spool manifest: %w", err)
		}
		s.closed = true
	}
	d, err := zstd.NewReader(s.spool.Reader(), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("read spooled manifest: %w", err)
	}
	return d.IOReadCloser(), nil
}

// recordLine is one record as it stands in a manifest.
func recordLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode manifest record: %w", err)
	}
	if b.Len() > maxRecord {
		return nil, fmt.Errorf("a manifest record has %d bytes, at most %d are allowed", b.Len(), maxRecord)
	}
	return b.Bytes(), nil
}

// Close frees what the writer holds; after Commit it is a no-op.
func (w *ManifestWriter) Close() {
	w.own.spool.Close()
	w.older.spool.Close()
}

// Commit makes the backup exist: it writes the info object, then the manifest.
// The counts of info, and RawBytes, are filled in. Files that the packs do not
// fill, byte for byte, are refused before anything is written; so is the manifest of
// a key that is retired, *RetiredKeyError.
//
// After an error the backup does not exist, unless the store failed to answer
// to the very last request. Commit can be called again with the same values
// until Close; what is there already is then taken for done.
func (w *ManifestWriter) Commit(ctx context.Context, info *Info, files []FileEntry) error {
	if err := w.complete(info, files); err != nil {
		return fmt.Errorf("commit backup %s: %w", info.Label, err)
	}
	line, err := recordLine(info)
	if err != nil {
		return err
	}
	if len(line) > maxInfo {
		return fmt.Errorf("commit backup %s: its info has %d bytes, at most %d are allowed", info.Label, len(line), maxInfo)
	}
	// A backup takes long, and a key may have been retired just before it began. While
	// it runs none is: its lease keeps that away.
	if err := w.repo.CheckSigning(ctx); err != nil {
		return fmt.Errorf("commit backup %s: %w", info.Label, err)
	}
	if _, err := w.repo.CreateEnvelope(ctx, InfoKey(info.Label), KindInfo, bytes.NewReader(line), int64(len(line))); err != nil {
		return fmt.Errorf("commit backup %s: %w", info.Label, err)
	}
	src, size, err := w.records(line, info, files)
	if err != nil {
		return fmt.Errorf("commit backup %s: %w", info.Label, err)
	}
	defer src.Close()
	if _, err := w.repo.CreateEnvelope(ctx, ManifestKey(info.Label), KindManifest, src, size); err != nil {
		return fmt.Errorf("commit backup %s: %w", info.Label, err)
	}
	w.Close()
	return nil
}

// complete fills in what the writer knows and checks, as a reader would, that
// it makes a manifest.
func (w *ManifestWriter) complete(info *Info, files []FileEntry) error {
	info.Format, info.Cluster, info.Repository = Format, w.repo.marker.Cluster, w.repo.marker.Repository
	info.Files, info.Packs, info.Frames, info.StoredBytes = int64(len(files)), w.packs, w.frames, w.stored
	info.RawBytes = 0
	for _, f := range files {
		info.RawBytes += f.Size
	}
	if err := CheckLabel(info.Label); err != nil {
		return err
	}
	if err := info.check(); err != nil {
		return err
	}
	held, err := NewFiles(len(files), slices.Values(files))
	if err != nil {
		return err
	}
	return w.filled.check(held)
}

// records is the plain text of the manifest, and its size. It is made as it is
// read: the files of a large server are not held a second time.
func (w *ManifestWriter) records(line []byte, info *Info, files []FileEntry) (io.ReadCloser, int64, error) {
	end, err := recordLine(endRecord{true, info.Files, info.Packs})
	if err != nil {
		return nil, 0, err
	}
	size := int64(len(line)) + w.own.size + w.older.size + int64(len(end))
	for _, f := range files {
		l, err := recordLine(f)
		if err != nil {
			return nil, 0, err
		}
		if len(l) > maxFileRecord {
			return nil, 0, fmt.Errorf("the record of file %.200q has %d bytes, at most %d are allowed", f.Path, len(l), maxFileRecord)
		}
		size += int64(len(l))
	}
	own, err := w.own.reader()
	if err != nil {
		return nil, 0, err
	}
	older, err := w.older.reader()
	if err != nil {
		own.Close()
		return nil, 0, err
	}
	src := io.MultiReader(bytes.NewReader(line), &fileLines{files: files}, own, older, bytes.NewReader(end))
	return readClosers{src, []io.Closer{own, older}}, size, nil
}

// readClosers is a reader with what it is made of.
type readClosers struct {
	io.Reader
	parts []io.Closer
}

func (r readClosers) Close() error {
	var errs []error
	for _, p := range r.parts {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// fileLines reads as the records of the files.
type fileLines struct {
	files []FileEntry
	line  []byte
}

func (r *fileLines) Read(p []byte) (int, error) {
	if len(r.line) == 0 {
		if len(r.files) == 0 {
			return 0, io.EOF
		}
		line, err := recordLine(r.files[0])
		if err != nil {
			return 0, err
		}
		r.line, r.files = line, r.files[1:]
	}
	n := copy(p, r.line)
	r.line = r.line[n:]
	return n, nil
}
