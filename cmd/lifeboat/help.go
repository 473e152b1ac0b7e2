package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
)

// writeHelp prints the help of one command; name is its full name.
func writeHelp(w io.Writer, c *cli.Command, name string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\nUSAGE\n  %s\n", name, c.Usage, usageLine(c, name))
	if c.Description != "" {
		fmt.Fprintf(&b, "\n%s\n", indent(strings.TrimSpace(c.Description)))
	}
	if len(c.Subcommands) > 0 {
		b.WriteString("\nCOMMANDS\n")
		writeCommands(&b, c.Subcommands)
		fmt.Fprintf(&b, "\n\"%s COMMAND --help\" tells more about one.\n", name)
	}
	writeFlags(&b, c)
	writeExitCodes(&b, contractOf(strings.Fields(name)[1:]))
	_, err := io.WriteString(w, b.String())
	return err
}

func usageLine(c *cli.Command, name string) string {
	if len(c.Subcommands) > 0 {
		return name + " COMMAND [FLAGS]"
	}
	return strings.TrimSpace(name + " [FLAGS] " + c.ArgsUsage)
}

func writeCommands(w io.Writer, commands []*cli.Command) {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		name := c.Name
		for _, sub := range c.Subcommands {
			_, _ = fmt.Fprintf(tab, "  %s %s\t%s\n", name, sub.Name, sub.Usage)
		}
		if len(c.Subcommands) == 0 {
			_, _ = fmt.Fprintf(tab, "  %s\t%s\n", name, c.Usage)
		}
	}
	_ = tab.Flush()
}

// writeFlags lists a command's own flags first, then those of the
// configuration that matter to it, then the global ones.
func writeFlags(w io.Writer, c *cli.Command) {
	flags := c.Flags
	if c.Action == nil {
		flags = globalFlags()
	}
	hidden := false
	for _, category := range []string{"", configuration, global} {
		tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		title := strings.ToUpper(category)
		if title == "" {
			title = "FLAGS"
		}
		printed := false
		for _, f := range flags {
			if f.(cli.CategorizableFlag).GetCategory() != category {
				continue
			}
			if !f.(cli.VisibleFlag).IsVisible() {
				hidden = hidden || category == configuration
				continue
			}
			if !printed {
				_, _ = fmt.Fprintf(w, "\n%s\n", title)
				printed = true
			}
			_, _ = fmt.Fprintf(tab, "  %s\t%s\n", spelling(f), description(f))
		}
		_ = tab.Flush()
		if category == configuration && hidden {
			_, _ = fmt.Fprint(w, "\n  Every key of the configuration is a flag too; \"lifeboat config --help\" lists them.\n")
		}
	}
}

// spelling shows a flag as it is typed: "--config, -c FILE".
func spelling(f cli.Flag) string {
	var names []string
	for _, n := range f.Names() {
		if len(n) == 1 {
			names = append(names, "-"+n)
		} else {
			names = append(names, "--"+n)
		}
	}
	s := strings.Join(names, ", ")
	if takesValue(f) {
		s += " " + placeholder(f)
	}
	return s
}

func description(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	text := strings.ReplaceAll(d.GetUsage(), "`", "")
	if v := d.GetDefaultText(); takesValue(f) && v != "" && v != `""` {
		text += fmt.Sprintf(" (default %s)", strings.Trim(v, `"`))
	}
	return text
}

func indent(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = "  " + strings.TrimLeft(l, "\t")
		}
	}
	return strings.Join(lines, "\n")
}
