package expire

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Policy says which backups stay. A backup stays when any of its rules keeps
// it. The zero value keeps nothing, so it is no policy: see Set.
type Policy struct {
	KeepLast    int // the newest so many
	KeepDaily   int // the newest of each day, for so many days that have one
	KeepWeekly  int // of each ISO week
	KeepMonthly int
	KeepYearly  int

	// Window keeps every moment of the last so long restorable: the backups
	// within it, the newest before it, and all WAL from that one on. 0 is none;
	// then the WAL from the oldest backup on stays that the rules above keep, but
	// for lines of history that are over.
	Window time.Duration
}

// ErrNoPolicy means that no rule is set. What is to be kept is never guessed.
var ErrNoPolicy = errors.New("no rule says which backups to keep")

// Check refuses a policy without a rule, or with one that makes no sense.
func (p Policy) Check() error {
	for _, r := range p.counts() {
		if r.n < 0 {
			return fmt.Errorf("%s is %d, less than nothing", r.name, r.n)
		}
	}
	if p.Window < 0 {
		return fmt.Errorf("pitr_window is %s, less than nothing", p.Window)
	}
	if p == (Policy{}) {
		return ErrNoPolicy
	}
	return nil
}

// count is a rule that keeps so many: the newest of each bucket.
type count struct {
	name   string
	n      int
	bucket func(time.Time) string
}

func (p Policy) counts() []count {
	return []count{
		{"keep_last", p.KeepLast, nil}, // each backup is a bucket of its own
		{"keep_daily", p.KeepDaily, func(t time.Time) string { return t.Format("2006-01-02") }},
		{"keep_weekly", p.KeepWeekly, func(t time.Time) string {
			year, week := t.ISOWeek()
			return fmt.Sprintf("%04d week %02d", year, week)
		}},
		{"keep_monthly", p.KeepMonthly, func(t time.Time) string { return t.Format("2006-01") }},
		{"keep_yearly", p.KeepYearly, func(t time.Time) string { return t.Format("2006") }},
	}
}

// String is the policy in the words of the configuration.
func (p Policy) String() string {
	var words []string
	for _, r := range p.counts() {
		if r.n > 0 {
			words = append(words, fmt.Sprintf("%s %d", r.name, r.n))
		}
	}
	if p.Window > 0 {
		words = append(words, "pitr_window "+days(p.Window))
	}
	return strings.Join(words, ", ")
}

// days writes a length of time as the configuration does.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	text = strings.TrimSuffix(text, "0s")
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
