package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"
)

func completionCommand(a *app) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: `
For bash, in ~/.bashrc:
  source <(lifeboat completion bash)
For zsh, in ~/.zshrc, after compinit:
  source <(lifeboat completion zsh)
For fish, in ~/.config/fish/config.fish:
  lifeboat completion fish | source`,
		Action: func(c *cli.Context) error {
			args, err := operands(c, "bash, zsh or fish")
			if err != nil {
				return err
			}
			if a.json {
				return usage("completion is a script, not a document").hinted("leave out --json")
			}
			script := ""
			switch args[0] {
			case "bash":
				script = bashScript
			case "zsh":
				script = zshScript
			case "fish":
				if script, err = c.App.ToFishCompletion(); err != nil {
					return err
				}
			default:
				return usage("no completion for %q", args[0]).hinted("there is one for bash, zsh and fish")
			}
			return a.result(nil, func(w io.Writer) { _, _ = fmt.Fprint(w, script) })
		},
	}
}

// completing says whether a shell asks what could come next on the line.
func completing(args []string) bool {
	return len(args) > 0 && "--"+cli.BashCompletionFlag.Names()[0] == args[len(args)-1]
}

// completionLine is the line that the library completes. Behind "--" it would
// run the command instead.
func completionLine(name string, args []string) []string {
	if slices.Contains(args, "--") {
		return nil
	}
	return append([]string{name}, args...)
}

// The library's own script for bash evaluates what was typed, $(…) as well, and
// needs the package bash-completion. Operands and values complete as file names.
const bashScript = `_lifeboat() {
  local cur="${COMP_WORDS[COMP_CWORD]}" line=("${COMP_WORDS[@]:0:COMP_CWORD}")
  if [[ $cur == -* ]]; then
    line+=("$cur")
  fi
  COMPREPLY=($(compgen -W "$("${line[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o default -F _lifeboat lifeboat
`

const zshScript = `#compdef lifeboat
_lifeboat() {
  local -a line names
  line=("${(@)words[1,CURRENT-1]}")
  if [[ ${words[CURRENT]} == -* ]]; then
    line+=("${words[CURRENT]}")
  fi
  names=("${(@f)$("${line[@]}" --generate-bash-completion 2>/dev/null)}")
  if [[ -n ${names[1]} ]]; then
    compadd -- "${names[@]}"
  else
    _files
  fi
}
compdef _lifeboat lifeboat
`
