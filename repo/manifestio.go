package repo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"

	"github.com/klauspost/compress/zstd"
)

const (
	maxInfo   = 16 << 20
	maxRecord = 256 << 20 // a pack whose frames feed very many tiny files
)

// ManifestWriter collects a manifest while the backup runs. Packs are added
// as they are stored, in any order; they go to a compressed spool, not to
// memory. Add is not safe for concurrent use.
type ManifestWriter struct {
	repo  *Repo
	spool *spool
	zw    *zstd.Encoder
	enc   *json.Encoder
	size  int64 // raw bytes spooled

	packs, frames, stored int64
}

// NewManifestWriter begins a manifest.
func (r *Repo) NewManifestWriter() *ManifestWriter {
	w := &ManifestWriter{repo: r, spool: newSpool()}
	w.zw = newEncoder(Fastest)
	w.zw.Reset(w.spool)
	w.enc = json.NewEncoder(writeCounter{w.zw, &w.size})
	w.enc.SetEscapeHTML(false)
	return w
}

type writeCounter struct {
	w io.Writer
	n *int64
}

func (c writeCounter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}

// Add notes a pack that is stored.
func (w *ManifestWriter) Add(p PackEntry) error {
	w.packs++
	w.frames += int64(len(p.Frames))
	w.stored += p.Size
	return w.enc.Encode(p)
}

// Close frees what the writer holds; after Commit it is a no-op.
func (w *ManifestWriter) Close() { w.spool.Close() }

// Commit makes the backup exist: it writes the info object, then the manifest.
// The counts of info are filled in. After an error no manifest is there, so
// no backup; the packs are garbage then.
func (w *ManifestWriter) Commit(ctx context.Context, info *Info, files []FileEntry) error {
	info.Format, info.Cluster, info.Repository = Format, w.repo.marker.Cluster, w.repo.marker.Repository
	info.Files, info.Packs, info.Frames, info.StoredBytes = int64(len(files)), w.packs, w.frames, w.stored
	if err := w.zw.Close(); err != nil {
		return fmt.Errorf("spool manifest: %w", err)
	}
	var head, end bytes.Buffer
	if err := encodeLines(&head, info); err != nil {
		return err
	}
	line := bytes.Clone(head.Bytes())
	for _, f := range files {
		if err := f.Check(); err != nil {
			return err
		}
		if err := encodeLines(&head, f); err != nil {
			return err
		}
	}
	if err := encodeLines(&end, endRecord{true, info.Files, info.Packs}); err != nil {
		return err
	}
	if _, err := w.repo.CreateEnvelope(ctx, InfoKey(info.Label), KindInfo, bytes.NewReader(line), int64(len(line))); err != nil {
		return fmt.Errorf("commit backup %s: %w", info.Label, err)
	}
	packs, err := zstd.NewReader(w.spool.Reader(), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("read spooled manifest: %w", err)
	}
	defer packs.Close()
	size := int64(head.Len()) + w.size + int64(end.Len())
	src := io.MultiReader(&head, packs, &end)
	if _, err := w.repo.CreateEnvelope(ctx, ManifestKey(info.Label), KindManifest, src, size); err != nil {
		return fmt.Errorf("commit backup %s: %w", info.Label, err)
	}
	w.Close()
	return nil
}

func encodeLines(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	return nil
}

// Backups lists the backups that exist, oldest first: those with a manifest.
func (r *Repo) Backups(ctx context.Context) ([]string, error) {
	var out []string
	for info, err := range r.store.List(ctx, backupsPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list backups: %w", err)
		}
		if label, ok := labelOfManifest(info.Key); ok {
			out = append(out, label)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Info reads what the backup is. It believes the info object, which is signed
// for this label, and falls back to the manifest where it is missing.
func (r *Repo) Info(ctx context.Context, label string) (Info, error) {
	raw, _, err := r.ReadEnvelope(ctx, InfoKey(label), KindInfo, maxInfo)
	if errors.Is(err, fs.ErrNotExist) {
		m, err := r.OpenManifest(ctx, label)
		if err != nil {
			return Info{}, err
		}
		defer m.Close()
		return m.Info, nil
	}
	if err != nil {
		return Info{}, err
	}
	var info Info
	if err := json.Unmarshal(raw, &info); err != nil {
		return Info{}, &CorruptError{InfoKey(label), "not an info record", err}
	}
	return info, r.checkInfo(InfoKey(label), label, info)
}

func (r *Repo) checkInfo(key, label string, info Info) error {
	switch {
	case info.Format != Format:
		return fmt.Errorf("backup %s has format %d; this program knows format %d", label, info.Format, Format)
	case info.Label != label || info.Repository != r.marker.Repository:
		return &UntrustedError{key, "it is of another backup or repository"}
	case !info.SegSize.Valid() || info.BlockSize <= 0 || info.StopLSN < info.StartLSN || info.Timeline == 0:
		return &CorruptError{key, "its figures make no sense", nil}
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
	seen  int64
}

// OpenManifest fetches and verifies the manifest of a backup and reads its
// info and its files. fs.ErrNotExist when there is no such backup.
func (r *Repo) OpenManifest(ctx context.Context, label string) (*ManifestReader, error) {
	key := ManifestKey(label)
	_, rc, err := r.OpenEnvelope(ctx, key, KindManifest)
	if err != nil {
		return nil, err
	}
	m := &ManifestReader{key: key, rc: rc, lines: bufio.NewReaderSize(rc, 1<<20)}
	err = m.readHead()
	if err == nil {
		err = r.checkInfo(key, label, m.Info)
	}
	if err != nil {
		rc.Close()
		return nil, err
	}
	return m, nil
}

func (m *ManifestReader) readHead() error {
	if err := m.record(&m.Info); err != nil {
		return err
	}
	if m.Info.Files < 0 {
		return &CorruptError{m.key, "a negative number of files", nil}
	}
	for range m.Info.Files {
		var f FileEntry
		if err := m.record(&f); err != nil {
			return err
		}
		if err := f.Check(); err != nil {
			return &CorruptError{m.key, "a file record is not valid", err}
		}
		m.Files = append(m.Files, f)
	}
	return nil
}

// Packs yields the packs. The sequence ends without an error only when the
// manifest was complete and as signed to its last byte. It can be run once.
func (m *ManifestReader) Packs() iter.Seq2[PackEntry, error] {
	return func(yield func(PackEntry, error) bool) {
		for range m.Info.Packs {
			var p PackEntry
			err := m.record(&p)
			if err == nil {
				if err = p.Check(m.Files); err != nil {
					err = &CorruptError{m.key, "a pack record is not valid", err}
				}
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
		if err := m.readEnd(); err != nil {
			yield(PackEntry{}, err)
		}
	}
}

func (m *ManifestReader) readEnd() error {
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
	return nil
}

func (m *ManifestReader) record(into any) error {
	m.seen++
	var line []byte
	for {
		part, err := m.lines.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull {
			return &CorruptError{m.key, fmt.Sprintf("record %d cannot be read", m.seen), err}
		}
		if len(line) > maxRecord {
			return &CorruptError{m.key, fmt.Sprintf("record %d is too long", m.seen), nil}
		}
	}
	if err := json.Unmarshal(line, into); err != nil {
		return &CorruptError{m.key, fmt.Sprintf("record %d cannot be parsed", m.seen), err}
	}
	return nil
}

// Close frees what the reader holds.
func (m *ManifestReader) Close() error { return m.rc.Close() }
