package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"
)

// line is a command line taken apart. The library wants flags before operands
// and global flags before the command; people, and PostgreSQL's settings, put
// them anywhere.
type line struct {
	path     []*cli.Command // from the root to the command
	flags    []string
	operands []string

	help, json, quiet bool
}

func (l *line) command() *cli.Command { return l.path[len(l.path)-1] }

// name is the full name of the command: "lifeboat wal fetch".
func (l *line) name() string {
	names := make([]string, 0, len(l.path))
	for _, c := range l.path {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

// arguments is the command line in the order the library wants.
func (l *line) arguments() []string {
	args := strings.Fields(l.name())
	args = append(args, l.flags...)
	args = append(args, "--")
	return append(args, l.operands...)
}

// parseLine finds the command in args and sorts flags from operands. What is
// unknown is a usage error that names the nearest name there is.
func parseLine(root *cli.Command, args []string) (*line, error) {
	l := &line{path: []*cli.Command{root}}
	words := 0 // those before the command's operands, "help" among them
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--version" && words == 0 {
			arg = "version"
		}
		switch {
		case arg == "--" && l.command().Action != nil:
			l.operands = append(l.operands, args[i+1:]...)
			i = len(args)
		case len(arg) > 1 && arg[0] == '-':
			used, err := l.flag(arg, args[i+1:])
			if err != nil {
				return nil, err
			}
			i += used
		case arg == "help" && words == 0:
			l.help = true
			words++
		default:
			words++
			if err := l.word(arg); err != nil {
				return nil, err
			}
		}
	}
	return l, l.complete()
}

// word takes one argument that is no flag: the name of a command or an operand.
func (l *line) word(arg string) error {
	c := l.command()
	if len(c.Subcommands) == 0 {
		l.operands = append(l.operands, arg)
		return nil
	}
	var names []string
	for _, sub := range c.Subcommands {
		if sub.HasName(arg) {
			l.path = append(l.path, sub)
			return nil
		}
		names = append(names, sub.Names()...)
	}
	err := usage("unknown command %q", strings.TrimPrefix(l.name()+" "+arg, "lifeboat "))
	for _, sub := range c.Subcommands { // "push" for "wal push"
		if below := sub.Subcommands; slices.ContainsFunc(below, func(b *cli.Command) bool { return b.HasName(arg) }) {
			return err.hinted("did you mean \"%s %s %s\"?", l.name(), sub.Name, arg)
		}
	}
	if near := nearest(arg, names); near != "" {
		return err.hinted("did you mean \"%s %s\"? \"lifeboat help\" lists the commands", l.name(), near)
	}
	return err.hinted("\"%s --help\" lists the commands", l.name())
}

// flag takes one flag and says how many of the arguments after it belong to it.
func (l *line) flag(arg string, rest []string) (used int, err error) {
	name, value, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	f := l.lookup(name)
	if f == nil {
		return 0, l.unknownFlag(name)
	}
	if on := value != "false"; isGlobal(f) && !takesValue(f) {
		switch f.Names()[0] {
		case "help":
			l.help = on
			return 0, nil
		case "json":
			l.json = on
		case "quiet":
			l.quiet = on
		}
	}
	l.flags = append(l.flags, arg)
	if inline || !takesValue(f) {
		return 0, nil
	}
	if len(rest) == 0 || l.isFlag(rest[0]) {
		return 0, usage("flag --%s needs a value", f.Names()[0]).
			hinted("write --%s %s", f.Names()[0], placeholder(f))
	}
	l.flags = append(l.flags, rest[0])
	return 1, nil
}

// isFlag says whether arg is a flag of the command, and so hardly a value.
func (l *line) isFlag(arg string) bool {
	if len(arg) < 2 || arg[0] != '-' {
		return false
	}
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return l.lookup(name) != nil
}

func (l *line) lookup(name string) cli.Flag {
	for _, f := range l.known() {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// known are the flags that may stand at this place of the line.
func (l *line) known() []cli.Flag {
	if c := l.command(); c.Action != nil {
		return c.Flags
	}
	return globalFlags()
}

func (l *line) unknownFlag(name string) error {
	dashes := func(n string) string { return strings.Repeat("-", min(len(n), 2)) + n }
	err := usage("unknown flag %s of %s", dashes(name), l.name())
	var names []string
	for _, f := range l.known() {
		names = append(names, f.Names()...)
	}
	if near := nearest(name, names); near != "" {
		return err.hinted("did you mean %s?", dashes(near))
	}
	if below(l.command(), name) {
		return err.hinted("flags of a command go after its name")
	}
	return err.hinted("\"%s --help\" lists its flags", l.name())
}

// below says whether a command under c has a flag of that name.
func below(c *cli.Command, name string) bool {
	return slices.ContainsFunc(c.Subcommands, func(sub *cli.Command) bool {
		return below(sub, name) || slices.ContainsFunc(sub.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	})
}

// complete checks that the line names a command that does something.
func (l *line) complete() error {
	c := l.command()
	switch {
	case l.help && len(l.operands) > 0:
		return usage("%s: help was asked for, and %q given", l.name(), l.operands[0]).
			hinted("\"%s --help\" alone prints the help", l.name())
	case l.help || c.Action != nil:
		return nil
	case len(l.path) == 1:
		return usage("no command given").hinted("\"lifeboat help\" lists the commands")
	}
	names := make([]string, 0, len(c.Subcommands))
	for _, sub := range c.Subcommands {
		names = append(names, sub.Name)
	}
	return usage("%s: no command given", l.name()).
		hinted("one of: %s", strings.Join(names, ", "))
}

func isGlobal(f cli.Flag) bool {
	c, ok := f.(cli.CategorizableFlag)
	return ok && c.GetCategory() == global
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// hasFlag looks for a flag in a line that could not be parsed.
func hasFlag(args []string, flag string) bool { return slices.Contains(args, flag) }

// nearest returns the name that a person who typed word most likely meant, or
// "" when none is near: at most a third of its letters may differ.
func nearest(word string, names []string) string {
	best, distance := "", len(word)/3+2
	for _, name := range names {
		if len(name) < 2 {
			continue
		}
		if strings.HasPrefix(name, word) && len(word) >= 3 {
			return name
		}
		d := smetrics.WagnerFischer(strings.ToLower(word), strings.ToLower(name), 1, 1, 1)
		if d < distance && d < len(name) {
			best, distance = name, d
		}
	}
	return best
}

// placeholder is the word that help shows for a flag's value.
func placeholder(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return "VALUE"
	}
	if _, rest, found := strings.Cut(d.GetUsage(), "`"); found {
		word, _, _ := strings.Cut(rest, "`")
		return word
	}
	return "VALUE"
}
