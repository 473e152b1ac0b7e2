package main

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedBuffer can be read while the progress ticker writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	l.b.Reset()
	return s
}

func progressApp(terminal, quiet bool) (*app, *lockedBuffer) {
	out := &lockedBuffer{}
	u := &ui{stderr: out, terminal: terminal, quiet: quiet, width: func() int { return 100 }}
	return &app{ui: u, now: time.Now}, out
}

func TestProgressInLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, out := progressApp(false, false)
		p := a.newProgress("copying")
		time.Sleep(time.Second / 2) // off the ticks
		for i := range 25 {
			p.update(int64(i+1)*(4<<20), 200<<20)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		p.close()
		p.close() // twice is fine
		want := []string{
			"lifeboat: copying: 40 MiB of 200 MiB (20%), 4.0 MiB/s, 40s left",
			"lifeboat: copying: 80 MiB of 200 MiB (40%), 4.0 MiB/s, 30s left",
			"lifeboat: copying: 100 MiB of 200 MiB (50%) in 26s, 3.9 MiB/s",
		}
		if got := strings.TrimSuffix(out.take(), "\n"); got != strings.Join(want, "\n") {
			t.Errorf("have:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
		}
	})
}

func TestProgressOnTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, out := progressApp(true, false)
		p := a.newProgress("copying")
		p.update(50<<20, 100<<20)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		bars := strings.Split(out.take(), "\r")
		if want := "[============            ] copying: 50 MiB of 100 MiB (50%), "; !strings.HasPrefix(bars[len(bars)-1], want) {
			t.Errorf("bar %q, want %q…", bars[len(bars)-1], want)
		}
		a.warn("look")
		if got := out.take(); got != "\r\x1b[Klifeboat: warning: look\n" {
			t.Errorf("a warning in between: %q", got)
		}
		time.Sleep(barInterval)
		synctest.Wait()
		a.closeProgress()
		if got := out.take(); !strings.HasSuffix(got, "\r\x1b[K") || strings.Contains(got, "\n") {
			t.Errorf("at the end: %q, want the bar taken away", got)
		}
	})
}

// Each phase counts its own bytes and its own time.
func TestProgressPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, out := progressApp(false, false)
		p := a.newProgress("starting")
		time.Sleep(2 * time.Second)
		p.setPhase("copying")
		p.update(8<<20, 8<<20)
		time.Sleep(4 * time.Second)
		p.setPhase("copying")
		p.setPhase("waiting")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		p.close()
		want := "lifeboat: copying: 8.0 MiB of 8.0 MiB (100%) in 4s, 2.0 MiB/s\nlifeboat: waiting: 4s so far\n"
		if got := out.take(); got != want {
			t.Errorf("have:\n%s\nwant:\n%s", got, want)
		}
	})
}

func TestProgressQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, out := progressApp(true, true)
		p := a.newProgress("copying")
		p.update(1<<20, 2<<20)
		time.Sleep(time.Minute)
		p.close()
		if got := out.take(); got != "" {
			t.Errorf("with --quiet: %q", got)
		}
	})
}

func TestProgressState(t *testing.T) {
	for _, c := range []struct {
		s    progressState
		want string
	}{
		{progressState{phase: "copying"}, "copying: 0s so far"},
		{progressState{phase: "copying", done: 5, total: 3, rate: 10}, "copying: 5 B of 3 B (100%), 10 B/s, 0s so far"},
		{progressState{phase: "copying", done: -5, total: 3}, "copying: 0 B of 3 B (0%), 0s so far"},
		{progressState{phase: "copying", done: 1, total: 1 << 62, rate: 1}, "copying: 1 B of 4.0 EiB (0%), 1 B/s, 0s so far"},
		{progressState{phase: "copying", done: 1 << 30, total: 3 << 30, rate: 1 << 20}, "copying: 1.0 GiB of 3.0 GiB (33%), 1.0 MiB/s, 34m8s left"},
	} {
		if got := c.s.text(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.s, got, c.want)
		}
		for width := range 120 {
			if got := c.s.bar(width); len(got) >= max(width, 1) {
				t.Fatalf("bar of %d columns on a terminal of %d: %q", len(got), width, got)
			}
		}
	}
}
