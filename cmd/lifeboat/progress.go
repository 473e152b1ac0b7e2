package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
)

// How often progress is shown: as a bar on a terminal, as a line in a log.
const (
	barInterval  = 200 * time.Millisecond
	lineInterval = 10 * time.Second
)

// progress shows how far long work has come: on a terminal a bar with rate and
// time left, elsewhere a line now and then, with --quiet nothing. Its methods
// can be called from any goroutine and as often as one likes: update only
// stores two numbers.
type progress struct {
	ui  *ui
	now func() time.Time

	done, total atomic.Int64 // bytes, or units; total 0 is unknown
	unit        string       // what is counted, in the plural; "": bytes
	phase       atomic.Pointer[string]

	stop   chan struct{}
	once   sync.Once
	exited chan struct{}

	// Below: held by ui.mu.
	start time.Time // of the phase
	last  sample
	rate  float64
	shown bool // a bar is on the screen
}

type sample struct {
	at   time.Time
	done int64
}

// newProgress starts to show the progress of one piece of work, such as
// "copying". Only one is shown at a time: a new one ends the one before it.
func (a *app) newProgress(phase string) *progress { return a.newCount(phase, "") }

// newCount is newProgress of work that is counted in other units than bytes. It
// leaves no line of what took less than a second.
func (a *app) newCount(phase, unit string) *progress {
	a.closeProgress()
	p := &progress{unit: unit, ui: a.ui, now: a.now, start: a.now(), stop: make(chan struct{}), exited: make(chan struct{})}
	p.last = sample{at: p.start}
	p.phase.Store(&phase)
	if a.quiet {
		close(p.exited)
		return p
	}
	a.mu.Lock()
	a.progress = p
	a.mu.Unlock()
	go p.run()
	return p
}

// update says how many bytes, or units, are done and how many there are; 0 is unknown.
func (p *progress) update(done, total int64) {
	p.done.Store(done)
	p.total.Store(total)
}

// setPhase names what is being done now. A phase counts its own bytes and its
// own time; in a log each leaves a line when it ends.
func (p *progress) setPhase(phase string) { p.setCount(phase, "") }

// setCount is setPhase of one that is counted in other units than bytes.
func (p *progress) setCount(phase, unit string) {
	if *p.phase.Load() == phase {
		return
	}
	p.ui.mu.Lock()
	defer p.ui.mu.Unlock()
	p.summarise()
	p.done.Store(0)
	p.total.Store(0)
	p.phase.Store(&phase)
	p.unit = unit
	p.start, p.rate = p.now(), 0
	p.last = sample{at: p.start}
}

// close ends the display. In a log a last line says what was done.
func (p *progress) close() {
	p.once.Do(func() { close(p.stop) })
	<-p.exited
}

// closeProgress ends the progress that is being shown, if there is one.
func (u *ui) closeProgress() {
	u.mu.Lock()
	p := u.progress
	u.mu.Unlock()
	if p != nil {
		p.close()
	}
}

// run shows the state at every tick until close.
func (p *progress) run() {
	defer close(p.exited)
	interval := lineInterval
	if p.ui.terminal {
		interval = barInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			p.show()
		case <-p.stop:
			p.finish()
			return
		}
	}
}

// show prints the state once.
func (p *progress) show() {
	p.ui.mu.Lock()
	defer p.ui.mu.Unlock()
	s := p.state()
	if p.ui.terminal {
		_, _ = io.WriteString(p.ui.stderr, "\r"+s.bar(p.ui.width())+"\x1b[K")
		p.shown = true
		return
	}
	_, _ = io.WriteString(p.ui.stderr, "lifeboat: "+s.text()+"\n")
}

// finish takes the bar away; in a log it leaves a last line.
func (p *progress) finish() {
	p.ui.mu.Lock()
	defer p.ui.mu.Unlock()
	p.clear()
	p.ui.progress = nil
	p.summarise()
}

// summarise leaves the line of a phase that ends. The caller holds ui.mu.
func (p *progress) summarise() {
	if s := p.state(); !p.ui.terminal && !p.ui.quiet && s.done > 0 && (s.unit == "" || s.elapsed >= time.Second) {
		_, _ = io.WriteString(p.ui.stderr, "lifeboat: "+s.summary()+"\n")
	}
}

// clear takes the bar off the screen; the next tick brings it back. The caller
// holds ui.mu.
func (p *progress) clear() {
	if p.shown {
		_, _ = io.WriteString(p.ui.stderr, "\r\x1b[K")
		p.shown = false
	}
}

// state takes stock and brings the rate up to date: a mean that forgets, so
// that time left follows the last ten seconds or so and does not jump. The
// caller holds ui.mu.
func (p *progress) state() progressState {
	now := p.now()
	s := progressState{
		phase:   *p.phase.Load(),
		done:    p.done.Load(),
		total:   p.total.Load(),
		elapsed: now.Sub(p.start),
		unit:    p.unit,
	}
	if dt := now.Sub(p.last.at).Seconds(); dt > 0 {
		current := max(0, float64(s.done-p.last.done)/dt)
		weight := min(1, max(dt/10, dt/max(s.elapsed.Seconds(), dt)))
		p.rate += weight * (current - p.rate)
		p.last = sample{now, s.done}
	}
	s.rate = p.rate
	return s
}

// progressState is one moment of progress.
type progressState struct {
	phase       string
	done, total int64   // bytes, or units
	rate        float64 // of them a second
	elapsed     time.Duration
	unit        string
}

// size is an amount in words.
func (s progressState) size(n int64) string {
	if s.unit == "" {
		return sizeText(n)
	}
	return humanize.Comma(n) + " " + s.unit
}

// text is "copying: 1.2 GiB of 2.0 GiB (60%), 210 MiB/s, 4s left".
func (s progressState) text() string {
	var parts []string
	if s.done > 0 || s.total > 0 {
		parts = append(parts, s.amount())
	}
	if s.rate >= 1 {
		parts = append(parts, s.size(int64(s.rate))+"/s")
	}
	if left, ok := s.left(); ok {
		parts = append(parts, span(left)+" left")
	} else {
		parts = append(parts, span(s.elapsed)+" so far")
	}
	return s.phase + ": " + strings.Join(parts, ", ")
}

// summary is the line that stays in a log when the work has ended.
func (s progressState) summary() string {
	text := s.phase + ": " + s.amount() + " in " + span(s.elapsed)
	if sec := s.elapsed.Seconds(); sec >= 1 { // below, a rate says nothing
		text += ", " + s.size(int64(float64(s.done)/sec)) + "/s"
	}
	return text
}

func (s progressState) amount() string {
	if s.total <= 0 {
		return s.size(s.done)
	}
	return fmt.Sprintf("%s of %s (%d%%)", s.size(s.done), s.size(s.total), int(s.share()*100))
}

// share is the part that is done, from 0 to 1.
func (s progressState) share() float64 {
	if s.total <= 0 {
		return 0
	}
	return min(1, max(0, float64(s.done)/float64(s.total)))
}

// left is the time that the rest will take at the present rate.
func (s progressState) left() (time.Duration, bool) {
	if s.total <= 0 || s.rate < 1 || s.done >= s.total {
		return 0, false
	}
	sec := float64(s.total-s.done) / s.rate
	if sec > 99*3600 {
		return 0, false
	}
	return time.Duration(sec * float64(time.Second)), true
}

// bar is one line of at most width columns: text, with a bar where it fits.
func (s progressState) bar(width int) string {
	const cells = 24
	text := s.text()
	if s.total > 0 && len(text)+cells+3 < width {
		full := int(s.share() * cells)
		text = "[" + strings.Repeat("=", full) + strings.Repeat(" ", cells-full) + "] " + text
	}
	if len(text) >= width {
		text = text[:max(0, width-1)]
	}
	return text
}

// sizeText is a size for people, in binary units.
func sizeText(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

// span is a duration for people: to the second, below ten seconds to the tenth.
func span(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
