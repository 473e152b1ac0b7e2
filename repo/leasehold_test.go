package repo

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// lossy fails as many writes of leases as it is told to.
type lossy struct {
	storage.Store
	fail atomic.Int32
}

func (s *lossy) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	if s.fail.Add(-1) >= 0 {
		return storage.ErrUnavailable
	}
	return s.Store.Create(ctx, key, body)
}

// Two renewals that fail are no reason to stop: the third may still come in time.
// With three it would not.
func TestHoldLeaseOutlivesAShortFailure(t *testing.T) {
	for fails, lost := range map[int32]bool{2: false, 3: true} {
		synctest.Test(t, func(t *testing.T) {
			s := &lossy{Store: mem.New()}
			held, release, err := keyless(s).HoldLease(t.Context(), "backup", Claim{Holder: "host-a"}, time.Now, nil)
			check(t, err)
			s.fail.Store(fails)
			time.Sleep(leaseTTL - RenewEvery + time.Second)
			if got := held.Err() != nil; got != lost {
				t.Errorf("after %d failures: %v", fails, context.Cause(held))
			}
			s.fail.Store(0)
			time.Sleep(2 * RenewEvery)
			if held.Err() != nil != lost {
				t.Errorf("when the store is back after %d failures: %v", fails, context.Cause(held))
			}
			if _, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: "host-b"}, time.Now()); !lost && !leased(err) {
				t.Errorf("another one takes it meanwhile: %v", err)
			}
			release()
		})
	}
}

func FuzzLease(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"holder":"h","token":"t","since":"2026-01-31T02:00:00Z","expires":"2026-01-31T02:03:00Z"}`,
		`{"since":"0001-01-01T00:00:00Z"}`, `{"since":"99999-01-31T02:00:00Z","expires":"x"}`} {
		f.Add([]byte(s))
	}
	w := newWorld(f)
	signed, err := w.writer.signLease("leases/x/00000000000000000001", leaseRecord{Holder: "h", Token: "t", Since: testTime, Expires: testTime.Add(time.Hour)})
	check(f, err)
	f.Add(signed)
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := parseLease("leases/x", b)
		if err != nil {
			if !refused(err) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if e := leasedBy("x", &seenLease{rec: rec, made: testTime}).Error(); strings.ContainsAny(e, "\x1b\n\r\x00") {
			t.Errorf("%q", e)
		}
		if w.writer.signedLease("leases/x", rec) {
			t.Error("it counts as signed")
		}
	})
}
