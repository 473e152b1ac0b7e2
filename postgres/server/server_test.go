package server_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

// These tests run as whoever runs them: root hands its servers to another
// account, which is what is to be tested then.

// dataDirVariable makes this binary start a server on the directory it names and
// then die, see TestDieWithParent.
const dataDirVariable = "LIFEBOAT_TEST_DIE_ON"

func TestMain(m *testing.M) {
	if dir := os.Getenv(dataDirVariable); dir != "" {
		startAndDie(dir)
	}
	code := m.Run()
	if template != "" {
		os.RemoveAll(filepath.Dir(template))
	}
	os.Exit(code)
}

func context1m(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func install(t *testing.T) server.Install {
	t.Helper()
	major := 15
	if os.Getenv("LIFEBOAT_PG_BINDIR") != "" {
		major = 0
	}
	in, err := server.Find(major, os.Getenv("LIFEBOAT_PG_BINDIR"))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// scratch is a directory that the account of the servers owns.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		account, err := server.LookupAccount("postgres")
		if err != nil {
			account, err = server.LookupAccount("nobody")
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, int(account.UID), int(account.GID)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// template is a data directory to copy, which takes a tenth of initdb's time.
// The first test that needs one makes it, TestMain removes it.
var template string

func dataDir(t *testing.T) string {
	t.Helper()
	parent := scratch(t)
	if template == "" {
		made := filepath.Join(parent, "data")
		if err := install(t).Initdb(context1m(t), server.InitdbOptions{DataDir: made, NoSync: true}); err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp("", "pg")
		if err != nil {
			t.Fatal(err)
		}
		template = filepath.Join(dir, "template")
		if err := os.Rename(made, template); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(parent, "data")
	if out, err := exec.Command("cp", "-Rp", template, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the template: %v: %s", err, out)
	}
	return dir
}

// begin starts a server that does not outlive the test, and does not wait.
func begin(t *testing.T, o server.Options) *server.Server {
	t.Helper()
	o.DieWithParent = true
	settings := map[string]string{"fsync": "off", "dynamic_shared_memory_type": "mmap"}
	for name, value := range o.Settings {
		settings[name] = value
	}
	o.Settings = settings
	s, err := server.Start(context1m(t), install(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Kill(), s.ReleaseSharedMemory()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func ready(t *testing.T, o server.Options) *server.Server {
	t.Helper()
	s := begin(t, o)
	if err := s.WaitReady(context1m(t)); err != nil {
		t.Fatal(err)
	}
	return s
}

func query(t *testing.T, s *server.Server, sql string) (answer string) {
	t.Helper()
	conn, err := pgx.Connect(context1m(t), s.Conn())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context1m(t))
	if err := conn.QueryRow(context1m(t), sql).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

func TestStartAndStop(t *testing.T) {
	dir := dataDir(t)
	for _, mode := range []server.Mode{server.Smart, server.Fast, server.Immediate} {
		t.Run(mode.String(), func(t *testing.T) {
			s := ready(t, server.Options{DataDir: dir, Settings: map[string]string{"work_mem": "5MB"}})
			if got := query(t, s, "select current_setting('work_mem') || current_setting('listen_addresses')"); got != "5MB" {
				t.Errorf("work_mem and listen_addresses are %q, want 5MB and nothing", got)
			}
			if pid, err := server.Running(dir); err != nil || pid != s.PID() {
				t.Errorf("Running: %d, %v; want %d", pid, err, s.PID())
			}
			info, err := os.Stat(s.SocketDir())
			if err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("socket directory: %v, %v; want mode 0700", info.Mode(), err)
			}
			if c, err := net.Dial("tcp", "127.0.0.1:5432"); err == nil {
				c.Close()
				t.Log("something listens on port 5432 of this machine, so that cannot be told apart")
			}

			if err := s.Stop(context1m(t), mode); err != nil {
				t.Fatal(err)
			}
			if pid, err := server.Running(dir); err != nil || pid != 0 {
				t.Errorf("Running after Stop: %d, %v", pid, err)
			}
			if _, err := os.Stat(s.SocketDir()); !os.IsNotExist(err) {
				t.Errorf("the socket directory is still there: %v", err)
			}
			if !strings.Contains(s.LogTail(), "ready to accept connections") {
				t.Errorf("the log after the end is %q", s.LogTail())
			}
			if err := s.Stop(context1m(t), mode); err != nil {
				t.Errorf("the second Stop: %v", err)
			}
		})
	}
}

func TestTheReasonWhyItEnded(t *testing.T) {
	dir := dataDir(t)
	s := begin(t, server.Options{DataDir: dir, Settings: map[string]string{"shared_buffers": "much"}})
	err := s.WaitReady(context1m(t))
	var exit *server.ExitError
	if !errors.As(err, &exit) || exit.Code != 1 || !strings.Contains(err.Error(), `FATAL:  invalid value for parameter "shared_buffers"`) {
		t.Errorf("%v: want an ExitError with the FATAL line", err)
	}

	// The reason of this start, not that of the one before.
	logFile := filepath.Join(filepath.Dir(dir), "log")
	s = begin(t, server.Options{DataDir: dir, LogFile: logFile, Settings: map[string]string{"shared_buffers": "more"}})
	s.WaitReady(context1m(t))
	s = begin(t, server.Options{DataDir: dir, LogFile: logFile, Settings: map[string]string{"work_mem": "none"}})
	err = s.WaitReady(context1m(t))
	if !errors.As(err, &exit) || strings.Contains(exit.Log, "shared_buffers") || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("%v: want the reason of the second start alone; log %q", err, exit.Log)
	}
}

func TestCollectedLog(t *testing.T) {
	s := ready(t, server.Options{DataDir: dataDir(t), Settings: map[string]string{"logging_collector": "on"}})
	conn, err := pgx.Connect(context1m(t), s.Conn())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context1m(t))
	if _, err := conn.Exec(context1m(t), "select no_such_column"); err == nil {
		t.Fatal("the query succeeded")
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(s.LogTail(), "no_such_column"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the collector's file is not in %q", s.LogTail())
		}
	}
}

func TestRecoveryPromote(t *testing.T) {
	dir := dataDir(t)
	if err := os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := begin(t, server.Options{DataDir: dir, Settings: map[string]string{"hot_standby": "off"}})
	for deadline := time.Now().Add(time.Minute); s.State() != server.Standby; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("state %q; log %s", s.State(), s.LogTail())
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.WaitReady(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "standby") {
		t.Errorf("WaitReady in recovery: %v; want the deadline and the state", err)
	}
	if err := s.Promote(); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitWritable(context1m(t)); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s, "select pg_is_in_recovery()::text"); got != "false" {
		t.Errorf("in recovery: %s", got)
	}
	if err := s.Promote(); err == nil {
		t.Error("a server that is not in recovery was promoted")
	}
}

func TestHotStandbyIsNotWritable(t *testing.T) {
	dir := dataDir(t)
	if err := os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := ready(t, server.Options{DataDir: dir})
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.WaitWritable(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitWritable on a standby: %v", err)
	}
}

func TestKill(t *testing.T) {
	dir := dataDir(t)
	pidFile := filepath.Join(filepath.Dir(dir), "command.pid")
	s := ready(t, server.Options{DataDir: dir, Settings: map[string]string{
		"archive_mode": "on", "archive_command": fmt.Sprintf("echo $$ >%s; exec sleep 1000", pidFile),
	}})
	query(t, s, "select pg_switch_wal()::text")
	command := 0
	for deadline := time.Now().Add(time.Minute); command == 0; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(pidFile)
		command, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		if time.Now().After(deadline) {
			t.Fatalf("archive_command did not start; log %s", s.LogTail())
		}
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{"postmaster": s.PID(), "archive_command": command} {
		if alive(pid) {
			t.Errorf("the %s runs after Kill", name)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "postmaster.pid")); err != nil {
		t.Errorf("postmaster.pid: %v; a killed server leaves it", err)
	}
	if pid, err := server.Running(dir); pid != 0 || err != nil {
		t.Errorf("Running after Kill: %d, %v", pid, err)
	}
	s = ready(t, server.Options{DataDir: dir})
	if !strings.Contains(s.LogTail(), "was not properly shut down") {
		t.Errorf("the next start did no crash recovery: %s", s.LogTail())
	}
}

func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if os.IsNotExist(err) {
		return syscall.Kill(pid, 0) == nil && err != nil && !procMounted()
	}
	return err == nil && !strings.Contains(string(text), ") Z ")
}

func procMounted() bool {
	_, err := os.Stat("/proc/self/stat")
	return err == nil
}

// TestConfigurationOfTheOriginal starts a copy whose configuration still
// points at the server it was copied from.
func TestConfigurationOfTheOriginal(t *testing.T) {
	original, dir := dataDir(t), dataDir(t)
	pidFile := filepath.Join(filepath.Dir(original), "external.pid")
	f, err := os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "data_directory = '%s'\nexternal_pid_file = '%s'\nlisten_addresses = '*'\n", original, pidFile)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s := ready(t, server.Options{DataDir: dir})
	if got := query(t, s, "select current_setting('data_directory')"); got != dir {
		t.Errorf("the server runs on %s, not on the copy %s", got, dir)
	}
	if _, err := os.Stat(pidFile); !os.IsNotExist(err) {
		t.Errorf("external_pid_file was written: %v", err)
	}
	if strings.Contains(s.LogTail(), "PID file") {
		t.Errorf("the server complains: %s", s.LogTail())
	}
}

func TestWithoutConfiguration(t *testing.T) {
	dir := dataDir(t)
	for _, name := range []string{"postgresql.conf", "pg_hba.conf", "pg_ident.conf"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := ready(t, server.Options{DataDir: dir})
	if len(s.MadeConfig()) != 2 {
		t.Errorf("made %q, want two files", s.MadeConfig())
	}
	query(t, s, "select 'x'")
	if _, err := os.Stat(filepath.Join(dir, "postgresql.conf")); !os.IsNotExist(err) {
		t.Errorf("the data directory was given a postgresql.conf: %v", err)
	}
}
