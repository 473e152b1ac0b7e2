package expire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
)

// half seals the manifest of a backup again and is stopped when the new one lies
// beside it: both are there, or the new one alone. It returns its key.
func (w *world) half(l string, alone bool) string {
	w.t.Helper()
	o := repo.MetadataObject{Key: repo.ManifestKey(l), Kind: repo.KindManifest}
	for n := int64(1); n < 50; n++ {
		f := fault.New(w.store, fault.Fault{At: n, Mode: fault.Outage, Err: storage.ErrUnavailable})
		if r, err := repo.Open(w.t.Context(), f, w.keys, "rotator"); err == nil {
			_ = r.Reseal(w.t.Context(), o)
		}
		var there []string
		for _, key := range w.objects() {
			if strings.HasPrefix(key, o.Key) {
				there = append(there, key)
			}
		}
		if slices.Contains(there, o.Key) == alone || len(there) == 1 && !alone {
			continue
		}
		return there[len(there)-1]
	}
	w.t.Fatal("the manifest never lay beside its place")
	return ""
}

// A rotation was stopped with the new manifest beside the old one, and an expiry
// removes the backup. Another adopts it before any operation of that: it finds the
// backup there and whole, or gone.
func TestRunBesideABackupThatAdoptsHalfSealedAgain(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{false, true} {
		first := newWorld(t)
		base := first.backup(10, 100, "")
		first.backup(3, 110, "")
		first.half(base, alone)
		adopted, found := 0, 0
		for n := range operations() {
			w := first.fork(t)
			fresh := label(w.now, 0xabcdef)
			commit := func() {}
			h := fault.New(w.store, fault.Fault{At: int64(n), Mode: fault.Meanwhile, Do: func() {
				w.check(w.repo.Adopt(t.Context(), fresh, repo.Adoption{Bases: []string{base}, Made: w.now}))
				there, err := w.repo.Exists(t.Context(), base)
				w.check(err)
				if found++; there {
					adopted++
					commit = func() { w.commit(fresh, 115, w.files[base], w.packs[base]) }
				}
			}})
			_, err := w.expire(h, expire.Policy{KeepLast: 1}, false)
			w.check(err)
			commit()
			w.verify(fmt.Sprintf("adopted before operation %d (%s), the new one alone %v", n, h.FiredAt(), alone), expire.Policy{KeepLast: 1}, n%5 == 1)
			if !h.Fired() || t.Failed() {
				break
			}
		}
		if !often(adopted, 8) || adopted == found {
			t.Errorf("the base was there in %d of %d runs", adopted, found)
		}
	}
}

// A lock on the new manifest alone keeps the backup as one on the old one does.
func TestRunUnderObjectLockOfTheNewManifest(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{false, true} {
		w := newWorld(t)
		old := w.backup(10, 100, "")
		w.backup(3, 110, "")
		key := w.half(old, alone)
		w.store.lock[key] = w.now.Add(5 * day)
		for _, dry := range []bool{true, false} {
			res, err := w.expire(w.store, expire.Policy{KeepLast: 1}, dry)
			w.check(err)
			if len(res.Locked) != 1 || res.Locked[0].Key != key || len(res.Dropped) != 0 || res.Packs.Objects != 0 {
				t.Errorf("the new one alone %v, dry %v: locked %+v, dropped %v, packs %+v", alone, dry, res.Locked, res.Dropped, res.Packs)
			}
		}
		w.sound("while it is locked", expire.Policy{KeepLast: 1})
		clear(w.store.lock)
		dry, err := w.expire(w.store, expire.Policy{KeepLast: 1}, true)
		w.check(err)
		res, err := w.expire(w.store, expire.Policy{KeepLast: 1}, false)
		w.check(err)
		if len(w.labels()) != 1 || res.Packs.Objects != 2 || res.Backups != dry.Backups {
			t.Errorf("after the lock: %v, packs %+v, backups %+v, in the dry run %+v", w.labels(), res.Packs, res.Backups, dry.Backups)
		}
	}
}

// The manifest of a backup that is to go is damaged, and locked: nobody knows which
// packs are its, and they stay with it.
func TestRunUnderObjectLockOfADamagedManifest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.backup(10, 100, "")
	w.backup(3, 110, "")
	key := repo.ManifestKey(old)
	w.check(w.store.Delete(t.Context(), key))
	w.check(w.store.Create(t.Context(), key, strings.NewReader("garbage")))
	w.store.lock[key] = w.now.Add(5 * day)
	for _, dry := range []bool{true, false} {
		res, err := w.expire(w.store, expire.Policy{KeepLast: 1}, dry)
		w.check(err)
		if len(res.Locked) != 1 || res.Packs.Objects != 0 || !strings.Contains(res.Plan.Unswept, old) {
			t.Errorf("dry %v: locked %+v, packs %+v, %q", dry, res.Locked, res.Packs, res.Plan.Unswept)
		}
	}
	clear(w.store.lock)
	if res, err := w.expire(w.store, expire.Policy{KeepLast: 1}, false); err != nil || res.Packs.Objects != 2 || len(w.labels()) != 1 {
		t.Errorf("after the lock: %v, %+v, %v", err, res.Packs, w.labels())
	}
}
