package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// A value that is none is refused in the words that the configuration has for
// it, with the flag as it is typed; days are a length of time here too.
func TestFlagValues(t *testing.T) {
	length := ` is not a length of time such as 90s, 5m, 1h30m or 7d`
	always := "--repository file:///r --cluster-key k --recipient " + testRecipient
	for line, want := range map[string]string{
		"wal status --repository file:///r --heartbeat foo": `--heartbeat: "foo"` + length,
		"wal status --repository file:///r --heartbeat -1s": `--heartbeat: "-1s"` + length,
		"wal stream --interval foo " + always:               `--interval: "foo"` + length,
		"wal stream --interval 7d " + always:                `--interval: 168h0m0s is not between 10ms and 1h`,
		"wal stream --heartbeat 5 " + always:                `--heartbeat: "5"` + length,
		"wal stream --heartbeat 5ms " + always:              `--heartbeat: 5ms is less than 1s`,
		"wal stream --slice-size 1MB " + always:             `--slice-size: "1MB" is not a whole number`,
		"wal fetch a b --standby --give-up-after foo":       `--give-up-after: "foo"` + length,
		"wal fetch a b --standby --give-up-after 0s":        `--give-up-after: 0s is no time at all`,
	} {
		a := &app{ui: &ui{stderr: new(strings.Builder)}, getwd: func() (string, error) { return t.TempDir(), nil }}
		a.constructors = []func(*app) *cli.Command{walCommand}
		err := a.dispatch(t.Context(), strings.Fields(line))
		if code, _ := classify(err); err == nil || err.Error() != want || code != exitUsage {
			t.Errorf("%s:\n have %v (%d)\n want %s", line, err, code, want)
		}
	}
}

// Two flags of which one would be dropped without a word are a usage error with
// a hint, of every command that has such a pair.
func TestContradictions(t *testing.T) {
	t.Parallel()
	commands := map[string]*cli.Command{}
	for c, name := range below("lifeboat", root(newApp())) {
		commands[name] = c
	}
	spelt := func(c *cli.Command, name string) string {
		f := flagOf(c, "--"+name)
		if f == nil {
			t.Fatalf("%s has no flag --%s", c.Name, name)
		}
		if takesValue(f) {
			return "--" + name + "=x"
		}
		return "--" + name
	}
	for _, x := range contradictions() {
		c := commands["lifeboat "+x.command]
		if c == nil {
			t.Fatalf("there is no command %q", x.command)
		}
		for _, line := range []string{spelt(c, x.one) + " " + spelt(c, x.two), spelt(c, x.two) + " " + spelt(c, x.one)} {
			usageErrorOf(t, x.command+" "+line, "--"+x.one+" and --"+x.two)
		}
	}
	out := filepath.Join(t.TempDir(), "x")
	for _, line := range []string{
		"report --html %s --prometheus %s", "report --html %s --prometheus " + filepath.Dir(out) + "/./x",
		"drill --identity k --junit %s --html %s", "drill --identity k --html %s --prometheus %s", "drill --identity k --junit %s --prometheus %s",
	} {
		usageErrorOf(t, strings.ReplaceAll(line, "%s", out)+" --repository file:///r", "name the same file")
	}
	usageErrorOf(t, "restore --to x --identity k --repository file:///r --port 5433", "no --start")
	for _, line := range []string{"--target-time 2026-01-01 --target-immediate", "--target-xid 1 --target-lsn 0/1", "--target-name a --target-exclusive --target-lsn 0/1"} {
		usageErrorOf(t, "restore --to x --identity k --repository file:///r "+line, "only one target")
	}
	usageErrorOf(t, "keygen --json", "needs --out")
	usageErrorOf(t, "completion bash --json", "not a document")
	// What contradicts nothing goes on, here to a repository that is not there.
	a := quietApp(t)
	if err := a.dispatch(t.Context(), strings.Fields("report --csv --json=false --repository file:///nowhere")); err == nil || strings.Contains(err.Error(), "--json") {
		t.Errorf("--csv --json=false: %v", err)
	}
}

func quietApp(t *testing.T) *app {
	a := newApp()
	a.ui = &ui{stdout: io.Discard, stderr: io.Discard}
	a.environ, a.getwd = nil, func() (string, error) { return t.TempDir(), nil }
	return a
}

// usageErrorOf runs a line that must end with a usage error and a hint.
func usageErrorOf(t *testing.T, line, want string) {
	t.Helper()
	err := quietApp(t).dispatch(t.Context(), strings.Fields(line))
	if code, hint := classify(err); err == nil || code != exitUsage || hint == "" || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v (%d, hint %q), want a usage error with %q", line, err, code, hint, want)
	}
}
