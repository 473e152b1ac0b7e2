package wal

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pglogrepl"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// session is one connection, from its start to its loss.
func (s *streamer) session(ctx context.Context) error {
	c, err := dialReplication(ctx, s.o.Conn, s.o.Slot)
	if err != nil {
		return err
	}
	defer c.close()
	for {
		server, err := s.meet(ctx, c)
		if err != nil {
			return err
		}
		if s.tail == nil {
			if err := s.firstPosition(ctx, server); err != nil {
				return err
			}
		}
		err = s.follow(ctx, c, server)
		if !errors.Is(err, errEndOfTimeline) {
			return err
		}
		// The server was promoted while it sent.
	}
}

// peer is the server of a session.
type peer struct {
	timeline postgres.Timeline
	history  postgres.History
	end      postgres.LSN
}

// meet finds out what the server is, and archives the history of its timeline.
func (s *streamer) meet(ctx context.Context, c *replication) (peer, error) {
	system, tl, end, err := c.identify(ctx)
	if err != nil {
		return peer{}, err
	}
	want := s.system
	if want == 0 {
		want = s.o.System
	}
	if want != 0 && want != system {
		return peer{}, &OtherSystemError{system, want}
	}
	s.system, s.server = system, end
	if s.o.CreateSlot {
		if err := c.createSlot(ctx, s.o.Slot); err != nil {
			return peer{}, err
		}
	}
	content, h, err := c.history(ctx, tl)
	if err == nil {
		err = s.storeHistories(ctx, c, h, content)
	}
	if err != nil {
		return peer{}, err
	}
	return peer{tl, h, end}, nil
}

// storeHistories archives the history file of the server's timeline, and those
// of its ancestors as far as the server still has them: without one, recovery
// to the latest timeline would end before it.
func (s *streamer) storeHistories(ctx context.Context, c *replication, h postgres.History, content []byte) error {
	files := map[postgres.Timeline][]byte{h.Timeline: content}
	for _, e := range h.Entries {
		older, _, err := c.history(ctx, e.Timeline)
		if err != nil && sqlState(err) != "58P01" { // undefined_file: it has been removed
			return err
		}
		files[e.Timeline] = older
	}
	for tl, file := range files {
		if len(file) == 0 {
			continue // timeline 1 has none
		}
		if err := storeFile(ctx, s.repo, s.system, postgres.WALName{Kind: postgres.WALHistory, Timeline: tl}, file); err != nil {
			return err
		}
	}
	return nil
}

// follow streams from where the tail ends, timeline after timeline, to the
// end of the connection. errEndOfTimeline when the server itself has gone on to
// a timeline that was not there at its start.
func (s *streamer) follow(ctx context.Context, c *replication, server peer) error {
	for {
		t := s.tail
		span, known := server.history.Span(t.timeline)
		if !known {
			return fmt.Errorf("the server is on timeline %s, which does not descend from %s, where the stream stands; "+
				"it may lag behind, or be of another branch", server.timeline, t.timeline)
		}
		if t.received() < span.End {
			if err := s.receive(ctx, c); !errors.Is(err, errEndOfTimeline) {
				return err
			}
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
		if span.End == postgres.EndOfTime {
			return errEndOfTimeline
		}
		next := nextSpan(server.history, t.timeline)
		at := postgres.SegmentAt(next.Timeline, next.Begin, t.size).Start()
		if err := t.begin(ctx, next.Timeline, at, next.Begin); err != nil {
			return err
		}
		s.marks = nil
	}
}

func nextSpan(h postgres.History, tl postgres.Timeline) postgres.TimelineSpan {
	spans := h.Path()
	for i, s := range spans[:len(spans)-1] {
		if s.Timeline == tl {
			return spans[i+1]
		}
	}
	return spans[len(spans)-1]
}

// receive streams one timeline.
func (s *streamer) receive(ctx context.Context, c *replication) error {
	err := s.startAt(ctx, c)
	if err != nil {
		return err
	}
	s.reported, s.asked, s.heard = 0, s.o.Now(), s.o.Now()
	s.event(StreamBegan, nil)
	for ctx.Err() == nil {
		if err := s.tend(); err != nil {
			return err
		}
		if err := s.report(c, false); err != nil {
			return err
		}
		wait := s.nextWait()
		if s.tail.full() {
			s.waiting.sleep(ctx, wait)
			s.heard = s.o.Now() // nobody listens
			continue
		}
		m, err := c.receive(ctx, &s.waiting, wait)
		switch {
		case errors.Is(err, errWoken):
		case errors.Is(err, errEndOfTimeline):
			if err := c.endTimeline(ctx); err != nil {
				return fmt.Errorf("end the timeline: %w", err)
			}
			return errEndOfTimeline
		case err != nil && ctx.Err() == nil:
			return s.removed(err)
		case err == nil:
			if err := s.take(ctx, c, m); err != nil {
				return err
			}
		}
	}
	return s.farewell(c)
}

// startAt asks for the WAL that comes after what has arrived.
func (s *streamer) startAt(ctx context.Context, c *replication) error {
	err := c.start(ctx, s.o.Slot, s.tail.timeline, s.tail.received())
	if _, _, over := pglogrepl.IsErrEndTimeline(err); over {
		return errEndOfTimeline
	}
	if sqlState(err) == "42704" && s.retry == 0 { // undefined_object
		return &MissingSlotError{s.o.Slot}
	}
	return err
}

// take is given one message of the server.
func (s *streamer) take(ctx context.Context, c *replication, m walMessage) error {
	now := s.o.Now()
	s.heard, s.retry = now, 0
	s.server = max(s.server, m.serverEnd)
	if len(m.data) > 0 {
		if err := s.tail.add(ctx, m.start, m.data); err != nil {
			return err
		}
		s.marks.add(s.tail.received(), now)
	}
	if m.reply {
		// A server that shuts down waits until all it sent is durable here.
		s.tail.force()
		return s.report(c, true)
	}
	return nil
}
