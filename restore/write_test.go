package restore

import (
	"reflect"
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/repo"
)

func TestTogether(t *testing.T) {
	span := func(file int, off int64, n int) repo.Span { return repo.Span{File: file, Off: off, Len: n} }
	for name, c := range map[string]struct {
		to   []repo.Span
		runs []int // how many spans each
	}{
		"nothing":                 {nil, nil},
		"one":                     {[]repo.Span{span(1, 0, 100)}, []int{1}},
		"around changed pages":    {[]repo.Span{span(1, 0, 8192), span(1, 16384, 8192), span(1, repo.FrameSize-8192, 8192)}, []int{3}},
		"beyond a frame":          {[]repo.Span{span(1, 0, 8192), span(1, repo.FrameSize-8192, 8193)}, []int{1, 1}},
		"from all over a file":    {[]repo.Span{span(1, 0, 8192), span(1, 5<<20, 8192), span(1, 5<<20+8192, 8192), span(1, 90<<20, 8192)}, []int{1, 2, 1}},
		"several files":           {[]repo.Span{span(1, 0, 100), span(2, 0, 100), span(2, 100, 100), span(1, 100, 100)}, []int{1, 2, 1}},
		"backwards":               {[]repo.Span{span(1, 8192, 8192), span(1, 0, 8192)}, []int{1, 1}},
		"a run of a whole frame":  {[]repo.Span{span(1, 1<<20, repo.FrameSize), span(1, 1<<20+repo.FrameSize, 8)}, []int{1, 1}},
		"a hostile length of all": {[]repo.Span{span(1, 1<<62, 100), span(1, 0, 100)}, []int{1, 1}},
	} {
		var runs []int
		var all []repo.Span
		for near := range together(c.to) {
			runs, all = append(runs, len(near)), append(all, near...)
		}
		if !slices.Equal(runs, c.runs) || len(c.to) > 0 && !reflect.DeepEqual(all, c.to) {
			t.Errorf("%s: runs of %v, want %v; %v", name, runs, c.runs, all)
		}
	}
}
