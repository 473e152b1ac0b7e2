package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

var truthDrills = flag.Int("drills", 6, "drills that TestDrillFiguresAreTrue looks at")

// TestDrillFiguresAreTrue holds what a drill reports to what an outside observer
// saw: he knows each commit that was acknowledged and when, and the moment at
// which the last check had passed. Under load and idle, the loss that he counts
// lies within the reported bounds, and the recovery time is that of his own
// stopwatch to 5 %.
func TestDrillFiguresAreTrue(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Exec(t, "create table load (n bigint primary key, at timestamptz, filler text)")
	s.Exec(t, "create table ballast as select i, md5(i::text) from generate_series(1, 300000) i") // so that a drill takes a while
	s.Setting(t, "archive_timeout", "1s")
	s.Restart(t)
	s.run(t, "backup")
	seen := filepath.Join(s.dir, "seen")
	s.configure(t, fmt.Sprintf(`  checks:
    - name: observer
      command: [psql, --no-psqlrc, -qAt, -c, select n from load, -o, %s]
`, seen))
	next := int64(1)
	zero, lossy := 0, 0
	var ratios []float64 // of the RTO that is reported to the observer's
	for i := range *truthDrills {
		if i%5 == 4 {
			s.run(t, "backup") // or each drill replays all that the others did
		}
		idle := i%2 == 1
		l := startLoad(t, s.Cluster, next, 10*time.Millisecond)
		time.Sleep(time.Duration(300+i*97%1500) * time.Millisecond)
		if idle {
			l.stop()
			if i%4 == 3 {
				s.flush(t) // all of it is archived: the loss is proven to be none
			}
		}
		observed := time.Now()
		d := s.drilled(t, exitOK, "--rpo", "1h")
		if !idle {
			l.stop()
		}
		lost := trueLoss(t, l, seen, *d.RPO.Disaster)
		if d.RPO.Basis != "primary" || d.RPO.Upper == nil || d.RPO.Lower == nil {
			t.Fatalf("the primary was there, and the RPO is %+v", d.RPO)
		}
		if upper, lower := *d.RPO.Upper, *d.RPO.Lower; lost.Seconds() > upper || lost.Seconds() < lower {
			t.Errorf("drill %d: %v were lost, reported are %v to %v: %+v", i, lost, lower, upper, d.RPO)
		}
		if d.RPO.Zero && lost > 0 {
			t.Errorf("drill %d: zero loss is said to be proven, and %v were lost", i, lost)
		}
		if d.RPO.Zero {
			zero++
		} else if lost > 0 {
			lossy++
		}
		ratios = append(ratios, checkStopwatch(t, d, observed, seen))
		for n := range l.acked {
			next = max(next, n+loadClients)
		}
		next += loadClients
	}
	t.Logf("%d drills: %d with a loss, %d with proven zero loss", *truthDrills, lossy, zero)
	slices.Sort(ratios)
	if median := ratios[len(ratios)/2]; median < 0.95 || median > 1.05 {
		t.Errorf("the RTO that is reported is %.3f of the stopwatch's in the median: %.3f", median, ratios)
	}
	if lossy < *truthDrills/4 || zero < *truthDrills/8 {
		t.Error("there were too few of one kind for this test to prove anything")
	}
}

// trueLoss is how long before the disaster the oldest commit was acknowledged
// that did not come back.
func trueLoss(t *testing.T, l *commitLoad, seen string, disaster time.Time) time.Duration {
	t.Helper()
	text, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	there := map[int64]bool{}
	for line := range strings.Lines(string(text)) {
		n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		there[n] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost time.Duration
	for n, at := range l.acked {
		if !there[n] && !at.After(disaster) {
			lost = max(lost, disaster.Sub(at))
		}
	}
	return lost
}

// checkStopwatch compares the achieved RTO with the time from the start of the
// program to the end of the observer's check, which is all but the last. On a busy
// machine it takes a moment before the program runs, which the stopwatch alone
// counts: one drill may differ by 5 % and half a second, their median by 5 %.
func checkStopwatch(t *testing.T, d evidence.Drill, began time.Time, seen string) (ratio float64) {
	t.Helper()
	info, err := os.Stat(seen)
	if err != nil {
		t.Fatal(err)
	}
	mine := info.ModTime().Sub(began).Seconds()
	for _, c := range d.Checks {
		if c.Name == "checksums" {
			mine += c.Seconds
		}
	}
	got := *d.RTO.Achieved
	if math.Abs(got-mine) > mine*0.05+0.5 {
		text, _ := json.Marshal(d.Phases)
		t.Errorf("the RTO is said to be %.3f s, the stopwatch says %.3f s: %s", got, mine, text)
	}
	return got / mine
}
