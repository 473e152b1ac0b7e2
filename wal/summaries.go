package wal

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/wal/blocks"
)

// keptRests is how many rests of segments are kept: more than are ever
// archived at once.
const keptRests = 64

// olderTimelines is how far back the timeline of the segment before may lie.
const olderTimelines = 8

// RestDir is the directory, in the spool, of the rests that pushes keep: see
// blocks.ReadRest.
func RestDir(dataDir string) string { return filepath.Join(dataDir, SpoolDir, "rest") }

// summaries makes the block summaries of the segments that this process
// archives. A record that goes on from one segment in the next is read once
// both are there, so what is left of a segment is kept until then: in memory,
// and on disk where there is a data directory, for the push that comes next.
//
// A summary is a help for the next backup, never more: what goes wrong leaves
// a hole that the backup finds, and keeps no WAL from being archived. A segment
// that was archived ahead is not remembered as long as its summary is missing, so
// its own push makes it.
type summaries struct {
	repo *repo.Repo
	dir  string // of the rests; "" for none

	mu    sync.Mutex
	begun map[postgres.Segment]*summary
}

// summary is that of one segment, under way or done.
type summary struct {
	*summaries
	seg  postgres.Segment
	made *blocks.Summary // nil when there is none, and once it is stored
	rest *blocks.Rest    // nil when it is not known
	done chan struct{}   // closed when both are there, or never will be
	end  func()
}

// newSummaries keeps rests below a data directory; "" for in memory only.
func newSummaries(r *repo.Repo, dataDir string) *summaries {
	s := &summaries{repo: r, begun: map[postgres.Segment]*summary{}}
	if dataDir != "" {
		s.dir = RestDir(dataDir)
	}
	return s
}

// begin announces a segment. Of segments that follow one another the earlier
// is to be announced first: the later one waits for it. The caller calls give
// in the end, whatever happens. The result of no summaries is nil, and its methods do
// nothing.
func (s *summaries) begin(seg postgres.Segment) *summary {
	if s == nil {
		return nil
	}
	m := &summary{summaries: s, seg: seg, done: make(chan struct{})}
	m.end = sync.OnceFunc(func() { close(m.done) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun[seg] = m
	for old := range s.begun {
		if old.No+keptRests < seg.No {
			delete(s.begun, old)
		}
	}
	return m
}

// give lets those that wait for this summary go on, with it or without.
func (m *summary) give() {
	if m != nil {
		m.end()
	}
}

// make reads the segment's records. It leaves nothing where the WAL cannot be
// read: a hole.
func (m *summary) make(ctx context.Context, file io.ReaderAt) {
	if m == nil {
		return
	}
	defer m.end()
	made, rest, err := blocks.Summarize(m.seg, file, m.before(ctx))
	if err != nil {
		return
	}
	m.made = &made
	if rest.Segment == m.seg {
		m.rest = &rest
		m.keep(rest)
	}
}

// store puts the summary into the repository, and says whether no other try is
// needed: it is there, or there is none to be stored. To be called once, when the
// segment is durable: it may have been refused because another primary archives
// here.
func (m *summary) store(ctx context.Context, system postgres.SystemID) bool {
	if m == nil {
		return true
	}
	select {
	case <-m.done:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return false // it may have been made without the segment before, too
	}
	made := m.made
	m.made = nil // what waits for its turn to be forgotten must not hold it
	if made == nil {
		return true
	}
	err := made.Store(ctx, m.repo, system, m.seg.Timeline)
	return err == nil || errors.Is(err, blocks.ErrTooLarge)
}

// before is what is left of the segment before, nil when that is not known. It
// can be of an older timeline.
func (m *summary) before(ctx context.Context) *blocks.Rest {
	if m.seg.No == 0 {
		return nil
	}
	prev := m.seg
	prev.No--
	for ; prev.Timeline > 0 && m.seg.Timeline-prev.Timeline < olderTimelines; prev.Timeline-- {
		m.mu.Lock()
		other := m.begun[prev]
		m.mu.Unlock()
		if other != nil {
			select {
			case <-other.done:
			case <-ctx.Done():
				return nil
			}
			if other.rest != nil {
				return other.rest
			}
		}
		if m.dir == "" {
			continue
		}
		if rest := blocks.ReadRest(m.dir, prev); rest != nil {
			return rest
		}
	}
	return nil
}

// keep writes a rest for the push that comes next. It need not survive a crash
// of the machine, nor be written at all: then the next summary begins later.
func (s *summaries) keep(rest blocks.Rest) {
	if s.dir == "" || os.MkdirAll(s.dir, 0o700) != nil {
		return
	}
	raw, err := json.Marshal(rest)
	if err != nil {
		return
	}
	temp, err := os.CreateTemp(s.dir, pushedTemp)
	if err != nil {
		return
	}
	_, err = temp.Write(raw)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), filepath.Join(s.dir, rest.Segment.Name()))
	}
	if err != nil {
		_ = os.Remove(temp.Name())
		return
	}
	s.prune(rest.Segment)
}

// prune removes what no push will ask for any more, and what killed ones left.
func (s *summaries) prune(newest postgres.Segment) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		seg, err := postgres.ParseSegment(e.Name(), newest.Size)
		switch {
		case err == nil && seg.No+keptRests >= newest.No && seg.Timeline+olderTimelines > newest.Timeline:
			continue
		case err != nil && len(entries) < 3*keptRests && strings.HasPrefix(e.Name(), pushedTemp):
			continue // perhaps being written
		}
		_ = os.Remove(filepath.Join(s.dir, e.Name()))
	}
}
