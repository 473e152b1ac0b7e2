package postgres

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// HistoryEntry is one line of a timeline history file: an ancestor, and where
// the next timeline left it.
type HistoryEntry struct {
	Timeline Timeline
	Switch   LSN    // WAL of this timeline counts up to here, not including it
	Reason   string // why, in words for people; may be empty
}

// History is the ancestry of a timeline, oldest ancestor first. The zero
// Entries are right for timeline 1 and for any timeline without ancestors.
type History struct {
	Timeline Timeline
	Entries  []HistoryEntry
}

// TimelineSpan is the part of the WAL that one timeline of a history gives.
type TimelineSpan struct {
	Timeline Timeline
	Begin    LSN // included
	End      LSN // not included; EndOfTime for the last
}

// EndOfTime is past every LSN that can be written.
const EndOfTime = LSN(1<<64 - 1)

// ParseHistory reads the history file of timeline tl.
//
// It takes what readTimeLineHistory (access/transam/timeline.c) takes: empty
// lines, comments after #, and any words after the switch point. It refuses
// what that refuses: a line without a timeline and a switch point, ancestors
// that do not ascend, or an ancestor that is not below tl. It also refuses
// switch points that descend, which no server writes and which would leave
// LSNs without a timeline. An error names the file and the line, never what stands
// there: the file may be a link to a secret.
func ParseHistory(tl Timeline, data []byte) (History, error) {
	h := History{Timeline: tl}
	if tl == 0 {
		return h, fmt.Errorf("%w: timeline history of timeline 0", ErrFormat)
	}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		e, ok, err := parseHistoryLine(string(bytes.TrimRight(line, "\r\n")))
		if err == nil && ok {
			err = h.add(e)
		}
		if err != nil {
			return History{}, fmt.Errorf("%s, line %d: %w", tl.HistoryName(), n, err)
		}
	}
	return h, nil
}

// parseHistoryLine reads one line; ok is false for one without content.
func parseHistoryLine(line string) (e HistoryEntry, ok bool, err error) {
	const blanks = " \t\v\f\r"
	s := strings.TrimLeft(line, blanks)
	if s == "" || s[0] == '#' {
		return e, false, nil
	}
	digits, rest := s, ""
	if i := strings.IndexAny(s, blanks); i >= 0 {
		digits, rest = s[:i], strings.TrimLeft(s[i:], blanks)
	}
	tl, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || tl == 0 {
		return e, false, fmt.Errorf("%w: it does not begin with a timeline", ErrFormat)
	}
	lsn, reason := rest, ""
	if i := strings.IndexAny(rest, blanks); i >= 0 {
		lsn, reason = rest[:i], rest[i+1:]
	}
	e = HistoryEntry{Timeline: Timeline(tl), Reason: reason}
	if e.Switch, err = ParseLSN(lsn); err != nil {
		return e, false, fmt.Errorf("%w: the switch point of timeline %d is not an LSN", ErrFormat, tl)
	}
	return e, true, nil
}

func (h *History) add(e HistoryEntry) error {
	if e.Timeline >= h.Timeline {
		return fmt.Errorf("%w: ancestor %d is not below the timeline itself, %d", ErrFormat, e.Timeline, h.Timeline)
	}
	if n := len(h.Entries); n > 0 {
		last := h.Entries[n-1]
		if e.Timeline <= last.Timeline {
			return fmt.Errorf("%w: timeline %d after %d: ancestors must ascend", ErrFormat, e.Timeline, last.Timeline)
		}
		if e.Switch < last.Switch {
			return fmt.Errorf("%w: timeline %d ends at %s, before its parent %d, at %s",
				ErrFormat, e.Timeline, e.Switch, last.Timeline, last.Switch)
		}
	}
	h.Entries = append(h.Entries, e)
	return nil
}

// Marshal is the history file, one line an ancestor as PostgreSQL writes it.
// ParseHistory of it yields h again.
func (h History) Marshal() []byte {
	var b bytes.Buffer
	for _, e := range h.Entries {
		fmt.Fprintf(&b, "%d\t%s\t%s\n", e.Timeline, e.Switch, e.Reason)
	}
	return b.Bytes()
}

// Path is the spans of WAL from the start of time to the end of h.Timeline.
func (h History) Path() []TimelineSpan {
	spans := make([]TimelineSpan, 0, len(h.Entries)+1)
	begin := LSN(0)
	for _, e := range h.Entries {
		spans = append(spans, TimelineSpan{Timeline: e.Timeline, Begin: begin, End: e.Switch})
		begin = e.Switch
	}
	return append(spans, TimelineSpan{Timeline: h.Timeline, Begin: begin, End: EndOfTime})
}

// TimelineAt is the timeline whose WAL holds the byte at lsn
// (tliOfPointInHistory). At a switch point that is the newer timeline.
func (h History) TimelineAt(lsn LSN) Timeline {
	for _, e := range h.Entries {
		if lsn < e.Switch {
			return e.Timeline
		}
	}
	return h.Timeline
}

// Contains says whether a server that has replayed all WAL before lsn, the
// last of it on timeline tl, can go on to h.Timeline: whether (tl, lsn) is a
// point on the path. The switch point itself belongs to both timelines; the
// rule is that of the check on minRecoveryPoint in access/transam/xlog.c.
func (h History) Contains(tl Timeline, lsn LSN) bool {
	for _, s := range h.Path() {
		if s.Timeline == tl {
			return lsn >= s.Begin && lsn <= s.End
		}
	}
	return false
}

// Span is the part of the WAL that timeline tl gives to the path, and false
// when tl is not on it.
func (h History) Span(tl Timeline) (TimelineSpan, bool) {
	for _, s := range h.Path() {
		if s.Timeline == tl {
			return s, true
		}
	}
	return TimelineSpan{}, false
}
