// Package copier brings a backup and its WAL from one place of a repository to
// another. Nothing is made again: objects go as they are, each verified on its way,
// and no data is opened.
//
// The manifest goes last. So at every moment what is in the other place is a whole
// backup or nothing but objects that no backup refers to, and a copy that was
// broken off is completed by running it again: what is there is compared and
// passed over.
package copier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// Options says what to copy and how.
type Options struct {
	Label   string // of the backup; "" is the newest
	Through bool   // also all WAL from the backup on, whatever its timeline
	Jobs    int    // objects under way at once; at least 1
	Claim   repo.Claim
	Now     func() time.Time
	Observe func(Progress) // may be nil; called from one goroutine at a time
	Warn    func(error)    // may be nil
}

// Progress is where a running copy stands, in bytes of objects.
type Progress struct{ Done, Total int64 }

// Result is what a copy brought. Objects that were there already are Existed.
type Result struct {
	Info     repo.Info
	Objects  int64
	Existed  int64
	Bytes    int64 // written
	Packs    int64 // of the backup
	Segments int64 // of WAL, also those in slices
	First    string
	Last     string // the last segment on the backup's timeline
}

// GapError says that WAL which the backup needs to become consistent is missing, so
// that a copy could not be restored either.
type GapError struct {
	Label   string
	Missing string
}

func (e *GapError) Error() string {
	return fmt.Sprintf("backup %s cannot be restored: the WAL segment %s that it needs is not in the archive", e.Label, e.Missing)
}

// RemovedError says that the backup was removed where it comes from while it was
// copied.
type RemovedError struct{ Label string }

func (e *RemovedError) Error() string {
	return fmt.Sprintf("backup %s was removed while it was copied", e.Label)
}

// ErrNoBackup means that there is nothing to copy.
var ErrNoBackup = errors.New("there is no backup in the repository")

// Run copies a backup and the WAL that it needs. ErrNoBackup, *GapError before
// anything is written; *repo.LeasedError while a backup, an expiry or another copy
// works on the place to copy to; *RemovedError when the backup expires meanwhile;
// *repo.CorruptError and *repo.UntrustedError for what is not genuine;
// *repo.ConflictError where other content lies under a name. After any error the
// backup is not there, unless it was before.
func Run(ctx context.Context, from, to *repo.Repo, o Options) (*Result, error) {
	label, err := o.find(ctx, from)
	if err != nil {
		return nil, err
	}
	// That of backups, so that nobody takes its packs for what a backup that failed
	// has left; and that of expiry, which would remove packs and WAL that were there
	// already, and that nothing says this backup needs before its manifest does.
	ctx, release, err := to.HoldBoth(ctx, o.Claim, o.Now, o.Warn)
	if err != nil {
		return nil, err
	}
	defer release()
	c := &copying{from: from, to: to, Options: o}
	if err := c.bring(ctx, label); err != nil {
		return nil, c.why(ctx, label, err)
	}
	return &c.Result, nil
}

// bring is the order of the steps.
func (c *copying) bring(ctx context.Context, label string) error {
	// What is needed, and whether all of it is there.
	if err := c.readManifest(ctx, label); err != nil {
		return err
	}
	if err := c.listWAL(ctx); err != nil {
		return err
	}
	// What says who signs comes before what is signed.
	if err := c.from.CopySigners(ctx, c.to); err != nil {
		return err
	}
	if err := c.envelopes(ctx, item{repo.SystemKey(c.Info.System), repo.KindSystem, 0}); err != nil {
		return err
	}
	if err := c.content(ctx); err != nil {
		return err
	}
	if err := c.optional(ctx, item{repo.FingerprintsKey(label), repo.KindFingerprints, 0}); err != nil {
		return err
	}
	if err := c.optional(ctx, item{repo.InfoKey(label), repo.KindInfo, 0}); err != nil {
		return err
	}
	// A lease protects nothing by itself: what was there already may be gone.
	if err := c.lookAgain(ctx); err != nil {
		return err
	}
	// Now the backup exists.
	return c.envelopes(ctx, item{repo.ManifestKey(label), repo.KindManifest, 0})
}

// why is what a copy failed for: that the context ended, such as for the loss of a
// lease; or that the backup expired where it comes from. An expiry that began before
// removes the manifest first, so that what it takes next is no damage.
func (c *copying) why(ctx context.Context, label string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, gap := errors.AsType[*GapError](err)
	gone := errors.Is(err, fs.ErrNotExist)
	if !gap && !gone && !errors.Is(err, repo.ErrMissing) {
		return err
	}
	if there, failed := c.from.Exists(ctx, label); failed == nil && !there {
		return &RemovedError{label}
	}
	if gone {
		// A slice was replaced by a longer one or by the whole segment since the
		// listing: running again takes that.
		return fmt.Errorf("%v; if it was there a moment ago, run the copy again", err)
	}
	return err
}

func (o Options) find(ctx context.Context, from *repo.Repo) (string, error) {
	if o.Label != "" {
		return o.Label, repo.CheckLabel(o.Label)
	}
	labels, err := from.Backups(ctx)
	if err != nil {
		return "", err
	}
	if len(labels) == 0 {
		return "", ErrNoBackup
	}
	return labels[len(labels)-1], nil
}

// item is an envelope to copy and its size, 0 where that is not known.
type item struct {
	key  string
	kind repo.Kind
	size int64
}

// copying is a Run at work.
type copying struct {
	from, to *repo.Repo
	Options
	Result

	wal  []item
	size postgres.SegmentSize

	mu    sync.Mutex // holds what follows and Result
	done  int64
	total int64
}

// readManifest reads what the backup is, and that its manifest is whole. It is metadata,
// and the only thing that is opened; the packs themselves stay sealed.
func (c *copying) readManifest(ctx context.Context, label string) error {
	info, err := c.eachPack(ctx, label, func(p repo.PackRef) error {
		c.Packs++
		c.total += p.Size
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the repository holds no backup %s", label)
	}
	c.Info, c.size = info, info.SegSize
	return err
}

// eachPack reads the manifest and takes each pack of the backup as it comes: nothing
// holds all of them, of which whoever signs a manifest says how many they are.
func (c *copying) eachPack(ctx context.Context, label string, take func(repo.PackRef) error) (repo.Info, error) {
	m, err := c.from.OpenManifest(ctx, label)
	if err != nil {
		return repo.Info{}, err
	}
	defer m.Close()
	for p, err := range m.Packs() {
		if err != nil {
			return m.Info, err
		}
		if err := take(p.PackRef); err != nil {
			return m.Info, err
		}
	}
	return m.Info, nil
}

// content copies packs and WAL, several at once.
func (c *copying) content(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(c.Jobs, 1))
	_, err := c.eachPack(gctx, c.Info.Label, func(p repo.PackRef) error {
		g.Go(func() error {
			existed, err := c.from.CopyPack(gctx, c.to, p)
			if err != nil {
				return fmt.Errorf("copy: %w", err)
			}
			c.count(existed, p.Size, p.Size)
			return nil
		})
		return gctx.Err()
	})
	for _, w := range c.wal {
		if err != nil {
			break
		}
		g.Go(func() error { return c.envelopes(gctx, w) })
	}
	return cmp.Or(g.Wait(), err)
}

// envelopes copies envelopes, one after another.
func (c *copying) envelopes(ctx context.Context, items ...item) error {
	for _, it := range items {
		stored, err := c.from.CopyEnvelope(ctx, c.to, it.key, it.kind)
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		c.count(stored.Existed, stored.Bytes, it.size)
	}
	return nil
}

// optional copies an envelope that need not be there.
func (c *copying) optional(ctx context.Context, it item) error {
	if err := c.envelopes(ctx, it); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lookAgain makes sure that all that the backup needs is where it goes.
func (c *copying) lookAgain(ctx context.Context) error {
	there, _, err := c.to.ListPacks(ctx)
	if err != nil {
		return err
	}
	_, err = c.eachPack(ctx, c.Info.Label, func(p repo.PackRef) error {
		if i, ok := there.Find(p.ID); !ok || there[i].Size != p.Size {
			return fmt.Errorf("%s was there a moment ago, where it goes, and is gone: run the copy again", repo.PackKey(p.ID))
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = c.needs(ctx, c.to)
	if gap, ok := errors.AsType[*GapError](err); ok {
		return fmt.Errorf("the WAL segment %s was there a moment ago, where it goes, and is gone: run the copy again", gap.Missing)
	}
	return err
}

func (c *copying) count(existed bool, wrote, planned int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Objects++
	if existed {
		c.Existed++
	} else {
		c.Bytes += wrote
	}
	c.done += planned
	if c.Observe != nil && planned > 0 {
		c.Observe(Progress{c.done, c.total})
	}
}
