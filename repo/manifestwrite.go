package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	maxInfo   = 16 << 20 // bytes of an info record
	maxRecord = 64 << 20 // bytes of any other record, its end included
	maxFiles  = 1 << 27  // file records
)

// ManifestWriter collects a manifest while the backup runs. Packs are added
// as they are stored, in any order; they go to a compressed spool, not to
// memory. Add is not safe for concurrent use.
type ManifestWriter struct {
	repo   *Repo
	spool  *spool
	zw     *zstd.Encoder
	size   int64 // raw bytes spooled
	closed bool
	line   []byte // of the last record

	packs, frames, stored int64
	filled                coverage
}

// NewManifestWriter begins a manifest. Close it.
func (r *Repo) NewManifestWriter() *ManifestWriter {
	w := &ManifestWriter{repo: r, spool: newSpool(), zw: newEncoder(Fastest), filled: newCoverage(0)}
	w.zw.Reset(w.spool)
	return w
}

// Add notes a pack that is stored. It refuses an entry that no reader would
// accept; what depends on the files is checked by Commit.
func (w *ManifestWriter) Add(p PackEntry) error {
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
	w.size += int64(len(line))
	if _, err := w.zw.Write(line); err != nil {
		return fmt.Errorf("spool manifest: %w", err)
	}
	return nil
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
func (w *ManifestWriter) Close() { w.spool.Close() }

// Commit makes the backup exist: it writes the info object, then the manifest.
// The counts of info, and RawBytes, are filled in. Files that the packs do not
// fill, byte for byte, are refused before anything is written.
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
	if err := checkFiles(files); err != nil {
		return err
	}
	return w.filled.check(files)
}

// records is the plain text of the manifest, and its size. It is made as it is
// read: the files of a large server are not held a second time.
func (w *ManifestWriter) records(line []byte, info *Info, files []FileEntry) (io.ReadCloser, int64, error) {
	if !w.closed {
		if err := w.zw.Close(); err != nil {
			return nil, 0, fmt.Errorf("spool manifest: %w", err)
		}
		w.closed = true
	}
	end, err := recordLine(endRecord{true, info.Files, info.Packs})
	if err != nil {
		return nil, 0, err
	}
	size := int64(len(line)) + w.size + int64(len(end))
	for _, f := range files {
		l, err := recordLine(f)
		if err != nil {
			return nil, 0, err
		}
		size += int64(len(l))
	}
	packs, err := zstd.NewReader(w.spool.Reader(), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, 0, fmt.Errorf("read spooled manifest: %w", err)
	}
	src := io.MultiReader(bytes.NewReader(line), &fileLines{files: files}, packs, bytes.NewReader(end))
	return struct {
		io.Reader
		io.Closer
	}{src, packs.IOReadCloser()}, size, nil
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

// checkFiles checks each file record, and that none names a file again.
func checkFiles(files []FileEntry) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files, at most %d are allowed", len(files), maxFiles)
	}
	seen := make(map[string]struct{}, len(files))
	for _, f := range files {
		if err := f.Check(); err != nil {
			return err
		}
		if _, twice := seen[f.Path]; twice {
			return fmt.Errorf("file %.200q is there twice", f.Path)
		}
		seen[f.Path] = struct{}{}
	}
	return nil
}
