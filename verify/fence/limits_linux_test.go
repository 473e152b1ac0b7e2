package fence_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/lifeboat-dr/lifeboat/verify/fence"
)

// What takes more than it may meets an end, and a bound that is told to hold does.
func TestLimits(t *testing.T) {
	base := t.TempDir()
	root, staging := filepath.Join(base, "root"), filepath.Join(base, "staging")
	for _, dir := range []string{root, staging} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	tasks := int64(60)
	if os.Geteuid() != 0 {
		tasks += 2000 // where the bound is the account's, others of it count too
	}
	f := start(t, fence.View{Root: root, Writable: []string{staging}, Limits: fence.Limits{Memory: 64 << 20, Processes: tasks, FileSize: 1 << 20}})
	held := map[fence.Layer]bool{}
	for _, s := range f.Layers() {
		held[s.Layer] = s.Held
		if s.Reason != "" {
			t.Logf("%s: %s", s.Layer, s.Reason)
		}
	}
	if !held[fence.FileSize] {
		t.Error("the size of a file is not bounded, and nothing but the kernel is needed for it")
	}
	for layer, c := range map[fence.Layer]struct {
		command string
		most    int64 // that it comes to; without the bound it is more
	}{
		fence.FileSize: {"head -c 3000000 /dev/zero > " + staging + "/file; wc -c < " + staging + "/file", 1 << 20},
		fence.Memory:   {"(head -c 300000000 /dev/zero | tail -c 300000000) | wc -c", 64 << 20},
		fence.Tasks:    {"n=0; for i in $(seq " + strconv.FormatInt(tasks+100, 10) + "); do sleep 20 >/dev/null 2>&1 & n=$((n+1)); echo $n > " + staging + "/n; done; true", tasks},
	} {
		if !held[layer] {
			continue
		}
		if got := measure(t, f, c.command, filepath.Join(staging, "n"), layer == fence.Tasks); got < 0 || got > c.most {
			t.Errorf("%s: it came to %d, want 0 to %d", layer, got, c.most)
		}
	}
}

// measure runs a shell's command inside, however it ends, and returns the number that it
// printed, or that it left in a file.
func measure(t *testing.T, f *fence.Fence, command, file string, left bool) int64 {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := f.Command(cmd); err != nil {
		t.Fatal(err)
	}
	out, _ := cmd.Output()
	if left {
		var err error
		if out, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Logf("%s printed %q", command, out)
	}
	return n
}
