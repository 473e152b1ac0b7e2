package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

func leased(err error) bool {
	var l *LeasedError
	return errors.As(err, &l)
}

// clocked is a store whose clock is set by hand.
type clocked struct {
	storage.Store
	mu   sync.Mutex
	now  time.Time
	made map[string]time.Time
}

func newClocked() *clocked {
	return &clocked{Store: mem.New(), now: testTime, made: map[string]time.Time{}}
}

func (s *clocked) Create(ctx context.Context, key string, body io.ReadSeeker) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.Store.Create(ctx, key, body)
	if err == nil {
		s.made[key] = s.now
	}
	return err
}

func (s *clocked) at(info storage.Info) storage.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	info.ModTime = s.made[info.Key]
	return info
}

func (s *clocked) Stat(ctx context.Context, key string) (storage.Info, error) {
	info, err := s.Store.Stat(ctx, key)
	return s.at(info), err
}

func (s *clocked) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for info, err := range s.Store.List(ctx, prefix) {
			if !yield(s.at(info), err) {
				return
			}
		}
	}
}

// keyless is a host that signs nothing.
func keyless(s storage.Store) *Repo { return &Repo{store: s} }

func acquire(t *testing.T, s *clocked, holder string, now time.Time) *Lease {
	t.Helper()
	s.now = now
	l, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: holder}, now)
	check(t, err)
	return l
}

func generations(t *testing.T, s storage.Store) []string {
	t.Helper()
	var out []string
	for info, err := range s.List(t.Context(), leasesPrefix) {
		check(t, err)
		out = append(out, info.Key)
	}
	return out
}

func TestLeaseTakeRenewRelease(t *testing.T) {
	s, now := newClocked(), testTime
	a := acquire(t, s, "host-a", now)
	_, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: "host-b"}, now)
	var held *LeasedError
	if !errors.As(err, &held) || held.Holder != "host-a" || !held.Until.Equal(now.Add(leaseLasts)) || !held.Unsigned {
		t.Errorf("a second holder: %v", err)
	}
	if _, err := keyless(s).AcquireLease(t.Context(), "expire", Claim{Holder: "host-b"}, now); err != nil {
		t.Errorf("a lease of another name: %v", err)
	}
	for range 5 {
		now = now.Add(leaseTTL - time.Second)
		s.now = now
		check(t, a.Renew(t.Context(), now))
		if _, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: "host-b"}, now); !leased(err) {
			t.Errorf("taken after a renewal: %v", err)
		}
	}
	check(t, a.Release(t.Context()))
	b := acquire(t, s, "host-b", now) // need not wait
	check(t, b.Release(t.Context()))
	if got := generations(t, s); len(got) != 2 {
		t.Errorf("old generations stay: %v", got)
	}
}

func TestLeaseTakeover(t *testing.T) {
	s := newClocked()
	a := acquire(t, s, "host-a", testTime)
	for _, c := range []struct {
		after time.Duration
		free  bool
	}{{0, false}, {leaseTTL, false}, {leaseTTL + leaseSkew - 1, false}, {leaseTTL + leaseSkew, true}} {
		now := testTime.Add(c.after)
		s.now = now
		b, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: "host-b"}, now)
		if (err == nil) != c.free || err != nil && !leased(err) {
			t.Errorf("after %s: %v", c.after, err)
		}
		if err != nil {
			continue
		}
		if err := a.Renew(t.Context(), now); !leased(err) {
			t.Errorf("the old holder renews: %v", err)
		}
		check(t, b.Renew(t.Context(), now))
	}
}

// TestLeaseSleeper: a holder that slept while others went many generations on,
// and removed those that it knew, finds its next name free. It must not take
// that for success.
func TestLeaseSleeper(t *testing.T) {
	for _, act := range []string{"renew", "release"} {
		s, now := newClocked(), testTime
		sleeper := acquire(t, s, "sleeper", now)
		now = now.Add(time.Hour)
		s.now = now
		b := acquire(t, s, "host-b", now)
		for range 3 {
			check(t, b.Renew(t.Context(), now))
		}
		before := generations(t, s)
		err := sleeper.Renew(t.Context(), now)
		if act == "release" {
			err = sleeper.Release(t.Context())
		}
		var held *LeasedError
		if !errors.As(err, &held) || held.Holder != "host-b" {
			t.Errorf("%s of the sleeper: %v", act, err)
		}
		if got := generations(t, s); !slices.Equal(got, before) {
			t.Errorf("%s of the sleeper leaves %v, not %v", act, got, before)
		}
		check(t, b.Renew(t.Context(), now))
	}
}

// TestLeaseLostAnswers: the store did what it was asked and the answer was
// lost. The holder must not lock itself out.
func TestLeaseLostAnswers(t *testing.T) {
	s := mem.New()
	lost := &forgetful{Store: s, n: 1}
	a, err := keyless(lost).AcquireLease(t.Context(), "backup", Claim{Holder: "host-a"}, testTime)
	check(t, err)
	if err := a.Renew(t.Context(), testTime); err == nil || leased(err) {
		t.Errorf("the answer was lost: %v", err)
	}
	check(t, a.Renew(t.Context(), testTime.Add(time.Minute)))
	if _, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: "host-b"}, testTime.Add(leaseTTL)); !leased(err) {
		t.Errorf("another takes it: %v", err)
	}
	check(t, a.Release(t.Context()))
	// A store that sends a write twice answers that the key is taken.
	twice, err := keyless(doubling{s}).AcquireLease(t.Context(), "backup", Claim{Holder: "host-a"}, testTime)
	check(t, err)
	check(t, twice.Renew(t.Context(), testTime))
	check(t, twice.Release(t.Context()))
}

// doubling says of each write that the key was taken, by itself.
type doubling struct{ storage.Store }

func (d doubling) Create(ctx context.Context, key string, b io.ReadSeeker) error {
	check := d.Store.Create(ctx, key, b)
	if check != nil {
		return check
	}
	return d.Store.Create(ctx, key, b)
}

// Of many who try at once exactly one gets it, again and again.
func TestLeaseConcurrent(t *testing.T) {
	s, now := newClocked(), testTime
	for range 50 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var winners []*Lease
		for i := range 16 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				l, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: fmt.Sprint("host-", i)}, now)
				if err != nil {
					if !leased(err) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				defer mu.Unlock()
				winners = append(winners, l)
			}()
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d have the lease", len(winners))
		}
		if now.Unix()%2 == 0 {
			check(t, winners[0].Release(t.Context()))
		} else {
			now = now.Add(leaseTTL + leaseSkew)
		}
		now = now.Add(time.Second)
		s.now = now
	}
}

// At any moment, with clocks that agree within the allowed skew, at most one
// believes to hold the lease: each has renewed since its own end.
func TestLeaseExclusive(t *testing.T) {
	s := newClocked()
	type host struct {
		skew  time.Duration
		lease *Lease
		until time.Time // true time until which it may believe
	}
	hosts := []*host{{skew: 0}, {skew: leaseSkew / 2}, {skew: -leaseSkew / 2}}
	now := testTime
	for step := range 3000 {
		h := hosts[(step*7+step/5)%len(hosts)]
		local := now.Add(h.skew)
		s.now = now
		switch {
		case h.lease == nil:
			if l, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: "h"}, local); err == nil {
				h.lease, h.until = l, now.Add(leaseTTL)
			} else if !leased(err) {
				t.Fatal(err)
			}
		case step%11 == 0:
			_ = h.lease.Release(t.Context())
			h.lease, h.until = nil, time.Time{}
		case step%3 == 0:
			if err := h.lease.Renew(t.Context(), local); err == nil {
				h.until = now.Add(leaseTTL)
			} else {
				h.lease, h.until = nil, time.Time{}
			}
		}
		believers := 0
		for _, h := range hosts {
			if h.lease != nil && now.Before(h.until) {
				believers++
			}
		}
		if believers > 1 {
			t.Fatalf("step %d: %d hold the lease", step, believers)
		}
		now = now.Add(time.Duration(step%5) * 40 * time.Second)
	}
}

func TestLeaseHostileRow(t *testing.T) {
	put := func(s storage.Store, key, content string) {
		check(t, s.Create(t.Context(), key, strings.NewReader(content)))
	}
	const record = `{"holder":"h\u001b[2J","token":"x","since":"2026-01-31T02:00:00Z","expires":"2026-01-31T02:03:00Z"}`
	for name, c := range map[string]struct {
		key, content string
		free         bool
	}{
		"other names":        {"leases/backup/readme.txt", "x", true},
		"short number":       {"leases/backup/5", record, true},
		"too high a number":  {"leases/backup/99999999999999999999", record, true},
		"the last number":    {"leases/backup/18446744073709551615", record, false},
		"the last but one":   {"leases/backup/18446744073709551614", record, false},
		"far in the future":  {"leases/backup/00000000000000000005", strings.Replace(record, "2026-01-31T02:03", "9999-01-31T02:03", 1), false},
		"number and letters": {"leases/backup/00000000000000000005x", record, true},
		"deeper":             {"leases/backup/00000000000000000005/x", record, true},
		"zero":               {"leases/backup/00000000000000000000", record, true},
		"held":               {"leases/backup/00000000000000000005", record, false},
		"not JSON":           {"leases/backup/00000000000000000005", "x", true},
		"empty":              {"leases/backup/00000000000000000005", "", true},
		"no times":           {"leases/backup/00000000000000000005", "{}", true},
		"huge":               {"leases/backup/00000000000000000005", strings.Repeat("[", 1<<20), true},
	} {
		s := newClocked()
		put(s, c.key, c.content)
		_, err := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: "host-a"}, testTime)
		if (err == nil) != c.free || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		// However far it reaches, it keeps nobody away for longer than a lease lasts.
		s.now = s.now.Add(leaseLasts)
		late, err2 := keyless(s).AcquireLease(t.Context(), "backup", Claim{Holder: "host-b"}, testTime)
		if !c.free && err2 != nil {
			t.Errorf("%s, when it has run out: %v", name, err2)
		}
		if late != nil {
			check(t, late.Renew(t.Context(), testTime))
			check(t, late.Release(t.Context()))
		}
		if err != nil && strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: an escape reaches the terminal", name)
		}
	}
	for _, name := range []string{"", "a/b", "../x", "A", strings.Repeat("x", 101)} {
		if _, err := keyless(mem.New()).AcquireLease(t.Context(), name, Claim{Holder: "h"}, testTime); err == nil {
			t.Errorf("a lease named %q", name)
		}
	}
	// A store that lists what it does not have does not keep us for ever.
	s := mem.New()
	put(s, "leases/backup/00000000000000000005", record)
	if _, err := keyless(ghosts{s}).AcquireLease(t.Context(), "backup", Claim{Holder: "h"}, testTime); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a listed ghost: %v", err)
	}
	if _, err := keyless(blindStore{s}).AcquireLease(t.Context(), "backup", Claim{Holder: "h"}, testTime); err == nil {
		t.Error("a listing that fails")
	}
}

type ghosts struct{ storage.Store }

func (ghosts) Open(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, fs.ErrNotExist
}

type blindStore struct{ storage.Store }

func (blindStore) List(context.Context, string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) { yield(storage.Info{}, errors.New("no listing")) }
}

// A host that knows that the holder has ended need not wait; others do. The
// holder, if it lives after all, is told.
func TestLeaseOfDeadProcess(t *testing.T) {
	t.Parallel()
	s := mem.New()
	gone := func(process string) bool { return process == "a process" }
	take := func(c Claim) (*Lease, error) { return keyless(s).AcquireLease(t.Context(), "backup", c, testTime) }
	first, err := take(Claim{Holder: "host-a", Process: "a process", Gone: gone})
	check(t, err)
	for _, c := range []Claim{
		{Holder: "host-b"},
		{Holder: "host-b", Process: "a process"},
		{Holder: "host-b", Gone: func(process string) bool { return process != "a process" }},
	} {
		if _, err := take(c); !leased(err) {
			t.Errorf("%s takes the lease: %v", c.Holder, err)
		}
	}
	second, err := take(Claim{Holder: "host-a again", Process: "b process", Gone: gone})
	check(t, err)
	if err := first.Renew(t.Context(), testTime); !leased(err) {
		t.Errorf("the first holder renews: %v", err)
	}
	check(t, second.Renew(t.Context(), testTime))

	// Who has no name is never taken for gone.
	check(t, second.Release(t.Context()))
	_, err = take(Claim{Holder: "host-c"})
	check(t, err)
	if _, err := take(Claim{Holder: "host-a", Gone: func(string) bool { return true }}); !leased(err) {
		t.Errorf("a lease without a process is taken: %v", err)
	}
}

// What FORMAT.md says that the signature of a lease covers, byte for byte.
func TestLeaseSignedBytes(t *testing.T) {
	w := newWorld(t)
	const key = "leases/x/00000000000000000001"
	rec := leaseRecord{Holder: "a<b>&\"\\\t\u2028é\x01", Token: "t", Since: testTime, Expires: testTime.Add(1500 * time.Millisecond)}
	raw, err := w.writer.signLease(key, rec)
	check(t, err)
	signed, err := parseLease(key, raw)
	check(t, err)
	own := w.cluster.Signing.Public()
	text := w.cluster.Repository + "\n" + key + "\n" +
		`{"holder":"a\u003cb\u003e\u0026\"\\\t\u2028é\u0001","token":"t","since":"2026-01-31T02:00:00Z","expires":"2026-01-31T02:00:01.5Z","signer":"` + own.String() + `"}` + "\n"
	if !own.Verify("lifeboat-lease-1\n", []byte(text), signed.Signature) {
		t.Errorf("it does not cover\n%s", text)
	}
}

// A held lease is shown however many names somebody puts before it.
func TestLeasesBesideManyNames(t *testing.T) {
	w := newWorld(t)
	_, err := w.writer.AcquireLease(t.Context(), BackupLease, Claim{Holder: "db1"}, testTime)
	check(t, err)
	for n := range 2 * mostLeaseNames {
		w.put(t, leaseKey(fmt.Sprintf("a%d", n), 1), []byte("junk"))
	}
	now, err := w.writer.StoreTime(t.Context(), BackupLease)
	check(t, err)
	all, more, err := w.writer.Leases(t.Context(), now)
	check(t, err)
	if !more || !slices.ContainsFunc(all, func(v LeaseView) bool { return v.Name == BackupLease && v.Held && v.Holder == "db1" }) {
		t.Errorf("%d leases, more %t", len(all), more)
	}
}
