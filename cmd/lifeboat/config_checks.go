package main

import (
	"math"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lifeboat-dr/lifeboat/verify/probe"
)

// checksKey is the one key of the file that is no single value: the user's own
// checks of restored data.
const checksKey = "drill.checks"

// checkField is one key of a check.
type checkField struct {
	name string
	help string
	set  func(*probe.Check, *yaml.Node) error
}

func checkFields() []checkField {
	return []checkField{
		{"name", "a name for reports", text(func(c *probe.Check) *string { return &c.Name })},
		{"sql", "a query; the first column of its first row is looked at", text(func(c *probe.Check) *string { return &c.SQL })},
		{"database", "the database to connect to; postgres if it is left out", text(func(c *probe.Check) *string { return &c.Database })},
		{"command", "a program and its arguments, as a list; run without a shell", setCommand},
		{"expect", "the text that the value must be", func(c *probe.Check, n *yaml.Node) error {
			c.Expect = new(string)
			return decode(n, c.Expect)
		}},
		{"min", "the smallest number that is right", number(func(c *probe.Check) **float64 { return &c.Min })},
		{"max", "the largest number that is right", number(func(c *probe.Check) **float64 { return &c.Max })},
		{"newer_than", "the value is a time, at most so long before the moment of disaster", length(func(c *probe.Check) *time.Duration { return &c.NewerThan })},
		{"timeout", "how long the check may take; 1m if it is left out", length(func(c *probe.Check) *time.Duration { return &c.Timeout })},
		{"required", "false for a check whose failure is told and does not fail the drill", func(c *probe.Check, n *yaml.Node) error {
			if n.Decode(&c.Required) != nil {
				return usage("it must be true or false")
			}
			return nil
		}},
	}
}

type fieldSetter = func(*probe.Check, *yaml.Node) error

func decode(n *yaml.Node, into any) error {
	if err := n.Decode(into); err != nil {
		return usage("not the kind of value that belongs there")
	}
	return nil
}

func text(field func(*probe.Check) *string) fieldSetter {
	return func(c *probe.Check, n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode {
			return usage("it must be one text")
		}
		*field(c) = n.Value
		return nil
	}
}

func number(field func(*probe.Check) **float64) fieldSetter {
	return func(c *probe.Check, n *yaml.Node) error {
		v, err := strconv.ParseFloat(n.Value, 64)
		if n.Kind != yaml.ScalarNode || err != nil || math.IsNaN(v) {
			return usage("%q is not a number", n.Value)
		}
		*field(c) = &v
		return nil
	}
}

func length(field func(*probe.Check) *time.Duration) fieldSetter {
	return func(c *probe.Check, n *yaml.Node) (err error) {
		if *field(c), err = parseDuration(n.Value); err == nil && *field(c) <= 0 {
			return usage("%s is no time at all", n.Value)
		}
		return err
	}
}

func setCommand(c *probe.Check, n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return usage("it must be a list: [program, argument, …]")
	}
	if err := decode(n, &c.Command); err != nil {
		return err
	}
	if c.Command[0] == "" {
		return usage("the name of the program is empty")
	}
	return nil
}

// readChecks reads the list of checks.
func (r *fileReader) readChecks(n *yaml.Node) ([]probe.Check, error) {
	if isNull(n) {
		return nil, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, r.wrong(n, "%s must be a list of checks", checksKey).hinted("docs/drill.md shows one")
	}
	var out []probe.Check
	names := map[string]bool{}
	for _, e := range n.Content {
		c, err := r.readCheck(e)
		if err != nil {
			return nil, err
		}
		if names[c.Name] {
			return nil, r.wrong(e, "a second check is called %q", c.Name).hinted("reports tell checks apart by their names")
		}
		names[c.Name] = true
		out = append(out, c)
	}
	return out, nil
}

func (r *fileReader) readCheck(n *yaml.Node) (probe.Check, error) {
	c := probe.Check{Required: true}
	if n.Kind != yaml.MappingNode {
		return c, r.wrong(n, "a check must be a list of \"key: value\" lines").hinted("docs/drill.md shows one")
	}
	var known []string
	fields, seen := map[string]checkField{}, map[string]bool{}
	for _, f := range checkFields() {
		known, fields[f.name] = append(known, f.name), f
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		f, ok := fields[name.Value]
		if !ok {
			err := r.wrong(name, "unknown key %q of a check", name.Value)
			if near := nearest(name.Value, known); near != "" {
				return c, err.hinted("did you mean %q?", near)
			}
			return c, err
		}
		if seen[f.name] {
			return c, r.wrong(name, "a check has %s twice", f.name).hinted("which one counts would be a guess")
		}
		seen[f.name] = true
		if err := f.set(&c, value); err != nil {
			return c, r.wrong(value, "%s: %v", name.Value, err).hinted("%s: %s", f.name, f.help)
		}
	}
	return c, r.wholeCheck(n, c)
}

// wholeCheck makes sure that a check looks at one thing, and at something.
func (r *fileReader) wholeCheck(n *yaml.Node, c probe.Check) error {
	expectations := 0
	for _, set := range []bool{c.Expect != nil, c.Min != nil || c.Max != nil, c.NewerThan > 0} {
		if set {
			expectations++
		}
	}
	switch {
	case c.Name == "":
		return r.wrong(n, "a check has no name").hinted("name: what it shows, for the report")
	case (c.SQL == "") == (len(c.Command) == 0):
		return r.wrong(n, "check %q needs sql or command, and not both", c.Name).hinted("sql: a query; or command: [program, argument, …]")
	case len(c.Command) > 0 && (expectations > 0 || c.Database != ""):
		return r.wrong(n, "check %q is a command: it passes when it exits with 0", c.Name).
			hinted("expect, min, max, newer_than and database go with sql")
	case expectations > 1:
		return r.wrong(n, "check %q has more than one of expect, min and max, and newer_than", c.Name).
			hinted("make a check of its own of each")
	case c.Min != nil && c.Max != nil && *c.Min > *c.Max:
		return r.wrong(n, "check %q can never pass: min is larger than max", c.Name).hinted("a value is right from min to max, both included")
	}
	return nil
}
