package main

import (
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
)

// helpOf is what the library's template for the help of a command lacks: that
// flags of the configuration are hidden, and the exit codes.
func helpOf(flags []cli.Flag, c contract) string {
	var b strings.Builder
	for _, f := range flags {
		if f, ok := f.(cli.CategorizableFlag); ok && f.GetCategory() == configuration && !f.IsVisible() {
			b.WriteString("   Every key of the configuration is a flag: see \"lifeboat config --help\".\n\n")
			break
		}
	}
	b.WriteString("EXIT CODES:\n")
	for _, d := range c.exitCodes() {
		b.WriteString("   " + d.code + "\t" + strings.Join(fold(d.meaning, columns-20), "\n   \t") + "\n")
	}
	return b.String()
}

// columns is how wide help is printed, but for its longest lines of flags.
const columns = 96

// foldFlags has the library fold the texts of flags. It keeps what it calls for
// that in a variable of its own, so this is done once.
var foldFlags = sync.OnceFunc(func() {
	plain := cli.FlagStringer
	cli.FlagStringer = func(f cli.Flag) string {
		names, text, _ := strings.Cut(plain(f), "\t")
		names, _, _ = strings.Cut(names, " [ ") // the same again, of one that can be repeated
		if words := strings.Fields(names); isKey(f) && len(words) > 1 {
			text = strings.TrimSuffix(strings.Replace(text, " "+words[1]+" (default:", " (default:", 1), " "+words[1])
		}
		return names + "\t" + strings.Join(fold(text, columns-32), "\n   \t")
	}
})

func isKey(f cli.Flag) bool {
	c, ok := f.(cli.CategorizableFlag)
	return ok && c.GetCategory() == configuration
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
