package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/postgres/server/servertest"
	"github.com/lifeboat-dr/lifeboat/verify/evidence"
)

// aDrill is one that runs in the background.
type aDrill struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

func (s *site) startDrill(t *testing.T, staging string, args ...string) *aDrill {
	t.Helper()
	d := &aDrill{cmd: exec.Command(servertest.Command(t, "lifeboat"),
		append([]string{"drill", "--json", "--identity", s.identity, "--staging", staging, "--config", s.config}, args...)...)}
	d.cmd.Env, d.cmd.Dir = append(os.Environ(), s.env...), s.dir
	d.cmd.Stdout, d.cmd.Stderr = &d.stdout, &d.stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return d
}

// newestEvidence is the document that was stored last.
func (s *site) newestEvidence(t *testing.T) evidence.Drill {
	t.Helper()
	dir := filepath.Join(s.dir, "repository", "drills")
	entries, err := os.ReadDir(dir) // sorted by name, and so by time
	if err != nil || len(entries) == 0 {
		t.Fatalf("evidence: %v, %v", entries, err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, entries[len(entries)-1].Name()))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := evidence.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return doc.Drill
}

// hangingCheck makes a drill stay in its checks for as long as nobody ends it;
// the file appears when it is there.
func (s *site) hangingCheck(t *testing.T) (there string) {
	t.Helper()
	there = filepath.Join(s.dir, "in-the-checks")
	s.configure(t, fmt.Sprintf(`  checks:
    - {name: hangs, timeout: 10m, command: [sh, -c, "test -e '%s' || { echo > '%s'; exec sleep 300; }"]}
`, there, there))
	return there
}

func awaited(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a minute has passed: %s", what)
		}
	}
}

// servers are the processes that have to do with a directory: by their command
// line, or by what is mounted for them.
func servers(t *testing.T, directory string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		command, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(command) == 0 { // no process, a kernel's or a zombie
			continue
		}
		mounts, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "mountinfo"))
		if bytes.Contains(command, []byte(directory)) || bytes.Contains(mounts, []byte(directory)) {
			found = append(found, e.Name()+": "+strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return found
}

func noServerLeft(t *testing.T, directory string) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if left = servers(t, directory); len(left) == 0 {
			return
		}
	}
	t.Errorf("these outlive the drill: %q", left)
}

// Of two drills at once the second exits with 75, and nothing of it is there.
func TestTwoDrills(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.run(t, "backup")
	s.flush(t)
	there := s.hangingCheck(t)
	first, second := t.TempDir(), t.TempDir()
	d := s.startDrill(t, first)
	awaited(t, "the first drill is not in its checks", func() bool { return exists(there) })
	if len(servers(t, first)) < 2 {
		t.Error("the server of the first drill is not seen: the tests of what is left prove nothing")
	}
	code, stdout, stderr := s.exec(t, "drill", "--identity", s.identity, "--staging", second)
	if exitCode(code) != exitBusy || !strings.Contains(stderr, "hint: ") {
		t.Errorf("the second drill exits with %d\n%s%s", code, stdout, stderr)
	}
	if entries, _ := os.ReadDir(second); len(entries) > 0 || exists(filepath.Join(s.dir, "repository", "drills")) {
		t.Error("the second drill has left something")
	}
	if !d.endedBy(t, s, syscall.SIGTERM, first) {
		t.Error("the hanging check has ended by itself")
	}
}

// endedBy sends a signal to a drill: it must put all in order and say that
// nothing was proven. It is false when the drill was done before.
func (d *aDrill) endedBy(t *testing.T, s *site, sig syscall.Signal, staging string) bool {
	t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	err := d.cmd.Wait()
	if err == nil {
		return false
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 128+int(sig) {
		t.Fatalf("%v leads to %v, want exit code %d\n%s%s", sig, err, 128+int(sig), &d.stdout, &d.stderr)
	}
	if left, err := os.ReadDir(staging); err != nil || len(left) > 0 {
		t.Errorf("left in staging: %v %v", left, err)
	}
	noServerLeft(t, staging)
	doc := s.newestEvidence(t)
	if doc.Verdict != evidence.Unknown || !doc.Cleanup.Done || len(doc.Reasons) == 0 || !strings.Contains(strings.Join(doc.Reasons, "; "), "signal") {
		t.Errorf("%s, %v, %+v", doc.Verdict, doc.Reasons, doc.Cleanup)
	}
	return true
}

// ballast makes a drill take long enough for moments in it to differ.
func (s *site) ballast(t *testing.T) {
	t.Helper()
	s.Exec(t, "create table ballast as select i, md5(i::text) from generate_series(1, 200000) i")
	s.run(t, "backup")
	s.Exec(t, "create table more as select i, md5(i::text) from generate_series(1, 200000) i")
	s.flush(t)
}

// A drill that is stopped by a signal, whenever that is, leaves nothing but
// evidence that it proved nothing.
func TestDrillStopped(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.ballast(t)
	whole := measured(func() { s.drilled(t, exitOK) })
	stopped := map[string]bool{} // by the last phase that was begun
	for i := range 8 {
		staging := t.TempDir()
		d := s.startDrill(t, staging)
		awaited(t, "the drill has made no directory", func() bool { e, _ := os.ReadDir(staging); return len(e) > 0 })
		time.Sleep(whole * time.Duration(i) / 10)
		sig := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}[i%3]
		if !d.endedBy(t, s, sig, staging) {
			continue
		}
		doc := s.newestEvidence(t)
		last := "before"
		if n := len(doc.Phases); n > 0 {
			last = doc.Phases[n-1].Name
		}
		stopped[last] = true
	}
	t.Logf("stopped in %v, of %v", stopped, whole)
	if len(stopped) < 2 {
		t.Error("the moments were too much alike for this test to prove anything")
	}
}

// plant makes a directory that looks like that of a drill, with a marker that
// names the id; an empty id makes none.
func plant(t *testing.T, staging, id, marked string) string {
	t.Helper()
	dir := filepath.Join(staging, "lifeboat-drill-"+id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "something"), "somebody's")
	if marked != "" {
		writeFile(t, filepath.Join(dir, "lifeboat-drill.json"), markerText(marked))
	}
	return dir
}

func markerText(id string) string {
	return fmt.Sprintf(`{"drill":%q,"repository":"x","host":"x","began":"2026-01-01T00:00:00Z"}`, id)
}

// No server outlives a drill that was killed, and the next drill removes what
// such ones have left, and nothing else.
func TestDrillKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.ballast(t)
	staging, outside := t.TempDir(), t.TempDir()
	whole := measured(func() { s.drilled(t, exitOK) })

	// What must stay.
	var stay []string
	id := func(n int) string { return fmt.Sprintf("20260101T000000Z-%08x", n) }
	keep := func(path string) { stay = append(stay, path) }
	keep(plant(t, staging, id(1), ""))
	keep(plant(t, staging, id(2), id(99))) // another drill's marker
	keep(plant(t, staging, "of-mine", "of-mine"))
	linked := plant(t, staging, id(3), "")
	keep(linked)
	writeFile(t, filepath.Join(outside, "marker"), markerText(id(3)))
	symlink(t, filepath.Join(outside, "marker"), filepath.Join(linked, "lifeboat-drill.json"))
	atWork := plant(t, staging, id(4), id(4))
	keep(atWork)
	lock, err := os.OpenFile(filepath.Join(atWork, "lifeboat-drill.json"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	away := plant(t, outside, id(5), id(5))
	symlink(t, away, filepath.Join(staging, filepath.Base(away)))
	keep(filepath.Join(staging, filepath.Base(away)))
	writeFile(t, filepath.Join(staging, "lifeboat-drill-"+id(6)), "a file")
	keep(filepath.Join(staging, "lifeboat-drill-"+id(6)))

	// What must go, but for what it points to.
	gone := plant(t, staging, id(7), id(7))
	symlink(t, outside, filepath.Join(gone, "data"))
	symlink(t, outside, filepath.Join(gone, "tablespaces"))
	older := []string{id(7)}
	before := fingerprint(t, append([]string{outside}, stay...)...)

	there := s.hangingCheck(t)
	for i := range 8 {
		d := s.startDrill(t, staging)
		if i == 0 {
			awaited(t, "the drill is not in its checks", func() bool { return exists(there) })
			if len(servers(t, staging)) < 2 {
				t.Error("the server of the drill is not seen: this test proves nothing")
			}
		} else {
			time.Sleep(time.Duration(rand.Int64N(int64(whole))))
		}
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		noServerLeft(t, staging)
		older = append(older, left(t, staging, stay)...)
	}
	slices.Sort(older)
	older = slices.Compact(older)
	if len(older) < 3 {
		t.Errorf("the killed drills have left %v: too little for this test to prove anything", older)
	}
	// Each drill sweeps what the one before has left, unless it was killed first.
	code, stdout, stderr := s.exec(t, "drill", "--json", "--identity", s.identity, "--staging", staging)
	var d evidence.Drill
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != 0 {
		t.Fatalf("after all kills: %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if len(d.Cleanup.Older) == 0 || !d.Cleanup.Done {
		t.Errorf("clean-up %+v", d.Cleanup)
	}
	for _, id := range d.Cleanup.Older {
		if !slices.Contains(older, id) {
			t.Errorf("%s was removed, and no killed drill had that id: %v", id, older)
		}
	}
	if more := left(t, staging, stay); len(more) > 0 {
		t.Errorf("still in staging: %v", more)
	}
	if after := fingerprint(t, append([]string{outside}, stay...)...); after != before {
		t.Error("something that was not ours was changed")
	}
}

func symlink(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// left are the ids of directories in staging other than those that must stay.
func left(t *testing.T, staging string, stay []string) []string {
	t.Helper()
	entries, err := os.ReadDir(staging)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if !slices.Contains(stay, filepath.Join(staging, e.Name())) {
			out = append(out, strings.TrimPrefix(e.Name(), "lifeboat-drill-"))
		}
	}
	return out
}

// --keep leaves a server that the printed lines lead to, and a later drill
// leaves it alone.
func TestDrillKept(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	s.Exec(t, "create table t as select 42 x")
	s.run(t, "backup")
	s.flush(t)
	staging := filepath.Join(t.TempDir(), "it's here")
	if err := os.Mkdir(staging, 0o700); err != nil {
		t.Fatal(err)
	}
	out := s.run(t, "drill", "--keep", "--identity", s.identity, "--staging", staging)
	line := func(what string) string {
		_, rest, ok := strings.Cut(out, "\n"+what)
		if !ok {
			t.Fatalf("it does not say how to %s\n%s", what, out)
		}
		text, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(text)
	}
	shell := func(line string) (string, error) {
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = "/"
		text, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(text)), err
	}
	stop := line("Stop:")
	defer func() { _, _ = shell(stop) }()
	if got, err := shell(line("Connect:") + " -Atc 'create table made (); select x from t'"); err != nil || got != "CREATE TABLE\n42" {
		t.Errorf("%s: %v, %q", line("Connect:"), err, got)
	}
	kept, err := os.ReadDir(staging)
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v %v", kept, err)
	}
	s.run(t, "drill", "--identity", s.identity, "--staging", staging)
	if got, err := shell(line("Connect:") + " -Atc 'select count(*) from made'"); err != nil || got != "0" {
		t.Errorf("after another drill: %v, %q", err, got)
	}
	if got, err := shell(stop); err != nil {
		t.Errorf("%s: %v, %s", stop, err, got)
	}
	noServerLeft(t, staging)
	// Stopped, it is still a person's.
	s.run(t, "drill", "--identity", s.identity, "--staging", staging)
	if now, _ := os.ReadDir(staging); len(now) != 1 || now[0].Name() != kept[0].Name() {
		t.Errorf("in staging: %v", now)
	}
	if got, err := shell(line("Remove:")); err != nil {
		t.Errorf("%v, %s", err, got)
	}
	if now, _ := os.ReadDir(staging); len(now) != 0 {
		t.Errorf("in staging after all: %v", now)
	}
}
