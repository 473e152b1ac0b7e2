package wal

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

// A stream begins where the believed part of the archive ends, and not after names that
// anybody can have put there.
func TestStreamStartsBeforeJunk(t *testing.T) {
	t.Parallel()
	for name, junk := range map[string][]string{
		"none":                        nil,
		"after the end":               {"000000010000000000000006", "000000010000000000000007"},
		"slices":                      {"000000010000000000000006.d/00000000-00001000"},
		"after where the slot stands": {"000000010000000000000009", "00000001000000000000000A"},
		"on a timeline of its own":    {"000000020000000000000009", "00000002.history"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t, mem.New())
			for no := 1; no <= 5; no++ {
				a.pushSegment(t, fmt.Sprintf("000000010000000000000%03X", no))
			}
			for _, n := range junk {
				tl := postgres.Timeline(n[7] - '0')
				if err := a.store.Create(t.Context(), repo.WALPrefix(testSystem, tl)+n, strings.NewReader(strings.Repeat("junk", 500))); err != nil {
					t.Fatal(err)
				}
			}
			for _, restart := range []uint64{4, 8} { // before the end, and after it
				_, tl, end, err := believedEnd(t.Context(), a.Repo, testSystem, postgres.History{Timeline: 1}, postgres.Segment{Timeline: 1, No: restart, Size: 1 << 20})
				if err != nil || tl != 1 || end != 6*mib {
					t.Errorf("a slot at segment %d: %s, timeline %s, %v", restart, end, tl, err)
				}
			}
		})
	}
}
