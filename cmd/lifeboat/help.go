package main

import (
	"fmt"
	"io"
	"strings"

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
	if c.Action == nil {
		return name + " COMMAND [FLAGS]"
	}
	return strings.TrimSpace(name + " [FLAGS] " + c.ArgsUsage)
}

// writeCommands lists the commands below one, and those below them.
func writeCommands(w io.Writer, commands []*cli.Command) {
	var rows [][2]string
	for _, c := range commands {
		switch {
		case c.Hidden:
		case len(c.Subcommands) == 0:
			rows = append(rows, [2]string{c.Name, c.Usage})
		default:
			if c.Action != nil {
				rows = append(rows, [2]string{c.Name, c.Usage})
			}
			for _, sub := range c.Subcommands {
				rows = append(rows, [2]string{c.Name + " " + sub.Name, sub.Usage})
			}
		}
	}
	writeTable(w, rows)
}

// writeFlags lists a command's own flags first, then those of the
// configuration that matter to it, then the global ones.
func writeFlags(w io.Writer, c *cli.Command) {
	flags := c.Flags
	if c.Action == nil {
		flags = globalFlags()
	}
	for _, category := range []string{"", configuration, global} {
		var rows [][2]string
		hidden := false
		for _, f := range flags {
			switch {
			case f.(cli.CategorizableFlag).GetCategory() != category:
			case f.(cli.VisibleFlag).IsVisible():
				rows = append(rows, [2]string{spelling(f), description(f)})
			default:
				hidden = true
			}
		}
		title := strings.ToUpper(category)
		if category == "" {
			title = "FLAGS"
		}
		if len(rows) > 0 {
			_, _ = fmt.Fprintf(w, "\n%s\n", title)
			writeTable(w, rows)
		}
		if hidden && category == configuration {
			_, _ = fmt.Fprint(w, "\n  Every key of the configuration is a flag: see \"lifeboat config --help\".\n")
		}
	}
}

// columns is how wide help is printed.
const columns = 96

// writeTable prints two columns and folds the second.
func writeTable(w io.Writer, rows [][2]string) {
	left := 0
	for _, r := range rows {
		left = max(left, len(r[0]))
	}
	for _, r := range rows {
		for i, text := range fold(r[1], columns-left-4) {
			name := ""
			if i == 0 {
				name = r[0]
			}
			_, _ = fmt.Fprintf(w, "  %-*s  %s\n", left, name, text)
		}
	}
}

// fold breaks a text between words into lines of at most width bytes.
func fold(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case len(*last)+1+len(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
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
	text := d.GetUsage()
	if before, isKey := strings.CutSuffix(text, " `"+placeholder(f)+"`"); isKey && isConfiguration(f) {
		text = before
	}
	text = strings.ReplaceAll(text, "`", "")
	if v := d.GetDefaultText(); takesValue(f) && v != "" && v != `""` {
		text += fmt.Sprintf(" (default %s)", strings.Trim(v, `"`))
	}
	return text
}

func isConfiguration(f cli.Flag) bool {
	return f.(cli.CategorizableFlag).GetCategory() == configuration
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
