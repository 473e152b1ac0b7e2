package expire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// scene is what was found in the repository.
type scene struct {
	Input
	packs       repo.PackList
	directories []repo.Directory // of backups that are not committed
	running     map[string]bool
	indexes     map[postgres.SystemID]*wal.Index
	sizes       map[string]int64 // bytes of the manifests, by label
}

// load gathers what the plan needs. What is damaged is noted and is no error; a
// store that fails is one.
func load(ctx context.Context, r *repo.Repo, o Options) (*scene, error) {
	s := &scene{Input: Input{Now: o.Now(), Policy: o.Policy, Uses: Uses{},
		SegSizes: map[postgres.SystemID]postgres.SegmentSize{}},
		running: map[string]bool{}, indexes: map[postgres.SystemID]*wal.Index{}, sizes: map[string]int64{}}
	lease, err := r.LookAtLease(ctx, repo.BackupLease, storeTime(o, s.Now))
	if err != nil {
		return nil, err
	}
	directories, _, err := r.Directories(ctx)
	if err != nil {
		return nil, err
	}
	// After the manifests, or a backup that was just committed would look as if it
	// lacked packs.
	if s.packs, _, err = r.ListPacks(ctx); err != nil {
		return nil, err
	}
	if err := s.readBackups(ctx, r, directories, o.Observe); err != nil {
		return nil, err
	}
	if err := s.findRunning(ctx, r, directories, lease); err != nil {
		return nil, err
	}
	if err := s.readPins(ctx, r); err != nil {
		return nil, err
	}
	if err := s.readWAL(ctx, r, o.Look); err != nil {
		return nil, err
	}
	s.markLeading(s.ancestry)
	return s, nil
}

// readBackups reads the manifests of all backups: what they are, and which
// packs are theirs.
func (s *scene) readBackups(ctx context.Context, r *repo.Repo, directories []repo.Directory, observe func(Event)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(repo.ManifestsAtOnce)
	var mu sync.Mutex
	for _, f := range directories {
		if !f.Committed {
			s.directories = append(s.directories, f)
			continue
		}
		for _, o := range f.Objects {
			if slices.Contains(repo.ManifestPlaces(f.Label), o.Key) {
				s.sizes[f.Label] += o.Size
			}
		}
		g.Go(func() error {
			b, err := readBackup(ctx, r, f.Label, s.packs)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if b != nil {
				s.Backups = append(s.Backups, b)
			}
			observe(Event{Read: f.Label})
			return nil
		})
	}
	return g.Wait()
}

// readBackup reads one manifest to its end; nil when it is gone. An error is
// the store's.
func readBackup(ctx context.Context, r *repo.Repo, label string, packs repo.PackList) (*Backup, error) {
	b := &Backup{Info: repo.Info{Label: label}}
	b.Packs, b.Info, b.Broken = readPacks(ctx, r, label, packs)
	if b.Broken == nil || b.Packs != nil {
		return b, nil
	}
	switch {
	case errors.Is(b.Broken, fs.ErrNotExist):
		return nil, nil
	case !repo.AboutObject(b.Broken):
		return nil, fmt.Errorf("read backup %s: %w", label, b.Broken)
	}
	// The manifest cannot be read. What the backup is stands elsewhere too.
	info, err := r.InfoObject(ctx, label)
	switch {
	case err == nil:
		b.Info = info
	case repo.AboutObject(err) || errors.Is(err, fs.ErrNotExist):
		b.Info, b.Unread = repo.Info{Label: label}, b.Broken
	default:
		return nil, fmt.Errorf("read backup %s: %w", label, err)
	}
	return b, nil
}

// readPacks reads the packs of a manifest. The set is nil when the manifest
// cannot be read to its end; an error with a set is about a pack.
func readPacks(ctx context.Context, r *repo.Repo, label string, packs repo.PackList) (repo.PackSet, repo.Info, error) {
	m, err := r.OpenManifest(ctx, label)
	if err != nil {
		return nil, repo.Info{Label: label}, err
	}
	defer m.Close()
	set := packs.NewSet()
	var broken error
	for p, err := range m.Packs() {
		if err != nil {
			return nil, m.Info, err
		}
		i, ok := packs.Find(p.ID)
		switch {
		case !ok && broken == nil:
			broken = fmt.Errorf("pack %s is missing", p.ID)
		case ok && packs[i].Size != p.Size && broken == nil:
			broken = fmt.Errorf("pack %s has %d bytes, not %d", p.ID, packs[i].Size, p.Size)
		}
		if ok {
			set.Add(i)
		}
	}
	return set, m.Info, broken
}

// findRunning notes what backups that are not committed may still need.
func (s *scene) findRunning(ctx context.Context, r *repo.Repo, directories []repo.Directory, lease repo.LeaseState) error {
	if lease.Held {
		s.since(lease.Since)
	}
	byLabel := map[string]*Backup{}
	for _, b := range s.Backups {
		byLabel[b.Info.Label] = b
	}
	for _, f := range directories {
		if f.Committed || !lease.Held && !s.young(f) {
			continue
		}
		s.running[f.Label] = true
		s.since(f.Began())
		bases, unknown, err := adopted(ctx, r, f)
		if err != nil {
			return err
		}
		if unknown != "" {
			s.Unswept = unknown
		}
		for _, base := range bases {
			if b := byLabel[base]; b != nil {
				b.AdoptedBy = f.Label
				continue
			}
			s.Unswept = fmt.Sprintf("backup %s, which may still run, takes over packs of %s, which is no backup any more", f.Label, base)
		}
	}
	return nil
}

// young says whether something of the directory is so new that the backup may
// still run.
func (s *scene) young(f repo.Directory) bool {
	limit := s.Now.Add(-Age)
	return f.Newest.After(limit) || f.Began().After(limit)
}

func (s *scene) since(t time.Time) {
	if s.RunningSince.IsZero() || t.Before(s.RunningSince) {
		s.RunningSince = t
	}
}

// adopted are the backups whose packs a running one takes over, or why that
// cannot be known.
func adopted(ctx context.Context, r *repo.Repo, f repo.Directory) (bases []string, unknown string, err error) {
	if !f.Adopts {
		return nil, "", nil
	}
	a, err := r.Adoption(ctx, f.Label)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return a.Bases, "", nil
	case repo.AboutObject(err):
		return nil, fmt.Sprintf("it cannot be read which packs backup %s takes over, which may still run: %v", f.Label, err), nil
	}
	return nil, "", fmt.Errorf("read what backup %s adopts: %w", f.Label, err)
}

func (s *scene) readPins(ctx context.Context, r *repo.Repo) error {
	pins, err := r.Pins(ctx)
	if err != nil {
		return err
	}
	byLabel := map[string]*repo.PinState{}
	for i, p := range pins {
		byLabel[p.Label] = &pins[i]
	}
	for _, b := range s.Backups {
		b.Pin = byLabel[b.Info.Label]
	}
	return nil
}

// readWAL looks at the archive of each system, and finds backups that lack WAL, or of
// which it is not known whether they do.
func (s *scene) readWAL(ctx context.Context, r *repo.Repo, look Look) error {
	systems, err := r.Systems(ctx)
	if err != nil {
		return err
	}
	for _, id := range systems {
		s.indexes[id] = nil
	}
	for _, b := range s.Backups {
		if b.Unread == nil {
			s.indexes[b.Info.System] = nil
			s.SegSizes[b.Info.System] = b.Info.SegSize
		}
	}
	for id := range s.indexes {
		ix, err := look.at(ctx, r, id, s.SegSizes[id], s.Uses)
		if err != nil {
			return err
		}
		if err := historyFailure(ix); err != nil {
			return err
		}
		if ix.SegmentSize() != 0 {
			s.SegSizes[id] = ix.SegmentSize()
		}
		s.indexes[id] = ix
	}
	for _, b := range s.Backups {
		if b.Unread == nil && b.Broken == nil {
			b.Broken = s.indexes[b.Info.System].ProvesWAL(b.Info)
		}
	}
	return nil
}

// historyFailure is the error of a store that failed to give a timeline history
// file. One that is damaged, or sealed to others, is not known and no failure.
func historyFailure(ix *wal.Index) error {
	for _, tl := range ix.Timelines() {
		_, err := ix.History(tl)
		if err != nil && !repo.AboutObject(err) && !errors.Is(err, postgres.ErrFormat) && !errors.Is(err, repo.ErrNoIdentity) && !errors.Is(err, repo.ErrWrongIdentity) {
			return err
		}
	}
	return nil
}

// ancestry is that of a timeline, from the archive of its system. A timeline
// above the first has ancestors, so one without a history file is not known.
func (s *scene) ancestry(p Place) (postgres.History, bool) {
	ix := s.indexes[p.System]
	h, err := ix.History(p.Timeline)
	return h, err == nil && (p.Timeline == 1 || ix.HasHistory(p.Timeline))
}
