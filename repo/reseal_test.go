package repo

import (
	"math/rand/v2"
	"testing"

	"filippo.io/age"

	"github.com/lifeboat-dr/lifeboat/storage/fault"
)

// Metadata is sealed again to others, with every operation failing once: at every
// moment it can be read by who could before or by who shall, and the next run
// completes it.
func TestResealFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("long, and nothing in it races: run in full, without the race detector")
	}
	for _, mode := range []fault.Mode{fault.Before, fault.After, fault.Truncate, fault.Outage} {
		n := int64(1)
		for ; ; n++ {
			w := newWorld(t)
			files, packs := manifestOf(rand.New(rand.NewPCG(1, 2)))
			_, err := commit(t, w, testInfo(), files, packs)
			check(t, err)
			check(t, w.writer.RegisterSystem(t.Context(), testInfo().System, []byte("{}")))
			second, err := NewRecoveryKey(w.cluster)
			check(t, err)
			keys := w.writerKeys(t)
			keys.Recipients = recipientsOf(t, second)
			broken := fault.New(w.store, fault.Fault{At: n, Mode: mode})
			first := w.readAgain(t, w.readerKeys())
			both := w.readAgain(t, Keys{Identities: append([]age.Identity{}, append(w.recovery.Identities, second.Identities...)...), Trusted: w.recovery.Signers})

			reseal := func(r *Repo) error {
				all, err := r.Metadata(t.Context())
				if err != nil {
					return err
				}
				for _, o := range all {
					if err := r.Reseal(t.Context(), o); err != nil {
						return err
					}
				}
				return nil
			}
			r := over(t, w.writer, broken)
			r.metadata, r.keys = w.readAgain(t, keys).metadata, keys
			failed := reseal(r)
			wholeBackup(t, both)
			if !broken.Fired() {
				if failed != nil {
					t.Fatalf("%v without a fault", failed)
				}
				break
			}
			check(t, reseal(w.readAgain(t, keys)))
			wholeBackup(t, w.readAgain(t, Keys{Identities: second.Identities, Trusted: w.recovery.Signers}))
			if _, err := first.Info(t.Context(), testLabel); err == nil {
				t.Errorf("%s %d: what was sealed again opens with the old identity", mode, n)
			}
			for info, err := range w.store.List(t.Context(), "") {
				check(t, err)
				if key := info.Key; len(key) > 5 && key[len(key)-5:] == besideSuffix {
					t.Errorf("%s %d: %s is left", mode, n, key)
				}
			}
		}
		if n < 8 {
			t.Errorf("%s: only %d operations", mode, n)
		}
	}
}

// readAll reads the one backup as a restore does.
func wholeBackup(t *testing.T, r *Repo) {
	t.Helper()
	labels, err := r.Backups(t.Context())
	check(t, err)
	if len(labels) != 1 {
		t.Fatalf("backups %q", labels)
	}
	if ok, err := r.Exists(t.Context(), labels[0]); err != nil || !ok {
		t.Fatalf("it does not exist: %v", err)
	}
	if unfinished, err := r.Unfinished(t.Context()); err != nil || len(unfinished) != 0 {
		t.Fatalf("it is taken for unfinished: %v %v", unfinished, err)
	}
	_, err = r.Info(t.Context(), labels[0])
	check(t, err)
	m, err := r.OpenManifest(t.Context(), labels[0])
	check(t, err)
	defer m.Close()
	for _, err := range m.Packs() {
		check(t, err)
	}
}
