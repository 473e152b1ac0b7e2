package expire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// full is a world with one of each kind of thing that goes or stays: three
// backups that share packs, a pinned one, a crashed one, a pack of nobody.
func full(t testing.TB) (*world, []string) {
	t.Helper()
	fullOnce.Do(func() {
		fullWorld, fullLabels = makeFull(t)
	})
	return fullWorld.fork(t), slices.Clone(fullLabels)
}

// What full makes is made once: sealing it takes longer than most tests with it.
var (
	fullOnce   sync.Once
	fullWorld  *world
	fullLabels []string
)

func makeFull(t testing.TB) (w *world, labels []string) {
	w = newWorld(t)
	labels = append(labels, w.backup(20, 100, ""))
	labels = append(labels, w.backup(10, 110, ""))
	labels = append(labels, w.backup(9, 120, labels[1]))
	labels = append(labels, w.backup(3, 130, labels[2]))
	w.at(15, func() {
		w.pack("nobody", 1)
		crashed := label(w.now.Add(-15*day), 1)
		w.check(w.repo.Adopt(t.Context(), crashed, repo.Adoption{Bases: labels[:1], Made: w.now}))
		text := []byte("x")
		_, err := w.repo.CreateEnvelope(t.Context(), repo.PartKey(crashed, 1), repo.KindPart, bytes.NewReader(text), 1)
		w.check(err)
		for _, no := range []int{100, 125, 135} {
			from, to := postgres.LSN(no*seg), postgres.LSN((no+1)*seg)
			_, err := w.repo.CreateEnvelope(t.Context(), repo.BlocksKey(system, 1, from, to), repo.KindBlocks, bytes.NewReader(text), 1)
			w.check(err)
		}
		for _, name := range []string{"00000002.history", "00000001000000000000006E.00000028.backup", "00000001000000000000006F.partial"} {
			n, err := postgres.ParseWALName(name)
			w.check(err)
			body := []byte("1\t0/8300000\tx\n")
			if n.Kind == postgres.WALPartial {
				body = make([]byte, seg)
			}
			_, err = w.repo.CreateEnvelope(t.Context(), repo.WALKey(system, n), repo.KindWAL, bytes.NewReader(body), int64(len(body)))
			w.check(err)
		}
		_, err = w.repo.CreateEnvelope(t.Context(), repo.SliceKey(system, 1, "000000010000000000000070", 0, 1), repo.KindWAL, bytes.NewReader(text), 1)
		w.check(err)
	})
	w.check(w.repo.SetPin(t.Context(), repo.Pin{Label: labels[0], Reason: "audit", Made: w.now}))
	w.check(w.repo.SetPin(t.Context(), repo.Pin{Label: labels[1], Until: w.now.Add(-day), Reason: "over", Made: w.now}))
	for _, at := range []time.Time{w.now.AddDate(-2, 0, 0), w.now} {
		w.check(w.store.Create(t.Context(), repo.CheckSummaryKey(repo.CheckID(at)), strings.NewReader("old")))
	}
	w.check(w.store.Create(t.Context(), "drills/20260101T000000Z-00000000", strings.NewReader("evidence")))
	return w, labels
}

var keepTwo = expire.Policy{KeepLast: 2, Window: 5 * day}

func TestRun(t *testing.T) {
	t.Parallel()
	w, labels := full(t)
	before := w.objects()
	dry, err := w.expire(w.store, keepTwo, true)
	w.check(err)
	sameKeys(t, "after a dry run", w.objects(), before)
	res, err := w.expire(w.store, keepTwo, false)
	w.check(err)
	if got, want := w.labels(), []string{labels[0], labels[2], labels[3]}; !slices.Equal(got, want) || !slices.Equal(res.Dropped, labels[1:2]) || !slices.Equal(dry.Dropped, labels[1:2]) {
		t.Fatalf("%v are left, not %v; %v dropped, %v in the dry run", got, want, res.Dropped, dry.Dropped)
	}
	w.sound("after it", keepTwo)
	// labels[2] took over both packs of labels[1], which is gone: only that of nobody goes.
	if res.Packs.Objects != 1 || res.Crashed.Objects != 3 || res.Blocks.Objects != 2 {
		t.Errorf("packs %+v, crashed %+v, blocks %+v", res.Packs, res.Crashed, res.Blocks)
	}
	// Segments 102 to 119, a partial, a backup history file and a slice; the history file stays.
	if res.WAL.Objects != 21 {
		t.Errorf("WAL %+v", res.WAL)
	}
	if dry.Packs != res.Packs || dry.WAL != res.WAL || dry.Crashed != res.Crashed || dry.Blocks != res.Blocks || dry.Backups != res.Backups {
		t.Errorf("the plan and what was done differ: %+v %+v, %+v %+v", dry.Backups, res.Backups, dry.WAL, res.WAL)
	}
	for _, key := range w.objects() {
		if strings.Contains(key, labels[1]) {
			t.Errorf("%s is left", key)
		}
	}
	if !slices.Contains(w.objects(), "drills/20260101T000000Z-00000000") || !slices.Contains(w.objects(), repo.WALKey(system, postgres.WALName{Kind: postgres.WALHistory, Timeline: 2})) {
		t.Error("evidence or a history file is gone")
	}
	left := w.objects()
	again, err := w.expire(w.store, keepTwo, false)
	w.check(err)
	if again.Packs.Objects+again.WAL.Objects+again.Crashed.Objects+again.Blocks.Objects+again.Backups.Objects != 0 {
		t.Errorf("a second run removed %+v", again)
	}
	sameKeys(t, "after a second run", w.objects(), left)
}

// The store dies at the n-th operation, for every n: what is left is sound, and
// the next run ends where one that was not disturbed does.
func TestRunDiesAnywhere(t *testing.T) {
	t.Parallel()
	first, labels := full(t)
	first.known = wal.NewHeaders(first.repo.TrustID()) // as on a host that has looked before
	whole := first.fork(t)
	_, err := whole.expire(whole.store, keepTwo, false)
	first.check(err)
	want := whole.objects()
	kept := []string{labels[0], labels[2], labels[3]}
	for _, mode := range []fault.Mode{fault.Outage, fault.After} {
		last := 0
		for n := range operations() {
			last = n
			w := first.fork(t)
			f := fault.New(w.store, fault.Fault{At: int64(n), Mode: mode, Err: storage.ErrUnavailable})
			_, err := w.expire(f, keepTwo, false)
			if !f.Fired() {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			when := fmt.Sprintf("%v at %s (operation %d)", mode, f.FiredAt(), n)
			if err == nil && !strings.Contains(f.FiredAt(), "leases/") {
				t.Errorf("%s: no error", when)
			}
			for _, l := range kept {
				if !slices.Contains(w.labels(), l) {
					t.Fatalf("%s: backup %s is gone", when, l)
				}
			}
			w.verify(when, keepTwo, n%5 == 1)
			if _, err := w.expire(w.store, keepTwo, false); err != nil {
				t.Fatalf("after %s: %v", when, err)
			}
			sameKeys(t, "after "+when, w.objects(), want)
			if t.Failed() {
				return
			}
		}
		t.Logf("%v: died at up to %d operations", mode, last-1)
		if last < 50 {
			t.Errorf("only %d operations failed", last-1)
		}
	}
}

// pg_hardstorage #39: the collector removed what a running backup had taken
// over. A backup begins to adopt before any operation of the expiry, and commits
// at once or when the expiry is over; pgBackRest 2.59: it runs on another host.
func TestRunBesideABackupThatAdopts(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	var labels []string
	for i, ago := range []float64{20, 10, 3} {
		labels = append(labels, first.backup(ago, 100+10*i, ""))
	}
	for _, late := range []bool{false, true} {
		adopted := 0
		for n := range operations() {
			w := first.fork(t)
			fresh := label(w.now, 0xabcdef)
			commit := func() {}
			adopts := func() {
				w.check(w.repo.Adopt(t.Context(), fresh, repo.Adoption{Bases: []string{labels[1]}, Made: w.now}))
				there, err := w.repo.Exists(t.Context(), labels[1])
				w.check(err)
				if there {
					adopted++
					commit = func() { w.commit(fresh, 125, w.files[labels[1]], w.packs[labels[1]]) }
				}
				if !late {
					commit()
				}
			}
			h := fault.New(w.store, fault.Fault{At: int64(n), Mode: fault.Meanwhile, Do: adopts})
			_, err := w.expire(h, expire.Policy{KeepLast: 1}, false)
			w.check(err)
			if late {
				commit()
			}
			w.verify(fmt.Sprintf("adopted before operation %d, late %v", n, late), expire.Policy{KeepLast: 1}, n%5 == 1)
			if !h.Fired() || t.Failed() {
				break
			}
		}
		if !often(adopted, 8) {
			t.Errorf("the backup adopted in %d runs only", adopted)
		}
	}
}

// What a running backup takes over of one that is gone cannot be told: then no
// pack goes that no backup names. A crashed attempt that is adopted counts too.
func TestRunLeavesPacksOfWhatIsGone(t *testing.T) {
	t.Parallel()
	for name, base := range map[string]func(w *world, labels []string) string{
		"a crashed attempt": func(w *world, _ []string) string { return label(w.now.Add(-15*day), 1) },
		"an expired backup": func(w *world, _ []string) string { return label(w.now.Add(-30*day), 7) },
	} {
		w, labels := full(t)
		w.check(w.repo.Adopt(t.Context(), label(w.now, 5), repo.Adoption{Bases: []string{base(w, labels)}, Made: w.now}))
		res, err := w.expire(w.store, keepTwo, false)
		w.check(err)
		if res.Packs.Objects != 0 || res.Plan.Unswept == "" {
			t.Errorf("%s: %d packs went, %q", name, res.Packs.Objects, res.Plan.Unswept)
		}
	}
}

// A backup that has been running for three days has packs older than a day that
// nothing names yet.
func TestRunBesideALongBackup(t *testing.T) {
	t.Parallel()
	for _, directory := range []bool{true, false} { // a full backup has none before its end
		w := newWorld(t)
		w.backup(10, 100, "")
		w.backup(5, 110, "")
		var packs []repo.PackEntry
		w.at(2, func() { _, packs = w.pack("long", 3) })
		lease, err := w.repo.AcquireLease(t.Context(), "backup", repo.Claim{Holder: "db1"}, w.now.Add(-3*day))
		w.check(err)
		w.check(lease.Renew(t.Context(), w.now))
		if directory {
			w.at(3, func() {
				w.check(w.repo.Adopt(t.Context(), label(w.now.Add(-3*day), 9), repo.Adoption{Made: w.now}))
			})
		}
		_, err = w.expire(w.store, keepTwo, false)
		w.check(err)
		for _, p := range packs {
			if _, err := w.store.Stat(t.Context(), repo.PackKey(p.ID)); err != nil {
				t.Errorf("a pack of a running backup, with a directory %v: %v", directory, err)
			}
		}
	}
}

// Two expiries at once: the lease keeps the second away; and if the first slept
// through its end, both do no harm, wherever the second comes in between.
func TestTwoRuns(t *testing.T) {
	t.Parallel()
	first, _ := full(t)
	whole := first.fork(t)
	_, err := whole.expire(whole.store, keepTwo, false)
	first.check(err)
	want := whole.objects()
	for n := range operations() {
		w := first.fork(t)
		h := fault.New(w.store, fault.Fault{At: int64(n), Mode: fault.Meanwhile, Do: func() {
			if _, err := w.expire(w.store, keepTwo, false); err != nil {
				t.Errorf("the second one at operation %d: %v", n, err)
			}
		}})
		_, err := w.expire(h, keepTwo, false)
		if _, leased := errors.AsType[*repo.LeasedError](err); err != nil && !leased && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("with a second one at operation %d: %v", n, err)
		}
		w.verify(fmt.Sprintf("a second one at operation %d", n), keepTwo, n%5 == 1)
		sameKeys(t, fmt.Sprintf("a second one at operation %d", n), w.objects(), want)
		if !h.Fired() || t.Failed() {
			break
		}
	}
}

func TestRunBesideALease(t *testing.T) {
	t.Parallel()
	w, _ := full(t)
	_, err := w.repo.AcquireLease(t.Context(), expire.LeaseName, repo.Claim{Holder: "other"}, w.now)
	w.check(err)
	_, err = expire.Run(t.Context(), w.repo, expire.Options{Policy: keepTwo, Now: func() time.Time { return w.now }})
	if _, leased := errors.AsType[*repo.LeasedError](err); !leased {
		t.Errorf("while another holds the lease: %v", err)
	}
}

// What the store locks stays, is told, and goes later. A backup whose manifest
// is locked stays whole.
func TestRunUnderObjectLock(t *testing.T) {
	t.Parallel()
	w, labels := full(t)
	until := w.now.Add(5 * day)
	w.store.lock[repo.ManifestKey(labels[1])] = until
	n, err := postgres.ParseWALName(postgres.Segment{Timeline: 1, No: 105, Size: seg}.Name())
	w.check(err)
	w.store.lock[repo.WALKey(system, n)] = until
	res, err := w.expire(w.store, keepTwo, false)
	w.check(err)
	if len(res.Locked) != 2 || !res.Locked[0].Until.Equal(until) || !slices.Contains(w.labels(), labels[1]) {
		t.Errorf("locked %+v, left %v", res.Locked, w.labels())
	}
	w.sound("while it is locked", keepTwo)
	clear(w.store.lock)
	res, err = w.expire(w.store, keepTwo, false)
	w.check(err)
	if slices.Contains(w.labels(), labels[1]) || len(res.Locked) != 0 || res.WAL.Objects != 5 { // 105, 110 and 111, a partial and a backup history file
		t.Errorf("after the lock: %v, %+v", w.labels(), res.WAL)
	}
}

// denied lets nobody delete.
type denied struct{ *ageing }

func (denied) Delete(context.Context, string) error { return storage.ErrDenied }

func TestRunMayNotDelete(t *testing.T) {
	t.Parallel()
	w, _ := full(t)
	before := w.objects()
	res, err := w.expire(denied{w.store}, keepTwo, false)
	if _, ok := errors.AsType[*expire.DeniedError](err); !ok || len(res.Dropped) != 0 || res.After != nil {
		t.Errorf("without the right to delete: %v, %v dropped, after it %v", err, res.Dropped, res.After)
	}
	sameKeys(t, "without the right to delete", w.objects(), before)
}

// A clock that is wrong makes all backups old.
func TestRunWithAWrongClock(t *testing.T) {
	t.Parallel()
	w, _ := full(t)
	before := w.objects()
	w.now = w.now.AddDate(1, 0, 0)
	_, err := w.expire(w.store, keepTwo, false)
	if _, ok := errors.AsType[*expire.ClockError](err); !ok {
		t.Errorf("a year ahead: %v", err)
	}
	sameKeys(t, "a year ahead", w.objects(), before)
}

// A backup whose manifest is damaged may name any pack: none goes while it
// stays. With none that is restorable nothing goes at all.
func TestRunWithDamage(t *testing.T) {
	t.Parallel()
	w, labels := full(t)
	spoil := func(key string) {
		w.check(w.store.Delete(t.Context(), key))
		w.check(w.store.Create(t.Context(), key, strings.NewReader("garbage")))
	}
	spoil(repo.ManifestKey(labels[2]))
	res, err := w.expire(w.store, keepTwo, false)
	w.check(err)
	if res.Packs.Objects != 0 || res.Plan.Unswept == "" || !slices.Contains(w.labels(), labels[2]) {
		t.Errorf("beside a damaged manifest: %+v", res)
	}
	for _, l := range labels {
		spoil(repo.ManifestKey(l))
	}
	before := w.objects()
	if _, err = w.expire(w.store, keepTwo, false); !errors.Is(err, expire.ErrNoneRestorable) {
		t.Errorf("with nothing but damaged manifests: %v", err)
	}
	sameKeys(t, "with nothing but damaged manifests", w.objects(), before)
}
