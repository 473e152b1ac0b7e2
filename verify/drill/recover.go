package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// recover starts the server and waits until recovery is over and it can be
// written to.
func (r *run) recover(ctx context.Context) error {
	if err := r.writeConf(r.plan); err != nil {
		return err
	}
	if err := r.compareTables(ctx); err != nil {
		return err
	}
	began := r.o.Now()
	if err := r.start(ctx); err != nil {
		return err
	}
	err := r.waitOpen(ctx)
	r.recoveryPhases(began)
	return err
}

func (r *run) start(ctx context.Context) error {
	load, missing, left := r.preload(r.install, r.plan.Backup.Settings["shared_preload_libraries"])
	r.missing = missing
	r.doc.Fence = &evidence.Fence{Loaded: load, Left: slices.Concat(missing, left), Proven: []string{}}
	o := server.Options{
		DataDir: r.plan.DataDir, LogFile: r.stage.log(), Settings: r.settings(r.install, load),
		Role: r.o.Role, DieWithParent: !r.o.Keep, Env: probe.PlainEnv(r.o.Env),
	}
	if r.plan.Owner != nil {
		account, err := server.LookupAccount(r.plan.Owner.User)
		if err != nil {
			account = &server.Account{Name: r.plan.Owner.User}
		}
		account.UID, account.GID = uint32(r.plan.Owner.UID), uint32(r.plan.Owner.GID)
		o.Account = account
	}
	var err error
	if r.socket == "" {
		if r.socket, err = r.socketDir(); err != nil {
			return err
		}
	}
	o.SocketDir = r.socket
	o.Launch = r.launch(o.SocketDir)
	r.server, err = server.Start(ctx, r.install, o)
	return err
}

// socketDir makes the folder of the socket. It is in the staging folder, unless
// its path is longer than a socket's may be.
func (r *run) socketDir() (string, error) {
	dir := r.stage.path("socket")
	if len(dir) > 80 {
		var err error
		if dir, err = os.MkdirTemp("", "lifeboat-drill-"); err != nil {
			return "", err
		}
		r.sockets = dir
	} else if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if o := r.plan.Owner; o != nil {
		return dir, os.Lchown(dir, o.UID, o.GID)
	}
	return dir, nil
}

// waitOpen waits for the end of recovery.
func (r *run) waitOpen(ctx context.Context) error {
	return r.watched(ctx, r.server.WaitWritable)
}

// watched waits for something that recovery will come to, as long as it makes
// progress.
func (r *run) watched(ctx context.Context, wait func(context.Context) error) error {
	wctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if hang := r.watchProgress(wctx); hang != nil {
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
func (r *run) watchProgress(ctx context.Context) *HangError {
	limit := r.o.Stall
	if limit <= 0 {
		limit = defaultStall
	}
	tick := time.NewTicker(min(limit/4, time.Second))
	defer tick.Stop()
	last, changed := "", r.o.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		state, at := r.progress(ctx)
		if state != last {
			last, changed = state, r.o.Now()
			continue
		}
		if idle := r.o.Now().Sub(changed); idle >= limit {
			l, _ := readServerLog(r.stage.log())
			return &HangError{After: idle.Round(time.Second), At: at, Log: l.lastLine}
		}
	}
}

// progress is a text that changes as recovery goes on.
func (r *run) progress(ctx context.Context) (string, postgres.LSN) {
	var size int64
	if info, err := os.Stat(r.stage.log()); err == nil {
		size = info.Size()
	}
	qctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var replayed string
	if text, err := r.conn().Value(qctx, "", "select pg_last_wal_replay_lsn()::text"); err == nil && text != nil {
		replayed = *text
	}
	at, _ := postgres.ParseLSN(replayed)
	if at > r.plan.WAL.Begin {
		r.o.observe(evidence.PhaseReplay, int64(at-r.plan.WAL.Begin), int64(r.plan.StopLSN-r.plan.WAL.Begin))
	}
	return strconv.FormatInt(size, 10) + " " + replayed, at
}

// recoveryPhases splits the time since the start by what the server logged.
func (r *run) recoveryPhases(began time.Time) {
	l, err := readServerLog(r.stage.log())
	if err != nil {
		return
	}
	now := r.o.Now()
	at := began
	r.o.observe(evidence.PhaseAccepting, 0, 0)
	first, second := r.plan.WAL.Begin, r.plan.ConsistentLSN
	if r.paused != 0 { // all before was replayed in another phase
		first, second = r.paused, r.paused
	}
	for _, p := range []struct {
		name  string
		end   time.Time
		bytes int64
	}{
		{evidence.PhaseConsistent, l.consistent, int64(second - first)},
		{evidence.PhaseReplay, l.replayed, int64(max(r.plan.StopLSN, second) - second)},
		{evidence.PhaseAccepting, now, 0},
	} {
		end := p.end
		if end.IsZero() {
			end, p.bytes = now, 0 // it did not get there
		}
		end = later(at, end) // a log has milliseconds only
		r.doc.Phases = append(r.doc.Phases, evidence.Phase{Name: p.name, Start: round(at.Sub(r.began).Seconds()), Seconds: round(end.Sub(at).Seconds()), Bytes: p.bytes})
		if p.end.IsZero() {
			return
		}
		at = end
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (r *run) conn() probe.Conn {
	c := probe.Conn{Host: r.server.SocketDir(), Port: r.server.Port(), Role: r.o.Role, Env: r.o.Env}
	if o := r.plan.Owner; o != nil {
		c.Account = &syscall.Credential{Uid: uint32(o.UID), Gid: uint32(o.GID)}
	}
	return c
}

// stopServer ends the server; one that does not end in time is killed.
func (r *run) stopServer(ctx context.Context) error {
	if r.sockets != "" {
		defer os.RemoveAll(r.sockets)
	}
	if r.server == nil {
		return nil
	}
	sctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := r.server.Stop(sctx, server.Immediate); err != nil {
		return r.server.Kill()
	}
	return nil
}

func (r *run) keptServer() *Kept {
	k := &Kept{Conn: r.server.Conn(), DataDir: r.plan.DataDir, Folder: r.stage.dir, PGCtl: r.install.Path("pg_ctl")}
	if r.plan.Owner != nil {
		k.Account = r.plan.Owner.User
	}
	return k
}

// recovered reads where recovery ended: the last line of the new timeline's
// history says where it leaves the one before.
func (r *run) recovered(l serverLog) (postgres.LSN, error) {
	if l.timeline == 0 {
		return 0, errors.New("the server has begun no new timeline")
	}
	text, err := os.ReadFile(filepath.Join(r.plan.DataDir, "pg_wal", l.timeline.HistoryName()))
	if err != nil {
		return 0, err
	}
	h, err := postgres.ParseHistory(l.timeline, text)
	if err != nil {
		return 0, err
	}
	if len(h.Entries) == 0 {
		return 0, fmt.Errorf("the history of timeline %s is empty", l.timeline)
	}
	return h.Entries[len(h.Entries)-1].Switch, nil
}

func joined(names []string) string { return strings.Join(names, ", ") }
