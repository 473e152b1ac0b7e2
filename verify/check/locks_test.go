package check_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// lockless is a store whose credentials may not ask for the retention of objects.
type lockless struct{ storage.Store }

func (l lockless) RetentionRule(ctx context.Context) (storage.RetentionRule, error) {
	return storage.RetentionRuleOf(ctx, l.Store)
}

func (l lockless) Retention(context.Context, string) (storage.Retention, error) {
	return storage.Retention{}, fmt.Errorf("ask: %w", storage.ErrDenied)
}

// Object Lock on a real server, versitygw: what is kept is counted and asked for
// once, and what is not kept, or for a shorter time, or less strictly, is found.
func TestObjectLock(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t, s3test.Options{ObjectLock: true})
	open := func(mode string, days int) *s3.Store {
		store, err := s3.New(t.Context(), s3.Options{Bucket: server.Bucket, Prefix: "r", Endpoint: server.Endpoint, PathStyle: true, ObjectLockMode: mode, ObjectLockDays: days})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	s := newSiteOn(t, open(storage.Compliance, 3))
	s.backup(time.Hour, 1, 2)
	s.wal(1, 1, 2)

	// Memory goes through a file, as between two runs.
	var file []byte
	run := func(store storage.Store, mode string, days int) *check.Result {
		t.Helper()
		known, err := check.ParseKnownLocks(file)
		s.check(err)
		res := s.runOn(s.open(store, s.keys), check.Options{Locks: check.Locks{Mode: mode, Days: days, Known: known}})
		file = known.Encode(file)
		return res
	}
	expect := func(res *check.Result, want check.LockResult, findings ...string) {
		t.Helper()
		if res.Locks != want || !slices.Equal(found(res), append([]string{}, findings...)) {
			t.Errorf("%+v, want %+v; findings %q, want %q", res.Locks, want, found(res), findings)
		}
	}
	// Manifest, info and what lies beside them, two packs, two segments.
	res := run(open("", 0), storage.Compliance, 3)
	n := res.Locks.Objects
	if n < 6 {
		t.Fatalf("%d objects should be kept: %+v", n, res.Locks)
	}
	expect(res, check.LockResult{Mode: storage.Compliance, Days: 3, Objects: n, Kept: n, Asked: n})
	expect(run(open("", 0), storage.Compliance, 3), check.LockResult{Mode: storage.Compliance, Days: 3, Objects: n, Kept: n})

	// Credentials that may not ask: what is known is known, and the rest is not proven.
	s.wal(1, 3, 3)
	res = run(lockless{open("", 0)}, storage.Compliance, 3)
	expect(res, check.LockResult{Mode: storage.Compliance, Days: 3, Objects: n + 1, Kept: n, Unknown: 1})
	if len(res.Unproven) != 1 || !strings.Contains(res.Unproven[0], "1 of ") || strings.Contains(res.Unproven[0], "nil") || !res.LocksRefused {
		t.Errorf("not proven: %q", res.Unproven)
	}

	// A rule of the bucket counts as the configuration does. Nothing else asks: nothing is looked at.
	expect(run(open("", 0), "", 0), check.LockResult{})
	s.check(server.DefaultRetention(t.Context(), storage.Compliance, 2))
	expect(run(open("", 0), "", 0), check.LockResult{Mode: storage.Compliance, Days: 2, Objects: n + 1, Kept: n + 1, Asked: 1})
	s.check(server.DefaultRetention(t.Context(), storage.Governance, 1))

	// Stored by hosts that ask for less: not at all, as versitygw 1.8 gives no object
	// the default retention of its bucket, less strictly, and for a shorter time.
	key := func(no uint64) string {
		return repo.WALKey(system, waltest.Name(t, postgres.Segment{Timeline: 1, No: no, Size: seg}.Name()))
	}
	put := func(mode string, days int, no uint64) {
		t.Helper()
		other := *s
		other.repo = s.open(open(mode, days), s.keys)
		other.wal(1, no, no)
	}
	put("", 0, 4)
	put(storage.Governance, 3, 5)
	put(storage.Compliance, 2, 6)
	res = run(open("", 0), storage.Compliance, 3)
	expect(res, check.LockResult{Mode: storage.Compliance, Days: 3, Objects: n + 4, Kept: n + 1, Asked: 3}, "lock-missing "+key(4), "lock-short "+key(5))
	if f := res.Findings[1]; !slices.Equal(f.Objects, []string{key(5), key(6)}) || f.ObjectCount != 2 || len(f.Backups) != 0 || !strings.Contains(f.Problem, "GOVERNANCE, not COMPLIANCE; so it is with 1 more") {
		t.Errorf("%+v", f)
	}
	// Later they are past it, and so is what the configuration asks.
	s.now = s.now.Add(4 * 24 * time.Hour)
	expect(run(open("", 0), storage.Compliance, 3), check.LockResult{Mode: storage.Compliance, Days: 3, Over: n + 4})
}

// In a bucket without Object Lock nothing is kept, whatever the configuration says.
func TestNoObjectLock(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t, s3test.Options{})
	store, err := s3.New(t.Context(), s3.Options{Bucket: server.Bucket, Endpoint: server.Endpoint, PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	s := newSiteOn(t, store)
	label, _ := s.backup(time.Hour, 1, 1)
	s.wal(1, 1, 2)
	if res := s.run(check.Options{}); len(res.Findings) != 0 || len(res.Unproven) != 0 || res.Locks != (check.LockResult{}) {
		t.Errorf("%+v, %q", res.Locks, found(res))
	}
	res := s.run(check.Options{Locks: check.Locks{Mode: storage.Governance, Days: 1}})
	if len(res.Findings) != 1 || res.Findings[0].Code != check.LockMissing || res.Findings[0].ObjectCount != res.Locks.Objects || !strings.Contains(res.Findings[0].Object, label) {
		t.Errorf("%+v, %q", res.Locks, found(res))
	}
}
