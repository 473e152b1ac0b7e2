package check

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
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// Options say what to check.
type Options struct {
	Read   bool      // read the objects, not only their names and sizes
	Sample float64   // the share of objects to read, over 0 up to 1; 0 is 1
	Seed   uint64    // chooses them
	Since  time.Time // leave out objects that were read since then, as far as that was recorded; zero: none
	Jobs   int       // objects that are read at a time; 0 is 4

	Policy expire.Policy // where WAL must be without a gap; without one, from every backup on

	// Headers says how the headers of a system's WAL are read; nil: all of them.
	Headers func(postgres.SystemID) wal.HeaderCheck

	Locks Locks // until when the store must keep the objects

	Now     func() time.Time
	Learn   func(context.Context, *wal.Index) error // as for expire; may be nil
	Observe func(Progress)                          // may be nil
	Warn    func(text string)                       // may be nil
	Host    string                                  // for the record
}

// Progress is how far the check is.
type Progress struct {
	Phase       string // list, backups, wal, headers, locks, read
	Done, Total int64  // bytes, when reading; headers; objects, with locks
}

// Count is objects and their bytes.
type Count struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (c *Count) add(bytes int64) { c.Objects++; c.Bytes += bytes }

// BackupResult is what is known of one backup.
type BackupResult struct {
	Label    string `json:"label"`
	OK       bool   `json:"ok"`                 // no finding spoils it, and all could be checked
	Unproven bool   `json:"unproven,omitempty"` // no finding spoils it, and not all could be checked
}

// Result is what a check found.
type Result struct {
	Began, Ended time.Time
	Findings     []*Finding
	Backups      []BackupResult // oldest first
	Unproven     []string       // what could not be checked, and why
	Unknown      []string       // objects that are none of ours: no finding
	Listed       Count          // what there is
	Wanted       Count          // what there is to read
	Read         Count          // of it, what was read
	Skipped      Count          // and what was left out, because it was read before
	Frames       int64          // that were opened
	Identity     bool           // data was opened, not only its hash compared
	Archives     map[postgres.SystemID]*wal.Index
	Locks        LockResult
	LocksRefused bool   // the store did not say all about Object Lock
	Recorded     string // where it is noted what was read; "" when it is not
}

// work is a check under way.
type work struct {
	repo    *repo.Repo // on the listing
	options Options
	list    *snapshot
	result  *Result

	mu      sync.Mutex
	bad     badPacks
	backups []*backup // those that can be read, oldest first
	indexes map[postgres.SystemID]*wal.Index
	uses    expire.Uses
	live    repo.PackSet
	sealed  bool     // a manifest was not read to its end, so any pack may be its
	hidden  []damage // objects of the archive that the listing leaves out now
	// listedOnly are the systems of whose archive not all headers could be read.
	listedOnly map[postgres.SystemID]bool

	doubted map[string]bool // labels of backups of which not all could be checked
}

// backup is a committed backup whose manifest was read to its end.
type backup struct {
	repo.Info
	packs repo.PackSet
}

// Run checks the repository. Findings are in the result and are no error; an
// error means that the check could not be done to its end, and nothing is
// proven.
func Run(ctx context.Context, r *repo.Repo, o Options) (*Result, error) {
	o = o.filled()
	res := &Result{Began: o.Now(), Identity: r.CanOpenData(), Findings: []*Finding{}}
	o.Observe(Progress{Phase: "list"})
	list, err := listAll(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("list the repository: %w", err)
	}
	on, err := r.On(list)
	if err != nil {
		return nil, err
	}
	if err := on.CheckPresent(ctx); err != nil {
		return nil, fmt.Errorf("check the marker: %w", err)
	}
	w := &work{repo: on, options: o, list: list, result: res, bad: newBadPacks(), live: list.packs.NewSet(), doubted: map[string]bool{}, listedOnly: map[postgres.SystemID]bool{},
		indexes: map[postgres.SystemID]*wal.Index{}, uses: expire.Uses{}}
	res.Listed = Count{int64(len(list.packs) + len(list.objects)), list.bytes}
	for _, step := range []func(context.Context) error{w.checkBackups, w.checkSmall, w.checkWAL, w.checkLocks, w.read, w.recheck} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	res.Archives = w.indexes
	w.conclude(ctx)
	return res, ctx.Err()
}

func (o Options) filled() Options {
	if o.Sample <= 0 || o.Sample > 1 {
		o.Sample = 1
	}
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	if o.Headers == nil {
		o.Headers = func(postgres.SystemID) wal.HeaderCheck { return wal.HeaderCheck{} }
	}
	if o.Learn == nil {
		o.Learn = func(context.Context, *wal.Index) error { return nil }
	}
	if o.Observe == nil {
		o.Observe = func(Progress) {}
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	return o
}

// find adds a finding; err is why.
func (w *work) find(c Code, object string, err error, backups ...string) *Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.add(c, object, err.Error())
	for _, b := range backups {
		f.spoil(b)
	}
	return f
}

// add is find for who holds the lock.
func (w *work) add(c Code, object, problem string) *Finding {
	f := &Finding{Code: c, Object: object, Problem: problem, Backups: []string{}, Do: advice(c)}
	w.result.Findings = append(w.result.Findings, f)
	return f
}

// checkBackups opens every manifest and compares its packs with the listing.
func (w *work) checkBackups(ctx context.Context) error {
	w.options.Observe(Progress{Phase: "backups"})
	directories, others, err := w.repo.Directories(ctx)
	if err != nil {
		return err
	}
	w.result.Unknown = append(append(w.result.Unknown, w.list.strange...), others...)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(repo.ManifestsAtOnce)
	for _, f := range directories {
		if f.Committed {
			g.Go(func() error { return w.checkBackup(gctx, f) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	slices.SortFunc(w.backups, func(a, b *backup) int { return a.StopTime.Compare(b.StopTime) })
	return nil
}

func (w *work) checkBackup(ctx context.Context, f repo.Directory) error {
	key := repo.ManifestKey(f.Label)
	b, err := w.readManifest(ctx, f.Label)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		return nil // expired since the listing
	case errors.Is(err, repo.ErrNoIdentity), errors.Is(err, repo.ErrWrongIdentity):
		// Without a key for metadata the signature and the sealed bytes are still told.
		if _, _, err := w.repo.CheckEnvelope(ctx, key, repo.KindManifest); err != nil {
			return w.spoiled(err, key, f.Label)
		}
		w.unopened(f.Label, "backup %s: its manifest cannot be opened: %v", f.Label, err)
		return nil
	default:
		return w.spoiled(err, key, f.Label)
	}
	w.mu.Lock()
	w.backups = append(w.backups, b)
	w.live.Join(b.packs)
	w.result.Backups = append(w.result.Backups, BackupResult{Label: f.Label})
	w.mu.Unlock()
	return w.checkBeside(ctx, f, b.Info)
}

// unopened notes a backup of which it is not known what it is made of.
func (w *work) unopened(label, format string, args ...any) {
	w.unprovenOf(label, format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.result.Backups = append(w.result.Backups, BackupResult{Label: label})
	w.sealed = true
}

// spoiled is the finding of a manifest, or the error of a store that failed.
func (w *work) spoiled(err error, key, label string) error {
	if !repo.AboutObject(err) {
		return fmt.Errorf("check %s: %w", key, err)
	}
	if repo.LaterFormat(err) {
		w.unopened(label, "backup %s is not known to this version of Lifeboat: %v", label, err)
		return nil
	}
	code := ManifestDamaged
	if _, forged := errors.AsType[*repo.UntrustedError](err); forged {
		code = ManifestUntrusted
	}
	f := w.find(code, key, err, label)
	f.Points = "none can be restored from this backup"
	w.mu.Lock()
	defer w.mu.Unlock()
	w.result.Backups = append(w.result.Backups, BackupResult{Label: label})
	w.sealed = true
	return nil
}

func (w *work) readManifest(ctx context.Context, label string) (*backup, error) {
	m, err := w.repo.OpenManifest(ctx, label)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	b := &backup{m.Info, w.list.packs.NewSet()}
	for p, err := range m.Packs() {
		if err != nil {
			return nil, err
		}
		i, ok := w.list.packs.Find(p.ID)
		switch {
		case !ok:
			w.badPack(w.findPack(PackMissing, p.ID, "the pack is missing", false), p, m.Files, label)
		case w.list.packs[i].Size != p.Size:
			problem := fmt.Sprintf("it has %d bytes, not %d", w.list.packs[i].Size, p.Size)
			w.badPack(w.findPack(PackSize, p.ID, problem, true), p, m.Files, label)
		default:
			b.packs.Add(i)
		}
	}
	return b, nil
}

// conclude says of each backup whether a finding spoils it. One of which not all
// could be checked is neither ok nor damaged.
func (w *work) conclude(context.Context) {
	res := w.result
	w.bad.conclude()
	sortFindings(res.Findings)
	slices.Sort(res.Unproven)
	slices.Sort(res.Unknown)
	slices.SortFunc(res.Backups, func(a, b BackupResult) int {
		if a.Label < b.Label {
			return -1
		}
		return 1
	})
	for i := range res.Backups {
		b := &res.Backups[i]
		spoiled := slices.ContainsFunc(res.Findings, func(f *Finding) bool { return slices.Contains(f.Backups, b.Label) })
		b.OK = !spoiled && !w.doubted[b.Label]
		b.Unproven = !spoiled && w.doubted[b.Label]
	}
	res.Ended = w.options.Now()
}
