package backup

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
)

// However often backups are taken, no pack gets older than it may, and none of
// them has to renew much more than its share.
func TestRenewal(t *testing.T) {
	t.Parallel()
	const packs, maxAge = 2000, 30 * 24 * time.Hour
	for _, every := range []time.Duration{time.Hour, 24 * time.Hour, 7 * 24 * time.Hour} {
		start := time.Date(2026, 1, 1, 2, 0, 0, 0, time.UTC)
		var have []repo.PackEntry
		made := 0
		add := func(day int) {
			made++
			have = append(have, repo.PackEntry{PackRef: repo.PackRef{ID: sliceSum([]byte(fmt.Sprint(made))) + sliceSum([]byte(fmt.Sprint(-made)))}, Day: day})
		}
		for range packs {
			add(dayOf(start))
		}
		share := max(1, float64(packs)*float64(every)/float64(maxAge))
		for at := start.Add(every); at.Before(start.Add(200 * 24 * time.Hour)); at = at.Add(every) {
			days := map[int]int64{}
			for _, p := range have {
				days[p.Day] += 1 << 20
			}
			base := repo.Info{RawBytes: packs << 20, StartTime: at.Add(-every)}
			for day, n := range days {
				base.Ages = append(base.Ages, repo.AgeBytes{Day: day, Bytes: n})
			}
			slices.SortFunc(base.Ages, func(a, b repo.AgeBytes) int { return a.Day - b.Day })
			r := newRenewal("label"+at.String(), base, at, maxAge)
			before := len(have)
			have = slices.DeleteFunc(have, r.due)
			renewed := before - len(have)
			for range renewed {
				add(dayOf(at))
			}
			if float64(renewed) > 2*share+40 {
				t.Errorf("every %s: at %s %d of %d packs are renewed, %.0f is the share", every, at, renewed, packs, share)
			}
			for _, p := range have {
				if age := dayOf(at) - p.Day; age > int(maxAge/(24*time.Hour)) {
					t.Fatalf("every %s: at %s a pack is %d days old", every, at, age)
				}
			}
		}
	}
	if r := newRenewal("x", repo.Info{RawBytes: 1, Ages: []repo.AgeBytes{{Day: 1, Bytes: 1}}}, time.Now(), 0); r.due(repo.PackEntry{Day: 0}) {
		t.Error("without a limit a pack is renewed")
	}
}
