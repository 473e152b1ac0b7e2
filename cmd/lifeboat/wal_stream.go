package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/wal"
)

func (a *app) walStream() *cli.Command {
	flags := append([]cli.Flag{
		&cli.StringFlag{Name: "slot", Value: "lifeboat", Usage: "physical replication slot to use, and the name in synchronous_standby_names, `NAME`"},
		&cli.BoolFlag{Name: "create-slot", Usage: "make the slot when the server has none; it keeps WAL from then on"},
		&cli.BoolFlag{Name: "synchronous", Usage: "store what arrives at once, for synchronous_standby_names: a commit that was acknowledged is in the store"},
		&cli.StringFlag{Name: "interval", Value: "1s", Usage: "store what has arrived every `TIME`; nothing while nothing is written"},
		&cli.StringFlag{Name: "slice-size", Value: "8388608", Usage: "store what has arrived when it is that many `BYTES`"},
		&cli.StringFlag{Name: "heartbeat", Value: "30s", Usage: "write a heartbeat every `TIME`, where the role may; 0 for never"},
	}, configFlags("conn", "repository", "cluster_key", "recipients")...)
	return &cli.Command{
		Name:  "stream",
		Usage: "receive WAL from the server and archive it within seconds",
		Description: `
Runs until it is stopped, beside archive_command or instead of it, on the
database host or another one; told to stop it stores what has arrived and
exits with 0. Receives WAL over the replication protocol and puts what has
arrived into the archive every interval; a segment that is complete is stored
whole. The slot never moves past what the archive has acknowledged, so nothing
is lost while it is away: the server keeps the WAL. After a failover it follows
the new timeline if conn leads to the new primary.

With --synchronous, and synchronous_standby_names = 'lifeboat' on the server, a
commit waits until it is in the archive. If the store is down, commits wait.`,
		Flags: flags,
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			cfg, err := a.config(c, "repository", "cluster_key", "recipients")
			if err != nil {
				return err
			}
			o, err := a.streamOptions(c, cfg)
			if err != nil {
				return err
			}
			return a.streamWAL(c.Context, cfg, o)
		},
	}
}

func (a *app) streamOptions(c *cli.Context, cfg *Config) (o wal.StreamOptions, err error) {
	o = wal.StreamOptions{Conn: cfg.Conn, Slot: c.String("slot"), CreateSlot: c.Bool("create-slot"), Synchronous: c.Bool("synchronous"),
		Blocks: cfg.BlockSummaries, Now: a.now}
	if o.Interval, err = durationOf(c, "interval"); err != nil {
		return o, err
	}
	if o.SliceSize, err = numberOf(c, "slice-size"); err != nil {
		return o, err
	}
	if o.Heartbeat, err = durationOf(c, "heartbeat"); err != nil {
		return o, err
	}
	return o, checkStream(o)
}

func checkStream(o wal.StreamOptions) error {
	if err := wal.CheckSlotName(o.Slot); err != nil {
		return usage("--slot: %v", err)
	}
	switch {
	case o.Interval < 10*time.Millisecond || o.Interval > time.Hour:
		return usage("--interval: %s is not between 10ms and 1h", o.Interval)
	case o.SliceSize < 64<<10:
		return usage("--slice-size: %d bytes are too few, 65536 is the least", o.SliceSize)
	case o.Heartbeat != 0 && o.Heartbeat < time.Second:
		return usage("--heartbeat: %s is less than 1s", o.Heartbeat)
	}
	return nil
}

// streamReport is the JSON document of a stream that was told to end.
type streamReport struct {
	Repository string            `json:"repository,omitempty"` // which, where there are several
	Slot       string            `json:"slot"`
	Timeline   postgres.Timeline `json:"timeline"`
	Received   postgres.LSN      `json:"received"`        // from the server
	Durable    postgres.LSN      `json:"durable"`         // acknowledged by the store
	Error      string            `json:"error,omitempty"` // why this one of several ended by itself
}

func (a *app) streamWAL(ctx context.Context, cfg *Config, o wal.StreamOptions) error {
	if cfg.several() {
		return a.streamSeveral(ctx, cfg, o)
	}
	r, err := openToArchive(ctx, cfg)
	if err != nil {
		return err
	}
	if o.System, err = expectedSystem(ctx, cfg); err != nil {
		return err
	}
	log := &streamLog{app: a, slot: o.Slot}
	o.Notify = log.event
	if err := wal.Stream(ctx, r, o); err != nil {
		return err
	}
	report := streamReport{Slot: o.Slot, Timeline: log.last.Timeline, Received: log.last.Received, Durable: log.last.Durable}
	return a.outcome(report, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "Stopped: timeline %s is in the archive up to %s\n", report.Timeline, report.Durable)
	})
}

// streamLog prints what a stream tells: at once what is new, else a line a
// minute.
type streamLog struct {
	*app
	prefix string // "near: " of one of several repositories
	slot   string
	last   wal.StreamEvent
	failed string    // the last failure
	said   time.Time // when it, or the last line, was printed
}

const sayEvery = time.Minute

func (l *streamLog) event(e wal.StreamEvent) {
	now := l.now()
	if e.Durable != 0 {
		l.last = e
	}
	switch e.Kind {
	case wal.StreamBegan:
		l.failed, l.said = "", now
		l.note("lifeboat: %sstreaming timeline %s from %s on with slot %s", l.prefix, e.Timeline, e.Received, l.slot)
	case wal.StreamFailed:
		text := e.Err.Error()
		if text == l.failed && now.Sub(l.said) < sayEvery {
			return
		}
		l.failed, l.said = text, now
		l.warn("%s%s; trying again%s", l.prefix, text, inBrackets(e.Err))
	case wal.StreamWarned:
		l.warn("%s%v%s", l.prefix, e.Err, inBrackets(e.Err))
	case wal.StreamMoved:
		if now.Sub(l.said) < sayEvery {
			return
		}
		l.said = now
		l.note("lifeboat: %sin the archive up to %s; %s, %s behind the server", l.prefix, e.Durable, sizeText(behind(e)), e.Behind.Round(time.Millisecond))
	}
}

// inBrackets is the hint for an error, to put behind it; "" when there is none.
func inBrackets(err error) string {
	if _, hint := classify(err); hint != "" {
		return " (" + hint + ")"
	}
	return ""
}

func behind(e wal.StreamEvent) int64 {
	if e.Server < e.Durable {
		return 0
	}
	return int64(e.Server - e.Durable)
}
