// Package probe looks at a restored server, wherever it runs: by the user's own
// queries and commands, and by built-in checks with a time limit.
package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
	"github.com/lifeboat-dr/lifeboat/repo"
)

// Conn leads to a restored server: by the socket in a directory, or over a network.
type Conn struct {
	Host string // directory of the socket, or a name or address
	Port int
	Role string

	// Over a network. Password is asked for each connection, since a token may
	// have run out; nil is none. It reaches programs in their environment only.
	Password func(context.Context) (string, error)
	TLS      *tls.Config
	Lookup   func(ctx context.Context, host string) ([]string, error) // nil: the system's

	// Dial connects in the place of Host and Port, which are then for programs alone; nil:
	// by these.
	Dial func(context.Context) (net.Conn, error)

	SSLEnv  []string            // says of TLS to programs what TLS does here: PGSSLMODE and the like
	Account *syscall.Credential // that programs run as; nil: ours
	Env     []string            // of this process, for commands
	Name    string              // application_name; "" is lifeboat drill
}

// Open connects to a database; "" is postgres. The caller closes it.
func (c Conn) Open(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(c.Conninfo(database))
	if err != nil {
		return nil, err
	}
	cfg.Password = ""
	if c.Password != nil {
		if cfg.Password, err = c.Password(ctx); err != nil {
			return nil, err
		}
	}
	cfg.TLSConfig, cfg.Fallbacks = c.TLS, nil
	if c.Lookup != nil {
		cfg.LookupFunc = c.Lookup
	}
	if c.Dial != nil {
		cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) }
	}
	// Limits come from the contexts: one that production sets for its sessions is
	// restored with the rest, and would end what reads everything.
	cfg.RuntimeParams = map[string]string{"application_name": cmp.Or(c.Name, "lifeboat drill"), "timezone": "UTC", "datestyle": "ISO", "statement_timeout": "0", "lock_timeout": "0"}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("log in to database %s: %w", cfg.Database, Shortened(err))
	}
	return conn, nil
}

// Shortened is what the server said, without the address and attempts that
// stand before it. The *pgconn.PgError stays below it, for its code.
func Shortened(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return &said{e}
	}
	return err
}

// said is an error of the server, told by its message alone.
type said struct{ *pgconn.PgError }

func (s *said) Error() string { return s.Message }
func (s *said) Unwrap() error { return s.PgError }

// Value runs one query and returns the text of the first column of its first
// row; nil when there is no row or it is null.
func (c Conn) Value(ctx context.Context, database, sql string) (*string, error) {
	conn, err := c.Open(ctx, database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, Shortened(err)
	}
	if len(results) == 0 {
		return nil, nil
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 || len(last.Rows[0]) == 0 || last.Rows[0][0] == nil {
		return nil, nil
	}
	text := string(last.Rows[0][0])
	return &text, nil
}

// environ is the environment of a program that shall reach the server.
func (c Conn) environ(ctx context.Context, database string) ([]string, error) {
	env := append(PlainEnv(c.Env), "PGHOST="+c.Host, "PGPORT="+strconv.Itoa(c.Port), "PGUSER="+c.Role, "PGDATABASE="+database,
		"PGOPTIONS=", "PGCONNECT_TIMEOUT=10",
		"LIFEBOAT_DRILL_CONN="+c.Conninfo(database))
	env = append(env, c.SSLEnv...)
	if c.Lookup != nil && !strings.HasPrefix(c.Host, "/") {
		addresses, err := c.Lookup(ctx, c.Host)
		if err != nil {
			return nil, err
		}
		env = append(env, "PGHOSTADDR="+addresses[0])
	}
	if c.Password != nil {
		password, err := c.Password(ctx)
		if err != nil {
			return nil, err
		}
		env = append(env, "PGPASSWORD="+password)
	}
	return env, nil
}

// PlainEnv leaves of an environment what says nothing of credentials: the
// restored server and the commands that look at it are not to have this
// program's.
func PlainEnv(env []string) []string {
	out := []string{}
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains([]string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "TERM"}, name) || strings.HasPrefix(name, "LC_") {
			out = append(out, v)
		}
	}
	return out
}

// Conninfo leads libpq to a database; "" is postgres.
func (c Conn) Conninfo(database string) string {
	return server.ConnString(c.Host, c.Port, c.Role, database)
}

// Program runs a program against the server and returns the end of what it
// printed.
func (c Conn) Program(ctx context.Context, database, path string, args ...string) (string, error) {
	env, err := c.environ(ctx, database)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = "/", env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.Account}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return string(out.end), err
}

// tail keeps the end of what is written to it.
type tail struct{ end []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.end = append(t.end, p...)
	if len(t.end) > most {
		t.end = append([]byte(nil), t.end[len(t.end)-most:]...)
	}
	return len(p), nil
}

// LastLine is the last line of what a program printed.
func LastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// ErrorLine is the line of a program of PostgreSQL's that says what is wrong:
// what the server said, else its own first error, else its last line.
func ErrorLine(out string) string {
	for _, mark := range []string{"ERROR:", "error:"} {
		for line := range strings.Lines(out) {
			if strings.Contains(line, mark) {
				return strings.TrimSpace(line)
			}
		}
	}
	return LastLine(out)
}

// OneLine makes a text fit for one line of a report, without any secret key that
// may stand in it.
func OneLine(s string) string {
	s = string(repo.WithoutSecrets([]byte(s)))
	s = strings.Map(func(r rune) rune {
		if repo.Steers(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	const most = 500
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.TrimSpace(s)
}
