package asroot

import (
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

	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// own is what only production has: the library looks for it.
const own = "production's own"

// canary is a file of the host that every account may read.
func (h *host) canary() string { return filepath.Join(h.dir, "canary") }

// A library of an attacker's goes from the restored server to production, which
// runs beside it, by every road that it knows. Nothing of production is read,
// written, signalled or connected to; also when the drill has production's account,
// and when the group of the data directory is root's.
func TestDrillDoesNotReachProduction(t *testing.T) {
	h := newHostile(t)
	data := filepath.Join(h.home, "data")
	must(t, filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // production has removed it
		}
		must(t, err)
		if err := os.Lchown(path, int(h.account.UID), 0); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	}))
	h.run(t, true, "--config", h.config, "backup")
	for _, path := range []string{h.canary(), filepath.Join(data, "secret")} {
		must(t, os.WriteFile(path, []byte(own), 0o666))
	}
	must(t, os.Chown(filepath.Join(data, "secret"), int(h.account.UID), int(h.account.GID)))
	h.attackWorks(t, data)

	staging, home, key := filepath.Join(h.dir, "escape"), filepath.Join(h.home, "escape"), filepath.Join(h.home, "account.key")
	must(t, os.Mkdir(staging, 0o755))
	must(t, os.Mkdir(home, 0o700))
	text, err := os.ReadFile(h.key)
	must(t, err)
	must(t, os.WriteFile(key, text, 0o600))
	for _, path := range []string{home, key} {
		must(t, os.Chown(path, int(h.account.UID), int(h.account.GID)))
	}
	for _, c := range []struct {
		name         string
		account      bool
		staging, key string
		env          []string
	}{
		{"production's account", true, home, key, nil}, // the first, which makes the drill's key and directory: root may use both
		{"root", false, staging, h.key, nil},
		{"root, with production's account", false, staging, h.key, []string{"LIFEBOAT_DRILL_OWNER=postgres"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(h.program, "--config", h.config, "drill", "--json", "--identity", c.key, "--staging", c.staging)
			var out, errs strings.Builder
			cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", append(os.Environ(), c.env...), &out, &errs
			if c.account {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.account.UID, Gid: h.account.GID}}
			}
			must(t, cmd.Start())
			defer func() { _ = cmd.Process.Kill() }()
			achieved := h.achieved(t, filepath.Join(c.staging, "lifeboat-drill-*", "data"))
			_ = cmd.Wait()
			h.nothingReached(t, achieved, data)
			var uid, gid uint32
			if _, err := fmt.Sscanf(achieved, "uid %d gid %d", &uid, &gid); err != nil || uid == 0 || gid == 0 || (uid == h.account.UID) == (c.name == "root") {
				t.Errorf("the library ran as %d:%d: %v", uid, gid, err)
			}
			var d evidence.Drill
			if err := json.Unmarshal([]byte(out.String()), &d); err != nil || d.Verdict != evidence.Passed || d.Fence == nil {
				t.Fatalf("%v: %s\n%s", err, out.String(), errs.String())
			}
			blocked, reached, _ := d.Fence.Ways()
			if d.Fence.Network != "isolated" || d.Fence.Files != "isolated" || reached != 0 || blocked < 15 {
				t.Errorf("the evidence says: %d blocked, %d reached, %+v", blocked, reached, d.Fence)
			}
		})
	}
}

// attackWorks loads the library into a program of production's account that is
// behind no fence: it gets to everything, or its failure inside proves nothing.
func (h *hostile) attackWorks(t *testing.T, data string) {
	t.Helper()
	dir := filepath.Join(h.home, "lifeboat-drill-escape")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "was-read"), nil, 0o600))
	must(t, os.Chown(dir, int(h.account.UID), int(h.account.GID)))
	cmd := exec.Command("/bin/true")
	cmd.Dir, cmd.Env = dir, []string{"LD_PRELOAD=" + filepath.Join(data, "xx", "evil.so")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.account.UID, Gid: h.account.GID}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "achieved"))
	must(t, err)
	proc := fmt.Sprintf("/proc/%d/", h.production)
	for _, want := range []string{"REACHED signal", "REACHED read " + h.canary(), "REACHED read " + proc + "root/", "REACHED read " + proc + "cwd/", "REACHED connect /tmp"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("without a fence there is no %q: this attack proves nothing\n%s", want, text)
		}
	}
	must(t, os.Remove(filepath.Join(data, "evil-wrote")))
}

// achieved waits for what the library reports in the data directory, and lets it go on.
func (h *hostile) achieved(t *testing.T, dir string) string {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		found, _ := filepath.Glob(filepath.Join(dir, "achieved"))
		if len(found) == 0 {
			continue
		}
		text, err := os.ReadFile(found[0])
		must(t, err)
		must(t, os.WriteFile(filepath.Join(filepath.Dir(found[0]), "was-read"), nil, 0o644))
		return string(text)
	}
	t.Fatal("two minutes have passed, and the library has not been loaded: this test proves nothing")
	return ""
}

func (h *hostile) nothingReached(t *testing.T, achieved, data string) {
	t.Helper()
	if !strings.HasSuffix(achieved, "done\n") || strings.Contains(achieved, "REACHED") {
		t.Errorf("from inside:\n%s", achieved)
	}
	if _, err := os.Lstat(filepath.Join(data, "evil-wrote")); !os.IsNotExist(err) {
		t.Errorf("production's data directory was written to: %v", err)
		_ = os.Remove(filepath.Join(data, "evil-wrote"))
	}
	if err := syscall.Kill(h.production, 0); err != nil {
		t.Errorf("production: %v", err)
	}
}
