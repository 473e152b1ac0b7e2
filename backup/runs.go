package backup

import (
	"iter"
	"slices"
	"sort"
)

// run is bytes of a file from one offset to, not including, another.
type run struct{ from, to int64 }

// runs are ascending and apart from each other.
type runs []run

// whole is all of a file.
func whole(size int64) runs {
	if size == 0 {
		return nil
	}
	return runs{{0, size}}
}

// add puts a run behind the others. It must not begin before the last one.
func (r *runs) add(n run) {
	if n.from >= n.to {
		return
	}
	if last := len(*r) - 1; last >= 0 && (*r)[last].to >= n.from {
		(*r)[last].to = max((*r)[last].to, n.to)
		return
	}
	*r = append(*r, n)
}

// union sorts runs that came in any order.
func union(all ...run) runs {
	slices.SortFunc(all, func(a, b run) int {
		switch {
		case a.from < b.from:
			return -1
		case a.from > b.from:
			return 1
		}
		return 0
	})
	var out runs
	for _, n := range all {
		out.add(n)
	}
	return out
}

// minus is what is in r and not in o.
func (r runs) minus(o runs) runs {
	var out runs
	i := 0
	for _, n := range r {
		for i < len(o) && o[i].to <= n.from {
			i++
		}
		at := n.from
		for j := i; j < len(o) && o[j].from < n.to; j++ {
			out.add(run{at, min(o[j].from, n.to)})
			at = max(at, o[j].to)
		}
		out.add(run{at, n.to})
	}
	return out
}

// common is what is in both.
func (r runs) common(o runs) runs {
	var out runs
	for _, n := range o {
		for c := range r.within(n) {
			out.add(c)
		}
	}
	return out
}

// within yields what of r lies in a run.
func (r runs) within(n run) iter.Seq[run] {
	return func(yield func(run) bool) {
		first := sort.Search(len(r), func(i int) bool { return r[i].to > n.from })
		for _, have := range r[first:] {
			if have.from >= n.to {
				return
			}
			if !yield(run{max(have.from, n.from), min(have.to, n.to)}) {
				return
			}
		}
	}
}

func (r runs) bytes() int64 {
	var n int64
	for _, one := range r {
		n += one.to - one.from
	}
	return n
}
