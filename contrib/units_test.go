package contrib_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/verify/fence"
)

// unit is a unit file: values by "Section.Key", in their order.
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	u, section := unit{}, ""
	for line := range strings.Lines(read(t, name)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				t.Fatalf("%s: %s", name, line)
			}
			u[section+"."+key] = append(u[section+"."+key], value)
		}
	}
	return u
}

func (u unit) has(key, value string) bool { return slices.Contains(u[key], value) }

func TestUnits(t *testing.T) {
	analyze := tool(t, "systemd-analyze", "package systemd; make test installs it")
	if out, err := exec.Command(analyze, "security", "--help").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--offline")) {
		t.Skipf("this systemd-analyze cannot work offline: %v", err)
	}
	version, err := exec.Command(analyze, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	// The programs that they start need not be here.
	dir, readme := t.TempDir(), read(t, "README.md")
	files, err := filepath.Glob("systemd/lifeboat-*.*")
	if err != nil {
		t.Fatal(err)
	}
	replace := strings.NewReplacer("/usr/bin/lifeboat", "/bin/true", "/etc/lifeboat/notify", "/bin/true")
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), []byte(replace.Replace(read(t, f))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	analysed := func(args ...string) string {
		cmd := exec.Command(analyze, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning", "NO_COLOR=1", "SYSTEMD_COLORS=0", "SYSTEMD_EMOJI=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	for _, f := range files {
		name := filepath.Base(f)
		if strings.HasSuffix(name, ".conf") {
			continue
		}
		// It tells of other units of the machine too.
		for line := range strings.Lines(analysed("verify", "--man=no", "--recursive-errors=no", "./"+name)) {
			if strings.Contains(line, "lifeboat") {
				t.Errorf("systemd-analyze verify: %s", line)
			}
		}
		if !strings.HasSuffix(name, ".service") {
			continue
		}
		out := analysed("security", "--offline=true", "--no-pager", "./"+name)
		rating := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
		if rating == nil {
			t.Fatalf("%s has no rating: %s", name, out)
		}
		if row := "| `systemd/" + name + "` | " + rating[1] + " |"; bytes.HasPrefix(version, []byte("systemd 252")) && !strings.Contains(readme, row) {
			t.Errorf("README.md lacks the row %s", row)
		}
		t.Logf("%s: exposure %s by %s", name, rating[1], bytes.SplitN(version, []byte("\n"), 2)[0])
	}
	out := analysed("calendar", "--iterations=1", readUnit(t, "systemd/lifeboat-drill.timer")["Timer.OnCalendar"][0])
	if !strings.Contains(out, "Next elapse:") {
		t.Errorf("the drill's timer never elapses: %s", out)
	}
}

// What the fence needs, and what makes a failure known, must stay.
func TestDrillUnit(t *testing.T) {
	u := readUnit(t, "systemd/lifeboat-drill.service")
	for key, value := range map[string]string{
		"Unit.OnFailure": "lifeboat-notify@%N.service", "Service.SuccessExitStatus": "75", "Service.KillMode": "mixed",
		"Service.RestrictNamespaces": "user mnt net pid ipc uts cgroup", "Service.SystemCallFilter": "@system-service @mount",
		"Service.OOMPolicy": "continue",
	} {
		if !u.has(key, value) {
			t.Errorf("%s is %q, want %q", key, u[key], value)
		}
	}
	// By the groups of systemd 252 neither is allowed, and the fence is without both.
	if !u.has("Service.SystemCallFilter", "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self") {
		t.Errorf("the filter keeps the fence's own from it: %q", u["Service.SystemCallFilter"])
	}
	readme := read(t, "README.md")
	_, rows, _ := strings.Cut(readme, "What the fence needs of the unit")
	rows, _, _ = strings.Cut(rows, "\n\nThe last row")
	for _, l := range fence.Layers() {
		if !regexp.MustCompile(`\n\| (\w+, )*` + string(l) + `(, \w+)* \|`).MatchString(rows) {
			t.Errorf("README.md does not say what layer %s needs of the unit", l)
		}
	}
	for _, key := range []string{"Service.PrivateNetwork", "Service.MemoryDenyWriteExecute", "Service.ProtectProc", "Service.ProtectKernelTunables", "Service.ProtectHostname"} {
		if u[key] != nil {
			t.Errorf("%s: a drill cannot work with it", key)
		}
	}
	timer := readUnit(t, "systemd/lifeboat-drill.timer")
	if !timer.has("Timer.Persistent", "true") || timer["Timer.RandomizedDelaySec"] == nil {
		t.Errorf("%v", timer)
	}
}

// A command that remembers what it has seen of the repository needs a directory for
// that where the unit makes all others unwritable.
func TestUnitsKeepWhatWasSeen(t *testing.T) {
	files, err := filepath.Glob("systemd/lifeboat-*.service")
	if err != nil {
		t.Fatal(err)
	}
	remembers := regexp.MustCompile(` (backup|backups|verify|wal status|report|drill|rds drill)( |$)`)
	found := 0
	for _, f := range files {
		u := readUnit(t, f)
		if !remembers.MatchString(strings.Join(u["Service.ExecStart"], "\n")) || !u.has("Service.ProtectSystem", "strict") {
			continue
		}
		found++
		if dirs := strings.Join(u["Service.StateDirectory"], " "); !strings.HasPrefix(dirs, "lifeboat") || !u.has("Service.StateDirectoryMode", "0700") {
			t.Errorf("%s: StateDirectory=%s", f, dirs)
		}
	}
	if found < 4 {
		t.Errorf("only %d units found", found)
	}
}
