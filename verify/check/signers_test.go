package check_test

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// rotate gives the site a new cluster key and retires the old one. It returns the
// repository as who has stolen that goes on to use it.
func (s *site) rotate() (stolen *repo.Repo) {
	s.t.Helper()
	next, err := repo.NewClusterKey("shop", s.keys.Cluster.Repository)
	s.check(err)
	old := s.keys.Cluster.Signing.Public()
	next.Identities = append(next.Identities, s.keys.Cluster.Identities...)
	s.check(s.repo.AddSigner(s.t.Context(), next.Signing.Public(), s.now))
	stolen = s.repo
	s.keys.Cluster = next
	s.repo = s.open(s.store, s.keys)
	s.wal(1, 20, 20) // or the old one still signs the newest
	_, err = s.repo.ResealAll(s.t.Context(), repo.ResealOptions{Retire: []repo.PublicKey{old}, Now: func() time.Time { return s.now }, Claim: repo.Claim{Holder: "key rotate"}})
	s.check(err)
	return stolen
}

func (s *site) raw(key string) []byte {
	s.t.Helper()
	rc, err := s.store.Open(s.t.Context(), key, 0, -1)
	s.check(err)
	raw, err := io.ReadAll(rc)
	s.check(err)
	s.check(rc.Close())
	return raw
}

// After a rotation, a host with the recovery key of the first day, and one with
// nothing but the new cluster key, believe the one as the other, and neither what
// the retired key signs behind its cut.
func TestAfterARotation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.wal(1, 3, 19)
	label, _ := s.backup(2*day, 3, 1)
	forged := s.raw(repo.ManifestKey(label))
	stolen := s.rotate()
	s.backup(day, 10, 1)
	hosts := map[string]repo.Keys{
		"the first recovery key": {Identities: s.keys.Identities, Trusted: s.keys.Trusted},
		"the new signer":         {Cluster: s.keys.Cluster, Identities: s.keys.Identities, Recipients: s.keys.Recipients},
	}
	run := func(want ...string) {
		t.Helper()
		for name, keys := range hosts {
			res, err := check.Run(t.Context(), s.open(s.store, keys), check.Options{Read: true, Now: func() time.Time { return s.now }})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got := found(res); len(res.Backups) != 2 || !slices.Equal(got, want) {
				t.Errorf("%s: %v, not %v; backups %+v, not proven %v", name, got, want, res.Backups, res.Unproven)
			}
		}
	}
	run()
	s.check(s.store.Delete(t.Context(), repo.ManifestKey(label)))
	s.check(s.store.Create(t.Context(), repo.ManifestKey(label), bytes.NewReader(forged)))
	segment := waltest.Name(t, "000000010000000000000015")
	s.repo = stolen
	s.put(segment, waltest.SegmentBytes(waltest.Segment(t, segment.Segment, seg), system, 1))
	run("manifest-untrusted "+repo.ManifestKey(label), "wal-damaged "+repo.WALKey(system, segment))
}

// What the retired key records of a check counts for nothing.
func TestRecordOfTheRetiredKey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.wal(1, 3, 19)
	s.backup(2*day, 3, 1)
	before := s.now.Add(-time.Hour)
	s.run(check.Options{Read: true})
	s.rotate()
	if res := s.run(check.Options{Read: true, Since: before}); res.Skipped.Objects != 0 || len(res.Findings) != 0 {
		t.Errorf("%d objects were left out, %v", res.Skipped.Objects, found(res))
	}
}
