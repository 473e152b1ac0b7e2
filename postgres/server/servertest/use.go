package servertest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// Conn opens a connection as superuser; it is closed at the end of the test.
func (c *Cluster) Conn(t testing.TB) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.ConnString())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Exec runs SQL, several statements if need be, on a connection of its own.
func (c *Cluster) Exec(t testing.TB, sql string) {
	t.Helper()
	c.query(t, sql)
}

// QueryString runs SQL on a connection of its own and returns the first column
// of the first row of the last statement as text; NULL and no row are "".
func (c *Cluster) QueryString(t testing.TB, sql string) string {
	t.Helper()
	rows := c.query(t, sql)
	if len(rows) == 0 || len(rows[0]) == 0 {
		return ""
	}
	return string(rows[0][0])
}

// query returns the rows of the last statement in text format. The simple
// protocol takes several statements.
func (c *Cluster) query(t testing.TB, sql string) [][][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if len(results) == 0 {
		return nil
	}
	return results[len(results)-1].Rows
}

// WaitPromoted waits until recovery has ended and the server takes writes.
func (c *Cluster) WaitPromoted(t testing.TB) {
	t.Helper()
	c.Eventually(t, "recovery ends", func() bool { return c.QueryString(t, "select pg_is_in_recovery()") == "f" })
}

// Eventually polls a condition that another process brings about.
func (c *Cluster) Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		select {
		case <-c.running(t).Done():
			t.Fatalf("%s: the server on %s ended:\n%s", what, c.dataDir, c.srv.LogTail())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v; log of the server on %s:\n%s", what, patience, c.dataDir, c.srv.LogTail())
		}
	}
}

// Psql runs psql without the user's psqlrc, stopping at the first error, and
// returns what it printed.
func (c *Cluster) Psql(t testing.TB, args ...string) string {
	t.Helper()
	return c.Program(t, "psql", append([]string{"--no-psqlrc", "--set=ON_ERROR_STOP=1", "--tuples-only", "--no-align"}, args...)...)
}

// Pgbench runs pgbench and returns what it printed.
func (c *Cluster) Pgbench(t testing.TB, args ...string) string {
	t.Helper()
	return c.Program(t, "pgbench", args...)
}

// Program runs a program of the installation, with the server as libpq's
// default, and returns its standard output.
func (c *Cluster) Program(t testing.TB, name string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := c.Cmd(t, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// Checksums compares every page of a stopped cluster with its checksum
// (pg_checksums). The program must be of the server's version, and not every
// package has it: then it says so and returns.
func (c *Cluster) Checksums(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(c.Install.Path("pg_checksums")); err != nil {
		t.Logf("page checksums were not compared: %v", err)
		return
	}
	c.Program(t, "pg_checksums", "--check", "--pgdata", c.dataDir)
}

// Cmd prepares a program of the installation, with the server as libpq's
// default, for a test that runs it in the background. A program that is in no
// installation on this machine skips the test.
func (c *Cluster) Cmd(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := program(c.Install, name)
	if err != nil {
		t.Skipf("this test needs %s: %v", name, err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	cmd.Env = append(cmd.Env, "PGHOST="+c.sockDir, "PGPORT=5432", "PGUSER=postgres", "PGDATABASE=postgres")
	return cmd
}

// program finds a program in the installation under test, else (server
// packages without clients exist) in the one of the default version or in PATH.
func program(in server.Install, name string) (string, error) {
	paths := []string{in.Path(name)}
	if other, err := server.Find(defaultMajor, ""); err == nil {
		paths = append(paths, other.Path(name))
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return exec.LookPath(filepath.Base(name))
}
