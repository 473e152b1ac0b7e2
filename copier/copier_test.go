package copier

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

const (
	system = postgres.SystemID(7300000000000000001)
	label  = "20260131T020000Z-1a2b3c"
	size   = 1 << 20
)

// origin is a repository with one backup of two packs, its WAL and some after it.
type origin struct {
	store storage.Store
	keys  repo.Keys
	all   repo.Keys // with the identity
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	ctx := context.Background()
	cluster, err := repo.NewClusterKey("main", repo.NewID())
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{store: mem.New(), keys: repo.Keys{Cluster: cluster, Recipients: []age.Recipient{id.Recipient()}}}
	o.all = o.keys
	o.all.Identities = []age.Identity{id}
	r, err := repo.Create(ctx, o.store, o.keys, "db1", time.Unix(1800000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterSystem(ctx, system, []byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"000000010000000000000003", "000000010000000000000004", "000000010000000000000005", "000000010000000000000006"} {
		putWAL(t, r, name, waltest.SegmentBytes(waltest.Segment(t, name, size), system, 1))
	}
	// The next one is there in two slices, another timeline from before is not wanted.
	next := waltest.SegmentBytes(waltest.Segment(t, "000000010000000000000007", size), system, 1)
	put(t, r, repo.SliceKey(system, 1, "000000010000000000000007", 0, 1000), repo.KindWAL, next[:1000])
	put(t, r, repo.SliceKey(system, 1, "000000010000000000000007", 1000, 3000), repo.KindWAL, next[1000:3000])
	putWAL(t, r, "00000002.history", []byte("1\t0/600000\tno recovery target specified\n"))
	putBackup(t, r)
	return o
}

func putWAL(t *testing.T, r *repo.Repo, name string, content []byte) {
	t.Helper()
	n, err := postgres.ParseWALName(name)
	if err != nil {
		t.Fatal(err)
	}
	put(t, r, repo.WALKey(system, n), repo.KindWAL, content)
}

func put(t *testing.T, r *repo.Repo, key string, kind repo.Kind, content []byte) {
	t.Helper()
	if _, err := r.CreateEnvelope(context.Background(), key, kind, bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
}

func putBackup(t *testing.T, r *repo.Repo) {
	t.Helper()
	ctx := context.Background()
	m := r.NewManifestWriter()
	defer m.Close()
	var files []repo.FileEntry
	for i := range 2 {
		w, err := r.NewPackWriter(repo.NewPackBuffers(1), repo.Fastest)
		if err != nil {
			t.Fatal(err)
		}
		raw := make([]byte, 5000)
		rand.Read(raw)
		f, err := w.Add(ctx, raw)
		if err != nil {
			t.Fatal(err)
		}
		p, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.StorePack(ctx, p); err != nil {
			t.Fatal(err)
		}
		entry := repo.PackEntry{PackRef: p.PackRef, Frames: []repo.FrameEntry{{FrameRef: f, To: []repo.Span{{File: i, Len: 5000}}}}}
		if err := m.Add(entry); err != nil {
			t.Fatal(err)
		}
		files = append(files, repo.FileEntry{Type: repo.Regular, Path: fmt.Sprintf("f%d", i), Mode: 0o600, Size: 5000})
	}
	put(t, r, repo.FingerprintsKey(label), repo.KindFingerprints, []byte("{}\n"))
	info := repo.Info{Label: label, System: system, Timeline: 1, StartLSN: 0x400028, StopLSN: 0x500100, SegSize: size, BlockSize: 8192}
	if err := m.Commit(ctx, &info, files); err != nil {
		t.Fatal(err)
	}
}

func (o *origin) open(t *testing.T, store storage.Store) *repo.Repo {
	t.Helper()
	r, err := repo.Open(context.Background(), store, o.keys, "db1")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run copies from one store to another.
func (o *origin) run(from, to storage.Store, opt Options) (*Result, error) {
	ctx := context.Background()
	r, err := repo.Open(ctx, from, o.keys, "db1")
	if err != nil {
		return nil, err
	}
	dest, err := r.OpenCopy(ctx, to)
	if err != nil {
		return nil, err
	}
	opt.Jobs, opt.Now, opt.Claim = 1, func() time.Time { return time.Unix(1800000000, 0) }, repo.Claim{Holder: "test", Process: "p", Gone: func(string) bool { return true }}
	return Run(ctx, r, dest, opt)
}

func objects(t *testing.T, store storage.Store) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for info, err := range store.List(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(info.Key, "leases/") {
			all[info.Key] = info.Size
		}
	}
	return all
}

// wholeCopy reads all that a restore from there would need.
func (o *origin) wholeCopy(t *testing.T, store storage.Store) {
	t.Helper()
	ctx := context.Background()
	r, err := repo.Open(ctx, store, o.all, "elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.OpenManifest(ctx, label)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	reader, err := r.NewPackReader()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for p, err := range m.Packs() {
		if err != nil {
			t.Fatal(err)
		}
		pack, err := r.FetchPack(ctx, p.PackRef, []repo.FrameRef{p.Frames[0].FrameRef})
		if err == nil {
			_, err = reader.Frame(pack, p.Frames[0].FrameRef)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"000000010000000000000004", "000000010000000000000005"} {
		n, _ := postgres.ParseWALName(name)
		if raw, _, err := r.ReadEnvelope(ctx, repo.WALKey(system, n), repo.KindWAL, size); err != nil || len(raw) != size {
			t.Fatalf("%s: %d bytes, %v", name, len(raw), err)
		}
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	to := mem.New()
	r, err := o.run(o.store, to, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Packs != 2 || r.Segments != 2 || r.First != "000000010000000000000004" || r.Last != "000000010000000000000005" || r.Existed != 0 {
		t.Errorf("%+v", r)
	}
	o.wholeCopy(t, to)
	have, all := objects(t, to), objects(t, o.store)
	for key, n := range have {
		if all[key] != n {
			t.Errorf("%s has %d bytes, and %d where it came from", key, n, all[key])
		}
	}
	// All that is left out: a segment before, two after, and slices.
	if len(have) != len(all)-4 {
		t.Errorf("%d of %d objects", len(have), len(all))
	}
	if r, err = o.run(o.store, to, Options{Through: true, Label: label}); err != nil || r.Segments != 4 || r.Bytes == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if have = objects(t, to); len(have) != len(all)-1 {
		t.Errorf("%d of %d objects", len(have), len(all))
	}
	// From the copy back to an empty place: it is worth as much as the original.
	back := mem.New()
	if _, err := o.run(to, back, Options{}); err != nil {
		t.Fatal(err)
	}
	o.wholeCopy(t, back)
}

// Whatever operation fails, in either place: the error surfaces, there is no
// backup or a whole one, and running again completes it.
func TestRunFaults(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	for _, mode := range []fault.Mode{fault.Before, fault.After, fault.Truncate, fault.Outage} {
		for _, side := range []string{"from", "to"} {
			n := int64(1)
			for ; ; n++ {
				inner := mem.New()
				from, to := o.store, storage.Store(inner)
				broken := fault.New(from, fault.Fault{At: n, Mode: mode})
				if side == "to" {
					broken = fault.New(inner, fault.Fault{At: n, Mode: mode})
					to = broken
				} else {
					from = broken
				}
				_, err := o.run(from, to, Options{Through: true})
				if !broken.Fired() {
					if err != nil {
						t.Fatalf("%s %s: %v without a fault", side, mode, err)
					}
					break
				}
				if _, committed := objects(t, inner)[repo.ManifestKey(label)]; committed {
					o.wholeCopy(t, inner)
				} else if err == nil {
					t.Errorf("%s, operation %d %s: no error and no backup", side, n, mode)
				}
				if _, err := o.run(o.store, inner, Options{Through: true}); err != nil {
					t.Fatalf("%s, operation %d %s: run again: %v", side, n, mode, err)
				}
				o.wholeCopy(t, inner)
			}
			if n < 6 {
				t.Errorf("%s %s: only %d operations", side, mode, n)
			}
		}
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	damaged := func(change func(store storage.Store), want func(error) bool) {
		t.Helper()
		o := newOrigin(t)
		change(o.store)
		to := mem.New()
		_, err := o.run(o.store, to, Options{})
		if _, committed := objects(t, to)[repo.ManifestKey(label)]; committed || !want(err) {
			t.Errorf("committed %t, %v", committed, err)
		}
	}
	remove := func(key string) func(storage.Store) {
		return func(s storage.Store) {
			if err := s.Delete(ctx, key); err != nil {
				t.Fatal(err)
			}
		}
	}
	pack := func(s storage.Store) string {
		for info := range s.List(ctx, "packs/") {
			return info.Key
		}
		return ""
	}
	n, _ := postgres.ParseWALName("000000010000000000000005")
	damaged(remove(repo.WALKey(system, n)), func(err error) bool {
		e, ok := errors.AsType[*GapError](err)
		return ok && e.Missing == "000000010000000000000005"
	})
	damaged(remove(repo.ManifestKey(label)), func(err error) bool { return errors.Is(err, ErrNoBackup) })
	damaged(func(s storage.Store) { remove(pack(s))(s) }, func(err error) bool { return errors.Is(err, repo.ErrMissing) })
	damaged(func(s storage.Store) {
		key := pack(s)
		remove(key)(s)
		if err := s.Create(ctx, key, strings.NewReader("junk")); err != nil {
			t.Fatal(err)
		}
	}, func(err error) bool { _, ok := errors.AsType[*repo.CorruptError](err); return ok })

	// Another repository, and other content under a name.
	a, b := newOrigin(t), newOrigin(t)
	if _, err := a.run(a.store, b.store, Options{}); err == nil {
		t.Error("a copy went into another repository")
	}
	to := mem.New()
	r := a.open(t, a.store)
	dest, err := r.OpenCopy(ctx, to)
	if err != nil {
		t.Fatal(err)
	}
	putWAL(t, dest, "000000010000000000000004", waltest.SegmentBytes(waltest.Segment(t, "000000010000000000000004", size), system, 2))
	_, err = a.run(a.store, to, Options{})
	if _, ok := errors.AsType[*repo.ConflictError](err); !ok {
		t.Errorf("two primaries: %v", err)
	}
}

// What was there already goes before the manifest is written, whoever took it away:
// there is no backup then, and running again makes it whole.
func TestRunLooksAgain(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	n, _ := postgres.ParseWALName("000000010000000000000005")
	var pack string
	for info := range o.store.List(context.Background(), "packs/") {
		pack = info.Key
	}
	for _, lost := range []string{pack, repo.WALKey(system, n)} {
		stopped := false
		for at := int64(1); !stopped; at++ {
			to := mem.New()
			if _, err := o.run(o.store, to, Options{}); err != nil {
				t.Fatal(err)
			}
			if err := to.Delete(context.Background(), repo.ManifestKey(label)); err != nil {
				t.Fatal(err)
			}
			h := fault.New(to, fault.Fault{At: at, Mode: fault.Meanwhile, Do: func() {
				if err := to.Delete(context.Background(), lost); err != nil {
					t.Fatal(err)
				}
			}})
			_, err := o.run(o.store, h, Options{})
			// The last look at this kind of thing; what comes after, no look can see.
			stopped = strings.HasPrefix(h.FiredAt(), "list "+lost[:3])
			if !h.Fired() {
				t.Fatalf("nobody looks at %s again", lost)
			}
			have := objects(t, to)
			_, whole := have[lost]
			if _, committed := have[repo.ManifestKey(label)]; committed != (err == nil) || committed && !whole {
				t.Errorf("%s goes at %s: committed %t, %v", lost, h.FiredAt(), committed, err)
			}
			if _, err := o.run(o.store, to, Options{}); err != nil {
				t.Fatal(err)
			}
			o.wholeCopy(t, to)
		}
	}
}
