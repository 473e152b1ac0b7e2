package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// Part is a note of a running backup: packs that it has stored, and what they
// hold. A backup that is interrupted is no backup, but the next one finds in
// its parts what it need not send again.
type Part struct {
	Format     int               `json:"format"`
	Label      string            `json:"label"`
	Source     string            `json:"source"` // as in Info
	System     postgres.SystemID `json:"system"`
	Timeline   postgres.Timeline `json:"timeline"`
	StartLSN   postgres.LSN      `json:"start_lsn"`
	StartTime  time.Time         `json:"start_time"`
	BlockSize  int               `json:"block_size"`
	Catalog    uint32            `json:"catalog_version"`
	Checksums  bool              `json:"checksums"`
	Full       bool              `json:"full,omitempty"`      // the backup was to refer to no older pack
	Recipients []string          `json:"recipients"`          // who can open its packs
	Files      []FileEntry       `json:"files"`               // those that the packs hold something of
	Packs      []PackEntry       `json:"packs"`               // their spans name Files
	BadPages   []BadPage         `json:"bad_pages,omitempty"` // that the backup has found so far; at most MaxBadPages
}

// What a part may hold. One that would hold more is not stored, and one that does is not
// read: what it notes is sent again. Read it takes some five times its bytes of memory.
const (
	maxPart      = 32 << 20 // bytes
	maxPartSpans = 1 << 20  // and frames and lists
	maxPartFiles = 1 << 17  // and packs and frames
	maxPartTexts = 3 << 20
)

// ErrPartTooLarge means that a part would hold more than is read of one.
var ErrPartTooLarge = errors.New("the note of what is stored is too large")

// checkPartSize counts what a part holds before it takes a multiple of its text.
func checkPartSize(text []byte) error {
	switch {
	case len(text) > maxPart, bytes.Count(text, []byte("[")) > maxPartSpans, bytes.Count(text, []byte("{")) > maxPartFiles, bytes.Count(text, []byte(`"`)) > 2*maxPartTexts:
		return ErrPartTooLarge
	}
	return nil
}

// CreatePart stores the n-th part, from 1 on, of the backup that it names. ErrPartTooLarge
// before anything is stored.
func (r *Repo) CreatePart(ctx context.Context, n int, p Part) error {
	if err := CheckLabel(p.Label); err != nil {
		return err
	}
	p.Format = Format
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode part: %w", err)
	}
	if err := checkPartSize(text); err != nil {
		return err
	}
	if _, err := r.CreateEnvelope(ctx, PartKey(p.Label, n), KindPart, bytes.NewReader(text), int64(len(text))); err != nil {
		return fmt.Errorf("note what is stored: %w", err)
	}
	return nil
}

// Part reads the n-th part of a backup; fs.ErrNotExist when there is none.
func (r *Repo) Part(ctx context.Context, label string, n int) (Part, error) {
	var p Part
	if err := CheckLabel(label); err != nil {
		return p, err
	}
	key := PartKey(label, n)
	raw, _, err := r.ReadEnvelope(ctx, key, KindPart, maxPart)
	if err != nil {
		return p, err
	}
	if err := checkPartSize(raw); err != nil {
		return p, &CorruptError{key, "not a part", err}
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return Part{}, &CorruptError{key, "not a part", err}
	}
	if p.Format != Format {
		return p, &FormatError{key, p.Format}
	}
	if p.Label != label {
		return p, &UntrustedError{key, "it is of another backup"}
	}
	if len(p.Recipients) > MaxRecipients {
		return p, &CorruptError{key, fmt.Sprintf("%d recipients", len(p.Recipients)), nil}
	}
	if len(p.BadPages) > MaxBadPages {
		return p, &CorruptError{key, fmt.Sprintf("%d bad pages", len(p.BadPages)), nil}
	}
	for _, f := range p.Files {
		if err := f.Check(); err != nil {
			return p, &CorruptError{key, "a file is not valid", err}
		}
	}
	for _, e := range p.Packs {
		if err := e.Check(fileList(p.Files)); err != nil {
			return p, &CorruptError{key, "a pack is not valid", err}
		}
	}
	return p, nil
}

// fileList is FileSizes of records in memory.
type fileList []FileEntry

func (l fileList) Size(i int) int64 {
	if i < 0 || i >= len(l) || l[i].Type != Regular {
		return -1
	}
	return l[i].Size
}
