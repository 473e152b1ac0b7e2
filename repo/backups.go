package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Backup is a committed backup: its manifest is there. It is what every command
// goes by that asks which backups exist and what they are.
type Backup struct {
	Info            // only Label is known with Err
	Manifest Header // the signed header of its manifest

	// Err is why the backup cannot be believed or read: AboutObject.
	Err error

	size int // bytes of its info record

	// InfoErr is what is wrong with the info object beside the manifest. What is
	// known was read from the manifest then, and the backup is as good as any.
	InfoErr error
}

// Warning tells of an info object that is damaged, "" when there is nothing to tell.
func (b Backup) Warning() string {
	if b.InfoErr == nil {
		return ""
	}
	return fmt.Sprintf("%v; what it says of the backup was read from the manifest, and nothing else needs it", b.InfoErr)
}

// Backups lists the labels of the backups that exist, oldest first: those with a
// manifest. Nothing of them is read.
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
	return slices.Compact(out), nil // one that is being sealed again may be there twice
}

// backupsAtOnce are the backups whose small objects are read at a time.
const backupsAtOnce = 16

// LoadBackups reads what the backups are, oldest first, two small requests each. One
// that is damaged is there with its error and hides no other; one that goes
// meanwhile is left out. Errors are those of the store and of keys that do not fit.
func (r *Repo) LoadBackups(ctx context.Context) ([]Backup, error) {
	return r.loadEach(ctx, r.LoadBackup)
}

// SignedBackups is LoadBackups for who has no key to open what the backups are: of Info
// only Label is known.
func (r *Repo) SignedBackups(ctx context.Context) ([]Backup, error) {
	return r.loadEach(ctx, r.signedBackup)
}

func (r *Repo) loadEach(ctx context.Context, load func(context.Context, string) (Backup, error)) ([]Backup, error) {
	labels, err := r.Backups(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Backup, len(labels))
	var large infoBudget
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(backupsAtOnce)
	for i, label := range labels {
		g.Go(func() error {
			b, err := load(gctx, label)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			out[i] = large.hold(b)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(out, func(b Backup) bool { return b.Label == "" }), nil
}

// largeInfo is from how many bytes on an info record is none of those that most backups
// have, of some thousand bytes; and of such no more are held than mostLarge bytes.
const (
	largeInfo = 64 << 10
	mostLarge = 16 << 20
)

// infoBudget bounds what the records of all backups take: somebody with a cluster key may
// have signed any number of the largest.
type infoBudget struct {
	mu   sync.Mutex
	used int
}

// hold keeps a backup, or instead of what it is an error when there is no room for it.
func (l *infoBudget) hold(b Backup) Backup {
	if b.size < largeInfo {
		return b
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used+b.size > mostLarge {
		why := fmt.Sprintf("its info record has %d bytes, and with those of others more than %d", b.size, mostLarge)
		return Backup{Info: Info{Label: b.Label}, Manifest: b.Manifest, Err: &CorruptError{ManifestKey(b.Label), why, nil}}
	}
	l.used += b.size
	return b
}

// signedBackup reads the header of a manifest, and whether it is believed.
func (r *Repo) signedBackup(ctx context.Context, label string) (Backup, error) {
	b := Backup{Info: Info{Label: label}}
	if err := CheckLabel(label); err != nil {
		return b, err
	}
	var err error
	b.Manifest, err = r.Header(ctx, ManifestKey(label))
	if err == nil && b.Manifest.Kind != KindManifest {
		err = &CorruptError{ManifestKey(label), fmt.Sprintf("it is of kind %s, not %s", b.Manifest.Kind, KindManifest), nil}
	}
	if err != nil {
		return b.failed(err)
	}
	return b, nil
}

// LoadBackup reads what one backup is: whether its manifest's header is signed by
// somebody who is believed, and its info from the object beside, or from the manifest
// where that is missing or damaged. fs.ErrNotExist when there is no such backup.
func (r *Repo) LoadBackup(ctx context.Context, label string) (Backup, error) {
	b, err := r.signedBackup(ctx, label)
	if err != nil || b.Err != nil {
		return b, err
	}
	info, size, err := r.infoObject(ctx, label)
	if err == nil {
		b.Info, b.size = info, size
		return b, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !AboutObject(err) {
		return b.failed(err)
	}
	if AboutObject(err) {
		b.InfoErr = err
	}
	if b.Info, b.size, err = r.manifestInfo(ctx, label); err != nil {
		b.Info = Info{Label: label}
		return b.failed(err)
	}
	return b, nil
}

// failed keeps an error about the backup's own objects with it.
func (b Backup) failed(err error) (Backup, error) {
	if AboutObject(err) {
		b.Err = err
		return b, nil
	}
	return b, fmt.Errorf("read backup %s: %w", b.Label, err)
}

// Info reads what a backup is. Its error is LoadBackup's, or the backup's own.
func (r *Repo) Info(ctx context.Context, label string) (Info, error) {
	b, err := r.LoadBackup(ctx, label)
	if err == nil {
		err = b.Err
	}
	if err != nil {
		return Info{}, err
	}
	return b.Info, nil
}

// InfoObject reads the info object alone. It can be there without a manifest; then
// there is no backup.
func (r *Repo) InfoObject(ctx context.Context, label string) (Info, error) {
	info, _, err := r.infoObject(ctx, label)
	return info, err
}

func (r *Repo) infoObject(ctx context.Context, label string) (Info, int, error) {
	if err := CheckLabel(label); err != nil {
		return Info{}, 0, err
	}
	h, rc, err := r.open(ctx, InfoKey(label), KindInfo, maxInfo)
	if err != nil {
		return Info{}, 0, err
	}
	defer rc.Close()
	if h.Size >= largeInfo {
		r.large.Lock()
		defer r.large.Unlock()
	}
	raw, err := readPlain(InfoKey(label), h, rc)
	if err != nil {
		return Info{}, 0, err
	}
	var info Info
	if err := parseInfo(raw, &info); err != nil {
		return Info{}, 0, &CorruptError{InfoKey(label), "not an info record", err}
	}
	return info, len(raw), r.checkInfo(InfoKey(label), label, info)
}
