package wal

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// While a call waits for another repository, this one gets what is ready. What it is
// known to have is asked for by its header after a while, and not stored again;
// what has gone from it is.
func TestLookAhead(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	d := newDataDir(t, mixedNames...)
	var created atomic.Int64
	r := a.open(t, &hookStore{Store: a.store, before: func(context.Context, string) error { created.Add(1); return nil }}, "db1")
	ahead := a.ahead(d)
	ahead.Sealers = 1
	own := d.file(d.names[1])
	look := func(want int, what string) {
		t.Helper()
		created.Store(0)
		LookAhead(t.Context(), r, own, PushOptions{System: testSystem}, ahead)
		if got := created.Load(); got != int64(want) {
			t.Errorf("%s: %d objects were sent, want %d", what, got, want)
		}
	}
	look(len(d.names)-1, "the first time")
	look(0, "at once again")
	now := ahead.Memory.Now
	ahead.Memory.Now = func() time.Time { return now().Add(pushedAge + time.Minute) }
	look(0, "when the memory is old")
	if _, known := ahead.Memory.Recall(d.file(d.names[3])); !known {
		t.Error("what the header has shown is not remembered again")
	}
	later := ahead.Memory.Now
	ahead.Memory.Now = func() time.Time { return later().Add(pushedAge + time.Minute) }
	key := walName(t, d.names[3])
	if err := a.store.Delete(t.Context(), repo.WALKey(testSystem, key)); err != nil {
		t.Fatal(err)
	}
	look(1, "when one has gone")
}
