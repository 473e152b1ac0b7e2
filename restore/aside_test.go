package restore

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
)

const testPage = 8192

// chained makes of the frames what a chain of backups leaves: pages from all over
// each large file in frames of their own, and where they lay in the others what they
// were before, which must not be seen again.
func chained(rnd *rand.Rand, layers int, share float64, frames []rawFrame) (newer, older []rawFrame) {
	pages := make([]rawFrame, layers)
	for _, f := range frames {
		if len(f.to) != 1 || f.to[0].Off == 0 && len(f.raw) < repo.FrameSize {
			older = append(older, f)
			continue
		}
		old := rawFrame{raw: slices.Clone(f.raw)}
		for at := 0; at < len(f.raw); at += testPage {
			page := f.raw[at:min(len(f.raw), at+testPage)]
			s := repo.Span{File: f.to[0].File, Off: f.to[0].Off + int64(at), At: at, Len: len(page)}
			if rnd.Float64() >= share {
				old.to = append(old.to, s)
				continue
			}
			clear(old.raw[at : at+len(page)])
			layer := &pages[rnd.IntN(layers)]
			if len(layer.raw)+len(page) > repo.FrameSize {
				newer = append(newer, *layer)
				*layer = rawFrame{}
			}
			s.At = len(layer.raw)
			layer.to, layer.raw = append(layer.to, s), append(layer.raw, page...)
		}
		if len(old.to) > 0 {
			old.to = joined(old.to)
			older = append(older, old)
		}
	}
	for _, p := range pages {
		if len(p.to) > 0 {
			newer = append(newer, p)
		}
	}
	return newer, older
}

// TestApplyChain restores what a chain of backups left: with room for the pages
// that are put aside, with too little and with none, in the order of manifests and
// in others; where their file is not made, or may not grow; on a machine with hardly
// any memory, so that nothing is kept in it.
func TestApplyChain(t *testing.T) {
	plain := smallTree(t)
	plain["base/1/5000"] = entry{body: pattern(5*repo.FrameSize + 3*testPage)}
	plain["base/1/5001"] = entry{body: pattern(3 * repo.FrameSize)}
	directory, file := maps.Clone(plain), maps.Clone(plain)
	directory[asideFile], directory[asideFile+"/x"] = entry{}, entry{body: []byte("x")}
	file[asideFile] = entry{body: []byte("y")}
	const free = 1 << 40
	for name, c := range map[string]struct {
		order func(rnd *rand.Rand, newer, older []rawFrame) []rawFrame
		share float64
		room  int64
		tr    tree
		limit uint64 // of the size of files; 0: none
	}{
		"in a manifest's order":   {newerFirst, 0.1, free, plain, 0},
		"newer last":              {olderFirst, 0.1, free, plain, 0},
		"shuffled":                {shuffled, 0.1, free, plain, 0},
		"nearly all changed":      {newerFirst, 0.97, free, plain, 0},
		"no room":                 {newerFirst, 0.1, 0, plain, 0},
		"little room":             {newerFirst, 0.1, 5 * repo.FrameSize, plain, 0},
		"a directory of its name": {newerFirst, 0.1, free, directory, 0},
		"a file of its name":      {newerFirst, 0.1, free, file, 0},
		"it grows too large":      {newerFirst, 0.97, free, plain, 6 * repo.FrameSize}, // larger than any other file
	} {
		for _, jobs := range []int{1, 4} {
			if testing.Short() && jobs == 1 {
				continue // nothing to race with
			}
			t.Run(fmt.Sprintf("%s, %d workers", name, jobs), func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(1, uint64(jobs)))
				r, _, _ := newTestRepo(t)
				info := build(t, r, backupA, c.tr, built{frames: func(all []rawFrame) []rawFrame {
					newer, older := chained(rnd, 3, c.share, all)
					return c.order(rnd, newer, older)
				}})
				p := planFor(info, t.TempDir())
				p.Disks = []Disk{{Paths: []string{p.DataDir}, Free: c.room}}
				limitFiles(t, c.limit)
				if err := Apply(context.Background(), r, p, Options{Jobs: jobs, memory: int64(jobs)}); err != nil {
					t.Fatal(err)
				}
				applied(t, p, c.tr)
			})
		}
	}
}

// limitFiles sets how large a file may be that this process writes, for one test.
func limitFiles(t *testing.T, limit uint64) {
	t.Helper()
	if limit == 0 {
		return
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
}

func newerFirst(_ *rand.Rand, newer, older []rawFrame) []rawFrame { return slices.Concat(newer, older) }

func olderFirst(_ *rand.Rand, newer, older []rawFrame) []rawFrame { return slices.Concat(older, newer) }

func shuffled(rnd *rand.Rand, newer, older []rawFrame) []rawFrame {
	all := slices.Concat(newer, older)
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// What was put aside fills the holes of the frame that lies around it, and nothing else.
func TestAsideFills(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	a, err := newAside(&openDir{path: dir, root: root}, []Disk{{Paths: []string{dir}, Free: 64 << 20}}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it has a name: %v %v", left, err)
	}
	content := pattern(4 * repo.FrameSize)
	var scatteredPages rawFrame
	for _, page := range []int{3, 127, 128, 130, 300, 511} {
		scatteredPages.to = append(scatteredPages.to, repo.Span{File: 1, Off: int64(page * testPage), At: len(scatteredPages.raw), Len: testPage})
		scatteredPages.raw = append(scatteredPages.raw, content[page*testPage:][:testPage]...)
	}
	if put, err := a.put(scatteredPages.to, scatteredPages.raw); !put || err != nil {
		t.Fatal(put, err)
	}
	frame := slices.Clone(content[:repo.FrameSize])
	clear(frame[3*testPage : 4*testPage])
	spans := []repo.Span{{File: 1, Off: 0, Len: 3 * testPage}, {File: 1, Off: 4 * testPage, At: 4 * testPage, Len: 123 * testPage}}
	got, err := a.fill(spans, frame)
	if err != nil {
		t.Fatal(err)
	}
	if want := []repo.Span{{File: 1, Len: 127 * testPage}}; !slices.Equal(got, want) || string(frame[:127*testPage]) != string(content[:127*testPage]) {
		t.Errorf("filled %v, want %v", got, want)
	}
	if got, err := a.fill(spans, frame); err != nil || !slices.Equal(got, spans) {
		t.Errorf("filled twice: %v %v", got, err)
	}
	if got, err := a.fill([]repo.Span{{File: 2, Len: repo.FrameSize}}, frame); err != nil || len(got) != 1 || got[0].Len != repo.FrameSize {
		t.Errorf("another file's frame was filled: %v %v", got, err)
	}
	rest := a.rest()
	if len(rest) != 1 || len(rest[1]) != 5 || rest[1][0].off != 127*testPage || rest[1][4].off != 511*testPage {
		t.Errorf("what is left: %v", rest)
	}
}
