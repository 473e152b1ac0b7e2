package repo

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage/fault"
)

const pinned = "20260131T020000Z-1a2b3c"

func TestPins(t *testing.T) {
	w := newWorld(t)
	if pins, err := w.reader.Pins(t.Context()); err != nil || len(pins) != 0 {
		t.Fatalf("%v, %v", pins, err)
	}
	p := Pin{Label: pinned, Until: testTime.AddDate(1, 0, 0), Reason: "audit", By: "db1", Made: testTime}
	check(t, w.writer.SetPin(t.Context(), p))
	p.Reason = "audit, longer"
	check(t, w.writer.SetPin(t.Context(), p))
	// Who can read manifests can read pins.
	pins, err := w.reader.Pins(t.Context())
	check(t, err)
	if len(pins) != 1 || pins[0].Err != nil || pins[0].Pin != p {
		t.Errorf("%+v", pins)
	}
	if !p.Holds(testTime) || p.Holds(p.Until) || !(Pin{}).Holds(testTime) {
		t.Error("a pin holds until its end, without an end for ever")
	}
	p.Off = true
	check(t, w.writer.SetPin(t.Context(), p))
	if pins, err := w.writer.Pins(t.Context()); err != nil || len(pins) != 0 {
		t.Errorf("taken off, and there: %v, %v", pins, err)
	}
	if err := w.reader.SetPin(t.Context(), p); !errors.Is(err, ErrReadOnly) {
		t.Errorf("pinned without a signing key: %v", err)
	}
	if err := w.writer.SetPin(t.Context(), Pin{Label: "../x"}); err == nil {
		t.Error("pinned what is no label")
	}
	if err := w.writer.SetPin(t.Context(), Pin{Label: pinned, Reason: strings.Repeat("x", MaxPinReason+1)}); err == nil {
		t.Error("pinned with an endless reason")
	}
}

// A pin that is damaged, forged or moved may have held: it is told, and whoever
// expires keeps the backup.
func TestPinsThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	other := "20260201T020000Z-1a2b3c"
	check(t, w.writer.SetPin(t.Context(), Pin{Label: pinned, Reason: "x"}))
	check(t, w.writer.SetPin(t.Context(), Pin{Label: other, Reason: "y"}))
	w.put(t, pinKey(pinned, 2), w.get(t, pinKey(other, 1)))
	raw := w.get(t, pinKey(other, 1))
	raw[len(raw)-1] ^= 1
	w.put(t, pinKey(other, 1), raw)
	pins, err := w.reader.Pins(t.Context())
	check(t, err)
	if len(pins) != 2 || pins[0].Label != pinned || pins[1].Label != other {
		t.Fatalf("%+v", pins)
	}
	var untrusted *UntrustedError
	var corrupt *CorruptError
	if !errors.As(pins[0].Err, &untrusted) || !errors.As(pins[1].Err, &corrupt) {
		t.Errorf("%v, %v", pins[0].Err, pins[1].Err)
	}
	// A store that fails is neither a pin nor none.
	for n := int64(1); n < 4; n++ {
		broken := over(t, w.reader, fault.New(w.store, fault.Fault{At: n}))
		if _, err := broken.Pins(t.Context()); !errors.Is(err, fault.ErrInjected) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("operation %d fails: %v", n, err)
		}
	}
}

func TestDirs(t *testing.T) {
	w := newWorld(t)
	check(t, w.writer.Adopt(t.Context(), pinned, Adoption{Bases: []string{pinned}, Made: testTime}))
	w.put(t, "backups/note.txt", nil)
	w.put(t, ManifestKey("20260201T020000Z-1a2b3c"), nil)
	directories, others, err := w.reader.Directories(t.Context())
	check(t, err)
	if len(others) != 1 || len(directories) != 2 || !directories[0].Adopts || directories[0].Committed || !directories[1].Committed ||
		!directories[0].Began().Equal(time.Date(2026, 1, 31, 2, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v, %v", directories, others)
	}
}

func TestPackList(t *testing.T) {
	w := newWorld(t)
	id := strings.Repeat("ab", 32)
	w.put(t, PackKey(id), []byte("12345"))
	w.put(t, PackKey(strings.Repeat("0", 64)), nil)
	w.put(t, packsPrefix+"readme", nil)
	list, others, err := w.reader.ListPacks(t.Context())
	check(t, err)
	i, ok := list.Find(id)
	if !ok || i != 1 || list[i].Size != 5 || list[i].Key() != PackKey(id) || len(others) != 1 {
		t.Errorf("%d %v in %v, others %v", i, ok, list, others)
	}
	for _, absent := range []string{strings.Repeat("cd", 32), "x", ""} {
		if _, ok := list.Find(absent); ok {
			t.Errorf("found %q", absent)
		}
	}
}

func TestLookAtLease(t *testing.T) {
	w := newWorld(t)
	if l, err := w.writer.LookAtLease(t.Context(), "backup", testTime); err != nil || l.Held {
		t.Fatalf("%+v, %v", l, err)
	}
	lease, err := w.writer.AcquireLease(t.Context(), "backup", Claim{Holder: "db1"}, testTime)
	check(t, err)
	l, err := w.writer.LookAtLease(t.Context(), "backup", testTime)
	if err != nil || !l.Held || l.Holder != "db1" || !l.Since.Equal(testTime) {
		t.Errorf("%+v, %v", l, err)
	}
	if l, _ := w.writer.LookAtLease(t.Context(), "backup", time.Now().Add(time.Hour)); l.Held {
		t.Error("held for ever")
	}
	check(t, lease.Release(t.Context()))
	if l, _ := w.writer.LookAtLease(t.Context(), "backup", testTime); l.Held {
		t.Error("held after it was given back")
	}
}
