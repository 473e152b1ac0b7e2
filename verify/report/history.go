package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// History is what the documents of one repository say together.
type History struct {
	Cluster string
	Made    time.Time // when the report is made: ages count to here
	Since   time.Time // documents before it were not read; zero: all were

	Drills   []*evidence.Document // oldest first
	Unusable []Unusable           // oldest first
	Breaks   []evidence.Break     // oldest first
	Trusted  bool                 // the documents are signed by keys that the reader trusts
}

// Unusable is a document that says nothing: damaged, changed, or not signed by
// a key that is trusted.
type Unusable struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
	Raw    []byte `json:"-"` // as it lies in the store; nil where there was too much of it
}

// NewHistory sorts what evidence.History found. A document that is not signed
// by one of keys is of no use: no figure may come from it. Without keys nothing
// is asked of the signer, and Trusted is false.
func NewHistory(cluster string, entries []evidence.Entry, keys []repo.PublicKey, since, made time.Time) *History {
	h := &History{Cluster: cluster, Made: made.UTC(), Since: since, Trusted: len(keys) > 0}
	var links []*evidence.Document // an untrusted document still stands in the chain
	for _, e := range entries {
		switch {
		case e.Err != nil:
			h.Unusable = append(h.Unusable, Unusable{e.ID, e.Err.Error(), e.Raw})
			continue
		case h.Trusted && !e.Doc.TrustedBy(keys):
			h.Unusable = append(h.Unusable, Unusable{e.ID, "signed by " + e.Doc.Key.String() + ", which is not trusted", e.Raw})
		default:
			h.Drills = append(h.Drills, e.Doc)
		}
		links = append(links, e.Doc)
	}
	slices.SortFunc(h.Drills, func(a, b *evidence.Document) int { return strings.Compare(a.Drill.ID, b.Drill.ID) })
	slices.SortFunc(h.Unusable, func(a, b Unusable) int { return strings.Compare(a.ID, b.ID) })
	h.Breaks = evidence.CheckChain(links)
	for i := range h.Breaks {
		h.nameUnusable(&h.Breaks[i])
	}
	return h
}

// nameUnusable corrects what CheckChain cannot know: a document that it was not
// given is not missing when it is there and cannot be used.
func (h *History) nameUnusable(b *evidence.Break) {
	for _, u := range h.Unusable {
		if b.Reason == fmt.Sprintf("the document before it, %s, is missing", u.ID) {
			b.Reason = fmt.Sprintf("the document before it, %s, is there and cannot be used", u.ID)
		}
	}
}

// Restores says whether drills of a level restore anything: a quick one reads
// what a restore would need, and proves no restore.
func Restores(l evidence.Level) bool { return l == evidence.Standard || l == evidence.Deep }

// Newest is the newest drill, nil when there is none.
func (h *History) Newest() *evidence.Document {
	if len(h.Drills) == 0 {
		return nil
	}
	return h.Drills[len(h.Drills)-1]
}

// LastPassed is the newest drill that passed and restored, nil when none did.
func (h *History) LastPassed() *evidence.Document {
	for _, d := range slices.Backward(h.Drills) {
		if d.Drill.Verdict == evidence.Passed && Restores(d.Drill.Level) {
			return d
		}
	}
	return nil
}

// Find is the document of a drill, nil when it is not there.
func (h *History) Find(id string) *evidence.Document {
	for _, d := range h.Drills {
		if d.Drill.ID == id {
			return d
		}
	}
	return nil
}

// Coverage is the newest one that a drill wrote, and when; nil when none did.
func (h *History) Coverage() (*evidence.Coverage, time.Time) {
	for _, d := range slices.Backward(h.Drills) {
		if d.Drill.Coverage != nil {
			return d.Drill.Coverage, d.Drill.Ended
		}
	}
	return nil, time.Time{}
}

// NeverTested are the backups that no drill has passed with, newest first.
func NeverTested(c *evidence.Coverage) []evidence.Covered {
	var out []evidence.Covered
	if c != nil {
		for _, b := range c.Backups {
			if b.Tested.IsZero() {
				out = append(out, b)
			}
		}
	}
	return out
}

// StagingLeft are the ids of drills of which what they restored is not proven gone and
// that no later drill cleaned up: data of the cluster may lie there.
func (h *History) StagingLeft() []string {
	var left []string
	for _, d := range h.Drills {
		left = slices.DeleteFunc(left, func(id string) bool { return slices.Contains(d.Drill.Cleanup.Older, id) })
		if !d.Drill.Cleanup.Done {
			left = append(left, d.Drill.ID)
		}
	}
	return left
}

// counts is how many drills had each verdict.
func (h *History) counts() map[evidence.Verdict]int {
	n := map[evidence.Verdict]int{}
	for _, d := range h.Drills {
		n[verdictOf(d.Drill.Verdict)]++
	}
	return n
}

// Due is a span of time in which a restore was to be proven and was not.
type Due struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"` // not included
	// Ran are the ids of restore drills that began in it, none of which passed.
	Ran []string `json:"ran,omitempty"`
}

// Missed cuts the time from from to to into spans of the length every and
// returns those in which no restore drill (standard or deep) began that passed.
// A last span that is not over is not missed yet. Spans, and not the time since
// the drill before, since a timer that starts a little later each week would
// miss every one. None when every is not positive.
func Missed(drills []*evidence.Document, from, to time.Time, every time.Duration) []Due {
	var missed []Due
	if every <= 0 {
		return nil
	}
	for begin := from; !begin.Add(every).After(to); begin = begin.Add(every) {
		due, passed := Due{From: begin, To: begin.Add(every)}, false
		for _, d := range drills {
			s := d.Drill.Started
			if !Restores(d.Drill.Level) || s.Before(due.From) || !s.Before(due.To) {
				continue
			}
			passed = passed || d.Drill.Verdict == evidence.Passed
			due.Ran = append(due.Ran, d.Drill.ID)
		}
		if !passed {
			missed = append(missed, due)
		}
	}
	return missed
}

// LongestGap is the longest time from from to to without a restore drill that
// passed: between two of them, or between one and an end.
func LongestGap(drills []*evidence.Document, from, to time.Time) time.Duration {
	var starts []time.Time
	for _, d := range drills {
		if s := d.Drill.Started; d.Drill.Verdict == evidence.Passed && Restores(d.Drill.Level) && !s.Before(from) && s.Before(to) {
			starts = append(starts, s)
		}
	}
	slices.SortFunc(starts, time.Time.Compare)
	longest, last := time.Duration(0), from
	for _, s := range append(starts, to) {
		longest, last = max(longest, s.Sub(last)), s
	}
	return longest
}
