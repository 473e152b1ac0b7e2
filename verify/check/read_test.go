package check_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
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

// A manifest that is being sealed anew lies beside its place when that is
// stopped. What is wrong with its backup is told all the same.
func TestFindingsOfABackupThatIsSealedAnew(t *testing.T) {
	s := newSite(t)
	s.wal(1, 3, 5)
	label, packs := s.backup(day, 3, 2)
	rc, err := s.store.Open(t.Context(), repo.ManifestKey(label), 0, -1)
	s.check(err)
	raw, err := io.ReadAll(rc)
	s.check(err)
	s.check(rc.Close())
	s.check(s.store.Create(t.Context(), repo.ManifestKey(label)+".next", strings.NewReader(string(raw))))
	s.check(s.store.Delete(t.Context(), repo.ManifestKey(label)))
	s.check(s.store.Delete(t.Context(), packs[0]))
	res := s.run(check.Options{})
	if got := found(res); !slices.Equal(got, []string{"pack-missing " + packs[0]}) || len(res.Backups) != 1 || res.Backups[0].OK {
		t.Errorf("%v, backups %+v", got, res.Backups)
	}
}
