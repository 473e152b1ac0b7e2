package servertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

func TestMain(m *testing.M) {
	Main(m, map[string]func() int{"copy-segment": copySegment})
}

// copySegment plays archive_command.
func copySegment() int {
	if len(os.Args) != 3 {
		return 2
	}
	if err := copyFile(filepath.Join(os.Args[2], filepath.Base(os.Args[1])), os.Args[1], 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestMainLeavesRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Error("the tests run as root")
	}
	for _, name := range []string{"HOME", "TMPDIR"} {
		if dir := os.Getenv(name); !strings.HasPrefix(dir, os.Getenv(rootVariable)+"/") {
			t.Errorf("%s is %s, outside of the scratch directory", name, dir)
		} else if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.ReadFile("main.go"); err != nil {
		t.Errorf("the working directory is not that of the package: %v", err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(filepath.Join(wd, "main.go")); err != nil {
		t.Errorf("the working directory cannot be reached by its path: %v", err)
	}
}

func TestUnprivileged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "closed")
	if err := os.WriteFile(path, nil, 0); err != nil {
		t.Fatal(err)
	}
	var err error
	Unprivileged(t, func() { _, err = os.ReadFile(path) })
	if !os.IsPermission(err) {
		t.Errorf("reading a file of mode 0: %v", err)
	}
}

func TestClusterSurvivesKill(t *testing.T) {
	c := New(t, Options{WALSegmentSize: 1 << 20, Checksums: true, Settings: map[string]string{"work_mem": "5MB"}})
	for query, want := range map[string]string{
		"show wal_segment_size": "1MB", "show data_checksums": "on", "show work_mem": "5MB",
		"show listen_addresses": "", "show server_version_num": "",
	} {
		if got := c.QueryString(t, query); want != "" && got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	c.Exec(t, "create table t (n int); insert into t values (1); checkpoint; insert into t values (2)")
	c.Kill9(t)
	c.Start(t)
	if got := c.QueryString(t, "select string_agg(n::text, ',' order by n) from t"); got != "1,2" {
		t.Errorf("after SIGKILL t holds %q, want 1,2", got)
	}
	c.Setting(t, "work_mem", "6MB")
	if got := c.QueryString(t, "show work_mem"); got != "6MB" {
		t.Errorf("work_mem is %s after Setting", got)
	}
	c.Restart(t)
	if got := strings.TrimSpace(c.Psql(t, "-c", "select count(*) from t")); got != "2" {
		t.Errorf("psql counted %q", got)
	}
	c.Pgbench(t, "-i", "-s", "1", "-q")
}

func TestCommandAsArchiveCommand(t *testing.T) {
	archive := t.TempDir()
	c := New(t, Options{Settings: map[string]string{
		"archive_mode":    "on",
		"archive_command": fmt.Sprintf("%s %%p %s", Command(t, "copy-segment"), archive),
	}})
	name := c.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
	c.Eventually(t, "the segment is archived", func() bool {
		return c.QueryString(t, "select last_archived_wal from pg_stat_archiver") == name
	})
	if _, err := os.Stat(filepath.Join(archive, name)); err != nil {
		t.Error(err)
	}
}

func TestTryStartReportsTheReason(t *testing.T) {
	c := New(t, Options{Stopped: true})
	if err := os.Remove(filepath.Join(c.DataDir(), "global", "pg_control")); err != nil {
		t.Fatal(err)
	}
	err := c.TryStart(t)
	if err == nil || !strings.Contains(err.Error(), "pg_control") {
		t.Errorf("start without pg_control: %v", err)
	}
}

func TestSystemIdentifier(t *testing.T) {
	const query = "select system_identifier from pg_control_system()"
	a := New(t, Options{}).QueryString(t, query)
	b := New(t, Options{}).QueryString(t, query)
	own := New(t, Options{OwnSystemIdentifier: true}).QueryString(t, query)
	if a != b || a == own {
		t.Errorf("system identifiers: copies %s and %s, own %s", a, b, own)
	}
}

// hangVariable makes TestKilledRun the run that is killed.
const hangVariable = "LIFEBOAT_TEST_HANG"

func TestKilledRun(t *testing.T) {
	if os.Getenv(hangVariable) != "" {
		c := New(t, Options{})
		fmt.Println(c.Server(t).PID(), os.Getenv(rootVariable))
		select {}
	}
	run := func(env string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledRun$", "-test.timeout=2m")
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, rootVariable+"=") })
		cmd.Env = append(cmd.Env, env)
		return cmd
	}
	cmd := run(hangVariable + "=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var scratch string
	_, err = fmt.Fscan(out, &pid, &scratch)
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(scratch); err != nil {
		t.Fatalf("the killed run's directory: %v", err)
	}
	for deadline := time.Now().Add(patience); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("postmaster %d outlives the test that started it", pid)
		}
	}
	removeAbandoned(filepath.Dir(scratch))
	if _, err := os.Stat(scratch); !os.IsNotExist(err) {
		t.Errorf("the next run leaves the killed one's directory: %v", err)
	}
	removeAbandoned(filepath.Dir(os.Getenv(rootVariable)))
	if _, err := os.Stat(os.Getenv(rootVariable)); err != nil {
		t.Errorf("the directory of a living run was removed: %v", err)
	}
}

func TestOpen(t *testing.T) {
	c := New(t, Options{})
	c.Exec(t, "create table t (n int)")
	c.Stop(t, server.Fast)
	o := Open(t, c.DataDir(), Options{Settings: map[string]string{"work_mem": "7MB"}})
	if got := o.QueryString(t, "show work_mem"); got != "7MB" {
		t.Errorf("work_mem is %s", got)
	}
	o.WaitPromoted(t)
}
