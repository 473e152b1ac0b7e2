package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// series is one operation of one tool, measured again and again.
type series struct {
	wall, cpu    []time.Duration
	largest, sum int64 // the most of all rounds
	stored       int64 // of the last
}

// add takes the figures of a run. The times of the warm-up do not count.
func (s *series) add(round int, u usage) {
	if round > 0 {
		s.wall = append(s.wall, u.wall)
		s.cpu = append(s.cpu, u.cpu)
	}
	s.largest, s.sum = max(s.largest, u.largest), max(s.sum, u.sum)
	s.stored = cmp.Or(u.stored, s.stored)
}

// sample is all of one tool at one place.
type sample struct {
	place, tool           string
	backup, restore, push series
}

// results is everything measured, and what became of the targets.
type results struct {
	samples []*sample
	missed  int
	met     int
	misses  []string
}

func (r *results) at(place, tool string) *sample {
	for _, s := range r.samples {
		if s.place == place && s.tool == tool {
			return s
		}
	}
	s := &sample{place: place, tool: tool}
	r.samples = append(r.samples, s)
	return s
}

// The targets: ratios to pgBackRest in the same run, and limits of memory.
const (
	backupWall, backupCPU = 0.6, 0.7
	restoreWall           = 0.5
	pushWall              = 0.7
	longMemory            = 256 << 20
	pushMemory            = 96 << 20
)

// figure is one row of a table. Those of Lifeboat come first in values.
type figure struct {
	name   string
	values []float64
	spread []string // beside the values, may be nil
	show   func(float64) string
	ratio  float64 // target of Lifeboat's ratio to the second column, 0 for none
	limit  float64 // target of Lifeboat's value, 0 for none
}

// table prints all of one place.
func (r *results) table(w io.Writer, place string) {
	var tools []*sample
	for _, s := range r.samples {
		if s.place == place {
			tools = append(tools, s)
		}
	}
	fmt.Fprintf(w, "\n### %s\n\n", place)
	head, rule := "| |", "|---|"
	for i, s := range tools {
		head += " " + s.tool + " |"
		rule += "--:|"
		if i > 0 {
			head += " ratio |"
			rule += "--:|"
		}
	}
	fmt.Fprintf(w, "%s target | |\n%s--:|---|\n", head, rule)
	for _, f := range figures(tools) {
		r.row(w, place, f)
	}
}

func figures(tools []*sample) []figure {
	var all []figure
	operation := func(name string, of func(*sample) *series, wall, cpu, memory float64) {
		seconds := showSeconds
		if name == "push" {
			seconds = showMillis
		}
		walls := figure{name: name + ", wall", show: seconds, ratio: wall}
		cpus := figure{name: name + ", CPU", show: seconds, ratio: cpu}
		largest := figure{name: name + ", memory of the largest process", show: showMiB, limit: memory}
		sum := figure{name: name + ", memory of all its processes", show: showMiB}
		stored := figure{name: name + ", bytes stored", show: showMB}
		for _, t := range tools {
			s := of(t)
			walls.values = append(walls.values, median(s.wall).Seconds())
			walls.spread = append(walls.spread, fmt.Sprintf(" (%s–%s)", seconds(slices.Min(s.wall).Seconds()), seconds(slices.Max(s.wall).Seconds())))
			cpus.values = append(cpus.values, median(s.cpu).Seconds())
			largest.values = append(largest.values, float64(s.largest))
			sum.values = append(sum.values, float64(s.sum))
			stored.values = append(stored.values, float64(s.stored))
		}
		all = append(all, walls, cpus, largest, sum)
		if stored.values[0] > 0 {
			all = append(all, stored)
		}
	}
	operation("backup", func(s *sample) *series { return &s.backup }, backupWall, backupCPU, longMemory)
	operation("restore", func(s *sample) *series { return &s.restore }, restoreWall, 0, longMemory)
	operation("push", func(s *sample) *series { return &s.push }, pushWall, 0, pushMemory)
	return all
}

func (r *results) row(w io.Writer, place string, f figure) {
	fmt.Fprintf(w, "| %s |", f.name)
	for i, v := range f.values {
		fmt.Fprintf(w, " %s", f.show(v))
		if f.spread != nil {
			fmt.Fprint(w, f.spread[i])
		}
		fmt.Fprint(w, " |")
		if i > 0 {
			fmt.Fprintf(w, " %.2f |", f.values[0]/v)
		}
	}
	switch {
	case f.ratio > 0:
		have := f.values[0] / f.values[1]
		fmt.Fprintf(w, " ≤ %.1f | %s |\n", f.ratio, r.mark(have <= f.ratio, "%s: %s: ratio %.2f, wanted %.1f", place, f.name, have, f.ratio))
	case f.limit > 0:
		fmt.Fprintf(w, " ≤ %s | %s |\n", f.show(f.limit), r.mark(f.values[0] <= f.limit, "%s: %s: %s, wanted %s", place, f.name, f.show(f.values[0]), f.show(f.limit)))
	default:
		fmt.Fprintln(w, " | |")
	}
}

// mark counts a target and says what became of it.
func (r *results) mark(met bool, format string, args ...any) string {
	if met {
		r.met++
		return "met"
	}
	r.missed++
	r.misses = append(r.misses, fmt.Sprintf(format, args...))
	return "**missed**"
}

func (r *results) verdict(w io.Writer) {
	fmt.Fprintf(w, "\n%d targets met, %d missed", r.met, r.missed)
	if r.missed > 0 {
		fmt.Fprint(w, ": "+strings.Join(r.misses, "; "))
	}
	fmt.Fprintln(w, ".")
}

// median of a series that is not empty; of an even number the mean of the two
// in the middle.
func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	n := len(d)
	if n == 0 {
		return 0
	}
	return (d[(n-1)/2] + d[n/2]) / 2
}

func showSeconds(v float64) string { return fmt.Sprintf("%.2f s", v) }
func showMillis(v float64) string  { return fmt.Sprintf("%.1f ms", 1000*v) }
func showMiB(v float64) string     { return fmt.Sprintf("%.0f MiB", v/(1<<20)) }
func showMB(v float64) string      { return fmt.Sprintf("%.1f MB", v/1e6) }
