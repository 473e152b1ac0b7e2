package server_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server"
)

func TestRefusals(t *testing.T) {
	dir := dataDir(t)
	long := filepath.Join(scratch(t), strings.Repeat("x", 100))
	link := filepath.Join(scratch(t), "log")
	if err := os.Symlink(filepath.Join(dir, "PG_VERSION"), link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    server.Options
		want string
	}{
		"no such directory":  {server.Options{DataDir: dir + "x"}, "no such file"},
		"comma":              {server.Options{DataDir: dir, SocketDir: "/tmp/a,b"}, "between hosts"},
		"long socket path":   {server.Options{DataDir: dir, SocketDir: long}, "the longest path"},
		"password in argv":   {server.Options{DataDir: dir, Settings: map[string]string{"Primary_conninfo": "x"}}, "visible to everybody"},
		"not a setting":      {server.Options{DataDir: dir, Settings: map[string]string{"a=b": "x"}}, "not the name"},
		"setting and option": {server.Options{DataDir: dir, Settings: map[string]string{"port": "1"}}, "option of its own"},
		"log file is a link": {server.Options{DataDir: dir, LogFile: link}, "log file"},
		"root":               {server.Options{DataDir: dir, Account: &server.Account{Name: "root"}}, "root"},
	} {
		before := leftovers(t)
		_, err := server.Start(context1m(t), install(t), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.o.DataDir) {
			t.Errorf("%s: %v; want %q and the data directory", name, err, c.want)
		}
		if after := leftovers(t); after != before {
			t.Errorf("%s: %d directories for sockets, %d before", name, after, before)
		}
	}
}

func TestDirClosedToTheAccount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs a server as another account")
	}
	dir := dataDir(t)
	closed := filepath.Dir(dir)
	if err := errors.Join(os.Chown(closed, 0, 0), os.Chmod(closed, 0o700)); err != nil {
		t.Fatal(err)
	}
	_, err := server.Start(context1m(t), install(t), server.Options{DataDir: dir})
	owner, ownerErr := server.OwnerOf(dir)
	if ownerErr != nil {
		t.Fatal(ownerErr)
	}
	if err == nil || !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "as "+owner.Name+" in "+dir) {
		t.Errorf("%v; want the account and the directory it cannot reach", err)
	}
}

func leftovers(t *testing.T) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(os.TempDir(), "lifeboat-pg-*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestAwkwardPaths(t *testing.T) {
	dir := filepath.Join(scratch(t), `a "b" 'c' \d e`)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		owner, err := server.OwnerOf(filepath.Dir(dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, int(owner.UID), int(owner.GID)); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	if err := install(t).Initdb(context1m(t), server.InitdbOptions{DataDir: data, NoSync: true, WALSegmentSize: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	s := ready(t, server.Options{DataDir: data, SocketDir: filepath.Join(dir, "s"), Port: 1})
	if got := query(t, s, "select current_setting('data_directory')"); got != data {
		t.Errorf("the server runs on %s, want %s", got, data)
	}
}

func TestInitdbRefusals(t *testing.T) {
	in, dir := install(t), scratch(t)
	if err := in.Initdb(context1m(t), server.InitdbOptions{DataDir: filepath.Join(dir, "a"), WALSegmentSize: 3 << 20}); err == nil {
		t.Error("a segment size of 3 MiB was taken")
	}
	full := filepath.Join(dir, "b")
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		owner, err := server.OwnerOf(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(full, int(owner.UID), int(owner.GID)); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Initdb(context1m(t), server.InitdbOptions{DataDir: full}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a full directory: %v", err)
	}
}

func TestRunning(t *testing.T) {
	dir := scratch(t)
	pidFile := filepath.Join(dir, "postmaster.pid")
	for text, want := range map[string]int{
		fmt.Sprintf("%d\n%s\n", os.Getpid(), dir):  os.Getpid(),
		fmt.Sprintf("-%d\n%s\n", os.Getpid(), dir): os.Getpid(), // a standalone backend
		"4194305\n": 0, // above pid_max
	} {
		if err := os.WriteFile(pidFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if pid, err := server.Running(dir); pid != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", text, pid, err, want)
		}
	}
	for _, text := range []string{"", "x\n", "0\n"} {
		if err := os.WriteFile(pidFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Running(dir); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestDieWithParent(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("only Linux tells a process of its parent's death")
	}
	dir := dataDir(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), dataDirVariable+"="+dir)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the parent did not die by a signal: %v", err)
	}
	pid, socketDir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	defer os.RemoveAll(socketDir)
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatalf("the parent printed %q", out)
	}
	for deadline := time.Now().Add(time.Minute); alive(n); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("postmaster %d outlives its parent", n)
		}
	}
}

// startAndDie starts a server, prints its process id and socket directory, and
// kills its own process.
func startAndDie(dir string) {
	in, err := server.Find(0, os.Getenv("LIFEBOAT_PG_BINDIR"))
	if os.Getenv("LIFEBOAT_PG_BINDIR") == "" {
		in, err = server.Find(15, "")
	}
	if err != nil {
		panic(err)
	}
	s, err := server.Start(context.Background(), in, server.Options{DataDir: dir, DieWithParent: true})
	if err == nil {
		err = s.WaitReady(context.Background())
	}
	if err != nil {
		panic(err)
	}
	fmt.Println(s.PID(), s.SocketDir())
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
