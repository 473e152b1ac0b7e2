package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// The library finds the command, parses its flags and suggests names. Ours is
// what TestCommandLine shows that it does not do: flags before the command and
// behind operands, and errors with a hint.

// inOrder puts a command line into the order that the library takes: the
// command, its flags, and behind "--" the operands. "help wal push" becomes
// "wal push --help". A line that cannot be right ends with what is to blame, an
// unknown command, an unknown flag or one without a value: the library says which.
func inOrder(lib *cli.App, args []string) []string {
	at := &cli.Command{Name: lib.Name, Flags: lib.Flags, Subcommands: lib.Commands}
	path, help := []string{lib.Name}, false
	var flags, operands []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--version" && len(path) == 1 {
			arg = "version"
		}
		sub := at.Command(arg)
		switch {
		case arg == "--":
			operands = append(operands, args[i+1:]...)
			i = len(args)
		case len(arg) > 1 && arg[0] == '-':
			f := flagOf(at, arg)
			switch {
			case f == nil:
				return append(path, arg)
			case f.Names()[0] == "help":
				help = true
			case strings.Contains(arg, "=") || !takesValue(f):
				flags = append(flags, arg)
			case i+1 == len(args) || flagOf(at, args[i+1]) != nil:
				return append(path, arg)
			default:
				flags = append(flags, arg, args[i+1])
				i++
			}
		case arg == "help" && len(path) == 1:
			help = true
		case sub != nil:
			at, path = sub, append(path, sub.Name)
		case len(at.Subcommands) > 0:
			return append(path, "--", arg)
		default:
			operands = append(operands, arg)
		}
	}
	if help {
		return append(path, "--help")
	}
	return slices.Concat(path, flags, []string{"--"}, operands)
}

// flagOf is the flag of a command that an argument names, nil for none.
func flagOf(c *cli.Command, arg string) cli.Flag {
	if len(arg) < 2 || arg[0] != '-' {
		return nil
	}
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	i := slices.IndexFunc(c.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil
	}
	return c.Flags[i]
}

func takesValue(f cli.Flag) bool { return f.(cli.DocGenerationFlag).TakesValue() }

// usageError turns what the library says of a flag into an error of ours.
func (a *app) usageError(c *cli.Context, err error, _ bool) error {
	a.command = c.Command.HelpName
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return unknownFlag(c.Command, name)
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag needs an argument: -"); ok {
		f := flagOf(c.Command, "-"+name)
		spelling, _, _ := strings.Cut(f.String(), "\t")
		return usage("flag --%s needs a value", f.Names()[0]).hinted("write %s", spelling)
	}
	return usage("%v", err)
}

func unknownFlag(c *cli.Command, name string) error {
	err := usage("unknown flag --%s of %s", name, c.HelpName)
	for sub := range below(c.HelpName, c) {
		if flagOf(sub, "--"+name) != nil {
			return err.hinted("flags of a command go after its name")
		}
	}
	if near := cli.SuggestFlag(c.Flags, name, true); near != "" {
		return err.hinted("did you mean %s? \"%s --help\" lists the flags", near, c.HelpName)
	}
	return err.hinted("\"%s --help\" lists the flags", c.HelpName)
}

// noCommand is the action of a group: the command was left out, or is unknown.
func (a *app) noCommand(c *cli.Context) error {
	group, list := c.Command.HelpName, `"`+c.Command.HelpName+` --help" lists the commands`
	var names []string
	full := map[string]string{}
	for sub, path := range below(group, c.Command) {
		if full[sub.Name] == "" { // "push" for "wal push"
			names, full[sub.Name] = append(names, sub.Name), path
		}
	}
	word := c.Args().First()
	switch {
	case c.Args().Present():
	case group == c.App.Name:
		return usage("no command given").hinted("%s", list)
	default:
		return usage("%s: no command given", group).hinted("one of: %s", strings.Join(names, ", "))
	}
	err := usage("unknown command %q", strings.TrimPrefix(group+" "+word, "lifeboat "))
	if near := nearest(word, names); near != "" {
		return err.hinted("did you mean %q? %s", full[near], list)
	}
	return err.hinted("%s", list)
}

// below goes over the commands under one, with their full names, its own first.
func below(path string, c *cli.Command) func(func(*cli.Command, string) bool) {
	return func(yield func(*cli.Command, string) bool) {
		for _, sub := range c.VisibleCommands() {
			if !yield(sub, path+" "+sub.Name) {
				return
			}
		}
		for _, sub := range c.VisibleCommands() {
			for deeper, name := range below(path+" "+sub.Name, sub) {
				if !yield(deeper, name) {
					return
				}
			}
		}
	}
}

// nearest is the name that a person who typed word most likely meant, by the
// library's measure, "" where no name has a letter in common with it.
func nearest(word string, names []string) string {
	flags := make([]cli.Flag, len(names))
	for i, name := range names {
		flags[i] = &cli.BoolFlag{Name: name}
	}
	return strings.TrimLeft(cli.SuggestFlag(flags, word, true), "-")
}
