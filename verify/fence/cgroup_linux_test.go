package fence_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/verify/fence"
)

// The cgroups of a fence that was killed by somebody who may not remove them are removed
// later, and those of one that stands are not.
func TestCgroupsDoNotStay(t *testing.T) {
	base := t.TempDir()
	v := fence.View{Root: filepath.Join(base, "root"), Limits: fence.Limits{Memory: 64 << 20, Processes: 100}}
	if err := os.Mkdir(v.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	f := start(t, v)
	dirs := f.Cgroups()
	if len(dirs) == 0 {
		t.Skipf("no cgroup can be made here: %s", f.Why(fence.Memory, fence.Tasks))
	}
	ended := exec.Command("/bin/true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	var stale []string
	for _, dir := range dirs {
		gone := filepath.Join(filepath.Dir(dir), fmt.Sprintf("lifeboat-drill-%d", ended.Process.Pid))
		if err := os.Mkdir(gone, 0o755); err != nil {
			t.Fatal(err)
		}
		stale = append(stale, gone)
	}
	fence.SweepCgroups()
	for _, dir := range stale {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); err != nil {
			t.Errorf("the cgroup of a fence that stands: %v", err)
		}
	}
	if err := f.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := fence.RemoveCgroups(dirs); err != nil {
		t.Error(err)
	}
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s outlives its fence: %v", strings.TrimPrefix(dir, "/sys/fs/cgroup/"), err)
		}
	}
}
