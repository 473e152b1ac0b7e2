// Package server finds the programs of a PostgreSQL installation and starts
// and stops one server on a data directory.
//
// The server is a child process started without a shell and without pg_ctl
// (which itself goes through one). It listens on a Unix socket in a directory that
// only its own account can enter, and on TCP only when asked. The package
// holds no global state and reads the environment in two places only: PATH, to
// find programs, and the environment handed on to the server when
// Options.Env is nil.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// DefaultPort is the port that names the socket when Options.Port is 0.
const DefaultPort = 5432

// Options says how Start runs a server.
type Options struct {
	// DataDir is the data directory; it must exist.
	DataDir string

	// SocketDir is the directory for the Unix socket. When it is missing Start
	// makes it, mode 0700, owned by the server's account. When the option is
	// empty Start makes a private directory below the system's directory for
	// temporary files; it is removed when the server ends and the caller's
	// process still runs.
	SocketDir string

	// Port is part of the socket's name; 0 means DefaultPort. Two servers with
	// socket directories of their own can have the same one as long as neither
	// listens on TCP.
	Port int

	// Listen is listen_addresses; empty means no TCP at all.
	Listen string

	// Settings are configuration parameters that beat those of the data
	// directory's files. They are visible to everybody on the machine in the
	// list of processes, and PostgreSQL writes them to postmaster.opts: a
	// secret belongs in postgresql.auto.conf instead.
	Settings map[string]string

	// LogFile receives what the server writes to stderr, appended. Empty
	// means server.log in the socket directory.
	LogFile string

	// Account is the operating system account that runs the server. nil means
	// the owner of DataDir when the caller is root, else the caller.
	Account *Account

	// Role and Database are what Conn names; empty means "postgres".
	Role, Database string

	// Launch, when set, may change the command of the postmaster before it is
	// started, to put another program before it. That program must let
	// PostgreSQL take its place in the same process.
	Launch func(*exec.Cmd) error

	// Env is the server's environment, and so that of archive_command and
	// restore_command. nil hands on the caller's, without the PG… variables.
	Env []string

	// DieWithParent stops the server (an immediate shutdown) when the calling
	// process dies, however it dies. Only Linux can do this; elsewhere the
	// option does nothing.
	DieWithParent bool
}

// Server is one running server that Start started.
// Its methods may be called from several goroutines.
type Server struct {
	opts       Options
	pid        int
	ownSockDir bool     // made by Start for this server alone
	made       []string // configuration files that stand in for missing ones
	logStart   int64    // size of the log before this start

	killedShm atomic.Int64 // System V segment left by Kill; -1 when none

	done chan struct{}    // closed when the postmaster was reaped
	exit *os.ProcessState // valid after done is closed
	tail string           // the end of the log, valid after done is closed
}

// Start runs a server on o.DataDir and returns as soon as its process runs;
// WaitReady then waits for it to accept connections. ctx covers the start
// only: the server outlives it, and the caller, unless DieWithParent is set.
//
// A data directory without postgresql.conf or pg_hba.conf (Debian keeps them in
// /etc) gets stand-ins beside the socket, see MadeConfig, unless Settings names
// config_file or hba_file.
//
// On an error nothing runs and the directory that Start made is gone.
func Start(ctx context.Context, in Install, o Options) (*Server, error) {
	s, err := start(ctx, in, o)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL on %s: %w", o.DataDir, err)
	}
	return s, nil
}

func start(ctx context.Context, in Install, o Options) (_ *Server, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o, err = withDefaults(o); err != nil {
		return nil, err
	}
	s := &Server{opts: o, done: make(chan struct{})}
	s.killedShm.Store(-1)
	if err := s.makeSocketDir(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.removeSocketDir()
		}
	}()

	files, err := s.missingFiles()
	if err != nil {
		return nil, err
	}
	args, err := arguments(s.opts, files)
	if err != nil {
		return nil, err
	}
	log, err := s.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()

	cmd := exec.Command(in.Path("postgres"), args...)
	cmd.Dir = o.DataDir
	cmd.Env = childEnv(o.Env, o.Account)
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: an interrupt typed at the terminal is for the
	// caller, who then stops the server in the way it wants.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	o.Account.apply(cmd.SysProcAttr)
	if o.DieWithParent {
		dieWithParent(cmd.SysProcAttr)
	}
	if o.Launch != nil {
		if err := o.Launch(cmd); err != nil {
			return nil, err
		}
	}
	if err := s.run(cmd); err != nil {
		// The system does not say whether it is the program or the directory that
		// the account cannot reach.
		return nil, fmt.Errorf("run %s as %s in %s: %w", cmd.Path, o.Account, cmd.Dir, plain(err))
	}
	return s, nil
}

// plain is the system's own error, without the names that go before it.
func plain(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

// run starts cmd and leaves behind the goroutine that reaps it. The goroutine
// keeps its thread for the life of the server because Linux sends the
// parent-death signal when the *thread* that forked ends, see prctl(2).
func (s *Server) run(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		s.pid = cmd.Process.Pid
		started <- nil
		cmd.Wait() // the state says all that its error could
		s.exit = cmd.ProcessState
		s.tail = s.readTail()
		s.removeSocketDir()
		close(s.done)
	}()
	return <-started
}

func withDefaults(o Options) (Options, error) {
	var err error
	if o.DataDir, err = filepath.Abs(o.DataDir); err != nil {
		return o, err
	}
	if o.Account == nil {
		if o.Account, err = accountFor(o.DataDir); err != nil {
			return o, err
		}
	}
	if err := o.Account.check(); err != nil {
		return o, err
	}
	o.Port, o.Role, o.Database = cmp.Or(o.Port, DefaultPort), cmp.Or(o.Role, "postgres"), cmp.Or(o.Database, "postgres")
	return o, nil
}

// arguments builds the command line of postgres, see "postgres" in the manual.
//
// Two parameters are for a copy of a data directory that still has the
// original's configuration: data_directory in postgresql.conf beats -D, so the
// server would start on the original's directory, and external_pid_file would
// overwrite the original's. It cannot be unset, only lead elsewhere.
func arguments(o Options, files map[string]string) ([]string, error) {
	set := map[string]string{
		"data_directory":          o.DataDir,
		"external_pid_file":       socketPath(o.SocketDir, o.Port) + ".pid",
		"listen_addresses":        o.Listen,
		"port":                    strconv.Itoa(o.Port),
		"unix_socket_directories": quoteList(o.SocketDir),
	}
	maps.Copy(set, files)
	for name, value := range o.Settings {
		if err := checkSetting(name, value); err != nil {
			return nil, err
		}
		if own, taken := set[name]; taken && own != value {
			return nil, fmt.Errorf("setting %s: it has an option of its own", name)
		}
		set[name] = value
	}
	args := []string{"-D", o.DataDir}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		args = append(args, "-c", name+"="+set[name])
	}
	return args, nil
}

// checkSetting refuses what cannot stand on a command line. A name with "="
// would set something else than it seems to; primary_conninfo is the one
// parameter that usually holds a password.
func checkSetting(name, value string) error {
	valid := func(r rune) bool {
		return r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	switch {
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !valid(r) }):
		return fmt.Errorf("setting %q: not the name of a configuration parameter", name)
	case strings.ContainsRune(value, 0):
		return fmt.Errorf("setting %s: its value holds a NUL byte", name)
	case strings.EqualFold(name, "primary_conninfo"):
		return errors.New("setting primary_conninfo: it may hold a password and would be visible to everybody; write it to postgresql.auto.conf")
	}
	return nil
}

// quoteList quotes one element of a list-valued parameter
// (SplitDirectoriesString in src/backend/utils/adt/varlena.c).
func quoteList(s string) string {
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// childEnv is env, or else the caller's environment as it fits the account and
// without libpq's and the server's own variables: PGDATA, PGPORT, PGOPTIONS and
// the like would change what is started.
func childEnv(env []string, a *Account) []string {
	if env != nil {
		return env
	}
	env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "NOTIFY_SOCKET=")
	})
	return a.environment(env)
}

// PID is the process id of the postmaster.
func (s *Server) PID() int { return s.pid }

// DataDir is the absolute path of the data directory.
func (s *Server) DataDir() string { return s.opts.DataDir }

// SocketDir is the directory of the socket: libpq's host.
func (s *Server) SocketDir() string { return s.opts.SocketDir }

// Port is the port in the socket's name.
func (s *Server) Port() int { return s.opts.Port }

// LogFile is the file that receives the server's stderr.
func (s *Server) LogFile() string { return s.opts.LogFile }

// MadeConfig lists the configuration files that Start made because the data
// directory has none. They lie in the socket directory: a server that is to stay
// needs its own.
func (s *Server) MadeConfig() []string { return s.made }

// Done is closed when the postmaster has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.done }

// Conn is a libpq connection string (keywords and values) to the server's
// socket. It holds no password.
func (s *Server) Conn() string {
	return ConnString(s.opts.SocketDir, s.opts.Port, s.opts.Role, s.opts.Database)
}

// ConnString is a libpq connection string (keywords and values) for a server
// behind a socket directory. A port of 0 means DefaultPort, an empty role or
// database "postgres".
func ConnString(socketDir string, port int, role, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s", quoteConn(socketDir), cmp.Or(port, DefaultPort),
		quoteConn(cmp.Or(role, "postgres")), quoteConn(cmp.Or(database, "postgres")))
}

// quoteConn quotes a value of a connection string, see "Connection Strings" in
// the manual's chapter on libpq.
func quoteConn(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
