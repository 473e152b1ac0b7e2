package expire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal"
)

const (
	segSize = 16 << 20
	day     = 24 * time.Hour
)

var now = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)

// at makes a backup that ended ago days before now, of the segments first and
// the one after it.
func at(ago float64, tl postgres.Timeline, first uint64) *Backup {
	stop := now.Add(-time.Duration(ago * float64(day)))
	return &Backup{Packs: make(repo.PackSet, 1), Info: repo.Info{
		Label: fmt.Sprintf("%s-%06x", stop.Add(-time.Minute).Format("20060102T150405Z"), first), System: 1, Timeline: tl, SegSize: segSize,
		StartLSN: postgres.LSN(first*segSize + 40), StopLSN: postgres.LSN((first+1)*segSize + 80), StopTime: stop, Source: "db1"}}
}

func with(b *Backup, change func(*Backup)) *Backup { change(b); return b }

// daily is a backup a day, 100 segments apart, the oldest first.
func daily(n int, tl postgres.Timeline) []*Backup {
	var out []*Backup
	for i := range n {
		out = append(out, at(float64(n-1-i)+0.25, tl, uint64(1000+100*i)))
	}
	return out
}

func input(p Policy, backups ...*Backup) Input {
	in := Input{Now: now, Policy: p, Backups: backups, Uses: map[Place]time.Time{}, SegSizes: map[postgres.SystemID]postgres.SegmentSize{1: segSize, 2: segSize}}
	for _, b := range backups {
		p := Place{b.Info.System, b.Info.Timeline}
		if b.Info.StopTime.After(in.Uses[p]) {
			in.Uses[p] = b.Info.StopTime
		}
	}
	return in
}

// kept are the first segments of the backups that stay, ascending.
func kept(p *Plan) []int {
	var out []int
	for _, d := range p.Decisions {
		if d.Keep {
			out = append(out, int(segmentNo(d.Info.StartLSN, segSize)))
		}
	}
	slices.Sort(out)
	return out
}

func damaged(b *Backup) { b.Broken = errors.New("a pack is missing") }

func pin(p repo.Pin) func(*Backup) {
	return func(b *Backup) { b.Pin = &repo.PinState{Pin: p} }
}

func TestPlans(t *testing.T) {
	t.Parallel()
	clone := func() []*Backup { // timeline 2 was promoted by mistake while 1 went on
		return []*Backup{at(6, 1, 100), at(5, 1, 200), at(4.5, 2, 210), at(4, 1, 300), at(3, 1, 400)}
	}
	upgraded := func() []*Backup { // wal-g#636: what comes after pg_upgrade begins with timeline 1 again
		old := []*Backup{at(6, 7, 900), at(5, 7, 1000)}
		young := []*Backup{at(2, 1, 10), at(1, 1, 20)}
		for _, b := range young {
			b.Info.System = 2
		}
		return append(old, young...)
	}
	for name, c := range map[string]struct {
		in   Input
		want []int
	}{
		"the newest ones":                                 {input(Policy{KeepLast: 3}, daily(10, 1)...), []int{1700, 1800, 1900}},
		"one of a day":                                    {input(Policy{KeepDaily: 2}, at(0.1, 1, 50), at(0.2, 1, 40), at(1.1, 1, 30), at(2.1, 1, 20)), []int{30, 50}},
		"days without a backup do not count":              {input(Policy{KeepDaily: 3}, at(1, 1, 50), at(10, 1, 40), at(20, 1, 30), at(21, 1, 20)), []int{30, 40, 50}},
		"one of a week":                                   {input(Policy{KeepWeekly: 2}, daily(14, 1)...), []int{2200, 2300}},
		"one of a month":                                  {input(Policy{KeepMonthly: 2}, daily(30, 1)...), []int{1000 + 14*100, 3900}},
		"one of a year":                                   {input(Policy{KeepYearly: 2}, at(1, 1, 50), at(200, 1, 40), at(201, 1, 30), at(600, 1, 20)), []int{40, 50}},
		"rules add up":                                    {input(Policy{KeepLast: 1, KeepYearly: 2}, at(1, 1, 50), at(200, 1, 40), at(201, 1, 30), at(600, 1, 20)), []int{40, 50}},
		"the window and the backup before it":             {input(Policy{Window: 3 * day}, daily(10, 1)...), []int{1600, 1700, 1800, 1900}},
		"a window in which there is no backup":            {input(Policy{Window: day}, at(3, 1, 30), at(5, 1, 20)), []int{30}},
		"a pin":                                           {input(Policy{KeepLast: 1}, with(at(9, 1, 10), pin(repo.Pin{})), at(8, 1, 20), at(1, 1, 30)), []int{10, 30}},
		"a pin that has ended":                            {input(Policy{KeepLast: 1}, with(at(9, 1, 10), pin(repo.Pin{Until: now})), at(1, 1, 30)), []int{30}},
		"a pin that was taken off":                        {input(Policy{KeepLast: 1}, with(at(9, 1, 10), pin(repo.Pin{Off: true})), at(1, 1, 30)), []int{30}},
		"a pin that cannot be read":                       {input(Policy{KeepLast: 1}, with(at(9, 1, 10), func(b *Backup) { b.Pin = &repo.PinState{Err: errors.New("forged")} }), at(1, 1, 30)), []int{10, 30}},
		"an adopted one":                                  {input(Policy{KeepLast: 1}, with(at(9, 1, 10), func(b *Backup) { b.AdoptedBy = "x" }), at(1, 1, 30)), []int{10, 30}},
		"one that cannot be read":                         {input(Policy{KeepLast: 1}, with(at(9, 1, 10), func(b *Backup) { b.Unread = errors.New("forged"); b.Packs = nil }), at(1, 1, 30)), []int{10, 30}},
		"one whose WAL may be there":                      {input(Policy{KeepLast: 1}, with(at(9, 1, 10), func(b *Backup) { b.Broken = &wal.BackupGapError{Doubt: errors.New("sealed")} }), at(1, 1, 30)), []int{10, 30}},
		"damaged ones do not count (BAR-707)":             {input(Policy{KeepLast: 2}, at(9, 1, 10), at(8, 1, 20), at(7, 1, 30), with(at(6, 1, 40), damaged), with(at(5, 1, 50), damaged), with(at(4, 1, 60), damaged)), []int{20, 30, 40, 50, 60}},
		"damaged ones are not the newest of a day":        {input(Policy{KeepDaily: 1}, at(9, 1, 10), at(1.2, 1, 20), with(at(1.1, 1, 30), damaged)), []int{20, 30}},
		"the window does not begin with a damaged one":    {input(Policy{Window: 3 * day}, at(9, 1, 10), with(at(5, 1, 20), damaged), at(1, 1, 30)), []int{10, 20, 30}},
		"timelines in use at one time are counted apart":  {input(Policy{KeepLast: 1}, clone()...), []int{210, 400}},
		"timelines that followed are counted as one":      {input(Policy{KeepLast: 2}, at(6, 1, 100), at(5, 1, 200), at(4, 2, 300), at(3, 3, 400)), []int{300, 400}},
		"an earlier point was restored, so LSNs fell":     {input(Policy{KeepLast: 1}, at(6, 1, 900), at(5, 1, 1000), at(4, 2, 500)), []int{500}},
		"an upgrade: time counts, not the timeline":       {input(Policy{KeepLast: 2}, upgraded()...), []int{10, 20}},
		"an upgrade: the old system ages out":             {input(Policy{KeepLast: 3}, upgraded()...), []int{10, 20, 1000}},
		"the only backup that leads to a timeline in use": {input(Policy{KeepLast: 1}, with(at(6, 1, 100), func(b *Backup) { b.LeadsTo = 2 }), at(5, 1, 200), at(4, 1, 300)), []int{100, 300}},
	} {
		p, err := NewPlan(c.in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := kept(p); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v stay, not %v", name, got, c.want)
		}
		for _, d := range p.Decisions {
			if d.Keep != (len(d.Why) > 0) {
				t.Errorf("%s: %s, keep %v, for %q", name, d.Info.Label, d.Keep, d.Why)
			}
		}
	}
}

func TestNothingIsGuessed(t *testing.T) {
	t.Parallel()
	if _, err := NewPlan(input(Policy{}, daily(3, 1)...)); !errors.Is(err, ErrNoPolicy) {
		t.Errorf("without a policy: %v", err)
	}
	for _, bad := range []Policy{{KeepLast: -1}, {Window: -1}} {
		if err := bad.Check(); err == nil || errors.Is(err, ErrNoPolicy) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// Where no backup is found restorable nothing goes, not even WAL or packs.
func TestNoneRestorable(t *testing.T) {
	t.Parallel()
	all := daily(3, 1)
	for _, b := range all {
		damaged(b)
	}
	p, err := NewPlan(input(Policy{KeepLast: 1}, all...))
	if !errors.Is(err, ErrNoneRestorable) || len(p.Going()) != 0 || p.Unswept == "" {
		t.Errorf("%v, %d go, packs stay for %q", err, len(p.Going()), p.Unswept)
	}
	if !p.WAL[0].keeps(1000, now.Add(-30*day)) {
		t.Error("WAL of the only backups goes")
	}
}

func TestWALRules(t *testing.T) {
	t.Parallel()
	old := now.Add(-30 * day)
	pinned := with(at(20, 1, 100), pin(repo.Pin{}))
	backups := []*Backup{pinned, at(9, 1, 500), at(8, 1, 600), at(2, 2, 900), at(1, 2, 1000)}
	in := input(Policy{Window: 3 * day}, backups...)
	p, err := NewPlan(in)
	if err != nil {
		t.Fatal(err)
	}
	rule := p.WAL[0]
	for no, want := range map[uint64]bool{99: false, 100: true, 101: true, 102: false, 500: false, 599: false, 600: true, 700: true, 2000: true} {
		if rule.keeps(no, old) != want {
			t.Errorf("segment %d stays: %v", no, !want)
		}
	}
	// pgBackRest #1000: WAL of before the first backup of a new system.
	if !rule.keeps(99, now.Add(-time.Hour)) {
		t.Error("WAL goes that was stored an hour ago")
	}
	// A backup that has been running for three days needs what was stored since.
	in.RunningSince = now.Add(-3 * day)
	p, _ = NewPlan(in)
	if !p.WAL[0].keeps(99, now.Add(-3*day)) || p.WAL[0].keeps(99, now.Add(-4*day)) {
		t.Error("what was stored since a running backup began does not count")
	}
	// Without a window, WAL stays from the oldest that a rule keeps on; a pin alone keeps its own.
	p, _ = NewPlan(input(Policy{KeepLast: 3}, backups...))
	for no, want := range map[uint64]bool{100: true, 102: false, 500: false, 600: true} {
		if p.WAL[0].keeps(no, old) != want {
			t.Errorf("keep_last 3: segment %d stays: %v", no, !want)
		}
	}
	// A backup that cannot be read may need any.
	unread := with(at(20, 1, 100), func(b *Backup) { b.Unread = errors.New("forged"); b.Packs = nil })
	p, _ = NewPlan(input(Policy{KeepLast: 1}, unread, at(1, 1, 1000)))
	if p.WAL[0].All == "" || p.Unswept == "" {
		t.Error("WAL or packs go that a backup which cannot be read may need")
	}
}

// One segment of the old timeline that came late, after the first backup of the
// new one, makes two lines of them. The old one ages all the same: its newest
// backup stays for itself, and holds no WAL after it.
func TestALineThatIsOver(t *testing.T) {
	t.Parallel()
	backups := append(daily(30, 2), at(40, 1, 200), at(39, 1, 300))
	for name, c := range map[string]struct {
		policy Policy
		later  float64 // days from now on
		from   uint64  // the WAL that stays
	}{
		"over before the window":   {Policy{Window: 7 * day}, 0, 3200},
		"over within the window":   {Policy{Window: 29*day + time.Hour}, 0, 300},
		"counted, in use lately":   {Policy{KeepLast: 1}, 0, 300},
		"counted, and over":        {Policy{KeepLast: 1}, 29, 3900},
		"the last one is not over": {Policy{KeepLast: 1}, 90, 3900},
	} {
		in := input(c.policy, backups...)
		in.Uses[Place{1, 1}] = ago(29)
		in.Now = ago(-c.later)
		p, err := NewPlan(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.WAL[0].From; got != c.from {
			t.Errorf("%s: WAL stays from segment %d on, not %d\n%s", name, got, c.from, describe(p))
		}
		if newest := p.Decisions[len(p.Decisions)-2]; !newest.Keep {
			t.Errorf("%s: the newest of the line goes\n%s", name, describe(p))
		}
	}
}

// A system of which no backup is left needs no WAL, unless it is the one that
// archives: its first backup is still to come.
func TestWALOfOtherSystems(t *testing.T) {
	t.Parallel()
	old := now.Add(-30 * day)
	in := input(Policy{KeepLast: 1}, at(9, 1, 100), at(1, 1, 1000))
	in.Uses[Place{2, 1}] = now.Add(-5 * day)
	p, err := NewPlan(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range p.WAL {
		if w.System == 2 && (w.All != "" || w.keeps(5000, old)) {
			t.Errorf("WAL of a system that is over stays: %q", w.All)
		}
	}
	in.Uses[Place{2, 1}] = now
	p, _ = NewPlan(in)
	for _, w := range p.WAL {
		if w.System == 2 && !w.keeps(0, old) {
			t.Error("WAL of the system that archives goes before its first backup")
		}
	}
}

func TestBlockRules(t *testing.T) {
	t.Parallel()
	old := now.Add(-30 * day)
	standby := with(at(3, 1, 700), func(b *Backup) { b.Info.Source = "db2" })
	former := with(at(60, 1, 100), func(b *Backup) { b.Info.Source = "db0" })
	p, err := NewPlan(input(Policy{KeepLast: 10}, former, at(9, 1, 500), standby, at(1, 1, 1000)))
	if err != nil {
		t.Fatal(err)
	}
	lsn := func(no uint64) postgres.LSN { return postgres.LSN(no*segSize + 40) }
	for no, want := range map[uint64]bool{100: false, 700: false, 701: true, 1001: true} {
		if p.Blocks[0].keeps(lsn(no), old) != want {
			t.Errorf("the summary up to segment %d stays: %v", no, !want)
		}
	}
	if !p.Blocks[0].keeps(lsn(1), now) {
		t.Error("a summary that was just made goes")
	}
	p, _ = NewPlan(input(Policy{KeepLast: 10}, former))
	if p.Blocks[0].keeps(lsn(100), old) || !p.Blocks[0].keeps(lsn(101), old) {
		t.Error("where all backups are old, what the newest needs stays")
	}
}

// Whatever the repository looks like, the plan breaks none of its rules.
func TestPlanNeverBreaksARule(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 3000 {
		in := randomInput(r)
		p, err := NewPlan(in)
		if err != nil && !errors.Is(err, ErrNoneRestorable) {
			t.Fatal(err)
		}
		if broken := breaks(in, p); broken != "" {
			t.Fatalf("%s\npolicy %+v\n%s", broken, in.Policy, describe(p))
		}
	}
}

func randomInput(r *rand.Rand) Input {
	some := func(n int) int { return max(0, r.IntN(2*n)-n) }
	policy := Policy{some(4), some(4), some(3), some(3), some(2), time.Duration(some(20)) * day}
	if policy == (Policy{}) {
		policy.KeepLast = 1
	}
	var backups []*Backup
	for i := range r.IntN(12) {
		b := at(r.Float64()*400, postgres.Timeline(1+r.IntN(3)), uint64(10+r.IntN(2000)))
		b.Info.System = postgres.SystemID(1 + r.IntN(2))
		b.Info.Label += fmt.Sprint(i)
		switch r.IntN(12) {
		case 0, 1, 2:
			damaged(b)
		case 3:
			b.Pin = &repo.PinState{Pin: repo.Pin{Until: now.Add(time.Duration(r.IntN(200)-100) * day)}}
		case 4:
			b.AdoptedBy = "x"
		case 5:
			b.Unread, b.Packs = errors.New("forged"), nil
		case 6:
			b.LeadsTo = 9
		}
		backups = append(backups, b)
	}
	in := input(policy, backups...)
	for p, last := range in.Uses { // WAL went on after the last backup
		if r.IntN(2) == 0 {
			in.Uses[p] = last.Add(time.Duration(r.Float64() * float64(now.Sub(last))))
		}
	}
	if r.IntN(3) == 0 {
		in.Uses[Place{postgres.SystemID(1 + r.IntN(2)), 9}] = now.Add(-time.Duration(r.IntN(100)) * day)
	}
	if r.IntN(3) == 0 {
		in.RunningSince = now.Add(-time.Duration(r.IntN(100)) * time.Hour)
	}
	return in
}

// breaks says which rule a plan breaks, as far as that can be told without
// doing what the plan does.
func breaks(in Input, p *Plan) string {
	old := now.Add(-1000 * day)
	rules := map[postgres.SystemID]WALRule{}
	for _, w := range p.WAL {
		rules[w.System] = w
	}
	var newest, keptNewest *Backup
	for _, d := range p.Decisions {
		if d.restorable() && (newest == nil || newestFirst(d.Backup, newest) < 0) {
			newest = d.Backup
		}
		if d.Keep && d.restorable() && (keptNewest == nil || newestFirst(d.Backup, keptNewest) < 0) {
			keptNewest = d.Backup
		}
		if !d.Keep && (d.AdoptedBy != "" || d.Unread != nil || d.LeadsTo != 0 || d.Pin != nil && d.Pin.Holds(now)) {
			return "a backup goes that must stay: " + d.Info.Label
		}
		if !d.Keep || d.Unread != nil {
			continue
		}
		w := rules[d.Info.System]
		for no := segmentNo(d.Info.StartLSN, segSize); no <= segmentNo(d.Info.StopLSN, segSize); no++ {
			if !w.keeps(no, old) {
				return fmt.Sprintf("segment %d goes, which %s needs", no, d.Info.Label)
			}
		}
		if d.Whole && !w.keeps(segmentNo(d.Info.StartLSN, segSize)+5000, old) {
			return "WAL goes after " + d.Info.Label
		}
	}
	if newest != keptNewest {
		return "the newest restorable backup goes"
	}
	if in.Policy.Window > 0 {
		return breaksWindow(in, p)
	}
	return ""
}

// breaksWindow takes each timeline for itself: every moment of the window in
// which it was in use, and that could be restored before from a backup on it, can
// be after. TestWindowOfEachTimeline knows how timelines left each other.
func breaksWindow(in Input, p *Plan) string {
	for i, b := range in.Backups {
		place := Place{b.Info.System, b.Info.Timeline}
		moment := now.Add(-max(0, in.Policy.Window-time.Duration(i)*day/2)) // some moment of the window
		if !b.restorable() || b.Info.StopTime.After(moment) || moment.After(in.Uses[place]) {
			continue
		}
		served := slices.ContainsFunc(p.Decisions, func(d *Decision) bool {
			return d.Keep && d.Whole && d.restorable() && !d.time().After(moment) && place == Place{d.Info.System, d.Info.Timeline}
		})
		if !served {
			return fmt.Sprintf("the moment %s of system %d, timeline %d was restorable and is not", moment, place.System, place.Timeline)
		}
	}
	return ""
}

func describe(p *Plan) string {
	var b strings.Builder
	for _, d := range p.Decisions {
		fmt.Fprintf(&b, "%s system %d timeline %d segment %d keep %v whole %v broken %v %q\n", d.Info.Label, d.Info.System, d.Info.Timeline,
			segmentNo(d.Info.StartLSN, segSize), d.Keep, d.Whole, d.Broken != nil, d.Why)
	}
	return b.String()
}
