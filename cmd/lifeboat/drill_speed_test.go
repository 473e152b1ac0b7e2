package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	speedBefore = flag.String("drill-before", "", "another build of the program, which TestDrillSpeed measures this one against")
	speedNow    = flag.String("drill-now", "", "the build that TestDrillSpeed measures, and not the test binary, which starts with all that tests need")
	speedPairs  = flag.Int("drill-pairs", 20, "drills that TestDrillSpeed does with each of the two")
)

// The time that a drill takes beside that of another build, on the same repository and
// by turns, so that what else the machine does falls on both. The medians count. See
// docs/drill.md, "How long it takes".
func TestDrillSpeed(t *testing.T) {
	if *speedBefore == "" || *speedNow == "" {
		t.Skip("there is nothing to measure: give two builds with -drill-before and -drill-now")
	}
	s := newSite(t, siteOptions{})
	s.ballast(t)
	builds := []string{*speedBefore, *speedNow}
	var wall, cpu [2][]time.Duration
	for range *speedPairs {
		for i, program := range builds {
			w, c := s.timedDrill(t, program)
			wall[i], cpu[i] = append(wall[i], w), append(cpu[i], c)
		}
	}
	for _, m := range []struct {
		what  string
		times [2][]time.Duration
	}{{"wall", wall}, {"user and system", cpu}} {
		before, now := median(m.times[0]), median(m.times[1])
		t.Logf("%s: before %.3f s, now %.3f s (medians of %d): %.3f times", m.what, before.Seconds(), now.Seconds(), *speedPairs, now.Seconds()/before.Seconds())
	}
}

// plainEnviron is the environment of the test without what the tests have for each other:
// another build may refuse a variable that it does not know.
func plainEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LIFEBOAT_TEST_") })
}

// timedDrill does a drill of level standard and says how long it took, and how much of
// that the processors worked for it and for all that it has waited for.
func (s *site) timedDrill(t *testing.T, program string) (wall, cpu time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "drill", "--config", s.config, "--identity", s.identity, "--staging", t.TempDir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = &out, &out, append(plainEnviron(), s.env...), s.dir
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return time.Since(began), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}
