package fence_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/lifeboat-dr/lifeboat/verify/fence"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fence.Argument {
		fmt.Fprintln(os.Stderr, fence.Enter(os.Args[2:], os.Environ()))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// start makes a fence for the length of a test.
func start(t *testing.T, v fence.View) *fence.Fence {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if v.UID, v.GID, err = fence.OwnIDs(); err != nil {
			t.Fatal(err)
		}
		for _, dir := range v.Writable {
			if err := os.Chown(dir, int(v.UID), int(v.GID)); err != nil {
				t.Fatal(err)
			}
		}
		for _, dir := range v.Binds {
			if err := os.Chown(dir, int(v.UID), int(v.GID)); err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := fence.Start(t.Context(), self, v)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Kill(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// run runs a shell's command inside and returns what it printed.
func run(t *testing.T, f *fence.Fence, command string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := f.Command(cmd); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestFenced(t *testing.T) {
	base := t.TempDir()
	mkdir := func(name string) string {
		path := filepath.Join(base, name)
		if err := os.Mkdir(path, 0o777); err != nil {
			t.Fatal(err)
		}
		return path
	}
	staging, production, copied, root := mkdir("staging"), mkdir("production"), mkdir("copied"), mkdir("root")
	if err := os.WriteFile(filepath.Join(production, "live"), []byte("live"), 0o666); err != nil {
		t.Fatal(err)
	}
	v := fence.View{Root: root, Writable: []string{staging}, Binds: map[string]string{production: copied}}
	f := start(t, v)
	for _, s := range f.Layers() {
		t.Logf("%-14s %v %s", s.Layer, s.Held, s.Reason)
	}
	out := run(t, f, `
cd "`+production+`" && ls && echo new > made && cat made
echo x > "`+staging+`/file" && echo staging
(echo x > /usr/lifeboat) 2>/dev/null && echo usr
(echo x > /lifeboat) 2>/dev/null && echo slash
ls "`+base+`"
ls -d /home /root /var /etc/shadow /etc/ssl 2>/dev/null
grep CapEff /proc/self/status
grep NoNewPrivs /proc/self/status
[ -e /proc/self ] && [ -e "/proc/`+strconv.Itoa(os.Getpid())+`" ] && echo the host has a process here
id -u
head -c 4 /dev/zero | wc -c`)
	uid := os.Geteuid()
	if uid == 0 {
		info, err := os.Stat(staging)
		if err != nil {
			t.Fatal(err)
		}
		uid = int(info.Sys().(*syscall.Stat_t).Uid)
	}
	want := fmt.Sprintf("new\nstaging\nproduction\nstaging\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n%d\n4\n", uid)

	if out != want {
		t.Errorf("inside:\n%s\nwant:\n%s", out, want)
	}
	if names, err := os.ReadDir(production); err != nil || len(names) != 1 {
		t.Errorf("production was written to: %v %v", names, err)
	}
	if text, err := os.ReadFile(filepath.Join(copied, "made")); err != nil || string(text) != "new\n" {
		t.Errorf("what was written there is not in the copy: %q %v", text, err)
	}
	if names, err := os.ReadDir(root); err != nil || len(names) != 0 {
		t.Errorf("the directory of the root is not empty: %v %v", names, err)
	}
}

func TestViewIsChecked(t *testing.T) {
	for _, v := range []fence.View{
		{Root: ""}, {Root: "/"}, {Root: "/a/../b"},
		{Root: "/a", Writable: []string{"b"}},
		{Root: "/a", Binds: map[string]string{"/": "/a"}},
		{Root: "/a", Binds: map[string]string{"/b": "c"}},
	} {
		if _, err := fence.Start(t.Context(), "/bin/true", v); err == nil {
			t.Errorf("%+v was accepted", v)
		}
	}
}
