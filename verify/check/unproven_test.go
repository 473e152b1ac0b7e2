package check_test

import (
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/waltest"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// neither fails the test unless the backup is neither ok nor damaged, and so on record.
func (s *site) neither(what string, keys repo.Keys, read bool) {
	s.t.Helper()
	r := s.open(s.store, keys)
	res := s.runOn(r, check.Options{Read: read})
	if len(res.Findings) != 0 || len(res.Unproven) == 0 || len(res.Backups) != 1 || res.Backups[0].OK || !res.Backups[0].Unproven {
		s.t.Errorf("%s: %v, not proven %v, backups %+v", what, found(res), res.Unproven, res.Backups)
	}
	if len(keys.Recipients) == 0 {
		return
	}
	s.check(check.Record(s.t.Context(), r, res, check.Options{Read: read}))
	all, err := check.Summaries(s.t.Context(), r)
	s.check(err)
	if b := all[0].Backups[0]; b.OK || !b.Unproven {
		s.t.Errorf("%s: it is recorded as %+v", what, b)
	}
}

// A backup that could not be proven is not called ok.
func TestUnproven(t *testing.T) {
	t.Parallel()
	for what, first := range map[string]uint64{"its WAL": 4, "the way from it": 5} {
		s := newSite(t)
		s.wal(1, 3, first)
		s.put(waltest.Name(t, "00000002.history"), []byte("1\t0/480000\tx\n"))
		s.wal(2, 4, 7)
		if first == 4 {
			s.check(s.store.Delete(t.Context(), repo.WALKey(system, waltest.Name(t, "000000010000000000000004"))))
		}
		s.backup(2*day, 3, 1)
		s.now = s.now.Add(time.Hour)
		// The cluster key opens manifests, and no history file.
		s.neither(what, repo.Keys{Cluster: s.keys.Cluster, Recipients: s.keys.Recipients}, false)
		if res := s.run(check.Options{}); !res.Backups[0].OK || res.Backups[0].Unproven {
			t.Errorf("%s: with an identity: %v, not proven %v", what, found(res), res.Unproven)
		}
		s.neither("its manifest", repo.Keys{Trusted: s.keys.Trusted}, false)
	}
}

// The identity opens nothing of what it is to prove.
func TestUnprovenByAnotherIdentity(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.wal(1, 3, 5)
	s.backup(2*day, 3, 1)
	other, err := repo.NewRecoveryKey(s.keys.Cluster)
	s.check(err)
	s.neither("packs", repo.Keys{Cluster: s.keys.Cluster, Recipients: s.keys.Recipients, Identities: other.Identities}, true)
}

// A full read that could not prove a backup hides none that could.
func TestSummariesGoBackToAFullProof(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for i := range 12 {
		at := s.now.Add(time.Duration(i-20) * time.Hour)
		res := &check.Result{Began: at, Ended: at.Add(time.Second), Backups: []check.BackupResult{{Label: "x", OK: i == 0, Unproven: i > 0}}}
		s.check(check.Record(t.Context(), s.repo, res, check.Options{Read: true}))
	}
	all, err := check.Summaries(t.Context(), s.repo)
	s.check(err)
	if len(all) != 12 {
		t.Errorf("%d summaries, the oldest %+v", len(all), all[len(all)-1])
	}
}
