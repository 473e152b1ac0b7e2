package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lifeboat-dr/lifeboat/postgres"
)

// ExitError says that the postmaster ended when it should not have.
type ExitError struct {
	DataDir string
	Code    int    // its exit code; 0 after a shutdown, as recovery_target_action asks for; -1 for a signal
	Status  string // as os.ProcessState prints it: "exit status 1"
	Log     string // the end of its log, many lines
}

func (e *ExitError) Error() string {
	msg := fmt.Sprintf("PostgreSQL on %s ended (%s)", e.DataDir, e.Status)
	if line := reason(e.Log); line != "" {
		msg += ": " + line
	}
	return msg
}

// reason picks the line of a log that says why the server ended: the first
// FATAL or PANIC (what follows is usually its consequence), else the last line.
func reason(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for _, line := range lines {
		if strings.Contains(line, "FATAL:  ") || strings.Contains(line, "PANIC:  ") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}

// State is what the postmaster says about itself in postmaster.pid, see
// src/include/utils/pidfile.h.
type State string

// The states of a postmaster.
const (
	Starting State = "starting" // or not yet known
	Stopping State = "stopping"
	Standby  State = "standby" // up, in recovery, takes no connections (yet)
	Ready    State = "ready"   // takes connections; in recovery they can only read
)

// WaitReady waits until the server accepts connections. During recovery that
// is when hot_standby is on and the data is consistent; the caller asks
// pg_is_in_recovery() if it matters. Readiness means that the postmaster says
// so in postmaster.pid and that the socket answers a startup packet as
// pg_isready wants it; no login takes place, so any pg_hba.conf will do.
//
// When the postmaster ends first the error is an *ExitError; when ctx ends
// first it wraps ctx's error and the server keeps running.
func (s *Server) WaitReady(ctx context.Context) error {
	return s.poll(ctx, "does not accept connections", func() bool { return s.State() == Ready && s.ping(ctx) == nil })
}

// poll waits for a condition, for the end of the postmaster and for ctx.
func (s *Server) poll(ctx context.Context, not string, ok func() bool) error {
	for wait := 5 * time.Millisecond; !ok(); wait = min(2*wait, 100*time.Millisecond) {
		select {
		case <-s.done:
			return s.exitError()
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL on %s %s, its state is %q: %w", s.opts.DataDir, not, s.State(), context.Cause(ctx))
		case <-time.After(wait):
		}
	}
	return nil
}

func (s *Server) exitError() *ExitError {
	return &ExitError{DataDir: s.opts.DataDir, Code: s.exit.ExitCode(), Status: s.exit.String(), Log: s.LogTail()}
}

// WaitWritable waits until recovery has ended and the server accepts
// connections, by WaitReady and then by the state in the control file. Its
// errors are those of WaitReady. While recovery is paused at its target, or
// follows a primary, it waits on.
func (s *Server) WaitWritable(ctx context.Context) error {
	if err := s.WaitReady(ctx); err != nil {
		return err
	}
	return s.poll(ctx, "is still in recovery", func() bool { return s.dbState() == postgres.DBInProduction })
}

// dbState is the state in the control file, DBStartup when it cannot be read
// just now: the server writes it in place, and a read can hit the middle.
func (s *Server) dbState() postgres.DBState {
	data, err := ReadForeign(s.opts.DataDir, postgres.ControlPath, 64<<10)
	if err != nil {
		return postgres.DBStartup
	}
	control, err := postgres.ParseControlFile(data)
	if err != nil {
		return postgres.DBStartup
	}
	return control.State
}

// Promote ends recovery, as pg_ctl promote does: a file named promote in the
// data directory and SIGUSR1 (CheckPromoteSignal in src/backend/access/
// transam/xlogrecovery.c). It does not wait, see WaitWritable. It is an error
// when the control file does not say that the server is in recovery.
func (s *Server) Promote() error {
	if state := s.dbState(); state != postgres.DBInArchiveRecovery {
		return fmt.Errorf("promote PostgreSQL on %s: it is not in archive recovery but %q", s.opts.DataDir, state)
	}
	err := s.writeOwned(filepath.Join(s.opts.DataDir, "promote"), "")
	if err == nil {
		err = s.signal(syscall.SIGUSR1)
	}
	if err != nil {
		return fmt.Errorf("promote PostgreSQL on %s: %w", s.opts.DataDir, err)
	}
	return nil
}

// State reads the postmaster's state. It is Starting as long as the file is
// not there or is that of another postmaster.
func (s *Server) State() State {
	pf, err := readPIDFile(s.opts.DataDir)
	if err != nil || pf.pid != s.pid || pf.state == "" {
		return Starting
	}
	return pf.state
}

// errRejected says that the server is there and takes no connections now.
var errRejected = errors.New("the server rejects connections")

// ping sends a startup packet and looks at the first answer, as libpq's PQping
// does: a request for authentication means accepting, and so does any error
// but "cannot connect now" (57P03).
func (s *Server) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socketPath(s.opts.SocketDir, s.opts.Port))
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	front := pgproto3.NewFrontend(conn, conn)
	front.Send(&pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersion30,
		Parameters:      map[string]string{"user": s.opts.Role, "database": s.opts.Database},
	})
	if err := front.Flush(); err != nil {
		return err
	}
	answer, err := front.Receive()
	if err != nil {
		return err
	}
	if e, ok := answer.(*pgproto3.ErrorResponse); ok && e.Code == "57P03" {
		return errRejected
	}
	return nil
}

// pidFile is what we use of postmaster.pid: lines 1, 7 and 8 of
// src/include/utils/pidfile.h.
type pidFile struct {
	pid   int
	shmID int // of the System V segment; -1 when the line is not there yet
	state State
}

func readPIDFile(dataDir string) (pidFile, error) {
	pf := pidFile{shmID: -1}
	text, err := ReadForeign(dataDir, "postmaster.pid", 64<<10)
	if err != nil {
		return pf, err
	}
	lines := strings.Split(string(text), "\n")
	pf.pid, err = strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return pf, fmt.Errorf("%s, line 1: not a process id", filepath.Join(dataDir, "postmaster.pid"))
	}
	// A standalone backend writes its pid as a negative number. 0 would stand
	// for the caller's own process group when it is signalled.
	pf.pid = max(pf.pid, -pf.pid)
	if pf.pid == 0 {
		return pf, fmt.Errorf("%s: names process 0", filepath.Join(dataDir, "postmaster.pid"))
	}
	if len(lines) > 6 {
		if words := strings.Fields(lines[6]); len(words) == 2 {
			if id, err := strconv.Atoi(words[1]); err == nil {
				pf.shmID = id
			}
		}
	}
	if len(lines) > 7 {
		pf.state = stateOf(strings.TrimSpace(lines[7]))
	}
	return pf, nil
}

// stateOf is the state that a line names, "" for anything else.
func stateOf(line string) State {
	switch s := State(line); s {
	case Starting, Stopping, Standby, Ready:
		return s
	}
	return ""
}

// Running says whether a server runs on a data directory, by its postmaster.pid
// and a look at the process, and returns the process id (0 when there is none).
// A file left behind by a server that died counts as running only if its
// process id is in use again; PostgreSQL itself errs on that side too.
func Running(dataDir string) (pid int, err error) {
	pf, err := readPIDFile(dataDir)
	if foreignMissing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := syscall.Kill(pf.pid, 0); errors.Is(err, syscall.ESRCH) {
		return 0, nil
	}
	return pf.pid, nil
}
