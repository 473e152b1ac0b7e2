package drill

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/fingerprint"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// watched waits for something that recovery will come to, as long as it makes
// progress.
func (h *helper) watched(ctx context.Context, wait func(context.Context) error) error {
	wctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if hang := h.watchProgress(wctx); hang != nil {
			cancel(hang)
		}
	}()
	err := wait(wctx)
	if cause := context.Cause(wctx); err != nil && cause != nil {
		err = cause
	}
	cancel(nil)
	<-watched
	return err
}

// watchProgress looks at what recovery does: its log grows, since the server
// says every second where it is, and once it can be read it tells how far it
// has replayed.
func (h *helper) watchProgress(ctx context.Context) *HangError {
	limit := h.want.Stall
	if limit <= 0 {
		limit = defaultStall
	}
	tick := time.NewTicker(min(limit/4, time.Second))
	defer tick.Stop()
	last, changed := "", h.now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		state, at := h.progress(ctx)
		if state != last {
			last, changed = state, h.now()
			continue
		}
		if idle := h.now().Sub(changed); idle >= limit {
			l, _ := h.log()
			return &HangError{After: idle.Round(time.Second), At: at, Log: l.lastLine}
		}
	}
}

// progress is a text that changes as recovery goes on.
func (h *helper) progress(ctx context.Context) (string, postgres.LSN) {
	size, _ := server.ForeignSize(h.want.LogDir, logName)
	qctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var replayed string
	if text, err := h.conn().Value(qctx, "", "select pg_last_wal_replay_lsn()::text"); err == nil && text != nil {
		replayed = *text
	}
	at, _ := postgres.ParseLSN(replayed)
	if at > h.want.Begin {
		h.observe(evidence.PhaseReplay, int64(at-h.want.Begin), int64(h.want.Stop-h.want.Begin))
	}
	return strconv.FormatInt(size, 10) + " " + replayed, at
}

// waitPaused waits until recovery has paused.
func (h *helper) waitPaused(ctx context.Context) error {
	query := "select pg_get_wal_replay_pause_state() = 'paused'"
	if h.want.Install.Major < 14 {
		query = "select pg_is_wal_replay_paused()"
	}
	return h.watched(ctx, func(ctx context.Context) error {
		if err := h.server.WaitReady(ctx); err != nil {
			return err
		}
		for {
			value, err := h.conn().Value(ctx, "", query)
			switch {
			case err != nil:
				return err
			case value != nil && *value == "t":
				return nil
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

// recovered reads where recovery ended: the last line of the new timeline's
// history says where it leaves the one before.
func (h *helper) recovered(l serverLog) (postgres.LSN, error) {
	if l.timeline == 0 {
		return 0, errors.New("the server has begun no new timeline")
	}
	text, err := server.ReadForeign(h.want.DataDir, "pg_wal/"+l.timeline.HistoryName(), mostHistory)
	if err != nil {
		return 0, fmt.Errorf("read the history of timeline %s: %w", l.timeline, err)
	}
	history, err := postgres.ParseHistory(l.timeline, text)
	if err != nil {
		return 0, err
	}
	if len(history.Entries) == 0 {
		return 0, fmt.Errorf("the history of timeline %s is empty", l.timeline)
	}
	return history.Entries[len(history.Entries)-1].Switch, nil
}

// compare holds the tables against what the backup noted of them.
func (h *helper) compare(ctx context.Context) (evidence.Verdict, string) {
	want := h.tables
	if want == nil {
		return evidence.Unknown, "nothing was noted of them"
	}
	snapshot, err := fingerprint.Recovered(ctx, h.conn().Open)
	if err != nil {
		return evidence.Unknown, err.Error()
	}
	defer snapshot.Close()
	same, different, err := snapshot.Compare(ctx, want)
	if err != nil {
		return evidence.Unknown, err.Error()
	}
	if n := len(different); n > 0 {
		return evidence.Failed, fmt.Sprintf("%d of %d tables are not as they were at %s: %s", n, same+n, want.LSN,
			strings.Join(different[:min(n, mostNamed)], "; "))
	}
	detail := fmt.Sprintf("%d tables have the rows that the backup noted at %s", same, want.LSN)
	if want.Left > 0 {
		detail += fmt.Sprintf("; %d could not be read then", want.Left)
	}
	return evidence.Passed, detail
}
