package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/backup"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
	"github.com/lifeboat-dr/lifeboat/storage/s3"
	"github.com/lifeboat-dr/lifeboat/storage/s3/s3test"
	"github.com/lifeboat-dr/lifeboat/storage/storetest/suite"
	"github.com/lifeboat-dr/lifeboat/verify/check"
	"github.com/lifeboat-dr/lifeboat/verify/expire"
)

// weekOld is a store that says of the objects that it began with that they are
// a week old.
type weekOld struct {
	*mem.Store
	old map[string]bool
}

func (w *weekOld) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for info, err := range w.Store.List(ctx, prefix) {
			if w.old[info.Key] {
				info.ModTime = info.ModTime.Add(-7 * 24 * time.Hour)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// aged is the site's repository as it would be in a week, in memory.
func (s *sweepSite) aged(t *testing.T) *weekOld {
	t.Helper()
	w := &weekOld{s.copyStore(t, []string{""}, ""), map[string]bool{}}
	for info, err := range w.Store.List(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		w.old[info.Key] = !strings.HasPrefix(info.Key, repo.LeasesPrefix)
	}
	return w
}

// TestExpireDiesAnywhere stops an expiry at each operation in turn. Each time
// every kept backup passes a check, sometimes with each frame opened; some are
// restored and started; and the next run ends where an undisturbed one does.
func TestExpireDiesAnywhere(t *testing.T) {
	t.Parallel()
	s := newSweepSite(t)
	want := content(t, s.Cluster)
	s.clock = s.clock.Add(-8 * 24 * time.Hour) // labels are a week old too
	var labels []string
	for range 3 {
		l, err := s.takeBackup(s.store)
		if err != nil {
			t.Fatal(err)
		}
		labels = append(labels, l)
		s.flush(t)
		s.flush(t)
	}
	if err := s.repo(t, s.store).SetPin(t.Context(), repo.Pin{Label: labels[0], Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	kept := []string{labels[0], labels[2]}
	policy := expire.Policy{KeepLast: 1}
	run := func(store storage.Store) error {
		r, err := repo.Open(context.Background(), store, s.keys, "db1")
		if err != nil {
			return err
		}
		_, err = expire.Run(context.Background(), r, expire.Options{Policy: policy, Now: time.Now, Jobs: 1,
			Claim: repo.Claim{Holder: "test", Process: "p", Gone: func(string) bool { return true }}})
		return err
	}
	first := s.aged(t)
	if err := run(first); err != nil {
		t.Fatal(err)
	}
	end := objectsOf(t, first)

	n := int64(1)
	for ; !t.Failed(); n++ {
		w := s.aged(t)
		f := fault.New(w, fault.Fault{At: n, Mode: fault.Outage, Err: storage.ErrUnavailable})
		err := run(f)
		if !f.Fired() {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		when := fmt.Sprintf("died at %s (operation %d)", f.FiredAt(), n)
		r := s.repo(t, w)
		there, err := r.Backups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range kept {
			if !slices.Contains(there, l) {
				t.Errorf("%s: backup %s is gone", when, l)
			}
		}
		res, err := check.Run(t.Context(), r, check.Options{Read: n%6 == 1, Policy: policy, Now: time.Now})
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		for _, finding := range res.Findings {
			t.Errorf("%s: %s %s: %s", when, finding.Code, finding.Object, finding.Problem)
		}
		if n%29 == 7 {
			s.startBoth(t, when, w, kept, want)
		}
		if err := run(w); err != nil {
			t.Fatalf("the run after it %s: %v", when, err)
		}
		if have := objectsOf(t, w); !slices.Equal(have, end) {
			t.Errorf("%s: in the end there are %d objects, not %d", when, len(have), len(end))
		}
	}
	t.Logf("died at %d operations", n-1)
	if n < 40 {
		t.Errorf("only %d operations were tried", n-1)
	}
}

var besideEvery = flag.Int64("beside-every", 10, "TestExpireBesideBackup looks at every n-th operation")

// A real backup and an expiry at once: the one runs as a whole before an operation
// of the other. What the backup builds on is what the policy does not keep, since
// there is a newer one of another host. The backup succeeds, and every backup that is
// there passes a check that opens each frame.
func TestExpireBesideBackup(t *testing.T) {
	t.Parallel()
	s := newSweepSite(t)
	began, taken := time.Now(), 0
	built := 0 // on another
	take := func(store storage.Store, host string) string {
		t.Helper()
		taken++
		s.Exec(t, fmt.Sprintf("update fixed%d set x = x where i < 50; checkpoint", taken%20))
		r, err := repo.Open(t.Context(), store, s.keys, host)
		if err != nil {
			t.Fatal(err)
		}
		at := began.Add(time.Duration(2*taken) * time.Second) // labels sort by the second
		info, err := backup.Run(t.Context(), r, backup.Options{DataDir: s.DataDir(), Conn: s.ConnString(), Jobs: 2, Level: repo.Fastest,
			WALTimeout: time.Minute, Host: host, Program: "test", Now: func() time.Time { return at }})
		if err != nil {
			t.Errorf("backup %d: %v", taken, err)
			return ""
		}
		if info.Base != "" {
			built++
		}
		return info.Label
	}
	removed := 0
	expires := func(store storage.Store) {
		t.Helper()
		r, err := repo.Open(t.Context(), store, s.keys, "db2")
		if err != nil {
			t.Fatal(err)
		}
		res, err := expire.Run(t.Context(), r, expire.Options{Policy: expire.Policy{KeepLast: 1}, Now: time.Now, Claim: repo.Claim{Holder: "test"}})
		if err != nil {
			t.Errorf("expire: %v", err)
			return
		}
		removed += res.Packs.Objects
	}
	for name, both := range map[string]func(beside func(do func()) storage.Store) string{
		"expiry in a backup": func(beside func(do func()) storage.Store) string {
			return take(beside(func() { expires(s.store) }), "db1")
		},
		"backup in an expiry": func(beside func(do func()) storage.Store) (label string) {
			expires(beside(func() { label = take(s.store, "db1") }))
			return label
		},
	} {
		n := 1 + rand.Int64N(*besideEvery)
		first, fired := n, 0
		removed, built = 0, 0
		for ; !t.Failed(); n += *besideEvery {
			take(s.store, "db1") // which "db1" will build on
			take(s.store, "db2") // which the policy keeps
			// What WAL no backup needs goes with the next expiry: it reads of each segment
			// that stays, and the sweep would never come to its end.
			must(t, s.age("wal/", 48*time.Hour))
			var f *fault.Store
			label := both(func(do func()) storage.Store {
				f = fault.New(s.store, fault.Fault{At: n, Mode: fault.Meanwhile, Do: do})
				return f
			})
			if !f.Fired() {
				break
			}
			fired++
			when := fmt.Sprintf("%s, before %s (operation %d)", name, f.FiredAt(), n)
			r := s.repo(t, s.store)
			if there, err := r.Backups(t.Context()); err != nil || !slices.Contains(there, label) {
				t.Errorf("%s: backup %s is not among %v, %v", when, label, there, err)
			}
			res, err := check.Run(t.Context(), r, check.Options{Read: true, Policy: expire.Policy{KeepLast: 1}, Now: time.Now})
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			for _, finding := range res.Findings {
				t.Errorf("%s: %s %s: %s", when, finding.Code, finding.Object, finding.Problem)
			}
		}
		t.Logf("%s: %d operations, every %d. from %d on; %d packs were removed, %d backups built on another", name, fired, *besideEvery, first, removed, built)
		if fired < 20/int(*besideEvery) || removed == 0 || built == 0 {
			t.Errorf("%s: too little was tried", name)
		}
	}
}

// objectsOf are the keys of a store that last: no leases, and no records of checks.
func objectsOf(t *testing.T, store storage.Store) []string {
	t.Helper()
	var out []string
	for info, err := range store.List(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(info.Key, repo.LeasesPrefix) && !strings.HasPrefix(info.Key, repo.ChecksPrefix) {
			out = append(out, info.Key)
		}
	}
	return out
}

// startBoth restores backups from what is in the store, and starts them.
func (s *sweepSite) startBoth(t *testing.T, when string, store storage.Store, labels []string, want map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for _, key := range append(objectsOf(t, store), "") {
		if key == "" {
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Clone(suite.Read(t, store, key)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range labels {
		c := s.restoreTo(t, "--repository", "file://"+dir, "--backup", l, "--target-immediate", "--target-action", "promote")
		sameContent(t, c, want)
		stopAll(t, c)
	}
	t.Logf("%s: restored and started %v", when, labels)
}

// On a real server with Object Lock nothing that is locked is hidden behind a
// delete marker: the backup stays, whole and visible, and is told.
func TestExpireUnderRealObjectLock(t *testing.T) {
	t.Parallel()
	s := newSweepSite(t)
	var labels []string
	for range 2 {
		l, err := s.takeBackup(s.store)
		if err != nil {
			t.Fatal(err)
		}
		labels = append(labels, l)
	}
	server := s3test.Start(t, s3test.Options{TLS: true, ObjectLock: true})
	bucket, err := s3.New(t.Context(), s3.Options{Bucket: server.Bucket, Endpoint: server.Endpoint, CAFile: server.CAFile, PathStyle: true,
		ObjectLockMode: "COMPLIANCE", ObjectLockDays: 3})
	if err != nil {
		t.Fatal(err)
	}
	for info, err := range s.store.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(info.Key, repo.LeasesPrefix) {
			continue
		}
		if err := bucket.Create(t.Context(), info.Key, bytes.NewReader(suite.Read(t, s.store, info.Key))); err != nil {
			t.Fatal(err)
		}
	}
	before := objectsOf(t, bucket)
	res, err := expire.Run(t.Context(), s.repo(t, bucket), expire.Options{Policy: expire.Policy{KeepLast: 1}, Now: time.Now, Claim: repo.Claim{Holder: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Locked) != 1 || res.Locked[0].Key != repo.ManifestKey(labels[0]) || time.Until(res.Locked[0].Until) < 48*time.Hour {
		t.Errorf("locked: %+v", res.Locked)
	}
	if after := objectsOf(t, bucket); !slices.Equal(before, after) {
		t.Errorf("%d objects were visible, %d are", len(before), len(after))
	}
	if d := res.Plan.Decisions[1]; !d.Keep || !strings.Contains(strings.Join(d.Why, " "), "Object Lock") {
		t.Errorf("%s: %v %q", d.Info.Label, d.Keep, d.Why)
	}
}
