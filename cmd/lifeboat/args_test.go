package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// testCommands has a command with flags of each kind. Each tells ran what it was
// given.
func testCommands(ran *string) []func(*app) *cli.Command {
	do := func(c *cli.Context) error {
		*ran = c.Command.HelpName
		for _, name := range []string{"config", "to", "seed"} {
			if c.IsSet(name) {
				*ran += fmt.Sprintf(" %s=%s", name, c.String(name))
			}
		}
		for _, name := range []string{"json", "quiet", "start"} {
			if c.Bool(name) {
				*ran += " " + name
			}
		}
		if list := c.StringSlice("tablespace"); len(list) > 0 {
			*ran += fmt.Sprintf(" %q", list)
		}
		*ran += " " + strings.Join(append([]string{"--"}, c.Args().Slice()...), " ")
		return nil
	}
	of := func(c *cli.Command) func(*app) *cli.Command { return func(*app) *cli.Command { return c } }
	return []func(*app) *cli.Command{
		of(&cli.Command{Name: "restore", Action: do, Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "restore into `DIR`"},
			&cli.BoolFlag{Name: "start"},
			&cli.StringSliceFlag{Name: "tablespace"},
		}}),
		of(&cli.Command{Name: "wal", Subcommands: []*cli.Command{{Name: "push", Action: do}, {Name: "fetch", Action: do}}}),
		of(&cli.Command{Name: "drill", Action: do, Subcommands: []*cli.Command{
			{Name: "selftest", Action: do, Flags: []cli.Flag{&cli.StringFlag{Name: "seed"}}}}}),
		of(&cli.Command{Name: "version", Action: do}),
	}
}

// runLine runs a command line of testCommands: what ran, whose help was printed,
// or the error.
func runLine(t *testing.T, line string) (string, error) {
	var ran string
	var out strings.Builder
	a := &app{ui: &ui{stdout: &out, stderr: io.Discard}, constructors: testCommands(&ran)}
	err := a.dispatch(t.Context(), strings.Fields(line))
	switch {
	case err != nil:
		return "error " + err.Error(), err
	case ran == "":
		return "help " + strings.TrimSpace(regexp.MustCompile(`lifeboat[a-z ]*`).FindString(out.String())), nil
	}
	return ran, nil
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"restore --to x", "lifeboat restore to=x --"},
		{"--json restore --to x --start", "lifeboat restore to=x json start --"},
		{"-c f restore --to=x --quiet", "lifeboat restore config=f to=x quiet --"},
		{"-config f restore", "lifeboat restore config=f --"},
		{"wal push a --config f", "lifeboat wal push config=f -- a"},
		{"wal --quiet push a -c f", "lifeboat wal push config=f quiet -- a"},
		{"wal fetch a b --json", "lifeboat wal fetch json -- a b"},
		{"wal fetch a --quiet b --json", "lifeboat wal fetch json quiet -- a b"},
		{"wal fetch -- --json b", "lifeboat wal fetch -- --json b"},
		{"wal fetch a -- --json", "lifeboat wal fetch -- a --json"},
		{"restore --json=false --start=true", "lifeboat restore start --"},
		{"restore --to -1s", "lifeboat restore to=-1s --"},
		{"restore --tablespace a=b --tablespace c=d,e", `lifeboat restore ["a=b" "c=d,e"] --`},
		{"wal push -", "lifeboat wal push -- -"},
		{"wal push help", "lifeboat wal push -- help"},
		{"drill --quiet", "lifeboat drill quiet --"},
		{"drill selftest --seed 1", "lifeboat drill selftest seed=1 --"},
		{"drill x selftest", `error unknown command "drill x"`},
		{"wal push --version", "error unknown flag --version of lifeboat wal push"},
		{"--version", "lifeboat version --"},
		{"--version --json", "lifeboat version json --"},
		{"help", "help lifeboat"},
		{"--help", "help lifeboat"},
		{"help wal", "help lifeboat wal"},
		{"help wal fetch", "help lifeboat wal fetch"},
		{"wal -h", "help lifeboat wal"},
		{"wal fetch --help", "help lifeboat wal fetch"},
		{"wal --help fetch", "help lifeboat wal fetch"},
		{"restore --to x -h", "help lifeboat restore"},
		{"drill --help", "help lifeboat drill"},
		{"wal fetch --help a b", "help lifeboat wal fetch"},
		{"wal push x restroe", "lifeboat wal push -- x restroe"},
		{"drill --help x", `error unknown command "drill x"`},
		{"help nonsense", `error unknown command "nonsense"`},
		{"", "error no command given"},
		{"--json", "error no command given"},
		{"wal", "error lifeboat wal: no command given"},
		{"restroe --to x", `error unknown command "restroe"`},
		{"fetch a b", `error unknown command "fetch"`},
		{"wal psuh a", `error unknown command "wal psuh"`},
		{"restore --too x", "error unknown flag --too of lifeboat restore"},
		{"restore x --too x", "error unknown flag --too of lifeboat restore"},
		{"--to x restore", "error unknown flag --to of lifeboat"},
		{"restore --to", "error flag --to needs a value"},
		{"restore --to --start", "error flag --to needs a value"},
		{"restore -c --start", "error flag --config needs a value"},
	} {
		got, err := runLine(t, c.line)
		if code, hint := classify(err); err != nil && (code != exitUsage || hint == "") {
			t.Errorf("%q: code %d, hint %q; want a usage error with a hint", c.line, code, hint)
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.line, got, c.want)
		}
	}
}

func TestSuggestions(t *testing.T) {
	for line, want := range map[string]string{
		"restroe":                 `did you mean "lifeboat restore"?`,
		"resto":                   `did you mean "lifeboat restore"?`,
		"fetch a b":               `did you mean "lifeboat wal fetch"?`,
		"wal psuh a":              `did you mean "lifeboat wal push"?`,
		"wal xyzxyz":              `lists the commands`,
		"restore --too":           "did you mean --to?",
		"restore --jsno":          "did you mean --json?",
		"restore --qqqq":          `"lifeboat restore --help" lists the flags`,
		"restore --to":            "write --to DIR",
		"wal --qqqq":              `"lifeboat wal --help" lists the flags`,
		"wal --qqqq push":         `"lifeboat wal --help" lists the flags`,
		"--qqqq":                  `"lifeboat --help" lists the flags`,
		"--to x restore":          "flags of a command go after its name",
		"drill --qqqq":            `"lifeboat drill --help" lists the flags`,
		"drill --seed 1 selftest": "flags of a command go after its name",
	} {
		_, err := runLine(t, line)
		e, ok := errors.AsType[*commandError](err)
		if !ok || !strings.Contains(e.hint, want) {
			t.Errorf("%q: %+v, want the hint %q", line, err, want)
		}
	}
}
