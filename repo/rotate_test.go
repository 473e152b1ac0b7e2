package repo

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
)

// retiring are the options to retire the world's first cluster key, also when an
// attempt before left its leases behind.
func (w *world) retiring() ResealOptions {
	return ResealOptions{Retire: []PublicKey{w.cluster.Signing.Public()}, Now: func() time.Time { return testTime },
		Claim: Claim{Holder: "test", Process: "p", Gone: func(string) bool { return true }}}
}

// asPinned fails the test unless the reader finds what putPins has said.
func asPinned(t *testing.T, r *Repo) {
	t.Helper()
	pins, err := r.Pins(t.Context())
	check(t, err)
	for _, p := range pins {
		if p.Err != nil {
			t.Errorf("the pin of %s cannot be read: %v", p.Label, p.Err)
		}
	}
	if len(pins) != 2 || pins[0].Label != pinned || pins[0].Reason != "audit" || !pins[0].Holds(testTime) || pins[1].Holds(testTime) {
		t.Errorf("%+v", pins)
	}
}

// putPins pins one backup; another one until yesterday; and takes the pin off a third.
func (w *world) putPins(t *testing.T) {
	t.Helper()
	for _, p := range []Pin{{Label: pinned, Reason: "audit"}, {Label: "20260201T020000Z-1a2b3c", Until: testTime.Add(-time.Hour)},
		{Label: "20260202T020000Z-1a2b3c"}, {Label: "20260202T020000Z-1a2b3c", Off: true}} {
		check(t, w.writer.SetPin(t.Context(), p))
	}
}

// A pin says after its signer is retired what it said before: the one that holds, the
// one that is over, and the one that was taken off.
func TestResealAllPins(t *testing.T) {
	w := newWorld(t)
	w.putPins(t)
	junk := "20260203T020000Z-1a2b3c"
	w.put(t, pinKey(junk, 1), []byte("junk"))
	_, writer := w.successor(t)
	n, err := writer.ResealAll(t.Context(), w.retiring())
	if err != nil || n != 3 {
		t.Fatalf("%d sealed again, %v", n, err)
	}
	pins, err := w.readAgain(t, w.readerKeys()).Pins(t.Context())
	check(t, err)
	if len(pins) != 3 || pins[2].Label != junk || pins[2].Err == nil {
		t.Errorf("one that cannot be read holds no more: %+v", pins)
	}
	check(t, w.store.Delete(t.Context(), pinKey(junk, 1)))
	asPinned(t, w.readAgain(t, w.readerKeys()))
	asPinned(t, writer)
	if n, err = writer.ResealAll(t.Context(), w.retiring()); err != nil || n != 0 {
		t.Errorf("%d sealed again once more, %v", n, err)
	}
	// Another recipient reads them too.
	second, err := NewRecoveryKey(w.cluster)
	check(t, err)
	keys := writer.keys
	keys.Recipients = append(recipientsOf(t, w.recovery), recipientsOf(t, second)...)
	o := w.retiring()
	o.Retire = nil
	_, err = w.readAgain(t, keys).ResealAll(t.Context(), o)
	check(t, err)
	asPinned(t, w.readAgain(t, Keys{Identities: second.Identities, Trusted: w.recovery.Signers}))
}

// copyOf is a store with the same objects.
func copyOf(t *testing.T, s *mem.Store) *mem.Store {
	t.Helper()
	out := mem.New()
	for info, err := range s.List(t.Context(), "") {
		check(t, err)
		check(t, out.Create(t.Context(), info.Key, bytes.NewReader(suite.Read(t, s, info.Key))))
	}
	return out
}

// A key is retired, with every operation failing once: at every moment all can be
// read, and the next run completes it.
func TestResealAllFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	first := newWorld(t)
	files, packs := manifestOf(rand.New(rand.NewPCG(1, 2)))
	_, err := commit(t, first, testInfo(), files, packs)
	check(t, err)
	first.putPins(t)
	next, _ := first.successor(t)
	keys := Keys{Cluster: next, Recipients: recipientsOf(t, first.recovery)}
	for _, mode := range []fault.Mode{fault.Before, fault.After, fault.Truncate, fault.Outage} {
		n := int64(1)
		for ; ; n++ {
			w := *first
			w.store = copyOf(t, first.store)
			broken := fault.New(w.store, fault.Fault{At: n, Mode: mode})
			_, failed := over(t, w.readAgain(t, keys), broken).ResealAll(t.Context(), w.retiring())
			r := w.readAgain(t, w.readerKeys())
			wholeBackup(t, r)
			asPinned(t, r)
			if !broken.Fired() {
				if failed != nil {
					t.Fatalf("%v without a fault", failed)
				}
				break
			}
			_, err := w.readAgain(t, keys).ResealAll(t.Context(), w.retiring())
			check(t, err)
			r = w.readAgain(t, w.readerKeys())
			wholeBackup(t, r)
			asPinned(t, r)
			if r.who().cuts[w.cluster.Signing.Public().String()] == nil {
				t.Errorf("%s %d: the key is not retired", mode, n)
			}
			for info, err := range w.store.List(t.Context(), "") {
				check(t, err)
				if strings.HasSuffix(info.Key, besideSuffix) {
					t.Errorf("%s %d: %s is left", mode, n, info.Key)
				}
			}
		}
		if n < 20 {
			t.Errorf("%s: only %d operations", mode, n)
		}
	}
}

// While a backup or an expiry works, nothing is sealed again.
func TestResealAllWaits(t *testing.T) {
	w := newWorld(t)
	w.putPins(t)
	_, writer := w.successor(t)
	for _, name := range []string{BackupLease, ExpireLease} {
		lease, err := w.writer.AcquireLease(t.Context(), name, Claim{Holder: "db2"}, testTime)
		check(t, err)
		o := w.retiring()
		o.Claim.Gone = nil
		n, err := writer.ResealAll(t.Context(), o)
		var leased *LeasedError
		if !errors.As(err, &leased) || leased.Name != name || n != 0 {
			t.Errorf("while %s is held: %d, %v", name, n, err)
		}
		check(t, lease.Release(t.Context()))
	}
	_, err := writer.ResealAll(t.Context(), w.retiring())
	check(t, err)
}
