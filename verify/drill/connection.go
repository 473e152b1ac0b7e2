package drill

import (
	"context"
	"errors"
	"fmt"
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
)

// connection leads to the restored server.
type connection struct {
	socketDir string
	port      int
	role      string
	account   *syscall.Credential // that programs run as; nil: ours
	env       []string            // of this process, for commands
}

func (c connection) open(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(c.conninfo(database))
	if err != nil {
		return nil, err
	}
	cfg.Password = ""
	cfg.TLSConfig, cfg.Fallbacks = nil, nil
	cfg.RuntimeParams = map[string]string{"application_name": "lifeboat drill", "timezone": "UTC", "datestyle": "ISO"}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("log in to database %s: %w", cfg.Database, shortened(err))
	}
	return conn, nil
}

// shortened is what the server said, without the address and attempts that
// stand before it.
func shortened(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return errors.New(e.Message)
	}
	return err
}

// value runs one query and returns the text of the first column of its first
// row; nil when there is no row or it is null.
func (c connection) value(ctx context.Context, database, sql string) (*string, error) {
	conn, err := c.open(ctx, database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, shortened(err)
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
func (c connection) environ(database string) []string {
	return append(plainEnv(c.env), "PGHOST="+c.socketDir, "PGPORT="+strconv.Itoa(c.port), "PGUSER="+c.role, "PGDATABASE="+database,
		"PGOPTIONS=", "PGCONNECT_TIMEOUT=10",
		"LIFEBOAT_DRILL_CONN="+c.conninfo(database))
}

// plainEnv leaves of an environment what says nothing of credentials: the
// restored server and the commands that look at it are not to have this
// program's.
func plainEnv(env []string) []string {
	out := []string{}
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains([]string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "TERM"}, name) || strings.HasPrefix(name, "LC_") {
			out = append(out, v)
		}
	}
	return out
}

// conninfo leads libpq to a database; "" is postgres.
func (c connection) conninfo(database string) string {
	return server.ConnString(c.socketDir, c.port, c.role, database)
}

// program runs a program against the server and returns the end of what it
// printed.
func (c connection) program(ctx context.Context, database, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = "/", c.environ(database)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.account}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
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

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// errorLine is the line of a program of PostgreSQL's that says what is wrong:
// what the server said, else its own first error, else its last line.
func errorLine(out string) string {
	for _, mark := range []string{"ERROR:", "error:"} {
		for line := range strings.Lines(out) {
			if strings.Contains(line, mark) {
				return strings.TrimSpace(line)
			}
		}
	}
	return lastLine(out)
}

// oneLine makes a text fit for one line of a report.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
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
