package expire_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/verify/check"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/wal"
)

const (
	system = postgres.SystemID(7000000000000000001)
	seg    = 1 << 20
	day    = 24 * time.Hour
)

// world is a repository whose objects have the ages that a test gives them.
type world struct {
	t     testing.TB
	store *ageing
	repo  *repo.Repo
	keys  repo.Keys
	now   time.Time
	files map[string][]repo.FileEntry // by label
	packs map[string][]repo.PackEntry
	known *wal.Headers // that need not be read again; nil: all are read
}

// ageing is a store that says of what is created when its clock was.
type ageing struct {
	storage.Store
	mu    sync.Mutex
	clock time.Time
	made  map[string]time.Time
	lock  map[string]time.Time // Object Lock
}

func (a *ageing) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	err := a.Store.Create(ctx, key, body)
	if err == nil {
		a.mu.Lock()
		a.made[key] = a.clock
		a.mu.Unlock()
	}
	return err
}

func (a *ageing) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for info, err := range a.Store.List(ctx, prefix) {
			a.mu.Lock()
			info.ModTime = a.made[info.Key]
			a.mu.Unlock()
			if !yield(info, err) {
				return
			}
		}
	}
}

func (a *ageing) LockedUntil(_ context.Context, key string) (time.Time, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lock[key], nil
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, now: time.Now().UTC().Truncate(time.Second), files: map[string][]repo.FileEntry{}, packs: map[string][]repo.PackEntry{},
		store: &ageing{Store: mem.New(), made: map[string]time.Time{}, lock: map[string]time.Time{}}}
	cluster, err := repo.NewClusterKey("shop", repo.NewID())
	w.check(err)
	recovery, err := repo.NewRecoveryKey(cluster)
	w.check(err)
	w.keys = repo.Keys{Cluster: cluster, Identities: recovery.Identities, Trusted: recovery.Signers}
	for _, s := range recovery.Recipients() {
		r, err := repo.ParseRecipient(s)
		w.check(err)
		w.keys.Recipients = append(w.keys.Recipients, r)
	}
	w.repo, err = repo.Create(t.Context(), w.store, w.keys, "db1", w.now)
	w.check(err)
	w.check(w.repo.RegisterSystem(t.Context(), system, []byte("{}")))
	w.store.clock = w.now
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// at does something when it was some days before now.
func (w *world) at(ago float64, do func()) {
	w.store.clock = w.now.Add(-time.Duration(ago * float64(day)))
	do()
	w.store.clock = w.now
}

// fork is the same world on a copy of its store.
func (w *world) fork(t testing.TB) *world {
	t.Helper()
	out := &world{t: t, keys: w.keys, now: w.now, files: maps.Clone(w.files), packs: maps.Clone(w.packs), known: w.known,
		store: &ageing{Store: mem.New(), made: maps.Clone(w.store.made), lock: maps.Clone(w.store.lock), clock: w.now}}
	for info, err := range w.store.List(context.Background(), "") {
		out.check(err)
		rc, err := w.store.Open(context.Background(), info.Key, 0, -1)
		out.check(err)
		raw, err := io.ReadAll(rc)
		out.check(err)
		out.check(rc.Close())
		out.check(out.store.Store.Create(context.Background(), info.Key, bytes.NewReader(raw)))
	}
	var err error
	out.repo, err = repo.Open(context.Background(), out.store, out.keys, "db1")
	out.check(err)
	return out
}

func label(at time.Time, n int) string {
	return fmt.Sprintf("%s-%06x", at.UTC().Format("20060102T150405Z"), n)
}

// wal archives the segments from first to last.
func (w *world) wal(tl postgres.Timeline, first, last int) {
	w.t.Helper()
	for no := first; no <= last; no++ {
		s := postgres.Segment{Timeline: tl, No: uint64(no), Size: seg}
		body := make([]byte, seg) // nothing but a header: it is read over and over
		copy(body, waltest.SegmentBytes(s, system, 1)[:postgres.SegmentHeaderSize])
		name, err := postgres.ParseWALName(s.Name())
		w.check(err)
		_, err = w.repo.CreateEnvelope(context.Background(), repo.WALKey(system, name), repo.KindWAL, bytes.NewReader(body), seg)
		w.check(err)
	}
}

// backup commits a backup of the segment first and the one after it, with a pack
// of its own and those of base, and archives WAL up to the next one.
func (w *world) backup(ago float64, first int, base string) string {
	w.t.Helper()
	l := label(w.now.Add(-time.Duration(ago*float64(day))), first)
	w.at(ago, func() {
		w.wal(1, first, first+9)
		files, packs := w.pack(l, 2)
		for i, p := range w.packs[base] { // each as a file of its own
			var size int64
			p.Frames = slices.Clone(p.Frames)
			for j := range p.Frames {
				p.Frames[j].To = []repo.Span{{File: len(files), Off: size, Len: p.Frames[j].Raw}}
				size += int64(p.Frames[j].Raw)
			}
			files = append(files, repo.FileEntry{Type: repo.Regular, Path: fmt.Sprintf("base/%s/%d", base, i), Mode: 0o600, Size: size})
			packs = append(packs, p)
		}
		w.commit(l, first, files, packs)
	})
	return l
}

// pack stores n packs of one file each.
func (w *world) pack(prefix string, n int) (files []repo.FileEntry, packs []repo.PackEntry) {
	w.t.Helper()
	ctx := context.Background()
	pw, err := w.repo.NewPackWriter(repo.NewPackBuffers(1), repo.Fastest)
	w.check(err)
	for i := range n {
		raw := []byte(fmt.Sprintf("%s %d", prefix, i))
		ref, err := pw.Add(ctx, raw)
		w.check(err)
		sealed, err := pw.Finish()
		w.check(err)
		w.check(w.repo.StorePack(ctx, sealed))
		packs = append(packs, repo.PackEntry{PackRef: sealed.PackRef, Frames: []repo.FrameEntry{{FrameRef: ref, To: []repo.Span{{File: i, Len: len(raw)}}}}})
		sealed.Release()
		files = append(files, repo.FileEntry{Type: repo.Regular, Path: fmt.Sprintf("%s/%d", prefix, i), Mode: 0o600, Size: int64(len(raw))})
	}
	return files, packs
}

func (w *world) commit(l string, first int, files []repo.FileEntry, packs []repo.PackEntry) {
	w.t.Helper()
	m := w.repo.NewManifestWriter()
	for _, p := range packs {
		w.check(m.Add(p))
	}
	stop, _ := repo.LabelTime(l)
	info := repo.Info{Label: l, System: system, Timeline: 1, StartLSN: postgres.LSN(first*seg + 40), StopLSN: postgres.LSN((first+1)*seg + 80),
		StartTime: stop, StopTime: stop, PGVersion: 150000, SegSize: seg, BlockSize: 8192, Source: "db1"}
	w.check(m.Commit(context.Background(), &info, files))
	w.files[l], w.packs[l] = files, packs
}

// expire runs with the world's clock.
func (w *world) expire(store storage.Store, p expire.Policy, dry bool) (*expire.Result, error) {
	r, err := repo.Open(context.Background(), store, w.keys, "expirer")
	if err != nil {
		return nil, err
	}
	look := expire.Look{Headers: func(postgres.SystemID) wal.HeaderCheck { return wal.HeaderCheck{Known: w.known} }}
	return expire.Run(context.Background(), r, expire.Options{Policy: p, Look: look, DryRun: dry, Jobs: 1, Now: func() time.Time { return w.now },
		Claim: repo.Claim{Holder: "test", Process: "p", Gone: func(string) bool { return true }}})
}

func (w *world) labels() []string {
	w.t.Helper()
	labels, err := w.repo.Backups(context.Background())
	w.check(err)
	return labels
}

// keys are all objects but leases.
func (w *world) objects() []string {
	w.t.Helper()
	var out []string
	for info, err := range w.store.List(context.Background(), "") {
		w.check(err)
		if !strings.HasPrefix(info.Key, repo.LeasesPrefix) {
			out = append(out, info.Key)
		}
	}
	return out
}

// sound fails the test unless every backup that is committed can be restored,
// each frame of it opens, and the policy finds the WAL that it wants.
func (w *world) sound(when string, p expire.Policy) {
	w.t.Helper()
	w.verify(when, p, true)
}

var expireEvery = flag.Int("expire-every", 5, "tests in which something happens at an operation of an expiry try every n-th, and all with 1")

// operations are those at which a test lets something happen: every n-th, from a random
// one of the first, until the test ends the loop.
func operations() iter.Seq[int] {
	return func(yield func(int) bool) {
		for n := 1 + rand.IntN(*expireEvery); yield(n); n += *expireEvery {
		}
	}
}

// often says whether what happens at this many operations in a row was seen as many
// times as it must be where only every n-th is tried.
func often(seen, inARow int) bool { return seen >= inARow / *expireEvery }

// verify checks every object that is left, with read by its content too. An expiry
// writes none, so that a run which dies at each operation in turn reads some times only.
func (w *world) verify(when string, p expire.Policy, read bool) {
	w.t.Helper()
	// Without the cluster key it records nothing: the objects are compared too.
	r, err := repo.Open(context.Background(), w.store, repo.Keys{Identities: w.keys.Identities, Trusted: w.keys.Trusted}, "checker")
	w.check(err)
	res, err := check.Run(context.Background(), r, check.Options{Read: read, Policy: p, Now: func() time.Time { return w.now }, Host: "test"})
	if err != nil {
		w.t.Errorf("%s: %v", when, err)
		return
	}
	for _, f := range res.Findings {
		w.t.Errorf("%s: %s %s: %s, spoils %v", when, f.Code, f.Object, f.Problem, f.Backups)
	}
}

func sameKeys(t testing.TB, when string, have, want []string) {
	t.Helper()
	for _, key := range want {
		if !slices.Contains(have, key) {
			t.Errorf("%s: %s is gone", when, key)
		}
	}
	for _, key := range have {
		if !slices.Contains(want, key) {
			t.Errorf("%s: %s is left", when, key)
		}
	}
}
