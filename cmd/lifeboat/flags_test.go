package main

import (
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
