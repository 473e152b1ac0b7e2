package wal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// StreamOptions say what Stream does.
type StreamOptions struct {
	Conn       string            // libpq connection string of a database; replication is added
	Slot       string            // of this name: the physical replication slot, and the application_name
	CreateSlot bool              // when there is no such slot
	System     postgres.SystemID // that the server must be; 0 for any

	// Synchronous stores what arrives at once, one object at a time: what
	// arrives meanwhile shares the next one. Else a slice is stored when the
	// last one is Interval old, or SliceSize bytes have come together.
	Synchronous bool
	Interval    time.Duration
	SliceSize   int64

	Blocks bool // make block summaries of whole segments

	// Heartbeat is how often a heartbeat is written to the server, 0 for never.
	Heartbeat time.Duration

	Now    func() time.Time
	Notify func(StreamEvent) // may be nil; called by one goroutine at a time, not for long
}

// StreamEventKind tells events apart.
type StreamEventKind int

// What Stream tells while it works.
const (
	StreamBegan  StreamEventKind = iota + 1 // it receives: Timeline, Received
	StreamMoved                             // Received, Durable, Server and Behind are new
	StreamFailed                            // Err; it tries again by itself
	StreamWarned                            // Err needs a person
)

// StreamEvent is one thing that happened, and where the stream stands.
type StreamEvent struct {
	Kind     StreamEventKind
	Err      error
	Timeline postgres.Timeline
	Received postgres.LSN  // from the server
	Durable  postgres.LSN  // in the store
	Server   postgres.LSN  // the end of the server's WAL, as it last said
	Behind   time.Duration // how long the oldest WAL that is not durable has been here
}

// MissingSlotError says that the server has no such replication slot.
type MissingSlotError struct{ Slot string }

func (e *MissingSlotError) Error() string {
	return fmt.Sprintf("the server has no replication slot %q", e.Slot)
}

// LostSlotError says that the server has cut a slot off: WAL that it should have
// kept is gone.
type LostSlotError struct{ Slot string }

func (e *LostSlotError) Error() string {
	return fmt.Sprintf("the replication slot %q is lost: the server has removed WAL that was not archived", e.Slot)
}

// OtherSystemError says that the server is not the expected system.
type OtherSystemError struct{ Have, Want postgres.SystemID }

func (e *OtherSystemError) Error() string {
	return fmt.Sprintf("the server is of system %s, not of %s", e.Have, e.Want)
}

// RemovedError says that the server no longer has WAL that the archive lacks.
type RemovedError struct {
	Timeline postgres.Timeline
	From     postgres.LSN // the archive ends here
	To       postgres.LSN // the stream goes on here; 0 when it cannot
}

func (e *RemovedError) Error() string {
	s := fmt.Sprintf("the server no longer has the WAL of timeline %s from %s on, and the archive does not have it either", e.Timeline, e.From)
	if e.To != 0 {
		s += fmt.Sprintf(": unless archive_command brings it, there is a gap up to %s", e.To)
	}
	return s
}

const (
	reportEvery  = 10 * time.Second
	silenceLimit = 30 * time.Second // the server answers each report
	lastWords    = 10 * time.Second // to store the rest when told to end
)

// CheckSlotName says whether PostgreSQL takes this name for a slot
// (ReplicationSlotValidateName in replication/slot.c).
func CheckSlotName(name string) error {
	valid := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
	if !valid || name == "" || len(name) > 63 {
		return fmt.Errorf("%q cannot name a replication slot: 1 to 63 lower-case letters, digits and underscores", name)
	}
	return nil
}

// Stream receives WAL from a server over the replication protocol and stores
// it as it comes, until ctx ends: then it stores what has arrived and returns
// nil. The position that it reports as flushed, which moves the slot and
// releases synchronous commits, is one before which the store has acknowledged
// everything.
//
// It goes on by itself after the loss of the server, also on its successor if
// the connection string leads there, and of the store. It returns an error for
// what trying again does not mend: *TwoPrimariesError, *OtherSystemError,
// *MissingSlotError and *LostSlotError at the start, *RemovedError when the
// server has removed WAL later on.
func Stream(ctx context.Context, r *repo.Repo, o StreamOptions) error {
	if err := CheckSlotName(o.Slot); err != nil {
		return err
	}
	// What has arrived is stored also when ctx has ended.
	storing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s := &streamer{repo: r, o: o, storing: storing}
	mctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); s.watch(mctx) }()
	err := s.serve(ctx)
	cancel()
	<-watched
	if s.tail != nil {
		s.tail.removing.Wait()
	}
	return err
}

// streamer is a Stream at work.
type streamer struct {
	repo    *repo.Repo
	o       StreamOptions
	storing context.Context // of all that is stored
	waiting waiting
	events  events

	system   postgres.SystemID
	tail     *tail // nil before the first position is known
	server   postgres.LSN
	fallback postgres.LSN // where the slot stood at the start
	marks    marks
	reported postgres.LSN // as durable, on this connection
	asked    time.Time    // when the server was last asked for an answer
	heard    time.Time    // when it last sent anything
	retry    int          // sessions that failed in a row
}

// serve holds one session after another.
func (s *streamer) serve(ctx context.Context) error {
	for {
		err := s.session(ctx)
		if ctx.Err() != nil {
			return s.rest()
		}
		if hopeless(err) {
			return err
		}
		s.event(StreamFailed, err)
		pause := min(10*time.Second, 250*time.Millisecond<<min(s.retry, 6))
		s.retry++
		for until := s.o.Now().Add(pause); ctx.Err() == nil && s.o.Now().Before(until); {
			// What has arrived goes on being stored.
			if err := s.tend(); err != nil {
				return err
			}
			s.waiting.sleep(ctx, min(100*time.Millisecond, until.Sub(s.o.Now())))
		}
	}
}

// rest stores what has arrived, when the stream is told to end without a
// server to tell.
func (s *streamer) rest() error {
	if s.tail == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.storing, lastWords)
	defer cancel()
	if err := s.settle(ctx); err != nil {
		return fmt.Errorf("store the rest, from %s to %s: %w", s.tail.durable(), s.tail.received(), err)
	}
	return nil
}

// hopeless says whether a session failed for a reason that another one would
// meet again, so that a person must see to it.
func hopeless(err error) bool {
	_, other := errors.AsType[*OtherSystemError](err)
	_, slot := errors.AsType[*MissingSlotError](err)
	_, lost := errors.AsType[*LostSlotError](err)
	_, removed := errors.AsType[*RemovedError](err)
	return other || slot || lost || removed || lasting(err) || errors.Is(err, ErrConnString)
}

// tend takes the results of what was stored and stores what is due.
func (s *streamer) tend() error {
	if s.tail == nil {
		return nil
	}
	before := s.tail.durable()
	if err := s.tail.collect(s.o.Now()); err != nil {
		if lasting(err) {
			return err
		}
		s.event(StreamFailed, err)
	}
	s.tail.step(s.storing, s.o.Now())
	if s.tail.durable() != before {
		s.marks.drop(s.tail.durable())
		s.event(StreamMoved, nil)
	}
	return nil
}

// nextWait is how long to wait for a message before something else is due.
func (s *streamer) nextWait() time.Duration {
	now := s.o.Now()
	due := s.asked.Add(reportEvery)
	if next := s.tail.step(s.storing, now); !next.IsZero() && next.Before(due) {
		due = next
	}
	return max(time.Millisecond, due.Sub(now))
}

// report tells the server where the stream stands, if that is new, if it is
// time, or if it must be.
func (s *streamer) report(c *replication, must bool) error {
	now, durable := s.o.Now(), s.tail.durable()
	if now.Sub(s.heard) > silenceLimit {
		return fmt.Errorf("the server has been silent for %s", now.Sub(s.heard).Round(time.Second))
	}
	ask := now.Sub(s.asked) >= reportEvery
	if !must && !ask && durable == s.reported {
		return nil
	}
	if ask {
		s.asked = now
		s.event(StreamMoved, nil)
	}
	s.reported = durable
	if err := c.report(s.tail.received(), durable, now, ask); err != nil {
		return fmt.Errorf("report the position: %w", err)
	}
	return nil
}

// settle waits until all that has arrived is durable.
func (s *streamer) settle(ctx context.Context) error {
	for s.tail.outstanding() && ctx.Err() == nil {
		s.tail.force()
		if err := s.tend(); err != nil {
			return err
		}
		s.waiting.sleep(ctx, 100*time.Millisecond)
	}
	return ctx.Err()
}

// farewell stores what has arrived and tells the server, when the stream is
// told to end.
func (s *streamer) farewell(c *replication) error {
	ctx, cancel := context.WithTimeout(s.storing, lastWords)
	defer cancel()
	if err := s.settle(ctx); err != nil {
		return err
	}
	return s.report(c, true)
}

func (s *streamer) event(kind StreamEventKind, err error) {
	e := StreamEvent{Kind: kind, Err: err, Server: s.server}
	if s.tail != nil {
		e.Timeline, e.Received, e.Durable = s.tail.timeline, s.tail.received(), s.tail.durable()
		e.Behind = s.marks.age(e.Durable, s.o.Now())
	}
	s.events.send(s.o.Notify, e)
}
