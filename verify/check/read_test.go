package check_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/fault"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// spoil puts other bytes in the place of an object, as many as it had.
func (s *site) spoil(key string) {
	s.t.Helper()
	info, err := s.store.Stat(s.t.Context(), key)
	s.check(err)
	s.check(s.store.Delete(s.t.Context(), key))
	s.check(s.store.Create(s.t.Context(), key, strings.NewReader(strings.Repeat("x", int(info.Size)))))
}

// A manifest that is being sealed again lies beside its place when that is
// stopped. What is wrong with its backup is told all the same.
func TestFindingsOfABackupThatIsSealedAgain(t *testing.T) {
	t.Parallel()
	beside := false
	for n := 1; !beside; n++ {
		s := newSite(t)
		s.wal(1, 3, 5)
		label, packs := s.backup(day, 3, 2)
		s.check(s.store.Delete(t.Context(), packs[0]))
		f := fault.New(s.store, fault.Fault{At: int64(n), Mode: fault.Outage, Err: storage.ErrUnavailable})
		if r, err := repo.Open(t.Context(), f, s.keys, "rotator"); err == nil {
			err = r.Reseal(t.Context(), repo.MetadataObject{Key: repo.ManifestKey(label), Kind: repo.KindManifest})
			if err == nil {
				t.Fatal("it was never stopped with the manifest beside its place")
			}
		}
		_, err := s.store.Stat(t.Context(), repo.ManifestKey(label))
		beside = errors.Is(err, fs.ErrNotExist)
		res := s.run(check.Options{})
		if got := found(res); !slices.Equal(got, []string{"pack-missing " + packs[0]}) || len(res.Backups) != 1 || res.Backups[0].OK {
			t.Errorf("stopped at operation %d, beside its place %v: %v, backups %+v", n, beside, got, res.Backups)
		}
	}
}

// A backup is expired before any operation of a check: that is no damage. What
// spoils the backup that stays is told.
func TestCheckBesideExpiry(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string]func(repo.Keys) repo.Keys{
		"hashes": func(k repo.Keys) repo.Keys { return repo.Keys{Cluster: k.Cluster} },
		"frames": func(k repo.Keys) repo.Keys { return k },
	} {
		fired := 0
		for n := 1; ; n++ {
			s := newSite(t)
			s.wal(1, 3, 4)
			old, packs := s.backup(3*day, 3, 2)
			_, others := s.backup(2*day, 3, 1)
			s.spoil(others[0])
			f := fault.New(s.store, fault.Fault{At: int64(n), Mode: fault.Meanwhile, Do: func() {
				for _, key := range append([]string{repo.ManifestKey(old), repo.InfoKey(old)}, packs...) {
					s.check(s.store.Delete(t.Context(), key))
				}
			}})
			res := s.runOn(s.open(f, keys(s.keys)), check.Options{Read: true, Jobs: 1})
			if got := found(res); !slices.Equal(got, []string{"pack-damaged " + others[0]}) {
				t.Fatalf("%s, expired before operation %d: %v", name, n, got)
			}
			if !f.Fired() {
				break
			}
			fired++
		}
		if fired < 8 {
			t.Errorf("%s: expired before %d operations only", name, fired)
		}
	}
}

// Without a key for metadata nobody knows which packs are whose: every pack is
// read, as WAL and block summaries are.
func TestHashesWithASignerOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.wal(1, 3, 5)
	label, packs := s.backup(day, 3, 2)
	blocks := repo.BlocksKey(system, 1, 3*seg, 4*seg)
	_, err := s.repo.CreateEnvelope(t.Context(), blocks, repo.KindBlocks, strings.NewReader("x"), 1)
	s.check(err)
	public := repo.Keys{Trusted: s.keys.Trusted}
	res := s.runOn(s.open(s.store, public), check.Options{Read: true})
	if len(res.Findings) != 0 || len(res.Unproven) == 0 || res.Read.Objects != 6 || res.Wanted.Objects != 6 { // two packs, three segments, a summary
		t.Errorf("%v, read %+v of %+v, unproven %v", found(res), res.Read, res.Wanted, res.Unproven)
	}
	s.spoil(packs[0])
	s.spoil(blocks)
	want := []string{"blocks-damaged " + blocks, "pack-damaged " + packs[0]}
	if got := found(s.runOn(s.open(s.store, public), check.Options{Read: true})); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	// Nor with all keys, where the manifest is damaged.
	s.spoil(repo.ManifestKey(label))
	want = []string{"manifest-damaged " + repo.ManifestKey(label), "blocks-damaged " + blocks, "pack-damaged " + packs[0]}
	got := found(s.run(check.Options{Read: true}))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("with a damaged manifest: %v", got)
	}
}
