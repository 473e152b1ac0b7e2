// Lifeboat takes encrypted backups and a WAL archive of a PostgreSQL cluster,
// restores them, and rehearses the restore.
//
// This package is the command line alone: flags, configuration, printing and
// exit codes, one file a command. What a command does lives in the packages it
// calls; they know nothing of flags, environment, clock or exit codes.
package main

import (
	"fmt"
	"os"

	"github.com/lifeboat-dr/lifeboat/verify/fence"
	"github.com/lifeboat-dr/lifeboat/verify/fence/escape"
)

// version is the released version; the linker sets it (-X main.version=1.2.3).
var version = "dev"

func main() {
	enterFence()
	enterDrill()
	os.Exit(runAlone(os.Args[1:]))
}

// enterFence does what a drill has started this program once more for: to be a
// part of the fence, or to try to get out of it.
func enterFence() {
	if len(os.Args) > 1 && os.Args[1] == fence.Argument {
		fmt.Fprintln(os.Stderr, fence.Enter(os.Args[2:], os.Environ()))
		os.Exit(int(exitFailed))
	}
	if len(os.Args) > 1 && os.Args[1] == escape.Argument {
		fmt.Fprintln(os.Stderr, escape.Enter(os.Args[2:]))
		os.Exit(int(exitFailed))
	}
}
