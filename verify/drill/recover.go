package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
	"github.com/lifeboat-dr/lifeboat/verify/fence"
	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// recover starts the server and waits until recovery is over and it can be
// written to.
func (r *run) recover(ctx context.Context) error {
	if err := r.autoConf(r.plan.Settings); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	noted, err := r.notedTables(ctx)
	if err != nil {
		return err
	}
	// From here on an attacker's code may run: nobody holds the key any more.
	if err := r.restorer.Close(); err != nil {
		return fmt.Errorf("end the process that holds the key: %w", err)
	}
	if noted != nil {
		if err := r.compareTables(ctx, noted.LSN); err != nil {
			return err
		}
	}
	began := r.o.Now()
	if err := r.start(ctx, targets(r.plan.Settings), ""); err != nil {
		return err
	}
	if err := r.helper.call(ctx, doReady, nil, &r.recovery); err != nil {
		return err
	}
	r.recovery.clean()
	r.recoveryPhases(began)
	if f := r.recovery.Failed; f != nil {
		return f
	}
	return nil
}

// startHelper starts a helper, which has no keys, no credentials and nothing of our
// environment but what says nothing of them. It serves one start of the server.
func (r *run) startHelper() (err error) {
	cmd := exec.Command(r.o.Self, HelpArgument)
	cmd.Dir, cmd.Env = "/", probe.PlainEnv(r.o.Env)
	r.helper, err = startProcess("helper", cmd, mostSeen, func(p Progress) { r.o.observe(p.Phase, p.Done, p.Total) })
	return err
}

// start has the helper start the server with more settings than it has in any case.
func (r *run) start(ctx context.Context, more map[string]string, tables string) error {
	if r.helper == nil { // each start of the server has a fence of its own
		if err := r.raiseFence(ctx); err != nil {
			return err
		}
		if err := r.tryFence(ctx)(); err != nil {
			return err
		}
	}
	load, missing, left := r.preload(r.install, r.plan.Backup.Settings["shared_preload_libraries"])
	r.missing = missing
	f := &evidence.Fence{Loaded: load, Left: slices.Concat(missing, left), Proven: []string{}}
	if before := r.doc.Fence; before != nil { // what led out of an earlier one has led out
		f.Missing = before.Missing
	}
	r.doc.Fence = f
	r.noteTried()
	settings := r.settings(r.install, load)
	maps.Copy(settings, more)
	var s started
	if err := r.helper.call(ctx, doStart, startRequest{
		Install: r.install, DataDir: r.plan.DataDir, SocketDir: r.socket, DoorDir: r.door, LogDir: r.stage.logs(), Role: r.o.Role, Settings: settings, Account: r.account(),
		Env: probe.PlainEnv(r.o.Env), Keep: r.o.Keep, Tables: tables,
		System: r.plan.Backup.System, Begin: r.plan.WAL.Begin, Stop: r.plan.StopLSN, Stall: r.o.Stall,
	}, &s); err != nil {
		return err
	}
	// The helper's word alone decides nothing: of this process it is looked at what
	// the kernel keeps away.
	if !childOf(s.PID, r.helper.cmd.Process.Pid) {
		return errBadAnswer
	}
	r.pid = s.PID
	return nil
}

// account is that of files and server; nil where it is ours.
func (r *run) account() *server.Account {
	if r.plan.Owner == nil {
		return nil
	}
	a, err := server.LookupAccount(r.plan.Owner.User)
	if err != nil {
		a = &server.Account{Name: r.plan.Owner.User}
	}
	a.UID, a.GID = uint32(r.plan.Owner.UID), uint32(r.plan.Owner.GID)
	return a
}

// makeSockets makes the directories of the server's socket, and of the one that programs
// connect to, for the server's account alone. They are in the staging directory, unless
// their paths are longer than a socket's may be.
func (r *run) makeSockets() (err error) {
	base := r.stage.dir
	if len(r.stage.path("socket")) > 80 {
		if r.sockets, err = os.MkdirTemp("", "lifeboat-drill-"); err != nil {
			return err
		}
		base = r.sockets
		if err := os.Chmod(base, 0o711); err != nil {
			return err
		}
	}
	r.socket, r.door = filepath.Join(base, "socket"), filepath.Join(base, "door")
	for _, dir := range []string{r.socket, r.door} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if o := r.plan.Owner; o != nil {
			if err := os.Lchown(dir, o.UID, o.GID); err != nil {
				return err
			}
		}
	}
	return nil
}

// recoveryPhases splits the time since the start by what the server logged.
func (r *run) recoveryPhases(began time.Time) {
	l, now := r.recovery, r.o.Now()
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
		{evidence.PhaseConsistent, l.Consistent, int64(second - first)},
		{evidence.PhaseReplay, l.Replayed, int64(max(r.plan.StopLSN, second) - second)},
		{evidence.PhaseAccepting, now, 0},
	} {
		end := p.end
		if end.IsZero() {
			end, p.bytes = now, 0 // it did not get there
		}
		end = later(at, end) // a log has milliseconds only
		r.doc.Phases = append(r.doc.Phases, evidence.Phase{Name: p.name, Start: evidence.Round(at.Sub(r.record.Began()).Seconds()), Seconds: evidence.Round(end.Sub(at).Seconds()), Bytes: p.bytes})
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

// stopServer ends the server, and the helper with it. Nothing that the server does
// can hinder it.
func (r *run) stopServer() error {
	if r.sockets != "" {
		defer os.RemoveAll(r.sockets)
	}
	if r.helper == nil {
		return nil
	}
	err := r.helper.kill()
	if r.o.Adopt { // a helper that somebody has killed has ended nothing
		err = errors.Join(err, server.KillBelow(os.Getpid()))
	}
	r.removeCgroups()
	return err
}

// removeCgroups removes those of a fence that has ended, which the helper has given up
// the rights for. One that stays is empty, and a later drill removes it.
func (r *run) removeCgroups() { _ = fence.RemoveCgroups(r.raised.Cgroups) }

func (r *run) keptServer() *Kept {
	k := &Kept{Conn: server.ConnString(r.socket, 0, r.o.Role, ""), DataDir: r.plan.DataDir, Directory: r.stage.dir, PGCtl: r.install.Path("pg_ctl")}
	if r.plan.Owner != nil {
		k.Account = r.plan.Owner.User
	}
	return k
}

func joined(names []string) string { return strings.Join(names, ", ") }
