package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres"
	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/restore"
	"github.com/lifeboat-dr/lifeboat/wal"
)

// restoreServer is the server that --start left running.
type restoreServer struct {
	State   string  `json:"state"` // open, paused, reading or stopped
	PID     int     `json:"pid,omitempty"`
	Socket  string  `json:"socket,omitempty"`
	Port    int     `json:"port,omitempty"`
	Log     string  `json:"log,omitempty"`
	Seconds float64 `json:"seconds"` // from its start to that state

	dataDir string
	account string // that runs it, if it is not ours
	stop    string // how to stop it
}

// The states of a started server.
const (
	serverOpen    = "open"    // recovery is over, it can be written to
	serverPaused  = "paused"  // at the target
	serverReading = "reading" // accepts connections; whether it has paused could not be asked
	serverStopped = "stopped" // shut down at the target
)

// startServer starts the server and waits until recovery has got where it
// shall. The server stays when we end; an interruption leaves it running too.
func (r *restoration) startServer(ctx context.Context, p *restore.Plan) (*restoreServer, error) {
	progress := r.newProgress("recovering")
	defer progress.close()
	began := r.now()
	srv, err := server.Start(ctx, r.install, server.Options{DataDir: p.DataDir, Port: r.port,
		LogFile: filepath.Join(p.DataDir, "lifeboat-start.log")}) // where it outlives the server and the socket's directory
	if err != nil {
		return nil, err
	}
	report := &restoreServer{PID: srv.PID(), Socket: srv.SocketDir(), Port: srv.Port(), Log: srv.LogFile(),
		dataDir: p.DataDir, stop: r.install.Path("pg_ctl")}
	if p.Owner != nil {
		report.account = p.Owner.User
	}
	if report.State, err = r.waitRecovered(ctx, srv, p); err != nil {
		if ctx.Err() != nil {
			r.note("the server (process %d) was left running", srv.PID())
		}
		return nil, err
	}
	if report.State == serverStopped {
		report.PID, report.Socket, report.Port = 0, "", 0
	}
	report.Seconds = r.now().Sub(began).Seconds()
	return report, nil
}

// waitRecovered waits until the server is open, paused or shut down, as the
// plan has it. That it is open is read from its control file, because logging
// in may not be allowed to us.
func (r *restoration) waitRecovered(ctx context.Context, srv *server.Server, p *restore.Plan) (string, error) {
	if err := srv.WaitReady(ctx); err != nil {
		if p.Action == restore.Shutdown && ended(srv) {
			return r.shutDown(ctx, p, err)
		}
		return "", err
	}
	for {
		control, err := wal.ReadControl(ctx, p.DataDir)
		if err != nil {
			return "", err
		}
		if control.State == postgres.DBInProduction {
			return serverOpen, nil
		}
		if p.Action == restore.Pause {
			if paused, err := r.paused(ctx, srv, p); err != nil {
				r.note("cannot ask the server whether it has paused: %v", err)
				return serverReading, nil
			} else if paused {
				return serverPaused, nil
			}
		}
		select {
		case <-srv.Done():
			if p.Action == restore.Shutdown {
				return r.shutDown(ctx, p, nil)
			}
			return "", &server.ExitError{DataDir: p.DataDir, Status: "it ended during recovery", Log: srv.LogTail()}
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func ended(srv *server.Server) bool {
	select {
	case <-srv.Done():
		return true
	default:
		return false
	}
}

// shutDown tells a server that stopped at the target from one that failed.
func (r *restoration) shutDown(ctx context.Context, p *restore.Plan, cause error) (string, error) {
	control, err := wal.ReadControl(ctx, p.DataDir)
	if err != nil {
		return "", err
	}
	if control.State == postgres.DBShutdownedInRecovery {
		return serverStopped, nil
	}
	if cause == nil {
		cause = fmt.Errorf("PostgreSQL on %s ended in the state %q", p.DataDir, control.State)
	}
	return "", cause
}

// paused asks the server, as the account that owns it: the usual pg_hba.conf
// lets that one in.
func (r *restoration) paused(ctx context.Context, srv *server.Server, p *restore.Plan) (bool, error) {
	query := "select pg_get_wal_replay_pause_state() = 'paused'"
	if r.install.Major < 14 {
		query = "select pg_is_wal_replay_paused()"
	}
	cmd := exec.CommandContext(ctx, r.install.Path("psql"), "--no-psqlrc", "--no-password", "--tuples-only", "--no-align",
		"--command="+query, srv.Conn())
	cmd.Dir = "/"
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if p.Owner != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(p.Owner.UID), Gid: uint32(p.Owner.GID)}}
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, fmt.Errorf("%w: %s", err, firstLine(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()) == "t", nil
}

func (s *restoreServer) write(w io.Writer) {
	took := span(time.Duration(s.Seconds * float64(time.Second)))
	switch s.State {
	case serverStopped:
		_, _ = fmt.Fprintf(w, "The server recovered to the target and shut down, in %s.\n", took)
		return
	case serverOpen:
		_, _ = fmt.Fprintf(w, "Recovery is over and the server is open, after %s.\n", took)
	case serverPaused:
		_, _ = fmt.Fprintf(w, "The server has paused at the target, after %s, and can be read.\n"+
			"Open it for writing:  select pg_wal_replay_resume();\n", took)
	case serverReading:
		_, _ = fmt.Fprintf(w, "The server accepts connections, after %s; recovery may still be under way.\n", took)
	}
	as := ""
	if s.account != "" {
		as = "runuser -u " + postgres.ShellWord(s.account) + " -- "
	}
	_, _ = fmt.Fprintf(w, "Connect:  %spsql -h %s -p %d postgres\nStop:     %s%s -D %s stop\nLog:      %s\n",
		as, postgres.ShellWord(s.Socket), s.Port, as, postgres.ShellWord(s.stop), postgres.ShellWord(s.dataDir), postgres.ShellWord(s.Log))
}
