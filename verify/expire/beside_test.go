package expire_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/copier"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
)

// politely expires as another host does: a lease that somebody holds, it waits for.
func (w *world) politely(p expire.Policy) error {
	_, err := expire.Run(context.Background(), w.repo, expire.Options{Policy: p, Jobs: 1, Now: func() time.Time { return w.now }, Claim: repo.Claim{Holder: "expirer"}})
	return err
}

// removed says whether an expiry did its work, or left it because of a lease.
func removed(t *testing.T, err error) bool {
	t.Helper()
	if _, leased := errors.AsType[*repo.LeasedError](err); err != nil && !leased {
		t.Fatal(err)
	}
	return err == nil
}

// A backup is copied to where its packs lie already, and an old one that they belong
// to expires there at each moment of it: the copy is whole, or is none.
func TestRunBesideACopy(t *testing.T) {
	t.Parallel()
	source := newWorld(t)
	old := source.backup(20, 100, "")
	copied := source.backup(10, 110, old)
	source.backup(3, 120, "")
	place := source.fork(t)
	for _, key := range place.objects() {
		if strings.Contains(key, copied) {
			place.check(place.store.Delete(t.Context(), key))
		}
	}
	policy := expire.Policy{KeepLast: 1}
	expired, kept := 0, 0
	for n := range operations() {
		w := place.fork(t)
		var beside error
		h := fault.New(w.store, fault.Fault{At: int64(n), Mode: fault.Meanwhile, Do: func() { beside = w.politely(policy) }})
		to, err := source.repo.OpenCopy(t.Context(), h)
		w.check(err)
		_, err = copier.Run(t.Context(), source.repo, to, copier.Options{Label: copied, Jobs: 1, Now: func() time.Time { return w.now }, Claim: repo.Claim{Holder: "copy"}})
		if !h.Fired() {
			w.check(err)
			break
		}
		if removed(t, beside) {
			expired++
		} else {
			kept++
		}
		when := fmt.Sprintf("at %s (operation %d)", h.FiredAt(), n)
		there := slices.Contains(w.labels(), copied)
		// Once it is there, and the leases given back, the policy counts for it too.
		late := removed(t, beside) && strings.Contains(h.FiredAt(), "leases/")
		if err != nil && there || err == nil && !there && !late {
			t.Errorf("%s: the copy is there: %t, and said %v", when, there, err)
		}
		w.sound(when, policy)
		if t.Failed() {
			return
		}
	}
	if !often(expired, 3) || !often(kept, 10) || expired+kept < 3 {
		t.Errorf("%d expiries beside the copy removed something, %d waited for it", expired, kept)
	}
}

// Metadata is sealed again, and the policy removes a backup at each moment of it: the
// backup is gone, or is there whole.
func TestRunBesideAReseal(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	first.backup(20, 100, "")
	first.backup(3, 110, "")
	policy := expire.Policy{KeepLast: 1}
	expired, kept := 0, 0
	for n := range operations() {
		w := first.fork(t)
		var beside error
		h := fault.New(w.store, fault.Fault{At: int64(n), Mode: fault.Meanwhile, Do: func() { beside = w.politely(policy) }})
		r, err := repo.Open(t.Context(), h, w.keys, "db1")
		w.check(err)
		_, err = r.ResealAll(t.Context(), repo.ResealOptions{Now: func() time.Time { return w.now }, Claim: repo.Claim{Holder: "key rotate"}})
		if _, leased := errors.AsType[*repo.LeasedError](err); err != nil && !leased {
			t.Fatal(err)
		}
		if !h.Fired() {
			break
		}
		want := 2
		if removed(t, beside) {
			expired++
			want = 1
		} else {
			kept++
		}
		when := fmt.Sprintf("at %s (operation %d)", h.FiredAt(), n)
		if got := len(w.labels()); got != want {
			t.Errorf("%s: %d backups are left, not %d", when, got, want)
		}
		w.sound(when, policy)
		if t.Failed() {
			return
		}
	}
	if !often(expired, 3) || !often(kept, 10) || expired+kept < 3 {
		t.Errorf("%d expiries beside it removed something, %d waited for it", expired, kept)
	}
}

// A host with the recovery key alone, far from the cluster, expires as one with the
// cluster key does.
func TestRunWithARecoveryKey(t *testing.T) {
	t.Parallel()
	first, _ := full(t)
	whole := first.fork(t)
	_, err := whole.expire(whole.store, keepTwo, false)
	first.check(err)
	w := first.fork(t)
	w.keys = repo.Keys{Identities: first.keys.Identities, Trusted: first.keys.Trusted}
	res, err := w.expire(w.store, keepTwo, false)
	w.check(err)
	if res.Plan.Unswept != "" {
		t.Errorf("packs are left: %s", res.Plan.Unswept)
	}
	sameKeys(t, "with the recovery key alone", w.objects(), whole.objects())
	w.sound("with the recovery key alone", keepTwo)
}

// A backup expires where it comes from, at each moment while it is copied: no damage
// is told, and the copy is whole or is none.
func TestRunWhereACopyComesFrom(t *testing.T) {
	t.Parallel()
	first := newWorld(t)
	copied := first.backup(20, 100, "")
	first.backup(3, 120, "")
	told := 0
	for n := range operations() {
		source := first.fork(t)
		h := fault.New(source.store, fault.Fault{At: int64(n), Mode: fault.Meanwhile, Do: func() { source.check(source.politely(expire.Policy{KeepLast: 1})) }})
		from, err := repo.Open(t.Context(), h, source.keys, "db1")
		source.check(err)
		place := source.fork(t) // with nothing but the marker
		for _, key := range place.objects() {
			if key != repo.MarkerKey {
				place.check(place.store.Delete(t.Context(), key))
			}
		}
		to, err := from.OpenCopy(t.Context(), place.store)
		source.check(err)
		_, err = copier.Run(t.Context(), from, to, copier.Options{Label: copied, Jobs: 1, Now: func() time.Time { return source.now }, Claim: repo.Claim{Holder: "copy"}})
		if !h.Fired() {
			source.check(err)
			break
		}
		when := fmt.Sprintf("at %s (operation %d)", h.FiredAt(), n)
		if _, ok := errors.AsType[*copier.RemovedError](err); ok {
			told++
		} else if err != nil && !strings.Contains(err.Error(), "holds no backup") {
			t.Errorf("%s: %v", when, err)
		}
		if there := len(place.labels()) > 0; there != (err == nil) {
			t.Errorf("%s: the copy is there: %t, and said %v", when, there, err)
		}
	}
	if !often(told, 5) {
		t.Errorf("%d copies were told that their backup expired", told)
	}
}
