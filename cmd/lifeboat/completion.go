package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

func completionCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell",
		ArgsUsage: "bash",
		Description: `
For bash, in ~/.bashrc:
  source <(lifeboat completion bash)`,
		Action: func(c *cli.Context) error {
			args, err := operands(c, "bash")
			if err != nil {
				return err
			}
			if args[0] != "bash" {
				return usage("no completion for %q", args[0]).hinted("there is one for bash")
			}
			if a.json {
				return usage("completion is a script, not a document").hinted("leave out --json")
			}
			return a.result(nil, func(w io.Writer) { bashCompletion(w, a.tree()) })
		},
	}
}

// bashCompletion prints a script that finds the command among the words typed
// so far and offers the commands below it, or its flags after a "-". Operands
// and values of flags complete as file names.
func bashCompletion(w io.Writer, root *cli.Command) {
	var paths, words strings.Builder
	var walk func(path string, c *cli.Command)
	walk = func(path string, c *cli.Command) {
		if path != "" {
			fmt.Fprintf(&paths, "      %q) path=%q ;;\n", path, path)
		}
		var names, flags []string
		for _, sub := range c.Subcommands {
			if !sub.Hidden {
				names = append(names, sub.Name)
			}
		}
		known := c.Flags
		if c.Action == nil {
			known = globalFlags()
		}
		for _, f := range known {
			flags = append(flags, "--"+f.Names()[0])
		}
		fmt.Fprintf(&words, "    %q) names=%q flags=%q ;;\n", path, strings.Join(names, " "), strings.Join(flags, " "))
		for _, sub := range c.Subcommands {
			walk(path+" "+sub.Name, sub)
		}
	}
	walk("", root)
	_, _ = fmt.Fprintf(w, `_lifeboat() {
  local cur="${COMP_WORDS[COMP_CWORD]}" path="" names="" flags="" word
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in
%s    esac
  done
  case "$path" in
%s  esac
  if [[ $cur == -* ]]; then
    names=$flags
  fi
  COMPREPLY=($(compgen -W "$names" -- "$cur"))
}
complete -o default -F _lifeboat lifeboat
`, paths.String(), words.String())
}
