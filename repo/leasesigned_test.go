package repo

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// From who signs nobody takes the lease who can only write: neither by what stands above
// it, nor by a copy of what was signed.
func TestSignedLease(t *testing.T) {
	w := newWorld(t)
	s := newClocked()
	host, other := over(t, w.writer, s), over(t, w.writer, s)
	lease, err := host.AcquireLease(t.Context(), "backup", Claim{Holder: "db1"}, testTime)
	check(t, err)
	signed := leaseKey("backup", lease.gen)
	raw, err := readSmall(t.Context(), s, signed, maxLease)
	check(t, err)
	const record = `{"holder":"thief","token":"x","since":"2026-01-31T02:00:00Z","expires":"%s"}`
	for gen, content := range map[uint64]string{
		2: "junk", 3: fmt.Sprintf(record, "2026-01-31T02:03:00Z"), 4: fmt.Sprintf(record, "2026-01-31T01:00:00Z"),
		5: string(raw), 1<<63 + 5: fmt.Sprintf(record, "9999-01-31T02:03:00Z"), ^uint64(0): string(raw),
	} {
		check(t, s.Create(t.Context(), leaseKey("backup", gen), strings.NewReader(content)))
	}
	var held *LeasedError
	if _, err := other.AcquireLease(t.Context(), "backup", Claim{Holder: "db2"}, testTime); !errors.As(err, &held) || held.Holder != "db1" || held.Unsigned {
		t.Errorf("a second holder: %v", err)
	}
	for range 3 {
		check(t, lease.Renew(t.Context(), testTime))
	}
	if _, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: "copy"}, testTime); !leased(err) {
		t.Errorf("who signs nothing takes it: %v", err)
	}
	check(t, lease.Release(t.Context()))
	// What was signed and removed is stored once more, with a new time: it is not the last word.
	check(t, s.Create(t.Context(), signed, strings.NewReader(string(raw))))
	s.now = s.now.Add(leaseLasts)
	next, err := other.AcquireLease(t.Context(), "backup", Claim{Holder: "db2"}, testTime)
	check(t, err)
	check(t, next.Release(t.Context()))
}

// Somebody stores a new unsigned lease, or thousands, as often as he likes: a backup waits
// for the length of one lease, and a host without a key as long as it goes on.
func TestUnsignedLeasesForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		put := func(round int) {
			rec := fmt.Sprintf(`{"holder":"thief","token":"%d","since":"2026-01-31T02:00:00Z","expires":"9999-01-31T02:00:00Z"}`, round)
			for i := range uint64(300) {
				_ = w.store.Create(t.Context(), leaseKey("backup", uint64(round)*1000+i+1), strings.NewReader(rec))
			}
		}
		put(1)
		stop := make(chan struct{})
		go func() {
			for round := 2; ; round++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Minute):
					put(round)
				}
			}
		}()
		began, warned := time.Now(), 0
		held, release, err := w.writer.HoldLease(t.Context(), "backup", Claim{Holder: "db1"}, time.Now, func(error) { warned++ })
		check(t, err)
		if waited := time.Since(began); waited > leaseLasts || waited < time.Minute || warned != 1 {
			t.Errorf("waited %s, warned %d times", waited, warned)
		}
		time.Sleep(10 * time.Minute)
		if held.Err() != nil {
			t.Errorf("lost while it was renewed: %v", held.Err())
		}
		release()
		if _, err := keyless(w.store).AcquireLease(t.Context(), "backup", Claim{Holder: "copy"}, time.Now()); !leased(err) {
			t.Errorf("who signs nothing: %v", err)
		}
		close(stop)
		time.Sleep(2 * leaseLasts)
		if _, err := keyless(w.store).AcquireLease(t.Context(), "backup", Claim{Holder: "copy"}, time.Now()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// What a holder could not remove, or never came to, the next one removes: a row has one
// record however many holders died, and costs as much to read.
func TestLeasesAreRemovedByTheNext(t *testing.T) {
	w := newWorld(t)
	s := newClocked()
	host := over(t, w.writer, s)
	for gen := range uint64(20) {
		check(t, s.Create(t.Context(), leaseKey("backup", 3*gen+1), strings.NewReader("junk")))
	}
	for range 3 { // holders that die
		_, err := host.AcquireLease(t.Context(), "backup", Claim{Holder: "db1"}, testTime)
		check(t, err)
		s.now = s.now.Add(leaseLasts)
		if left := generations(t, s); len(left) > 20 { // those above stay: nothing tells them from later ones
			t.Fatalf("%d records are left", len(left))
		}
	}
	lease, err := host.AcquireLease(t.Context(), "backup", Claim{Holder: "db1"}, testTime)
	check(t, err)
	for range 60 {
		check(t, lease.Renew(t.Context(), testTime))
	}
	if left := generations(t, s); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}
