package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// A backup that refers to the packs of an older one must not lose them while
// it runs, and its own manifest, which would say so, comes last. So it says it
// first, in an adoption; then it looks whether the older backup still exists.
// Who expires deletes the manifest of a backup first, then lists the
// adoptions, and leaves the packs of a backup that is adopted. Whichever comes
// first sees the other: either the backup finds its base gone, or the expiry
// finds the adoption.
//
// The directory of a backup without a manifest is no backup. It is garbage once
// nobody works on it: see Unfinished.

// Adoption is what a backup that runs says before it takes over packs.
type Adoption struct {
	Bases []string  `json:"bases"` // labels of the backups whose packs it takes over
	Made  time.Time `json:"made"`  // by the clock of the backup's host
}

const (
	maxAdoption = 1 << 20 // bytes
	maxBases    = 1000    // labels in an adoption
)

// Adopt says, for the backup with this label, that it takes over packs of the
// bases. It counts once it returns without an error; the caller must look
// after that whether each base exists.
func (r *Repo) Adopt(ctx context.Context, label string, a Adoption) error {
	if err := CheckLabel(label); err != nil {
		return err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode adoption: %w", err)
	}
	_, err = r.CreateEnvelope(ctx, AdoptionKey(label), KindAdoption, bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return fmt.Errorf("adopt packs: %w", err)
	}
	return nil
}

// Adoption reads what a backup adopts; fs.ErrNotExist when it said nothing.
func (r *Repo) Adoption(ctx context.Context, label string) (Adoption, error) {
	var a Adoption
	if err := CheckLabel(label); err != nil {
		return a, err
	}
	key := AdoptionKey(label)
	raw, _, err := r.ReadEnvelope(ctx, key, KindAdoption, maxAdoption)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return a, &CorruptError{key, "not an adoption", err}
	}
	if len(a.Bases) > maxBases {
		return a, &CorruptError{key, fmt.Sprintf("it adopts %d backups", len(a.Bases)), nil}
	}
	for _, b := range a.Bases {
		if err := CheckLabel(b); err != nil {
			return a, &CorruptError{key, "not an adoption", err}
		}
	}
	return a, nil
}

// Exists says whether the backup is committed: its manifest is there.
func (r *Repo) Exists(ctx context.Context, label string) (bool, error) {
	if err := CheckLabel(label); err != nil {
		return false, err
	}
	_, err := r.store.Stat(ctx, ManifestKey(label))
	if errors.Is(err, fs.ErrNotExist) { // or just being sealed again
		_, err = r.store.Stat(ctx, ManifestKey(label)+besideSuffix)
	}
	if errors.Is(err, fs.ErrNotExist) {
		_, err = r.store.Stat(ctx, ManifestKey(label))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for backup %s: %w", label, opaque(err))
	}
	return true, nil
}

// Unfinished lists the directories of backups that are not committed, ascending: of
// those that run, and of those that ended before. Which of the two is not known
// from this; who holds the backup lease, and the age of the newest object, tell.
func (r *Repo) Unfinished(ctx context.Context) ([]Directory, error) {
	directories, _, err := r.Directories(ctx)
	return slices.DeleteFunc(directories, func(f Directory) bool { return f.Committed }), err
}
