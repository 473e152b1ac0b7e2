package main

import (
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
)

// The library's own flags for numbers and lengths of time refuse a value in words
// that are not ours, and know no days. So such flags are texts, and read here.

// durationOf is the value of a flag that is a length of time, 0 without one.
func durationOf(c *cli.Context, name string) (time.Duration, error) {
	if c.String(name) == "" {
		return 0, nil
	}
	d, err := parseDuration(c.String(name))
	if err != nil {
		return 0, usage("--%s: %w", name, err)
	}
	return d, nil
}

// numberOf is the value of a flag that is a whole number, 0 without one.
func numberOf(c *cli.Context, name string) (int64, error) {
	if c.String(name) == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(c.String(name), 10, 64)
	if err != nil {
		return 0, usage("--%s: %q is not a whole number", name, c.String(name))
	}
	return n, nil
}

// portOf is the value of a flag that is the number of a port.
func portOf(c *cli.Context, name string) (int, error) {
	n, err := strconv.ParseUint(c.String(name), 10, 16)
	if err != nil || n == 0 {
		return 0, usage("--%s: %q is not the number of a port", name, c.String(name)).hinted("a number from 1 to 65535, such as 5432")
	}
	return int(n), nil
}

// contradiction is two flags of a command of which one would be dropped without
// a word.
type contradiction struct {
	command  string // full name, without "lifeboat"
	one, two string
	why      string
	hint     string
}

func contradictions() []contradiction {
	return []contradiction{
		{"report", "csv", "json", "stdout holds one of them", "leave out one; --html and --prometheus write to files beside either"},
		{"restore", "dry-run", "start", "nothing is restored that could be started", "leave out --start to see the plan, or --dry-run to carry it out"},
		{"init", "rds", "pgdata", "there is no data directory to go with it", "leave out --pgdata; a cluster of your own has a configuration of its own"},
		{"init", "recovery-key", "recipient", "no recovery key is made where recipients are given", "leave out --recovery-key, or the recipients"},
	}
}

// noContradiction refuses two flags that cannot both count.
func noContradiction(c *cli.Context) error {
	for _, x := range contradictions() {
		if c.Command.HelpName == c.App.Name+" "+x.command && given(c, x.one) && given(c, x.two) {
			return usage("--%s and --%s: %s", x.one, x.two, x.why).hinted("%s", x.hint)
		}
	}
	return nil
}

// given says whether a flag is on the line, and not as --flag=false.
func given(c *cli.Context, name string) bool {
	return c.IsSet(name) && (c.Value(name) != any(false))
}
