package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
)

// commands is the list of all commands, in the order in which help names them.
// A new command is a constructor in a file of its own and a line here.
func commands() []func(*app) *cli.Command {
	return []func(*app) *cli.Command{
		initCommand,
		backupCommand,
		backupsCommand,
		expireCommand,
		verifyCommand,
		copyCommand,
		restoreCommand,
		walCommand,
		heartbeatCommand,
		drillCommand,
		rdsCommand,
		reportCommand,
		evidenceCommand,
		keygenCommand,
		keyCommand,
		leaseCommand,
		demoCommand,
		checkRepositoryCommand,
		configCommand,
		completionCommand,
		versionCommand,
	}
}

// app is what a command is given of the world around it. Tests build another.
type app struct {
	*ui
	args    []string // without the program's name
	environ []string // as os.Environ
	now     func() time.Time
	getwd   func() (string, error)

	constructors []func(*app) *cli.Command
	command      string // full name of the command that runs, "" before that is known
	restorer     bool   // this process holds the recovery identity of a drill
	alone        bool   // nothing else runs in this process: what its children leave behind may become its own, and be ended
	done         bool   // the command itself ran and returned nil
	tellState    sync.Once
}

// runAlone is a whole process: it runs one command and returns the exit code.
func runAlone(args []string) int {
	a := newApp()
	a.alone = true
	return a.run(args)
}

func newApp() *app {
	return &app{
		ui:           newUI(os.Stdout, os.Stderr),
		environ:      os.Environ(),
		now:          time.Now,
		getwd:        os.Getwd,
		constructors: commands(),
	}
}

// run runs one command line and returns the exit code of the process.
func (a *app) run(args []string) (code int) {
	a.args = args
	contract := contractOf(args)
	if contract == contractPush || contract == contractFetch {
		dieBySignal()
	}
	defer func() {
		if p := recover(); p != nil {
			_, _ = a.stderr.Write(debug.Stack())
			code = a.fail(fmt.Errorf("internal error: %v", p), contract)
		}
	}()
	ctx, stop := withSignals(context.Background())
	defer stop()

	err := a.dispatch(ctx, args)
	a.closeProgress()
	if sig := interruption(ctx); sig != nil && err != nil {
		err = sig
	}
	if err == nil && (contract == contractPush || contract == contractFetch) && !a.done {
		// Help was printed instead: PostgreSQL must not take that for a
		// segment that was pushed or fetched.
		does := "archived"
		if contract == contractFetch {
			does = "restored"
		}
		err = usage("PostgreSQL runs this command, and it did nothing but print help").
			hinted("this is the help; exit code 0 would tell PostgreSQL that the file is %s", does)
	}
	if err == nil {
		return int(exitOK)
	}
	return a.fail(err, contract)
}

// dispatch has the library find the command in args and run it, or print help.
func (a *app) dispatch(ctx context.Context, args []string) error {
	a.json = slices.Contains(args, "--json") // until the library has read the line
	out := &stickyWriter{w: a.stdout}
	lib := a.library(out)
	line := inOrder(lib, args)
	if completing(args) {
		line = completionLine(lib.Name, args)
	}
	if line == nil {
		return nil
	}
	if err := lib.RunContext(ctx, line); err != nil {
		return err
	}
	return out.err
}

// library is the library's application with all commands. Help goes to out.
func (a *app) library(out io.Writer) *cli.App {
	foldFlags()
	lib := &cli.App{
		Name:                      "lifeboat",
		HelpName:                  "lifeboat",
		Usage:                     "backup, WAL archive, restore and restore drills for PostgreSQL",
		Flags:                     globalFlags(),
		Action:                    a.noCommand,
		OnUsageError:              a.usageError,
		CustomAppHelpTemplate:     cli.AppHelpTemplate + helpOf(nil, contractUser),
		EnableBashCompletion:      true,
		Writer:                    out,
		ErrWriter:                 io.Discard,
		HideHelp:                  true, // the command; the flag is one of globalFlags
		DisableSliceFlagSeparator: true,
		Compiled:                  time.Unix(1, 0), // else the library stats the binary
		ExitErrHandler:            func(*cli.Context, error) {},
	}
	for _, construct := range a.constructors {
		c := construct(a)
		a.finish(c, lib.Name)
		lib.Commands = append(lib.Commands, c)
	}
	return lib
}

// finish gives a command what all commands share.
func (a *app) finish(c *cli.Command, group string) {
	name := group + " " + c.Name
	c.HideHelp = true
	c.OnUsageError = a.usageError
	c.Description = strings.TrimSpace(c.Description)
	c.Flags = append(c.Flags, globalFlags()...)
	for _, f := range c.Flags {
		if b, ok := f.(*cli.BoolFlag); ok {
			b.DisableDefaultText = true // false
		}
	}
	c.CustomHelpTemplate = cli.SubcommandHelpTemplate + helpOf(c.Flags, contractOf(strings.Fields(name)))
	action := c.Action
	if action == nil {
		c.ArgsUsage = "COMMAND"
	}
	c.Action = func(ctx *cli.Context) error {
		if action == nil || len(c.Subcommands) > 0 && ctx.Args().Present() {
			return a.noCommand(ctx)
		}
		a.json, a.quiet, a.command = ctx.Bool("json"), ctx.Bool("quiet"), ctx.Command.HelpName
		err := noneEmpty(ctx)
		if err == nil {
			err = noContradiction(ctx)
		}
		if err == nil {
			err = action(ctx)
		}
		a.done = err == nil
		return err
	}
	for _, sub := range c.Subcommands {
		a.finish(sub, name)
	}
}

// globalFlags are accepted before and after the name of every command.
func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Category: global,
			Usage: "read the configuration from `FILE`"},
		&cli.BoolFlag{Name: "json", Category: global, DisableDefaultText: true,
			Usage: "print the result as one JSON document"},
		&cli.BoolFlag{Name: "quiet", Category: global, DisableDefaultText: true,
			Usage: "print no progress and no notes, only results, warnings and errors"},
		&cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Category: global, DisableDefaultText: true,
			Usage: "print this help"},
	}
}

// global is the category of the flags that every command takes.
const global = "Global flags"

// noneEmpty refuses flags of the command and operands that are given and empty.
// A script with a variable that is not set would get the default: of a restore
// the newest backup instead of the one that was chosen.
func noneEmpty(c *cli.Context) error {
	for _, f := range c.Command.Flags {
		text, ok := f.(*cli.StringFlag)
		if ok && text.Category == "" && c.IsSet(text.Name) && c.String(text.Name) == "" {
			return usage("--%s is given and empty", text.Name).
				hinted("leave the flag out for what it is by default; in a script, the variable is perhaps not set")
		}
	}
	if slices.Contains(c.Args().Slice(), "") {
		return usage("%s: an empty operand", c.Command.HelpName).hinted("in a script, the variable is perhaps not set")
	}
	return nil
}

// operands returns the operands of a command, one for each name, or a usage
// error that says which one is missing or too many.
func operands(c *cli.Context, names ...string) ([]string, error) {
	got := c.Args().Slice()
	switch {
	case len(got) < len(names):
		return nil, usage("%s: missing %s", c.Command.HelpName, names[len(got)])
	case len(got) > len(names):
		return nil, usage("%s: unexpected %q", c.Command.HelpName, got[len(names)])
	}
	return got, nil
}

// abs makes a path that a person typed absolute.
func (a *app) abs(path string) (string, error) {
	if path == "" || filepath.IsAbs(path) {
		return path, nil
	}
	dir, err := a.getwd()
	if err != nil {
		return "", errors.Join(fmt.Errorf("make %s absolute", path), err)
	}
	return filepath.Join(dir, path), nil
}

// absClean is abs without ".." and doubled slashes.
func (a *app) absClean(path string) (string, error) {
	path, err := a.abs(path)
	return filepath.Clean(path), err
}
