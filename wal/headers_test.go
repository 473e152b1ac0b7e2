package wal

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
	"github.com/lifeboat-dr/lifeboat/storage/mem"
)

func loadChecked(t *testing.T, a *archive, c HeaderCheck) *Index {
	t.Helper()
	ix, err := LoadChecked(t.Context(), a.Repo, testSystem, func(storage.Info) {}, c)
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

// What is remembered is not read again, in the form that a file keeps; what was
// stored again is.
func TestHeadersAreRemembered(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	for no := 1; no <= 5; no++ {
		a.pushSegment(t, fmt.Sprintf("000000010000000000000%03X", no))
	}
	trust := a.Repo.TrustID()
	known := NewHeaders(trust)
	if n := loadChecked(t, a, HeaderCheck{Known: known}).Headers(); n.Read != 5 || n.Checked != 5 || !known.Changed() {
		t.Fatalf("the first time: %+v", n)
	}
	file := known.Encode(nil)
	again := func(trust [16]byte, raw []byte) (*Index, *Headers) {
		known, err := ParseHeaders(raw, trust)
		if err != nil {
			t.Fatal(err)
		}
		return loadChecked(t, a, HeaderCheck{Known: known}), known
	}
	ix, known := again(trust, file)
	if n := ix.Headers(); n.Read != 0 || n.Checked != 5 || known.Changed() {
		t.Errorf("the second time: %+v", n)
	}
	if ix, _ := again([16]byte{1}, file); ix.Headers().Read != 5 {
		t.Errorf("when others are believed: %+v", ix.Headers())
	}
	// A part is cut off behind the header: this host has seen more of it.
	key := repo.WALKey(testSystem, walName(t, "000000010000000000000003"))
	raw := rawObject(t, a.store, key)
	replaceObject(t, a.store, key, raw[:len(raw)-10])
	ix, _ = again(trust, file)
	if n := ix.Headers(); n.Read != 1 || n.Bad != 1 || len(ix.Bad()) != 1 || ix.Bad()[0].Key != key {
		t.Errorf("cut off: %+v, %v", n, ix.Bad())
	}
	for _, bad := range [][]byte{{1}, append(file, 1), append(append([]byte{}, file...), file[16:]...)} {
		if known, err := ParseHeaders(bad, trust); err == nil || len(known.entries) != 0 {
			t.Errorf("%d bytes are read", len(bad))
		}
	}
}

// Junk ends what can be restored, and is no end of the archive.
func TestStandingOverJunk(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		junk string
		end  postgres.LSN
	}{
		"after the end": {"000000010000000000000006", 6 * mib},
		"a slice":       {"000000010000000000000006.d/00000000-00001000", 6 * mib},
		"the middle":    {"000000010000000000000003", 3 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t, mem.New())
			for no := 1; no <= 5; no++ {
				a.pushSegment(t, fmt.Sprintf("000000010000000000000%03X", no))
			}
			key := repo.WALPrefix(testSystem, 1) + c.junk
			err := a.store.Delete(t.Context(), key)
			if err == nil {
				err = a.store.Create(t.Context(), key, strings.NewReader(strings.Repeat("junk", 500)))
			}
			if err != nil {
				t.Fatal(err)
			}
			ix := loadChecked(t, a, HeaderCheck{})
			s := ix.Standing([]repo.Info{{Label: "a", Timeline: 1, StartLSN: mib + 40, StopLSN: mib + 80, SegSize: 1 << 20}})
			if len(s.Windows) != 1 || s.Windows[0].Reach.End != c.end || !s.Windows[0].Reach.Gap || len(s.Gaps) != 1 || s.Gaps[0].Bad == nil || len(s.Gaps[0].NeededBy) != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// What was not wanted, or not read in the time, is there and unchecked.
func TestListedNotChecked(t *testing.T) {
	t.Parallel()
	a := newArchive(t, mem.New())
	for no := 1; no <= 5; no++ {
		a.pushSegment(t, fmt.Sprintf("000000010000000000000%03X", no))
	}
	for name, c := range map[string]struct {
		check HeaderCheck
		want  int
	}{
		"not wanted": {HeaderCheck{Want: func(n postgres.WALName) bool { return n.Segment < "000000010000000000000004" }}, 2},
		"no time":    {HeaderCheck{Within: time.Nanosecond}, 5},
	} {
		ix := loadChecked(t, a, c.check)
		s := ix.Standing([]repo.Info{{Label: "a", Timeline: 1, StartLSN: mib + 40, StopLSN: mib + 80, SegSize: 1 << 20}})
		if len(s.Windows) != 1 || s.Windows[0].Unchecked != c.want || s.Windows[0].Reach.End != 6*mib || ix.Headers().Unchecked != c.want {
			t.Errorf("%s: %+v, %+v", name, s, ix.Headers())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := LoadChecked(ctx, a.Repo, testSystem, func(storage.Info) {}, HeaderCheck{}); err == nil {
		t.Error("an interrupted look is no look")
	}
}
