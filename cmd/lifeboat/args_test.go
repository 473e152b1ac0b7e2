package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// testTree has a command with flags of each kind.
func testTree(a *app) *cli.Command {
	a.constructors = []func(*app) *cli.Command{
		func(*app) *cli.Command {
			return &cli.Command{Name: "restore", Action: func(*cli.Context) error { return nil }, Flags: []cli.Flag{
				&cli.StringFlag{Name: "to", Usage: "restore into `DIR`"},
				&cli.BoolFlag{Name: "start"},
				&cli.StringSliceFlag{Name: "tablespace"},
			}}
		},
		func(*app) *cli.Command {
			do := func(*cli.Context) error { return nil }
			return &cli.Command{Name: "wal", Subcommands: []*cli.Command{{Name: "push", Action: do}, {Name: "fetch", Action: do}}}
		},
		func(*app) *cli.Command {
			do := func(*cli.Context) error { return nil }
			return &cli.Command{Name: "drill", Action: do, Subcommands: []*cli.Command{{Name: "selftest", Action: do, Flags: []cli.Flag{&cli.StringFlag{Name: "seed"}}}}}
		},
		versionCommand,
	}
	return a.tree()
}

func TestParseLine(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"restore --to x", "lifeboat restore --to x --"},
		{"--json restore --to x --start", "lifeboat restore --json --to x --start --"},
		{"-c f restore --to=x --quiet", "lifeboat restore -c f --to=x --quiet --"},
		{"wal push a --config f", "lifeboat wal push --config f -- a"},
		{"wal --quiet push a -c f", "lifeboat wal push --quiet -c f -- a"},
		{"wal fetch a b --json", "lifeboat wal fetch --json -- a b"},
		{"wal fetch -- --json b", "lifeboat wal fetch -- --json b"},
		{"restore --tablespace a=b --tablespace c=d", "lifeboat restore --tablespace a=b --tablespace c=d --"},
		{"wal push -", "lifeboat wal push -- -"},
		{"wal push help", "lifeboat wal push -- help"},
		{"wal push --version", "error unknown flag --version of lifeboat wal push"},
		{"--version", "lifeboat version --"},
		{"help", "help lifeboat"},
		{"help wal fetch", "help lifeboat wal fetch"},
		{"wal -h", "help lifeboat wal"},
		{"wal fetch --help", "help lifeboat wal fetch"},
		{"wal fetch --help a b", `error lifeboat wal fetch: help was asked for, and "a" given`},
		{"", "error no command given"},
		{"wal", "error lifeboat wal: no command given"},
		{"restroe --to x", `error unknown command "restroe"`},
		{"fetch a b", `error unknown command "fetch"`},
		{"wal psuh a", `error unknown command "wal psuh"`},
		{"restore --too x", "error unknown flag --too of lifeboat restore"},
		{"--to x restore", "error unknown flag --to of lifeboat"},
		{"restore --to", "error flag --to needs a value"},
		{"restore --to --start", "error flag --to needs a value"},
	} {
		got := ""
		l, err := parseLine(testTree(&app{ui: &ui{}}), strings.Fields(c.line))
		switch {
		case err != nil:
			got = "error " + err.Error()
			if code, hint := classify(err); code != exitUsage || hint == "" {
				t.Errorf("%q: code %d, hint %q; want a usage error with a hint", c.line, code, hint)
			}
		case l.help:
			got = "help " + l.name()
		default:
			got = strings.Join(l.arguments(), " ")
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
		"restore --qqqq":          `"lifeboat restore --help" lists its flags`,
		"restore --to":            "write --to DIR",
		"wal --qqqq":              `"lifeboat wal --help" lists its flags`,
		"wal --qqqq push":         `"lifeboat wal --help" lists its flags`,
		"--qqqq":                  `"lifeboat --help" lists its flags`,
		"--to x restore":          "flags of a command go after its name",
		"drill --qqqq":            `"lifeboat drill --help" lists its flags`,
		"drill --seed 1 selftest": "flags of a command go after its name",
	} {
		_, err := parseLine(testTree(&app{ui: &ui{}}), strings.Fields(line))
		e, ok := errors.AsType[*commandError](err)
		if !ok || !strings.Contains(e.hint, want) {
			t.Errorf("%q: %+v, want the hint %q", line, err, want)
		}
	}
}
