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
