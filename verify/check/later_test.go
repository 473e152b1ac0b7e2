package check_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/check"
)

// A backup that a later version has made is not known to this one, and no damage. What
// may be its packs is still read.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.wal(1, 3, 5)
	ours, _ := s.backup(time.Hour, 3, 1)
	later := s.now.Format("20060102T150405Z") + "-000001"
	text := fmt.Appendf(nil, `{"format":2,"label":%q,"what":"later versions write here"}`+"\n", later)
	for key, kind := range map[string]repo.Kind{repo.ManifestKey(later): repo.KindManifest, repo.InfoKey(later): repo.KindInfo} {
		_, err := s.repo.CreateEnvelope(t.Context(), key, kind, bytes.NewReader(text), int64(len(text)))
		s.check(err)
	}
	res := s.run(check.Options{Read: true})
	if len(res.Findings) != 0 || len(res.Unproven) != 1 || len(res.Backups) != 2 || res.Backups[0] != (check.BackupResult{Label: ours, OK: true}) ||
		res.Backups[1] != (check.BackupResult{Label: later, Unproven: true}) {
		t.Errorf("%v, not proven %v, backups %+v", found(res), res.Unproven, res.Backups)
	}
	all, err := s.repo.LoadBackups(t.Context())
	if err != nil || len(all) != 2 || !repo.LaterFormat(all[1].Err) || repo.LaterFormat(all[0].Err) {
		t.Errorf("%+v, %v", all, err)
	}
}
