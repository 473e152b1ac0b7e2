package blocks

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// A set answers as a plain map of all pages would, also after it was written
// and read, and merged with another.
func TestSetAgainstAMap(t *testing.T) {
	const pages = 5000
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		rel := func() Fork {
			return Fork{postgres.RelFile{Tablespace: 1663, Database: 5, Number: 1 + rnd.Uint32N(3)}, postgres.Fork(rnd.Uint32N(2))}
		}
		var one, two Set
		plain := map[Fork]*[pages]bool{}
		at := func(f Fork) *[pages]bool {
			if plain[f] == nil {
				plain[f] = new([pages]bool)
			}
			return plain[f]
		}
		for range rnd.IntN(60) {
			s, f := &one, rel()
			if rnd.IntN(2) == 0 {
				s = &two
			}
			switch first := rnd.Uint32N(pages); rnd.IntN(8) {
			case 0:
				s.Cut(f, first)
				for b := first; b < pages; b++ {
					at(f)[b] = true
				}
			default:
				end := min(first+1+rnd.Uint32N(200), pages)
				s.Add(f, first, end)
				for b := first; b < end; b++ {
					at(f)[b] = true
				}
			}
		}
		one.Merge(&two)
		text, err := Summary{From: 1, To: 2, Set: &one}.marshal(maxPages, maxSummary)
		if err != nil {
			t.Fatal(err)
		}
		read, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*Set{&one, read.Set} {
			for f, want := range plain {
				first := rnd.Uint32N(pages)
				end := first + rnd.Uint32N(pages-first)
				var got, expected [pages]bool
				last := uint32(0)
				for r := range s.Changed(f, first, end) {
					if r.First < first || r.End > end || r.First >= r.End || last != 0 && r.First <= last {
						t.Fatalf("seed %d: of %d to %d the run %v after %d", seed, first, end, r, last)
					}
					last = r.End
					for b := r.First; b < r.End; b++ {
						got[b] = true
					}
				}
				copy(expected[first:end], want[first:end])
				if got != expected || !s.Touched(f.RelFile) {
					t.Fatalf("seed %d: %v from %d to %d differs, touched %t", seed, f, first, end, s.Touched(f.RelFile))
				}
			}
		}
	}
}

// What happens to whole files, as records tell it.
func TestEventsOfWholeFiles(t *testing.T) {
	rel := postgres.RelFile{Tablespace: 1663, Database: 5, Number: 16384}
	other := postgres.RelFile{Tablespace: 1663, Database: 6, Number: 16384}
	all := []Run{{0, 100}}
	for _, c := range []struct {
		name string
		ev   postgres.Event
		main []Run // of rel
		vm   []Run
	}{
		{"made", postgres.StorageCreate{Rel: rel, Fork: postgres.ForkMain}, all, nil},
		{"cut off", postgres.StorageTruncate{Rel: rel, Blocks: 40, Main: true, VM: true, FSM: true}, []Run{{40, 100}}, all},
		{"dropped", postgres.TransactionEnd{Committed: true, Dropped: []postgres.RelFile{rel}}, all, all},
		{"undone", postgres.TransactionEnd{Dropped: []postgres.RelFile{rel}}, all, all},
		{"database copied", postgres.DatabaseCreate{Database: 5, Tablespace: 1663, Copied: true}, all, all},
		{"database logged", postgres.DatabaseCreate{Database: 5, Tablespace: 1663}, all, all},
		{"database dropped", postgres.DatabaseDrop{Database: 5, Tablespaces: []uint32{1664, 1663}}, all, all},
		{"database dropped elsewhere", postgres.DatabaseDrop{Database: 5, Tablespaces: []uint32{20000}}, nil, nil},
		{"committed", postgres.TransactionEnd{Committed: true}, nil, nil},
	} {
		var s Set
		s.takeEvent(c.ev)
		changed := func(r postgres.RelFile, f postgres.Fork) (out []Run) {
			for run := range s.Changed(Fork{r, f}, 0, 100) {
				out = append(out, run)
			}
			return out
		}
		if got := changed(rel, postgres.ForkMain); !reflect.DeepEqual(got, c.main) {
			t.Errorf("%s: main %v, want %v", c.name, got, c.main)
		}
		if got := changed(rel, postgres.ForkVM); !reflect.DeepEqual(got, c.vm) {
			t.Errorf("%s: visibility map %v, want %v", c.name, got, c.vm)
		}
		if s.Touched(rel) != (c.main != nil) || s.Touched(other) {
			t.Errorf("%s: touched %t, another %t", c.name, s.Touched(rel), s.Touched(other))
		}
	}
}

// How a summary stands in the repository, by repo/FORMAT.md: what is there must
// be read for ever.
func TestSummaryText(t *testing.T) {
	var s Set
	s.Add(Fork{postgres.RelFile{Tablespace: 1663, Database: 5, Number: 16384}, postgres.ForkMain}, 7, 9)
	s.Add(Fork{postgres.RelFile{Tablespace: 1663, Database: 5, Number: 16384}, postgres.ForkMain}, 12, 13)
	s.Cut(Fork{postgres.RelFile{Tablespace: 1663, Database: 5, Number: 16384}, postgres.ForkVM}, 0)
	s.ReplaceDir(Directory{1663, 9})
	text, err := Summary{From: 0x1000028, To: 0x2000000, Set: &s}.marshal(maxPages, maxSummary)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"format":1,"from":"0/1000028","to":"0/2000000","folders":[[1663,9]],` +
		`"forks":[{"rel":[1663,5,16384],"fork":0,"runs":[7,2,12,1]},{"rel":[1663,5,16384],"fork":2,"limit":0}]}`
	if string(text) != want {
		t.Errorf("written as\n%s\nnot\n%s", text, want)
	}
	for _, bad := range []string{"", "{}", `{"format":2,"from":"0/1","to":"0/2"}`, `{"format":1,"from":"0/2","to":"0/2"}`,
		`{"format":1,"from":"0/1","to":"0/2","forks":[{"rel":[1,2,3],"fork":4}]}`, `{"format":1,"from":"0/1","to":"0/2","forks":[{"rel":[1,2,3],"fork":0,"runs":[1]}]}`,
		`{"format":1,"from":"0/1","to":"0/2","forks":[{"rel":[1,2,3],"fork":0,"runs":[0,4294967295]}]}`, `{"format":1,"from":"0/1","to":"0/2","forks":[{"rel":[1,2,3],"fork":0,"runs":[1,0]}]}`} {
		if _, err := parse([]byte(bad)); err == nil {
			t.Errorf("read: %s", bad)
		}
	}
}

// What nobody would read is not written.
func TestTooLarge(t *testing.T) {
	var s Set
	s.Add(Fork{RelFile: postgres.RelFile{Tablespace: 1663, Database: 5, Number: 16384}}, 7, 12)
	text, err := Summary{From: 1, To: 2, Set: &s}.marshal(5, maxSummary)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pages int64
		size  int
		fits  bool
	}{{5, len(text), true}, {4, len(text), false}, {5, len(text) - 1, false}} {
		if _, err := (Summary{From: 1, To: 2, Set: &s}).marshal(c.pages, c.size); (err == nil) != c.fits || err != nil && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// What comes from the bucket is signed, and still must not make a reader fail
// or fill the memory by a few bytes.
func FuzzParse(f *testing.F) {
	var s Set
	s.Add(Fork{postgres.RelFile{Tablespace: 1, Database: 2, Number: 3}, 0}, 5, 9)
	s.Cut(Fork{postgres.RelFile{Tablespace: 1, Database: 2, Number: 3}, 2}, 7)
	s.ReplaceDir(Directory{1, 4})
	text, err := Summary{From: 1, To: 2, Set: &s}.marshal(maxPages, maxSummary)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parse(raw)
		if err != nil {
			return
		}
		again, err := s.marshal(maxPages, maxSummary)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parse(again); err != nil {
			t.Fatalf("what was read cannot be written and read: %v", err)
		}
	})
}
