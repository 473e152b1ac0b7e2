// Package asroot tests what only root can do with the program. The tests of
// cmd/lifeboat itself leave root before they start, as PostgreSQL does.
package asroot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// host is a directory that stands for a machine: the program, an account that runs
// PostgreSQL, its server and its repository.
type host struct {
	dir     string
	home    string // of the account
	program string
	account *server.Account
	install server.Install
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away; make test runs this where it is root, as in CI")
	}
	account, err := server.LookupAccount("postgres")
	if err != nil {
		t.Skipf("this test needs the account postgres: %v", err)
	}
	major, bindir := 15, os.Getenv("LIFEBOAT_PG_BINDIR")
	if bindir != "" {
		major = 0
	}
	in, err := server.Find(major, bindir)
	must(t, err)
	// Not t.TempDir: the account must be able to pass, and sockets have short paths.
	dir, err := os.MkdirTemp("/tmp", "lifeboat-root-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	h := &host{dir: dir, home: filepath.Join(dir, "home"), program: filepath.Join(dir, "lifeboat"), account: account, install: in}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", h.program, "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.Chmod(h.program, 0o755))
	must(t, os.Mkdir(h.home, 0o700))
	must(t, os.Chown(h.home, int(account.UID), int(account.GID)))
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lifeboat runs the program as root, or as the account.
func (h *host) lifeboat(t *testing.T, asAccount bool, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.program, args...)
	cmd.Dir = "/"
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if asAccount {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.account.UID, Gid: h.account.GID}}
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func (h *host) run(t *testing.T, asAccount bool, args ...string) string {
	t.Helper()
	code, stdout, stderr := h.lifeboat(t, asAccount, args...)
	if code != 0 {
		t.Fatalf("lifeboat %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// refuses expects exit code 1, one error with these words, and one hint.
func (h *host) refuses(t *testing.T, want string, args ...string) {
	t.Helper()
	code, stdout, stderr := h.lifeboat(t, false, args...)
	first, _, _ := strings.Cut(stderr[max(0, strings.Index(stderr, "lifeboat: error: ")):], "\n")
	if code != 1 || strings.Count(stderr, "lifeboat: error: ") != 1 || strings.Count(stderr, "lifeboat: hint: ") != 1 || !strings.Contains(first, want) {
		t.Errorf("lifeboat %s: exit code %d, no one line of %q with one hint\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
	}
}

func (h *host) sql(t *testing.T, socket string, port int, statement string) string {
	t.Helper()
	out, err := exec.Command(h.install.Path("psql"), "-XAt", "-v", "ON_ERROR_STOP=1", "-h", socket, "-p", fmt.Sprint(port), "-U", "postgres", "-c", statement, "postgres").CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", statement, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Root restores for the account that runs PostgreSQL: everything belongs to
// that account, with the right modes, and the server runs and recovers as it.
// What could go wrong there is found before anything is written.
func TestRestoreAsRoot(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	data, config, key := filepath.Join(h.home, "data"), filepath.Join(h.home, "lifeboat.yaml"), filepath.Join(h.home, "test-recovery.key")
	tablespace := filepath.Join(h.home, "ts")
	must(t, h.install.Initdb(ctx, server.InitdbOptions{DataDir: data, Account: h.account, NoSync: true}))
	must(t, os.Mkdir(tablespace, 0o700))
	must(t, os.Chown(tablespace, int(h.account.UID), int(h.account.GID)))
	h.run(t, false, "init", "--cluster", "test", "--pgdata", data, "--repository", "file://"+filepath.Join(h.home, "repository"), "--config", config,
		"--conn", server.ConnString(filepath.Join(h.home, "s"), server.DefaultPort, "postgres", "postgres"))
	srv, err := server.Start(ctx, h.install, server.Options{DataDir: data, SocketDir: filepath.Join(h.home, "s"), DieWithParent: true, Settings: map[string]string{
		"fsync": "off", "archive_mode": "on", "archive_command": h.program + " --config " + config + ` wal push "%p"`}})
	must(t, err)
	defer func() { _ = srv.Stop(context.WithoutCancel(ctx), server.Immediate) }()
	must(t, srv.WaitReady(ctx))
	sql := func(s string) string { return h.sql(t, srv.SocketDir(), srv.Port(), s) }
	sql("create tablespace ts location '" + tablespace + "'")
	sql("create table t tablespace ts as select generate_series(1, 1000) n")
	h.run(t, true, "--config", config, "backup")
	sql("insert into t values (0)")
	flush(t, sql)
	must(t, srv.Stop(ctx, server.Fast))

	to, moved := filepath.Join(h.dir, "restored"), filepath.Join(h.dir, "moved")
	args := func(to string, more ...string) []string {
		return append([]string{"--config", config, "restore", "--to", to, "--tablespace", tablespace + "=" + moved}, more...)
	}
	nothing := func(path string) {
		t.Helper()
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was made", path)
		}
	}

	// The server's account could not fetch WAL with a key that root alone can read.
	closed := filepath.Join(h.dir, "root.key")
	raw, err := os.ReadFile(key)
	must(t, err)
	must(t, os.WriteFile(closed, raw, 0o600))
	h.refuses(t, "postgres, who will run the server, cannot fetch WAL", args(to, "--identity", closed)...)
	h.refuses(t, "no such account", args(to, "--identity", key, "--owner", "nobody-of-this-name")...)
	hidden := filepath.Join(h.dir, "hidden")
	must(t, os.Mkdir(hidden, 0o700))
	h.refuses(t, "cannot pass through", args(filepath.Join(hidden, "data"), "--identity", key)...)
	nothing(filepath.Join(hidden, "data"))
	small := filepath.Join(h.dir, "small")
	must(t, os.Mkdir(small, 0o755))
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=8m"); err != nil {
		t.Logf("too little disk is not tested: no file system can be mounted here: %v", err)
	} else {
		h.refuses(t, "too little disk", args(filepath.Join(small, "data"), "--identity", key)...)
		nothing(filepath.Join(small, "data"))
		must(t, syscall.Unmount(small, 0))
	}
	nothing(to)
	nothing(moved)

	out := h.run(t, false, args(to, "--identity", key, "--start", "--json")...)
	var doc struct {
		Server struct {
			PID    int
			Socket string
			Port   int
			State  string
		}
	}
	must(t, json.Unmarshal([]byte(out), &doc))
	defer func() {
		stop := exec.Command(h.install.Path("pg_ctl"), "-D", to, "-m", "immediate", "-w", "stop")
		stop.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.account.UID, Gid: h.account.GID}}
		stop.Dir = "/"
		if out, err := stop.CombinedOutput(); err != nil {
			t.Errorf("stop the restored server: %v: %s", err, out)
		}
	}()
	if got := h.sql(t, doc.Server.Socket, doc.Server.Port, "select count(*) || ' ' || pg_is_in_recovery() from t"); got != "1001 false" {
		t.Errorf("rows and recovery: %s", got)
	}
	for _, root := range []string{to, moved} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return nil // the server runs: a file may go
			}
			st := info.Sys().(*syscall.Stat_t)
			if st.Uid != h.account.UID || st.Gid != h.account.GID {
				t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
			}
			if e.Type() != fs.ModeSymlink && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return nil
		})
		must(t, err)
	}
}

// flush ends the segment and waits until it is archived.
func flush(t *testing.T, sql func(string) string) {
	t.Helper()
	last := sql("select pg_walfile_name(pg_switch_wal())")
	for deadline := time.Now().Add(time.Minute); sql("select coalesce(max(last_archived_wal), '') from pg_stat_archiver") < last; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s was not archived within a minute", last)
		}
	}
}
