package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// The drawing: y runs from top to base; below lies the lane of drills without a
// figure, and below that the dates. x is in percent, so that a chart is as wide
// as the page and its letters stay as they are.
const (
	chartTop  = 12.0
	chartBase = 142.0
	chartLane = 160.0
	chartText = 184.0
	chartEdge = 3.0 // percent free at both sides
)

// maxTrend is how many drills a trend shows.
const maxTrend = 120

// chart is the trend of one figure, ready to be drawn.
type chart struct {
	Title, Summary string
	Marks          []mark
	Ticks          []tick
	Dates          []tick
	Objective      []step
	Lane           bool // there are drills without a figure
	Log            bool
}

// mark is one drill: X in percent, Y and Low in pixels. Low is below Y where
// the figure is a span.
type mark struct {
	X, Y, Low float64
	Verdict   evidence.Verdict
	Text      string
}

type tick struct {
	At     float64
	Text   string
	Anchor string
}

type step struct{ X1, X2, Y float64 }

// point is one drill before it has a place.
type point struct {
	when             time.Time
	value, low       *float64
	objective        *float64
	verdict          evidence.Verdict // on the drill
	text             string
	objectiveVerdict evidence.Verdict
}

func rpoPoint(d *evidence.Drill) point {
	p := point{d.Started, d.RPO.Upper, d.RPO.Lower, d.RPO.Objective, verdictOf(d.Verdict), d.RPO.Loss(), d.RPO.Verdict}
	if d.RPO.Zero {
		zero := 0.0
		p.value, p.low = &zero, nil
	}
	return p
}

func rtoPoint(d *evidence.Drill) point {
	return point{d.Started, d.RTO.Achieved, nil, d.RTO.Objective, verdictOf(d.Verdict), achievedRTO(d.RTO), d.RTO.Verdict}
}

// charts draws RPO and RTO over the newest drills that restored; none when
// there are fewer than two.
func (h *History) charts() []chart {
	var rpo, rto []point
	for _, d := range h.Drills {
		if Restores(d.Drill.Level) {
			rpo, rto = append(rpo, rpoPoint(&d.Drill)), append(rto, rtoPoint(&d.Drill))
		}
	}
	if len(rpo) < 2 {
		return nil
	}
	cut := max(0, len(rpo)-maxTrend)
	return []chart{draw("RPO: what would have been lost", rpo[cut:]), draw("RTO: time until the checks passed", rto[cut:])}
}

func draw(title string, points []point) chart {
	c := chart{Title: title, Summary: describe(points)}
	s := newScale(points)
	c.Ticks, c.Log = s.ticks(), s.log
	first, last := points[0].when, points[len(points)-1].when
	x := func(t time.Time) float64 {
		if !last.After(first) {
			return 50
		}
		return round(chartEdge + (100-2*chartEdge)*t.Sub(first).Seconds()/last.Sub(first).Seconds())
	}
	for _, p := range points {
		m := mark{X: x(p.when), Y: chartLane, Verdict: p.verdict, Text: fmt.Sprintf("%s: %s, drill %s", minute(p.when), p.text, p.verdict)}
		if p.value != nil {
			m.Y = s.y(*p.value)
			m.Low = m.Y
			if p.low != nil && *p.low > 0 { // "up to" says nothing about the least
				m.Low = s.y(*p.low)
			}
		} else {
			c.Lane = true
		}
		c.Marks = append(c.Marks, m)
	}
	c.Objective = steps(points, x, s)
	c.Dates = []tick{{chartEdge, day(first), "start"}, {100 - chartEdge, day(last), "end"}}
	return c
}

// steps draws the objective; where it changed it has a step.
func steps(points []point, x func(time.Time) float64, s scale) []step {
	var out []step
	var now *float64
	for i, p := range points {
		if p.objective == nil {
			now = nil
			continue
		}
		if now == nil || *now != *p.objective {
			at := x(p.when)
			if i == 0 {
				at = 0
			}
			out, now = append(out, step{at, at, s.y(*p.objective)}), p.objective
		}
		out[len(out)-1].X2 = 100
		if i < len(points)-1 {
			out[len(out)-1].X2 = x(points[i+1].when)
		}
	}
	return out
}

// describe says in words what the picture shows.
func describe(points []point) string {
	n := map[evidence.Verdict]int{}
	var values []float64
	met, asked := 0, 0
	for _, p := range points {
		n[p.verdict]++
		if p.value != nil {
			values = append(values, *p.value)
		}
		if p.objective != nil {
			asked++
		}
		if p.objective != nil && p.objectiveVerdict == evidence.Passed {
			met++
		}
	}
	s := fmt.Sprintf("%d drills from %s to %s: %d passed, %d failed, %d unknown.", len(points), day(points[0].when),
		day(points[len(points)-1].when), n[evidence.Passed], n[evidence.Failed], n[evidence.Unknown])
	if len(values) > 0 {
		s += fmt.Sprintf(" Lowest %s, highest %s, newest %s.", valueText(slices.Min(values)), valueText(slices.Max(values)), points[len(points)-1].text)
	}
	if without := len(points) - len(values); without > 0 {
		s += fmt.Sprintf(" %s no figure.", count(without, "drill has", "drills have"))
	}
	if asked > 0 {
		s += fmt.Sprintf(" Objective met in %d of %d.", met, asked)
	}
	return s
}

func valueText(v float64) string {
	if v == 0 {
		return "0"
	}
	return evidence.Seconds(v)
}

// scale places values. It is logarithmic when they are far apart.
type scale struct {
	log    bool
	lo, hi float64
	step   float64 // between ticks, when it is not logarithmic
}

// Lengths of time that people read easily, in seconds.
func niceSteps() []float64 {
	return []float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600,
		7200, 4 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400, 14 * 86400, 30 * 86400, 90 * 86400, 365 * 86400}
}

func decades() []float64 {
	return []float64{0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400}
}

func newScale(points []point) scale {
	lo, hi := 0.0, 0.0
	for _, p := range points {
		for _, v := range []*float64{p.value, p.objective} {
			if v == nil || *v <= 0 {
				continue
			}
			hi = max(hi, *v)
			if lo == 0 || *v < lo {
				lo = *v
			}
		}
	}
	if hi == 0 {
		hi = 1
	}
	if lo > 0 && hi/lo > 30 {
		return logScale(lo, hi)
	}
	s := scale{step: hi, hi: hi}
	for _, n := range niceSteps() {
		if hi/n <= 4 {
			s.step = n
			break
		}
	}
	for s.hi = s.step; s.hi < hi; s.hi += s.step {
	}
	return s
}

func logScale(lo, hi float64) scale {
	s := scale{log: true, lo: decades()[0], hi: hi}
	for _, d := range decades() {
		if d <= lo {
			s.lo = d
		}
		if d >= hi {
			s.hi = d
			break
		}
	}
	return s
}

// y is the place of v. On the logarithmic scale 0 has a place of its own, below
// the smallest tick.
func (s scale) y(v float64) float64 {
	share := v / s.hi
	if s.log {
		const foot = 0.1
		share = 0
		if v > 0 {
			share = foot + (1-foot)*max(0, logRatio(v, s.lo)/logRatio(s.hi, s.lo))
		}
	}
	return round(chartBase - (chartBase-chartTop)*min(1, max(0, share)))
}

func (s scale) ticks() []tick {
	out := []tick{{At: chartBase, Text: "0"}}
	if !s.log {
		for v := s.step; v <= s.hi*1.001; v += s.step {
			out = append(out, tick{At: s.y(v), Text: tickText(v)})
		}
		return out
	}
	for _, v := range decades() {
		if v >= s.lo && v <= s.hi {
			out = append(out, tick{At: s.y(v), Text: tickText(v)})
		}
	}
	return out
}

// tickText is a round length of time: "10 s", "2 h".
func tickText(v float64) string {
	units := []struct {
		size float64
		name string
	}{{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}}
	for _, u := range units {
		if v >= u.size {
			return strconv.FormatFloat(round(v/u.size), 'f', -1, 64) + " " + u.name
		}
	}
	return strings.TrimSpace(strconv.FormatFloat(round(v*1000), 'f', -1, 64) + " ms")
}
