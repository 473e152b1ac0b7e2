package wal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/repo"
	"github.com/lifeboat-dr/lifeboat/storage"
)

// slotState is what a server says of a replication slot.
type slotState struct {
	restart   postgres.LSN // the server keeps WAL from here on; 0 for none yet
	status    string       // of its WAL: reserved, extended, unreserved, lost
	safeBytes int64        // that can be written before WAL is removed; -1 for no limit
	limit     int64        // max_slot_wal_keep_size in bytes; -1 for none
	segment   postgres.SegmentSize
}

// readSlot asks over an ordinary connection; *MissingSlotError when there is no
// such slot.
func readSlot(ctx context.Context, conn *pgx.Conn, slot string) (slotState, error) {
	var restart, segment string
	s := slotState{}
	err := conn.QueryRow(ctx, `select coalesce(restart_lsn::text, '0/0'), coalesce(wal_status, ''), coalesce(safe_wal_size, -1),
		(select case when setting::bigint < 0 then -1 else setting::bigint * 1048576 end from pg_settings where name = 'max_slot_wal_keep_size'),
		(select setting from pg_settings where name = 'wal_segment_size')
		from pg_replication_slots where slot_name = $1 and slot_type = 'physical'`, slot).
		Scan(&restart, &s.status, &s.safeBytes, &s.limit, &segment)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, &MissingSlotError{slot}
	}
	if err != nil {
		return s, fmt.Errorf("ask for the replication slot %s: %w", slot, err)
	}
	var size int64
	if s.restart, err = postgres.ParseLSN(restart); err == nil {
		_, err = fmt.Sscan(segment, &size)
	}
	if err != nil {
		return s, fmt.Errorf("ask for the replication slot %s: %w", slot, err)
	}
	s.segment = postgres.SegmentSize(size)
	return s, nil
}

// connectSQL opens an ordinary connection for small questions.
func connectSQL(ctx context.Context, conn string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(conn)
	if err != nil {
		return nil, ErrConnString
	}
	cfg.RuntimeParams["application_name"] = "lifeboat stream"
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the server: %w", err)
	}
	return c, nil
}

// firstPosition decides where the stream begins: where the archive ends or
// where the slot stands, whichever is earlier, so that no WAL is left out that
// the server still has; and then past what is archived whole.
func (s *streamer) firstPosition(ctx context.Context, server peer) error {
	slot, err := s.askSlot(ctx)
	if err != nil {
		return err
	}
	if slot.status == "lost" {
		return &LostSlotError{s.o.Slot}
	}
	restart := slot.restart
	if restart == 0 {
		restart = server.end
	}
	ix, tl, end, err := believedEnd(ctx, s.repo, s.system, server.history, postgres.SegmentAt(server.timeline, restart, slot.segment))
	if err != nil {
		return err
	}
	from := restart
	if end != 0 && end < restart {
		from = end
	} else {
		tl = server.history.TimelineAt(from)
	}
	span, _ := server.history.Span(tl)
	seg := postgres.SegmentAt(tl, from, slot.segment)
	for ix.HasWhole(seg) && seg.End() <= min(span.End, server.end) {
		seg = seg.Next()
	}
	s.fallback = postgres.SegmentAt(tl, restart, slot.segment).Start()
	s.tail = newTail(s.repo, s.system, slot.segment, tailPolicy{s.o.Synchronous, s.o.Interval, s.o.SliceSize}, s.waiting.wake)
	s.tail.behind = primaryBehind(s.o.Conn, s.o.Slot, s.system)
	if s.o.Blocks {
		s.tail.sums = newSummaries(s.repo, "")
	}
	return s.tail.begin(ctx, tl, seg.Start(), max(span.Begin, seg.Start()))
}

func (s *streamer) askSlot(ctx context.Context) (slotState, error) {
	conn, err := connectSQL(ctx, s.o.Conn)
	if err != nil {
		return slotState{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return readSlot(ctx, conn, s.o.Slot)
}

// believedEnd is the index of an archive, and how far that gets along a history by
// headers that a believed key signed. Those of segments before restart are read only
// where the archive ends before that: nothing else there decides where a stream begins.
func believedEnd(ctx context.Context, r *repo.Repo, system postgres.SystemID, h postgres.History, restart postgres.Segment) (ix *Index, tl postgres.Timeline, end postgres.LSN, err error) {
	check := HeaderCheck{Known: NewHeaders(r.TrustID()), Want: func(name postgres.WALName) bool {
		seg, err := postgres.ParseSegment(name.Segment, restart.Size)
		return err != nil || seg.No >= restart.No
	}}
	for {
		ix, err = LoadChecked(ctx, r, system, func(storage.Info) {}, check)
		if err == nil && ix.Headers().Why != nil && !errors.Is(ix.Headers().Why, storage.ErrDenied) {
			err = fmt.Errorf("read the headers of the archive: %w", ix.Headers().Why)
		}
		if err != nil {
			return nil, 0, 0, err
		}
		tl, end = newestOn(ix, h)
		if end > restart.Start() || check.Want == nil {
			return ix, tl, end, nil
		}
		check.Want = nil
	}
}

// newestOn is how far the archive gets along a history, 0 when it holds nothing
// of it.
func newestOn(ix *Index, h postgres.History) (postgres.Timeline, postgres.LSN) {
	for _, span := range slices.Backward(h.Path()) {
		if seg, ok := ix.Newest(span.Timeline); ok {
			return span.Timeline, min(ix.HeldTo(seg), span.End)
		}
	}
	return 0, 0
}

// removed turns the server's word that WAL is gone into a jump to where the
// slot stands, once, and told aloud; or into a *RemovedError. The session ends
// either way; the next one goes on from there.
func (s *streamer) removed(err error) error {
	if sqlState(err) != "58P01" { // undefined_file, WalSndSegmentOpen in walsender.c
		return err
	}
	from := s.tail.received()
	to := s.fallback
	if to <= from {
		return &RemovedError{Timeline: s.tail.timeline, From: from}
	}
	s.event(StreamWarned, &RemovedError{s.tail.timeline, from, to})
	if failed := s.tail.begin(s.storing, s.tail.timeline, to, to); failed != nil {
		return failed
	}
	return err
}

// storeFile archives a small file that the server sent.
func storeFile(ctx context.Context, r *repo.Repo, system postgres.SystemID, name postgres.WALName, content []byte) error {
	return storeError("store", name.String(), storeSure(ctx, r, repo.WALKey(system, name), content))
}

// events hands events on, one at a time.
type events struct{ mu sync.Mutex }

func (e *events) send(to func(StreamEvent), ev StreamEvent) {
	if to == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	to(ev)
}

// marks remember when WAL arrived, coarsely, to tell how old the oldest is that
// is not durable.
type marks []mark

type mark struct {
	upTo postgres.LSN
	at   time.Time // when the first of it arrived
}

// markEvery is how exact they are.
const markEvery = 100 * time.Millisecond

func (m *marks) add(upTo postgres.LSN, now time.Time) {
	if n := len(*m); n > 0 && now.Sub((*m)[n-1].at) < markEvery {
		(*m)[n-1].upTo = upTo
		return
	}
	*m = append(*m, mark{upTo, now})
}

func (m *marks) drop(durable postgres.LSN) {
	for len(*m) > 0 && (*m)[0].upTo <= durable {
		*m = (*m)[1:]
	}
}

func (m marks) age(durable postgres.LSN, now time.Time) time.Duration {
	for _, k := range m {
		if k.upTo > durable {
			return now.Sub(k.at)
		}
	}
	return 0
}
